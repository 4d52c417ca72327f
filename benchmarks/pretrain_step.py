"""A step of pre-training: our families, and a PyTorch auto-encoder of the same shape, in turns in one process.

    pip install -e '.[bench]'
    python benchmarks/pretrain_step.py --precisions float32 --families tucker linear kronecker svd --rounds 7
    python benchmarks/pretrain_step.py --precisions bfloat16 --batches 64 --rounds 7

print what is in `docs/results/pretrain-step.md` and `pretrain-step-bfloat16.md`: milliseconds and ratios to our own `none` in the
same precision, with the quartiles over the turns and the ratio of the fastest ones. A step is forward, backward and AdamW on
images that are already in memory. `torch` is a plain masked auto-encoder with fused attention
(`scaled_dot_product_attention`), in the enhanced dress as ours: RMSNorm, SwiGLU with biases, 2-D RoPE, the same sizes;
compiled, where there is a compiler for C++. `none` and `torch` do the same products in float32; in bfloat16 PyTorch keeps more
in float32 than we do. Families are at full width (`scaling.scope off`), with random
widths under masks, and sliced to each of some coupled widths; `sliced widths` is the mean over these, what a step costs where
they are drawn alike. `none, all kept` computes nothing again in its backward pass. See `benchmarks/README.md`.

    python benchmarks/pretrain_step.py --preset paper --device gpu

is of ViT-B/16 at 224 px in bfloat16, on a GPU. A second table then says which share of the device's matrix rate, an 8192-square
product timed in the same process, the products of an unconstrained step reach in the time of each, and what each holds of
the device's memory at most.
"""

import dataclasses
import functools
import itertools
import math
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from weight_templates import cli
from weight_templates.config import DecoderConfig, Family, ScalingOptions, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time a step of pre-training against PyTorch and against no constraint."""

    preset: Literal["small", "tiny", "paper"] = "small"
    """Sizes: ViT-B in small (12 layers, 12 heads of 16 channels), 6 layers of half that width, or ViT-B/16 at 224 px."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where all steps run."""
    batches: tuple[int, ...] = (64, 256)
    """Images a step."""
    rounds: int = 9
    """Turns."""
    families: tuple[Family, ...] = ("tucker",)
    """Families to time, besides none at full width."""
    widths: tuple[int, ...] = (3, 6, 9, 12)
    """Heads to time sliced execution at."""
    compiled: bool = True
    """Time PyTorch's compiled step, too."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Precision of the forward and backward passes; PyTorch's bfloat16 is its autocast."""


