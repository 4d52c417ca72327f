"""Mimetic initialisation (Trockman & Kolter, ICML 2023, arXiv 2305.09828): attention starts as it ends up, untrained.

With weights that have internal channels as rows, W_qᵀ W_k = α Z + β I for every head, and W_vᵀ W_o = α Z - β I over all
heads, Z of variance 1 / D; each product is split in two by its singular value decomposition. Everything else is random
as it was; positions are sin-cos, as theirs, or rotary. Our choices: either dress has the same attention, although theirs
has LayerNorm, GELU and no rotation; and where heads x head_dim exceed the width, what a product of that rank does not
need is zero.
"""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..config import BackboneConfig
from ..models import ViT
from ..training import Run
from .base import FromNothing, Made, Source


QUERY_KEY = (0.7, 0.7)
"""α and β of queries and keys: the paper's, for vision transformers."""
VALUE_OUT = (0.4, 0.4)
"""α and β of values and outputs."""


@dataclasses.dataclass(frozen=True)
class Mimetic(FromNothing):
    """Random weights, attention by mimetic initialisation (Trockman & Kolter, 2023)."""

    name: ClassVar[str] = "mimetic"

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        vkey, mkey = jr.split(jr.key(self.seed))
        return Made(mimic(target.create(key=vkey), key=mkey))


def mimic(vit: ViT, *, key: PRNGKeyArray) -> ViT:
    """The same backbone with the attention weights of mimetic initialisation."""
    heads, head_dim, width = vit.config.heads, vit.config.head_dim, vit.config.channels

    def layer(key: PRNGKeyArray) -> tuple[Float[Array, "3 inner width"], Float[Array, "inner width"]]:
        qkey, vkey = jr.split(key)
        halves = [split_product(width, head_dim, *QUERY_KEY, key=k) for k in jr.split(qkey, heads)]
        query, keys = (jnp.concatenate([half[i] for half in halves]) for i in (0, 1))
        value, out = split_product(width, heads * head_dim, VALUE_OUT[0], -VALUE_OUT[1], key=vkey)
        return jnp.stack([query, keys, value]), out

    made = [layer(k) for k in jr.split(key, vit.config.depth)]
    qkv, out = (jnp.stack([one[i] for one in made]) for i in (0, 1))
    return eqx.tree_at(lambda v: (v.blocks.attention.qkv, v.blocks.attention.out), vit, (qkv, out))


def split_product(
    width: int, rank: int, alpha: float, beta: float, *, key: PRNGKeyArray
) -> tuple[Float[Array, "rank width"], Float[Array, "rank width"]]:
    """A and B, of which Aᵀ B is the best approximation of rank `rank` to α Z + β I, with equal norms.

    Where `rank` exceeds `width`, the rows beyond it are zero.
    """
    u, s, vt = jnp.linalg.svd(alpha * jr.normal(key, (width, width)) / width**0.5 + beta * jnp.eye(width))
    root = jnp.sqrt(s)[:, None]
    pair = root * u.T, root * vt
    missing = ((0, max(0, rank - width)), (0, 0))
    return jnp.pad(pair[0][:rank], missing), jnp.pad(pair[1][:rank], missing)
