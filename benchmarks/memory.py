"""What a step keeps in memory: parameters, the optimiser's state, and the compiler's temporaries.

    python benchmarks/memory.py

prints what XLA has planned for the compiled step, which is exact and the same at every run; nothing is timed.
"""

import dataclasses

from weight_templates import cli
from weight_templates.config import DecoderConfig, Family, ScalingOptions, ViTConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Tell the memory of a step."""

    batches: tuple[int, ...] = (64, 256)
    """Images a step."""


VIT, DECODER = ViTConfig(depth=12, head_dim=16), DecoderConfig()
SLICED = ScalingOptions(coupled=True, execution="sliced", heads=(6,))


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    import equinox as eqx
    import jax
    import jax.random as jr

    from benchmarks.steps import auto_encoder, begin
    from weight_templates import scaling, trees
    from weight_templates.tasks import masked

    print(
        "| batch | step | learned numbers | optimiser's state, MB | temporaries, MB | of none's |\n|---|---|---|---|---|---|"
    )
    for batch in config.batches:
        reference = None
        arms: tuple[tuple[str, Family, ScalingOptions, bool], ...] = (
            ("none", "none", ScalingOptions("off"), False),
            ("tucker, full width", "tucker", ScalingOptions("off"), False),
            ("tucker, factored", "tucker", ScalingOptions("off"), True),
            ("tucker, masked widths", "tucker", ScalingOptions(), False),
            ("tucker, sliced to half the heads", "tucker", SLICED, False),
            ("kronecker, full width", "kronecker", ScalingOptions("off"), False),
        )
        for name, family, scaled, factored in arms:
            model = auto_encoder(family, VIT, DECODER)
            make, state, data = begin(model, masked.trainable(model), batch)
            prepare = scaling.preparation(scaled, VIT, family, "float32", lambda c, f=factored: f)
            if scaled.execution == "sliced":
                prepare = lambda params, key: scaling.narrowed(params, 6, 6)  # noqa: E731
            planned = make(prepare).lower(state, data, jr.key(0)).compile().memory_analysis()
            reference = reference or planned.temp_size_in_bytes
            moments = sum(leaf.nbytes for leaf in jax.tree.leaves(state.optimizer) if eqx.is_array(leaf))
            print(
                f"| {batch} | {name} | {trees.count(state.trained):,} | {moments / 1e6:.2f} | "
                f"{planned.temp_size_in_bytes / 1e6:,.0f} | {planned.temp_size_in_bytes / reference:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