MASKED = ScalingOptions("submodel", coupled=True)
SLICED = ScalingOptions(coupled=True, execution="sliced")
SIZES = {
    "small": (ViTConfig(depth=12, head_dim=16), DecoderConfig(depth=2, width=96, heads=6)),
    "tiny": (ViTConfig(depth=6, head_dim=8), DecoderConfig(depth=1, width=64, heads=4)),
    "paper": (
        ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64),
        DecoderConfig(depth=8, width=512, heads=16),
    ),
}


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if not (config.batches and config.precisions and config.widths) or min(config.batches) < 1:
        raise UserError("--batches, --precisions and --widths need at least one value each, and no batch below 1.")
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    vit, decoder = SIZES[config.preset]
    if len({*config.widths}) < len(config.widths) or len({*config.families}) < len(config.families):
        raise UserError("--widths or --families has a value twice; say it once.")
    if not all(1 <= n <= vit.heads for n in config.widths):
        raise UserError(f"--widths need to be between 1 and {vit.heads}, the heads of the network.")
    if config.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # where PyTorch's step runs, too
    else:
        os.environ.pop("JAX_PLATFORMS", None)
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # leave PyTorch its share of the memory
    import jax

    from benchmarks import extra, flops
    from benchmarks.interleave import timing, turns
    from benchmarks.steps import keeping_step, our_step

    torch = extra.torch()

    from benchmarks.torch_mae import torch_step

    on_gpu = config.device == "gpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not on_gpu:
        torch.set_num_threads(cores or 1)
    if on_gpu and not (jax.default_backend() == "gpu" and torch.cuda.is_available()):
        raise UserError(
            "--device gpu needs a GPU that both JAX and PyTorch see; install JAX with the extra cuda12 or cuda13 and PyTorch "
            "for CUDA, or say --device cpu."
        )
    jax.config.update("jax_enable_compilation_cache", False)  # what compiling costs is part of the result
    place = jax.devices()[0].device_kind if on_gpu else f"{cores} core{'s' if cores != 1 else ''}, {platform.machine()}"

    print(
        f"# A step of pre-training, against PyTorch, in {' and '.join(config.precisions)}\n\nMade by `python {' '.join(sys.argv)}` "
        f"(see that file and `benchmarks/README.md`): {vit.depth} layers of width {vit.channels}, {vit.heads} heads, "
        f"{vit.image} px in patches of {vit.patch}, decoder {decoder.depth} x {decoder.width}. JAX {jax.__version__}, PyTorch "
        f"{torch.__version__}, {place}.\n"
    )
    print("| batch | precision | step | ms | images/s | time / none (quartiles), fastest |\n|---|---|---|---|---|---|")
    reached, said = [], []
    for batch, precision in itertools.product(config.batches, config.precisions):
        shape: dict[str, Any] = {"vit": vit, "decoder": decoder, "batch": batch, "precision": precision}
        ours = functools.partial(our_step, **shape)
        theirs = functools.partial(torch_step, vit, decoder, batch, precision, device="cuda" if on_gpu else "cpu")
        full = ScalingOptions("off")
        makers: dict[str, Callable[[], Callable[[], None]]] = {
            "none": functools.partial(ours, "none"),
            "none, all kept": functools.partial(keeping_step, "none", **shape),
        }
        for family in config.families:
            makers[f"{family}, full width"] = functools.partial(ours, family, scaled=full)
            makers[f"{family}, masked widths"] = functools.partial(ours, family, scaled=MASKED)
            for n in config.widths:
                alone = dataclasses.replace(SLICED, heads=(n,))
                makers[sliced_to(family, n)] = functools.partial(ours, family, scaled=alone)
        makers["torch"] = theirs
        if config.compiled and shutil.which("c++"):
            makers["torch, compiled"] = functools.partial(theirs, compiled=True)
        tasks, held, began = {}, {}, {}
        for name, make in makers.items():
            before = memory(name) if on_gpu else None
            tasks[name] = make()
            start = time.perf_counter()
            tasks[name]()
            began[name] = time.perf_counter() - start
            if before:
                tasks[name]()  # PyTorch has its moments from the end of the first step on
                held[name] = at_most(before, memory(name))
        rate = flops.matrix_rate(8192, precision) if on_gpu else 0
        times = with_means(turns(tasks, config.rounds), config)
        timings = {name: timing(own, times["none"]) for name, own in times.items()}
        for name, t in timings.items():
            print(
                f"| {batch} | {precision} | {name} | {1e3 * t.seconds:.0f} | {batch / t.seconds:,.0f} | {t.words} |",
                flush=True,
            )
            if on_gpu:
                share = f"{flops.of_step(vit, decoder, batch) / t.seconds / rate:.0%}"
                reached.append(
                    f"| {batch} | {precision} | {name} | {'' if 'sliced' in name else share} | {held.get(name, '')} |"
                )
        against = (f"{timing(times['none'], times[name]).words} of `{name}`" for name in times if "torch" in name)
        said.append(f"Batch {batch}, {precision}: `none` takes {', '.join(against)}.\n")
        for family in config.families:
            apart, together = (timings[f"{family}, {kind} widths"].seconds for kind in ("sliced", "masked"))
            compiling = statistics.mean(began[sliced_to(family, n)] for n in config.widths) - apart
            paid = f"{math.ceil(compiling / (together - apart)):,} steps" if together > apart else "never"
            said.append(
                f"Batch {batch}, {precision}, {family}: a width takes {compiling:.1f} s to compile, which slicing saves in "
                f"{paid} of masked execution, each width.\n"
            )
    print("\n" + "\n".join(said).rstrip())
    if on_gpu:
        print("\n| batch | precision | step | of the matrix rate | peak memory, GB |\n|---|---|---|---|---|")
        print("\n".join(reached))


def sliced_to(family: str, heads: int) -> str:
    """What a step of one width is called."""
    return f"{family}, sliced to {heads} heads"


def with_means(times: dict[str, list[float]], config: Config) -> dict[str, list[float]]:
    """The seconds of every turn by name, with those of a step at any of the widths, which are drawn alike, before each
    family's first width."""
    found: dict[str, list[float]] = {}
    for name, own in times.items():
        for family in config.families:
            if name == sliced_to(family, config.widths[0]):
                alone = [times[sliced_to(family, n)] for n in config.widths]
                found[f"{family}, sliced widths"] = [statistics.mean(turn) for turn in zip(*alone, strict=True)]
        found[name] = own
    return found


def memory(name: str) -> tuple[int, int]:
    """Bytes of a GPU in use by the framework of the step of that name, and the most that were."""
    if name.startswith("torch"):
        import torch

        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    import jax

    found = jax.devices()[0].memory_stats()
    return found["bytes_in_use"], found["peak_bytes_in_use"]


def at_most(before: tuple[int, int], after: tuple[int, int]) -> str:
    """What a step took, in GB, from `memory` before it was made and after it ran; a bound where an earlier one took more.

    JAX cannot forget a peak.
    """
    took = f"{(after[1] - before[0]) / 1e9:.1f}"
    return took if after[1] > before[1] else f"at most {took}"


if __name__ == "__main__":
    paper = Config(preset="paper", batches=(256,), precisions=("bfloat16",))
    cli.run(lambda: main(cli.parse({"small": Config(), "tiny": Config(preset="tiny"), "paper": paper})))
