import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..errors import UserError
from ..trees import cycle, first
from .base import AbstractConstraint, Arrays, Count, Factors, Shape, check_rank, weight_variance


class Linear(AbstractConstraint):
    """`W = G ×₁ X`: every slice is a mixture of `rank` shared slices.

    The family of TLEG (Xia et al., 2024), whose mixtures are fixed; SWEET's Table 4 calls it linear without defining it.
    A narrower model has the first rows and columns of the shared slices.
    """

    rank: int | None = eqx.field(default=None, static=True)
    """Shared slices; None: slices / 24, which gives all families templates of equal size
    where it is a whole number; two per slice of a layer under `tleg`."""
    tleg: bool = eqx.field(default=False, static=True)
    """Fixed mixtures instead of learned ones: slice j of layer l = 0 … L - 1 is `B_j + l/L A_j`, as in TLEG's code."""

    @property
    def sizeless(self) -> bool:
        return False

    @property
    def fixed(self) -> bool:
        return self.tleg

    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        default = 2 * shape.slices // shape.layers if self.tleg else max(1, shape.slices // 24)
        rank = default if self.rank is None else self.rank
        if self.tleg and shape.layers < 2:
            raise UserError(
                "the weights of TLEG grow with the depth, but there is one layer; give --model.depth 2 or more."
            )
        if self.tleg and rank != default:
            raise UserError(f"--linear.rank {rank} was given, but under --linear.tleg it is {default}; leave it out.")
        check_rank("--linear.rank", rank, shape.slices, "the number of slices")
        return {"bases": weight_variance(shape) ** 0.5 * jr.normal(key, (rank, shape.rows, shape.cols, *shape.taps))}

    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        rank = len(template["bases"])
        if self.tleg:
            place = jnp.repeat(jnp.arange(shape.layers) / shape.layers, rank // 2)
            which = jnp.tile(jnp.eye(rank // 2), (shape.layers, 1))
            return {"slice": jnp.concatenate([which, place[:, None] * which], axis=1)}
        return {"slice": rank**-0.5 * jr.normal(key, (shape.slices, rank))}

    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col *tap"]:
        return jnp.tensordot(factors.scalers["slice"], factors.template["bases"], 1)

    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        bases = cycle(cycle(factors.template["bases"], shape.rows, 1), shape.cols, 2)
        return Factors({"bases": bases}, {"slice": factors.scalers["slice"][slices]})

    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        return Factors({"bases": first(first(factors.template["bases"], rows, 1), cols, 2)}, factors.scalers)
