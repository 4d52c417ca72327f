import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


EPSILON = 1e-6


class AbstractNorm(eqx.Module):
    """A normalisation over channels, of which only the first `kept` may be in use.

    Channels beyond `kept` are zero in, zero out, and absent from the statistics: the norm of a narrower model, run at
    full width. `kept` is None in a plain model.
    """

    gain: eqx.AbstractVar[Float[Array, " width"]]
    kept: eqx.AbstractVar[Int[Array, ""] | None]

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalises the last axis; statistics in float32 at least."""


class RMSNorm(AbstractNorm):
    """`gain · x / sqrt(mean(x²) + ε)` (Zhang & Sennrich, 2019)."""

    gain: Float[Array, " width"]
    kept: Int[Array, ""] | None
    axis_names: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __init__(self, width: int, over: str = "width"):
        """**Arguments:**

        - `over`: the axis that is normalised, by its name in a backbone's configuration.
        """
        self.axis_names = () if over == "width" else (("width", over),)
        self.gain = jnp.ones(width)
        self.kept = None

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        n = x.shape[-1] if self.kept is None else self.kept
        power = jnp.sum(y * y, axis=-1, keepdims=True) / n
        return (y * lax.rsqrt(power + EPSILON)).astype(x.dtype) * self.gain


class LayerNorm(AbstractNorm):
    """`gain · (x - mean) / sqrt(var + ε) + bias` (Ba et al., 2016)."""

    gain: Float[Array, " width"]
    bias: Float[Array, " width"]
    kept: Int[Array, ""] | None
    axis_names: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __init__(self, width: int, over: str = "width"):
        """**Arguments:**

        - `over`: the axis that is normalised, by its name in a backbone's configuration.
        """
        self.axis_names = () if over == "width" else (("width", over),)
        self.gain = jnp.ones(width)
        self.bias = jnp.zeros(width)
        self.kept = None

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        n = x.shape[-1] if self.kept is None else self.kept
        y = y - jnp.sum(y, axis=-1, keepdims=True) / n
        if self.kept is not None:
            y = jnp.where(jnp.arange(x.shape[-1]) < self.kept, y, 0)
        variance = jnp.sum(y * y, axis=-1, keepdims=True) / n
        return (y * lax.rsqrt(variance + EPSILON)).astype(x.dtype) * self.gain + self.bias
