"""Expanding the factors, alone, against what the machine's matrix products reach.

    python benchmarks/expansion.py

prints for every family, at its default ranks, how long one expansion of all weights takes, which share of the matrix rate
measured in the same turns it reaches, and what it adds to the multiplications of a step.
"""

import dataclasses
from typing import Any

from weight_templates import cli
from weight_templates.config import DecoderConfig, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the expansion of every family."""

    rounds: int = 15
    """Turns."""
    batch: int = 256
    """Images of the step that the expansion is compared with."""


NETWORKS = {
    "ViT-B in small": (ViTConfig(depth=12, head_dim=16), DecoderConfig()),
    "ViT-B": (
        ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64),
        DecoderConfig(depth=8, width=512, heads=16),
    ),
}


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    if config.batch < 1:
        raise UserError(f"--batch {config.batch} has no images; give at least 1.")
    import equinox as eqx
    import jax
    import jax.random as jr

    from benchmarks import flops
    from benchmarks.interleave import compare
    from weight_templates.constrained import constrain, expand
    from weight_templates.constraints import FAMILIES

    multiply, reference = flops.product(1536, "float32")
    print(
        "| network | family | GFLOPs | ms | of the matrix rate (quartiles) | of a step's FLOPs |\n|---|---|---|---|---|---|"
    )
    for name, (vit, decoder) in NETWORKS.items():
        tasks: dict[str, Any] = {"matrix product": multiply}
        counts = {}
        for family, constraint in FAMILIES.items():
            if family == "none":
                continue
            model = eqx.filter_jit(constrain)(vit, constraint(), "unified", key=jr.key(0))
            dynamic, static = eqx.partition(model, eqx.is_array)
            run = jax.jit(lambda d, static=static: eqx.filter(expand(eqx.combine(d, static)), eqx.is_array))
            counts[family] = flops.of_expansion(model)
            tasks[family] = lambda run=run, dynamic=dynamic: jax.block_until_ready(run(dynamic))
        step = flops.of_step(vit, decoder, config.batch)
        for family, t in compare(tasks, "matrix product", config.rounds).items():
            if family in counts:
                share = [counts[family] / reference / ratio for ratio in (t.ratio, *t.spread[::-1])]
                print(
                    f"| {name} | {family} | {counts[family] / 1e9:.2f} | {1e3 * t.seconds:.1f} | "
                    f"{share[0]:.0%} ({share[1]:.0%} to {share[2]:.0%}) | {3 * counts[family] / step:.2%} |",
                    flush=True,
                )


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
