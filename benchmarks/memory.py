"""What a step keeps in memory: parameters, the optimiser's state, the compiler's temporaries, and the most at once.

    python benchmarks/memory.py

prints what XLA has planned for the compiled step, which is exact and the same at every run; nothing is timed. The peak is
of arguments, results and temporaries together, what is donated counted once.
"""

import contextlib
import dataclasses
import itertools
from typing import Any, Literal

from weight_templates import cli
from weight_templates.config import DecoderConfig, Family, ScalingOptions, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Tell the memory of a step."""

    batches: tuple[int, ...] = (64, 256)
    """Images a step."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Precision of the forward and backward passes."""


ALL_KEPT = "none, all kept"
VIT, DECODER = ViTConfig(depth=12, head_dim=16), DecoderConfig()
SLICED = ScalingOptions(coupled=True, execution="sliced", heads=(6,))


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if not config.batches or not config.precisions or min(config.batches) < 1:
        raise UserError("--batches and --precisions need at least one value each, and no batch below 1.")
    import equinox as eqx
    import jax
    import jax.random as jr

    from benchmarks.steps import all_kept, auto_encoder, begin
    from weight_templates import scaling, trees

    print(
        "| batch | precision | step | learned numbers | optimiser's state, MB | temporaries, MB | of none's | peak, MB | "
        "of none's |\n" + "|---" * 9 + "|"
    )
    arms: tuple[tuple[str, Family, ScalingOptions, bool], ...] = (
        ("none", "none", ScalingOptions("off"), False),
        (ALL_KEPT, "none", ScalingOptions("off"), False),
        ("tucker, full width", "tucker", ScalingOptions("off"), False),
        ("tucker, factored", "tucker", ScalingOptions("off"), True),
        ("tucker, masked widths", "tucker", ScalingOptions(), False),
        ("tucker, sliced to half the heads", "tucker", SLICED, False),
        *((f"{f}, full width", f, ScalingOptions("off"), False) for f in ("linear", "kronecker", "svd")),
    )
    for batch, precision in itertools.product(config.batches, config.precisions):
        reference = None
        for name, family, scaled, factored in arms:
            model = auto_encoder(family, VIT, DECODER)
            make, state, data = begin(model, constrained.trainable(model), batch)
            prepare = scaling.preparation(scaled, VIT, family, precision, lambda c, f=factored: f)
            if scaled.execution == "sliced":
                prepare = lambda params, key, to=precision: trees.cast(scaling.narrowed(params, 6, 6), to)  # noqa: E731
            with all_kept() if name == ALL_KEPT else contextlib.nullcontext():
                lowered = make(prepare).lower(state, data, jr.key(0))
            planned = lowered.compile().memory_analysis()
            temporaries, most = planned.temp_size_in_bytes, peak(planned)
            reference = reference or (temporaries, most)
            moments = sum(leaf.nbytes for leaf in jax.tree.leaves(state.optimizer) if eqx.is_array(leaf))
            print(
                f"| {batch} | {precision} | {name} | {trees.count(state.trained):,} | {moments / 1e6:.2f} | "
                f"{temporaries / 1e6:,.0f} | {temporaries / reference[0]:.2f} | "
                f"{most / 1e6:,.0f} | {most / reference[1]:.2f} |",
                flush=True,
            )


def peak(planned: Any) -> int:
    """Bytes that a program holds while it runs, from XLA's analysis of its memory.

    Temporaries are one allocation that lasts as long as the program, so that all of them count; XLA's own
    `peak_memory_in_bytes` has the live ones only.
    """
    together = planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
    return together - planned.alias_size_in_bytes


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
