import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..trees import first
from .base import AbstractConstraint, Count, Factors, Shape, weight_variance


class Unconstrained(AbstractConstraint):
    """The weights are their own parameters: ordinary pre-training. No template; the scalers are W."""

    def init(self, shape: Shape, *, key: PRNGKeyArray) -> Factors:
        return Factors({}, {"weight": weight_variance(shape) ** 0.5 * jr.normal(key, shape)})

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col"]:
        return factors.scalers["weight"]

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        return Factors({}, {"weight": factors.scalers["weight"][slices, : shape.rows, : shape.cols]})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        return Factors({}, {"weight": first(first(factors.scalers["weight"], rows, 1), cols, 2)})
