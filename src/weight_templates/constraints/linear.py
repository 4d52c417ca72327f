import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..trees import cycle, first
from .base import AbstractConstraint, Arrays, Count, Factors, Shape, check_rank, weight_variance


class Linear(AbstractConstraint):
    """`W = G ×₁ X`: every slice is a mixture of `rank` shared slices.

    The family of TLEG (Xia et al., 2024), with learned mixtures; SWEET's Table 4 calls it linear without defining it.
    A narrower model has the first rows and columns of the shared slices.
    """

    rank: int | None = eqx.field(default=None, static=True)
    """Shared slices; None: slices / 24, which gives all families templates of equal size
    where it is a whole number."""

    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        rank = max(1, shape.slices // 24) if self.rank is None else self.rank
        check_rank("--linear.rank", rank, shape.slices, "the number of slices")
        return {"bases": weight_variance(shape) ** 0.5 * jr.normal(key, (rank, shape.rows, shape.cols))}

    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        rank = len(template["bases"])
        return {"slice": rank**-0.5 * jr.normal(key, (shape.slices, rank))}

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col"]:
        return jnp.tensordot(factors.scalers["slice"], factors.template["bases"], 1)

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        bases = cycle(cycle(factors.template["bases"], shape.rows, 1), shape.cols, 2)
        return Factors({"bases": bases}, {"slice": factors.scalers["slice"][slices]})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        return Factors({"bases": first(first(factors.template["bases"], rows, 1), cols, 2)}, factors.scalers)
