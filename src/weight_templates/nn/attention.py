import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PRNGKeyArray

from .linear import PRODUCT, glorot, narrow, widen
from .position import rotate


class Attention(eqx.Module):
    """Multi-head self-attention whose inner width, heads x channels of a head, is independent of the residual width."""

    qkv: Float[Array, "3 inner width"]
    qkv_bias: Float[Array, "3 inner"]
    out: Float[Array, "inner width"]
    out_bias: Float[Array, " width"]
    head_dim: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, head_dim: int, *, key: PRNGKeyArray):
        """Glorot weights, the fused q, k, v taken as one matrix as in MAE; zero biases."""
        qkey, okey = jr.split(key)
        inner = heads * head_dim
        self.qkv = glorot(qkey, (3, inner, width), width, 3 * inner)
        self.qkv_bias = jnp.zeros((3, inner))
        self.out = glorot(okey, (inner, width), inner, width)
        self.out_bias = jnp.zeros(width)
        self.head_dim = head_dim

    @jax.named_scope("attention")
    def __call__(
        self, x: Float[Array, "token width"], angles: Float[Array, "token pair"] | None = None
    ) -> Float[Array, "token width"]:
        """**Arguments:**

        - `x`: the tokens of one image.
        - `angles`: the tokens' rotations, radians; None for no rotary positions.
        """
        qkv = widen(x, self.qkv) + self.qkv_bias.reshape(-1)
        q, k, v = jnp.moveaxis(qkv.reshape(len(x), 3, -1, self.head_dim), 1, 0)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return narrow(attend(q, k, v).reshape(len(x), -1), self.out) + self.out_bias


def attend(
    q: Float[Array, "token head channel"], k: Float[Array, "key head channel"], v: Float[Array, "key head channel"]
) -> Float[Array, "token head channel"]:
    """Softmax attention, exponents and sums in float32.

    The same as `jax.nn.dot_product_attention`, but divides the mixed values and not the weights, so that the gradient of
    the division needs no pass over all pairs of tokens. That function's fused kernels are for GPUs alone, in half
    precision, and have not been tried here; of a step whose encoder sees a quarter of the patches attention is a small part
    (`benchmarks/breakdown.py`).
    """
    summed = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("thc,khc->htk", q, k, preferred_element_type=summed) * q.shape[-1] ** -0.5
    if (
        summed == q.dtype
    ):  # else they would be kept in twice the precision; computing them again is what fused attention does
        logits = checkpoint_name(logits, PRODUCT)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    mixed = jnp.einsum("htk,khc->thc", weights.astype(v.dtype), v, preferred_element_type=summed)
    mixed = checkpoint_name(mixed, PRODUCT)
    return (mixed / weights.sum(-1).T[..., None]).astype(v.dtype)
