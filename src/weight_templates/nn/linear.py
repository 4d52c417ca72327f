import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PRNGKeyArray

from .product import product


PRODUCT = "product"
"""What a backward pass may keep and what it computes again is told by this name: see `weight_templates.models.vit.run`."""


@jax.named_scope("project")
def project(x: Float[Array, "*batch in"], weight: Float[Array, "out in"]) -> Float[Array, "*batch out"]:
    """`x weightᵀ`, in the precision of `x`, summed in float32: what matrix units do best, on CPU and GPU alike."""
    return checkpoint_name(product(x, weight), PRODUCT)


class Factored(eqx.Module):
    """A stack of matrices `W[part, slice] = row[part] core[slice] colᵀ`, applied factor by factor, never multiplied out."""

    core: Float[Array, "*layer slice r2 r3"]
    row: Float[Array, "*layer part row r2"]
    col: Float[Array, "*layer width r3"]

    @property
    def products(self) -> int:
        """Multiplications to apply all of it to one vector."""
        slices, r2, r3 = self.core.shape[-3:]
        parts, rows, _ = self.row.shape[-3:]
        layers = self.core.size // (slices * r2 * r3)
        return layers * (self.col.shape[-2] * r3 + slices * r2 * r3 + parts * slices * rows * r2)


def widen(
    x: Float[Array, "token width"], weight: Float[Array, "*stack row width"] | Factored
) -> Float[Array, "token all"]:
    """From the residual stream into all rows of a stack of matrices, in their order: `x Wᵀ`."""
    if not isinstance(weight, Factored):
        return project(x, weight.reshape(-1, weight.shape[-1]))
    slices, r2, r3 = weight.core.shape
    low = project(project(x, weight.col.T), weight.core.reshape(-1, r3)).reshape(len(x), slices, r2)
    return jnp.stack([project(low, row) for row in weight.row], axis=1).reshape(len(x), -1)


def narrow(
    x: Float[Array, "token all"], weight: Float[Array, "*stack row width"] | Factored
) -> Float[Array, "token width"]:
    """From all rows of a stack of matrices back to the residual stream: `x W`."""
    if not isinstance(weight, Factored):
        # Transposed once, and not inside the products, where XLA's gradient of the weight would be slower on a CPU.
        return project(x, lax.optimization_barrier(weight.reshape(-1, weight.shape[-1]).T))
    slices, _, r3 = weight.core.shape
    (row,) = weight.row
    low = project(x.reshape(len(x), slices, -1), row.T).reshape(len(x), -1)
    return project(project(low, weight.core.reshape(-1, r3).T), weight.col)


def glorot(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Float[Array, "..."]:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""
    bound = (6 / (fan_in + fan_out)) ** 0.5
    return jr.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(eqx.Module):
    """An affine map outside the constraint. Its output does not follow the size of the backbone; its input may."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]
    axis_names: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __init__(self, size_in: int, size_out: int, *, reads: str | None = None, key: PRNGKeyArray):
        """Glorot weight, zero bias.

        **Arguments:**

        - `reads`: the axis of a backbone whose entries are the input, such as `width`; None for another input.
        """
        self.axis_names = () if reads is None else (("in", f"backbone.{reads}"),)
        self.weight = glorot(key, (size_out, size_in), size_in, size_out)
        self.bias = jnp.zeros(size_out)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return project(x, self.weight) + self.bias
