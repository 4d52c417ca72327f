import math

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..trees import cycle, first
from .base import AbstractConstraint, Arrays, Count, Factors, Shape, check_rank, weight_variance


class Svd(AbstractConstraint):
    """`W_s = U diag(x_s) Vᵀ`: shared bases left and right, one diagonal per slice.

    The family of FINE (Xie et al., 2024), after the singular value decomposition; for one group of slices it is the
    canonical polyadic decomposition, Tucker with a superdiagonal core. A narrower model has the first rows of U and V.
    """

    rank: int | None = eqx.field(default=None, static=True)
    """Columns of U and V; None: as many template parameters as the other families' defaults."""

    @property
    def sizeless(self) -> bool:
        return False

    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        s, m, n = shape.slices, shape.rows, shape.cols * math.prod(shape.taps)
        rank = max(1, round(s * m * n / (24 * (m + n)))) if self.rank is None else self.rank
        check_rank("--svd.rank", rank, min(s * m, s * n, m * n), "the largest rank of such a stack")
        ukey, vkey = jr.split(key)
        return {
            "left": rank**-0.5 * jr.normal(ukey, (m, rank)),
            "right": rank**-0.5 * jr.normal(vkey, (shape.cols, *shape.taps, rank)),
        }

    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        rank = template["left"].shape[1]
        return {"slice": (weight_variance(shape) * rank) ** 0.5 * jr.normal(key, (shape.slices, rank))}

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col *tap"]:
        left, right = factors.template["left"], factors.template["right"]
        scaled = factors.scalers["slice"][:, None, :] * left
        flat = right.reshape(-1, right.shape[-1])  # a kernel has a row for each column and tap
        return (scaled.reshape(-1, left.shape[1]) @ flat.T).reshape(-1, len(left), *right.shape[:-1])

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        left, right = cycle(factors.template["left"], shape.rows, 0), cycle(factors.template["right"], shape.cols, 0)
        return Factors({"left": left, "right": right}, {"slice": factors.scalers["slice"][slices]})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        left, right = first(factors.template["left"], rows, 0), first(factors.template["right"], cols, 0)
        return Factors({"left": left, "right": right}, factors.scalers)
