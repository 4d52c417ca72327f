import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..trees import cycle, first
from .base import AbstractConstraint, Arrays, Count, Factors, Shape, check_rank, weight_variance


class Tucker(AbstractConstraint):
    """`W = G ×₁ X ×₂ U ×₃ V` (SWEET Eq. 5): the core G is the template; X, U and V are the scalers.

    X has a row for every slice, U for every row, V for every column. A narrower model has the first rows of U and V.
    """

    ranks: tuple[int, int, int] | None = eqx.field(default=None, static=True)
    """Sizes of the core along slices, rows and columns. None: slices / 6, rows / 2, cols / 2; for 144 slices of 768 x 768
    that is 24, 384, 384, or 4 % of the weights. The paper says only that the core is much smaller than W."""

    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        ranks = (
            tuple(max(1, n // d) for n, d in zip(shape[:3], (6, 2, 2), strict=True))
            if self.ranks is None
            else self.ranks
        )
        for rank, size, axis in zip(ranks, shape[:3], ("slices", "rows", "columns"), strict=True):
            check_rank(f"--tucker.ranks (along {axis})", rank, size, f"the number of {axis}")
        return {"core": weight_variance(shape) ** 0.5 * jr.normal(key, (*ranks, *shape.taps))}

    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        ranks = template["core"].shape[:3]
        keys = jr.split(key, 3)
        return {
            "slice": ranks[0] ** -0.5 * jr.normal(keys[0], (shape.slices, ranks[0])),
            "row": _orthogonal(keys[1], shape.rows, ranks[1]),
            "col": _orthogonal(keys[2], shape.cols, ranks[2]),
        }

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col *tap"]:
        core = factors.template["core"]
        scalers = [factors.scalers[name] for name in ("slice", "row", "col")]
        order = cheapest_order(core.shape[:3], tuple(len(s) for s in scalers))

        def multiply(core: Float[Array, "r1 r2 r3"]) -> Float[Array, "slice row col"]:
            for axis in order:
                core = _mode_product(core, scalers[axis], axis)
            return core

        if not shape.taps:
            return multiply(core)
        flat = core.reshape(*core.shape[:3], -1)
        return jax.vmap(multiply, 3, 3)(flat).reshape(shape.full)

    def cores(self, factors: Factors, shape: Shape) -> tuple[Array, Array, Array] | None:
        s = factors.scalers
        if shape.taps:
            return None
        return _mode_product(factors.template["core"], s["slice"], 0), s["row"], s["col"]

    def multiplications(self, factors: Factors, shape: Shape) -> tuple[int, int]:
        ranks = factors.template["core"].shape[:3]
        sizes = tuple(len(factors.scalers[name]) for name in ("slice", "row", "col"))
        return multiplied(cheapest_order(ranks, sizes), ranks, sizes), multiplied((0,), ranks, sizes)

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        s = factors.scalers
        rows, cols = cycle(s["row"], shape.rows, 0), cycle(s["col"], shape.cols, 0)
        return Factors(factors.template, {"slice": s["slice"][slices], "row": rows, "col": cols})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        s = factors.scalers
        return Factors(factors.template, {**s, "row": first(s["row"], rows, 0), "col": first(s["col"], cols, 0)})


def cheapest_order(ranks: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The order of mode products, as axes, that expands a core of `ranks` to `sizes` with the fewest multiplications."""
    return min(itertools.permutations(range(len(ranks))), key=lambda order: multiplied(order, ranks, sizes))


def multiplied(order: tuple[int, ...], ranks: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    """Multiplications of mode products along these axes, in order."""
    now, total = list(ranks), 0
    for axis in order:
        total += sizes[axis] * math.prod(now)
        now[axis] = sizes[axis]
    return total


def _orthogonal(key: PRNGKeyArray, size: int, rank: int) -> Float[Array, "size rank"]:
    """Orthogonal columns, or rows where these are fewer; rows of unit norm on average.

    The paper is silent on initialisation. Gaussian U and V, of the same variance, are ill-conditioned, and since every
    slice goes through both of them, pre-training stalled on an early plateau.
    """
    if size < rank:
        return jnp.linalg.qr(jr.normal(key, (rank, size)))[0].T
    return (size / rank) ** 0.5 * jnp.linalg.qr(jr.normal(key, (size, rank)))[0]


def _mode_product(
    tensor: Float[Array, "a b c"], matrix: Float[Array, "size rank"], axis: int
) -> Float[Array, "a2 b2 c2"]:
    # Axes in place, so that every product is one matrix product (batched for the rows) and nothing is transposed.
    if axis == 0:
        return (matrix @ tensor.reshape(len(tensor), -1)).reshape(-1, *tensor.shape[1:])
    return matrix @ tensor if axis == 1 else tensor @ matrix.T
