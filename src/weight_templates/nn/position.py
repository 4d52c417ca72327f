"""Where a patch is: rotations for the enhanced dress, a sin-cos table for the plain one."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def rotary(grid: int, head_dim: int) -> Float[Array, "token pair"]:
    """Angles of 2-D axial rotary positions, in radians, the class token first.

    A head has `head_dim / 2` pairs of channels; the first half of the pairs turns with the row of the patch, the second
    with its column, at frequencies 10000^(-k / (head_dim / 4)), k = 0, 1, … The class token does not turn.
    """
    quarter = head_dim // 4
    frequency = 10000.0 ** (-np.arange(quarter) / quarter)
    row, col = np.divmod(np.arange(grid**2), grid)
    angles = np.concatenate([row[:, None] * frequency, col[:, None] * frequency], axis=1)
    return jnp.asarray(np.concatenate([np.zeros((1, 2 * quarter)), angles]), dtype=jnp.float32)


def rotate(
    x: Float[Array, "token head channel"], angles: Float[Array, "token pair"]
) -> Float[Array, "token head channel"]:
    """Turns the pairs of adjacent channels (0, 1), (2, 3), … of every head by the token's angles (Su et al., 2021)."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    cos = jnp.cos(angles).astype(x.dtype)[:, None, :, None]
    sin = jnp.stack([-jnp.sin(angles), jnp.sin(angles)], axis=-1).astype(x.dtype)[:, None]
    return (pairs * cos + pairs[..., ::-1] * sin).reshape(x.shape)  # in one pass, which taking pairs apart would not be


def nested_sincos(grid: int, width: int) -> Float[Array, "token width"]:
    """A 2-D sin-cos table every prefix of which tells both axes; the class token's row, all zero, comes first.

    The same channels as MAE's table (frequencies 10000^(-k / (width / 4)) for sine and cosine of column and row), in
    another order: groups of four channels (sin x, cos x, sin y, cos y), the groups' frequencies in bit-reversed order,
    so that a prefix spans the spectrum. A prefix of MAE's own order would know one axis only.
    """
    quarter = -(-width // 4)
    bits = max(1, (quarter - 1).bit_length())
    order = sorted(range(quarter), key=lambda k: int(f"{k:0{bits}b}"[::-1], 2))
    frequency = 10000.0 ** (-np.array(order) / quarter)
    row, col = np.divmod(np.arange(grid**2), grid)
    x, y = col[:, None] * frequency, row[:, None] * frequency
    table = np.stack([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=-1).reshape(grid**2, -1)[:, :width]
    return jnp.asarray(np.concatenate([np.zeros((1, width)), table]), dtype=jnp.float32)
