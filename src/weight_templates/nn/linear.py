import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray


def project(x: Float[Array, "*batch in"], weight: Float[Array, "out in"]) -> Float[Array, "*batch out"]:
    """`x weightᵀ`, in the precision of `x`, summed in float32: what matrix units do best, on CPU and GPU alike."""
    summed = jnp.promote_types(x.dtype, jnp.float32)
    y = lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=summed)
    return y.astype(x.dtype)


def glorot(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Float[Array, "..."]:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""
    bound = (6 / (fan_in + fan_out)) ** 0.5
    return jr.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(eqx.Module):
    """An affine map outside the constraint: no axis of it follows the size of the backbone."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    def __init__(self, size_in: int, size_out: int, *, key: PRNGKeyArray):
        """Glorot weight, zero bias."""
        self.weight = glorot(key, (size_out, size_in), size_in, size_out)
        self.bias = jnp.zeros(size_out)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return project(x, self.weight) + self.bias
