"""Feed-forward layers of 8 D² weights, in blocks that stay aligned when the width shrinks.

Hidden units come in blocks, one per slice of the constraint; a narrower layer has the first units of every block.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .linear import glorot, narrow, widen


class Gelu(eqx.Module):
    """`GELU(x Aᵀ + a) B + b` with 4 · inner hidden units, in 4 blocks of `inner` (exact GELU)."""

    enter: Float[Array, "4 inner width"]
    enter_bias: Float[Array, "4 inner"]
    leave: Float[Array, "4 inner width"]
    leave_bias: Float[Array, " width"]

    def __init__(self, width: int, inner: int, *, key: PRNGKeyArray):
        ekey, lkey = jr.split(key)
        self.enter = glorot(ekey, (4, inner, width), width, 4 * inner)
        self.enter_bias = jnp.zeros((4, inner))
        self.leave = glorot(lkey, (4, inner, width), 4 * inner, width)
        self.leave_bias = jnp.zeros(width)

    @jax.named_scope("mlp")
    def __call__(self, x: Float[Array, "token width"]) -> Float[Array, "token width"]:
        hidden = widen(x, self.enter) + self.enter_bias.reshape(-1)
        return narrow(jax.nn.gelu(hidden, approximate=False), self.leave) + self.leave_bias


class SwiGlu(eqx.Module):
    """`(SiLU(x Gᵀ + g) · (x Uᵀ + u)) B + b` with 8 · ⌊inner/3⌋ hidden units, in 8 blocks (Shazeer, 2020).

    `enter` holds gate and up. At inner = D this is 8 D/3 hidden units and, as GELU has, 8 D² weights.
    """

    enter: Float[Array, "2 8 third width"]
    enter_bias: Float[Array, "2 8 third"]
    leave: Float[Array, "8 third width"]
    leave_bias: Float[Array, " width"]

    def __init__(self, width: int, inner: int, *, key: PRNGKeyArray):
        ekey, lkey = jr.split(key)
        third = inner // 3
        self.enter = glorot(ekey, (2, 8, third, width), width, 16 * third)
        self.enter_bias = jnp.zeros((2, 8, third))
        self.leave = glorot(lkey, (8, third, width), 8 * third, width)
        self.leave_bias = jnp.zeros(width)

    @jax.named_scope("mlp")
    def __call__(self, x: Float[Array, "token width"]) -> Float[Array, "token width"]:
        gate, up = jnp.split(widen(x, self.enter) + self.enter_bias.reshape(-1), 2, axis=-1)
        return narrow(jax.nn.silu(gate) * up, self.leave) + self.leave_bias
