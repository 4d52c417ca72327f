import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..trees import cycle, first
from .base import AbstractConstraint, Arrays, Count, Factors, Shape, weight_variance


class Unconstrained(AbstractConstraint):
    """The weights are their own parameters: ordinary pre-training. No template; the scalers are W."""

    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        return {}

    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        return {"slice": weight_variance(shape) ** 0.5 * jr.normal(key, shape.full)}

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col *tap"]:
        return factors.scalers["slice"]

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        return Factors({}, {"slice": cycle(cycle(factors.scalers["slice"][slices], shape.rows, 1), shape.cols, 2)})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        return Factors({}, {"slice": first(first(factors.scalers["slice"], rows, 1), cols, 2)})
