"""DMAE (Bai et al., CVPR 2023): a small auto-encoder learns next to a large one that is finished.

Both encoders see the same patches. The student reconstructs, and its tokens z after block ⌈3/4 depth⌉, projected to the
teacher's width by a linear P, approach the teacher's after its own block of that rank,

    L = L_MAE + mean | ν(z_teacher) - ν(P z_student) |,    ν(z) = z / ‖z‖₂ token by token,

the mean over tokens and channels, with weight 1 (arXiv 2208.12256). The ranks are those of the authors' ViT-L; that they follow the
depth is our choice. The authors reconstruct plain pixels; so does `experiments/baseline.py`, unless told otherwise.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ..data import Batch, normalize
from ..models import MAE, Reconstruction, ViT
from ..models.mae import random_mask, reconstruction_loss
from ..models.vit import Block, run
from ..nn import Linear


class Distillation(eqx.Module):
    """A student, its teacher, and the map between their tokens."""

    student: MAE
    teacher: ViT
    project: Linear

    def __init__(self, student: MAE, teacher: ViT, *, key: PRNGKeyArray):
        """The projection starts uniform within ±1/√width, bias included, as PyTorch's do."""
        narrow, wide = student.encoder.config.channels, teacher.config.channels
        bound = narrow**-0.5
        wkey, bkey = jr.split(key)
        start = (
            jr.uniform(wkey, (wide, narrow), minval=-bound, maxval=bound),
            jr.uniform(bkey, (wide,), minval=-bound, maxval=bound),
        )
        self.student, self.teacher = student, teacher
        self.project = eqx.tree_at(lambda p: (p.weight, p.bias), Linear(narrow, wide, key=wkey), start)


def loss(pair: Distillation, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """The mean over a batch of the student's reconstruction loss and the distance to its teacher."""
    made, distance = jax.vmap(lambda image, key: compare(pair, image, key=key))(normalize(batch["image"]), keys)
    return jnp.mean(jax.vmap(reconstruction_loss)(made)) + jnp.mean(distance)


def compare(
    pair: Distillation, image: Float[Array, "h w 3"], *, key: PRNGKeyArray
) -> tuple[Reconstruction, Float[Array, ""]]:
    """What the student makes of one image, and how far its tokens are from its teacher's, in float32."""
    student, teacher = pair.student, pair.teacher
    visible, hidden = random_mask(student.encoder.config.patches, student.config.mask_ratio, key=key)
    middle, tokens = halfway(student.encoder, image, visible)
    goal, _ = halfway(teacher, image, visible, stop=True)
    difference = unit(jax.lax.stop_gradient(goal)) - unit(pair.project(middle))
    return student.decoded(image, tokens, visible, hidden), jnp.mean(jnp.abs(difference))


def halfway(
    vit: ViT, image: Float[Array, "h w 3"], visible: Any, stop: bool = False
) -> tuple[Float[Array, "token width"], Float[Array, "token width"]]:
    """The tokens after block ⌈3/4 depth⌉, and the normalised ones at the end; with `stop` the former twice."""
    tokens, angles = vit.embedded(image, visible)
    first, rest = cut(vit.blocks, aligned(vit.config.depth) + 1)
    middle = run(first, tokens, angles)
    return middle, middle if stop else vit.norm(run(rest, middle, angles))


def aligned(depth: int) -> int:
    """The index of the block whose tokens are compared, ⌈3/4 depth⌉ - 1: 8 of 12 and 17 of 24, as in the paper."""
    return -(-3 * depth // 4) - 1


def cut(blocks: Block, count: int) -> tuple[Block, Block]:
    """The first `count` of stacked blocks, and the others."""
    arrays, rest = eqx.partition(blocks, eqx.is_array)
    return tuple(
        eqx.combine(jax.tree.map(lambda a, s=s: a[s], arrays), rest) for s in (slice(count), slice(count, None))
    )


def unit(tokens: Float[Array, "token width"]) -> Float[Array, "token width"]:
    """Tokens divided by their lengths, in float32."""
    tokens = tokens.astype(jnp.float32)
    return tokens / jnp.maximum(jnp.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12)
