"""A step of pre-training: our families, and a PyTorch auto-encoder of the same shape, in turns in one process.

    pip install -e '.[bench]'
    python benchmarks/pretrain_step.py > docs/results/pretrain-step.md

prints milliseconds and ratios to our own `none` in the same precision, with the quartiles over the turns and the ratio of
the fastest ones. A step is forward, backward and AdamW on images that are already in memory. `torch` is a plain masked
auto-encoder with fused attention (`scaled_dot_product_attention`), in the enhanced dress as ours: RMSNorm, SwiGLU with
biases, 2-D RoPE, the same sizes; compiled, where there is a compiler for C++. `none` and `torch` do the same arithmetic in
float32; in bfloat16 PyTorch keeps more in float32 than we do. Families are at full width (`scaling.scope off`); `tucker` also
with the random widths of pre-training under masks, and sliced to coupled ones: the mean over one step at every width from a
quarter of the heads on, and some widths alone. See `benchmarks/README.md`.
"""

import dataclasses
import os
import platform
import shutil
import sys
from typing import Literal

from weight_templates import cli
from weight_templates.config import DecoderConfig, Family, ScalingOptions, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time a step of pre-training against PyTorch and against no constraint."""

    preset: Literal["small", "tiny"] = "small"
    """Sizes: ViT-B in small (12 layers, 12 heads of 16 channels), or 6 layers of half that width."""
    batches: tuple[int, ...] = (64, 256)
    """Images a step."""
    rounds: int = 9
    """Turns."""
    families: tuple[Family, ...] = ("tucker",)
    """Families to time at full width, besides none."""
    widths: tuple[int, ...] = (3, 6)
    """Heads to time sliced execution at, besides the mean over all."""
    compiled: bool = True
    """Time PyTorch's compiled step, too."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Of the forward and backward passes; PyTorch's bfloat16 is its autocast."""


SLICED = ScalingOptions(coupled=True, execution="sliced")
SIZES = {
    "small": (ViTConfig(depth=12, head_dim=16), DecoderConfig(depth=2, width=96, heads=6)),
    "tiny": (ViTConfig(depth=6, head_dim=8), DecoderConfig(depth=1, width=64, heads=4)),
}


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if not config.batches or not config.precisions or min(config.batches) < 1:
        raise UserError("--batches and --precisions need at least one value each, and no batch below 1.")
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    vit, decoder = SIZES[config.preset]
    if not all(1 <= n <= vit.heads for n in config.widths):
        raise UserError(f"--widths need to be between 1 and {vit.heads}, the heads of the network.")
    os.environ["JAX_PLATFORMS"] = "cpu"  # where PyTorch's step runs, too
    import jax

    from benchmarks.interleave import compare
    from benchmarks.steps import our_step
    from weight_templates.scaling import widths_of

    try:
        import torch

        from benchmarks.torch_mae import torch_step
    except ImportError:
        raise UserError("the comparison needs PyTorch; install it with `pip install -e '.[bench]'`.") from None

    print(
        f"# A step of pre-training, against PyTorch\n\nMade by `python {' '.join(sys.argv)}` "
        f"(see that file and `benchmarks/README.md`): {vit.depth} layers of width {vit.channels}, {vit.heads} heads, "
        f"{vit.image} px in patches of {vit.patch}, decoder {decoder.depth} x {decoder.width}. JAX {jax.__version__}, PyTorch "
        f"{torch.__version__}, {os.cpu_count()} cores, {platform.machine()}.\n"
    )
    print("| batch | precision | step | ms | images/s | time / none (quartiles), fastest |\n|---|---|---|---|---|---|")
    for batch in config.batches:
        for precision in config.precisions:
            tasks = {
                "none": our_step("none", vit, decoder, batch, precision=precision),
                **{
                    f"{family}, full width": our_step(
                        family, vit, decoder, batch, scaled=ScalingOptions("off"), precision=precision
                    )
                    for family in config.families
                },
                "tucker, masked widths": our_step("tucker", vit, decoder, batch, precision=precision),
                "tucker, sliced widths": our_step("tucker", vit, decoder, batch, scaled=SLICED, precision=precision),
                **{
                    f"tucker, sliced to {n} heads": our_step(
                        "tucker",
                        vit,
                        decoder,
                        batch,
                        scaled=dataclasses.replace(SLICED, heads=(n,)),
                        precision=precision,
                    )
                    for n in config.widths
                },
                "torch": torch_step(vit, decoder, batch, precision),
            }
            if config.compiled and shutil.which("c++"):
                tasks["torch, compiled"] = torch_step(vit, decoder, batch, precision, compiled=True)
            for name, t in compare(
                tasks, "none", config.rounds, {"tucker, sliced widths": len(widths_of(SLICED, vit))}
            ).items():
                print(
                    f"| {batch} | {precision} | {name} | {1e3 * t.seconds:.0f} | {batch / t.seconds:,.0f} | "
                    f"{t.words} |",
                    flush=True,
                )


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"small": Config(), "tiny": Config(preset="tiny")})))
