"""How many floating-point operations there are in a step, and how many the machine does in a second."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from weight_templates import trees
from weight_templates.config import DecoderConfig, ViTConfig
from weight_templates.constrained import Constrained, expand
from weight_templates.counting import count_mae
from weight_templates.sites import governed


def of_step(vit: ViTConfig, decoder: DecoderConfig, batch: int) -> int:
    """FLOPs of an unconstrained step: forward, and twice as many backward; attention's products included."""
    encoder = vit.depth * vit.inner * tokens(vit, decoder) ** 2
    attention = encoder + decoder.depth * decoder.width * (vit.patches + 1) ** 2
    return 3 * batch * (count_mae(vit, decoder) + 4 * attention)


def of_constraint(constrained: Constrained, seen: int, factored: bool) -> int:
    """What a constrained step on so many tokens has more than an unconstrained one; below 0 where it has fewer."""
    full = eqx.filter_eval_shape(lambda c: governed(expand(c)), constrained)
    return 3 * (of_weights(constrained, seen, factored) - 2 * trees.count(full) * seen)


def of_weights(constrained: Constrained, seen: int, factored: bool) -> int:
    """Forward, of the governed weights alone: what makes them ready, once, and their products with so many tokens."""
    weights: Any = eqx.filter_eval_shape(lambda c: governed(expand(c, factored=factored)), constrained)
    products = sum(leaf.products for leaf in weights.values()) if factored else trees.count(weights)
    return of_expansion(constrained, factored) + 2 * products * seen


def of_expansion(constrained: Constrained, factored: bool = False) -> int:
    """FLOPs of expanding all weights once, as XLA counts; with `factored`, of what is left of it where factors are applied.

    `constrained` may hold shapes in place of arrays.
    """
    shapes: Any = eqx.filter_eval_shape(lambda c: c, constrained)
    dynamic, static = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    run = jax.jit(lambda d: eqx.filter(expand(eqx.combine(d, static), factored=factored), eqx.is_array))
    return round(run.lower(dynamic).cost_analysis()["flops"])  # pyright: ignore[reportOptionalSubscript]


def tokens(vit: ViTConfig, decoder: DecoderConfig) -> int:
    """Tokens of an image in the encoder: the visible patches and the class token."""
    return int(vit.patches * (1 - decoder.mask_ratio)) + 1


def product(side: int, precision: str, times: int = 1) -> tuple[Callable[[], None], int]:
    """A function that multiplies two square matrices, so many times in a row, and waits; and the FLOPs of that."""
    x = jr.normal(jr.key(0), (side, side), precision)
    multiply = jax.jit(jnp.matmul)

    def run() -> None:
        jax.block_until_ready([multiply(x, x) for _ in range(times)])

    return run, times * 2 * side**3


def matrix_rate(side: int, precision: str) -> float:
    """FLOPs a second of a large product, the best of several fours: starting a product is no part of it."""
    run, count = product(side, precision, times=4)
    run()
    took = []
    for _ in range(9):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return count / min(took)
