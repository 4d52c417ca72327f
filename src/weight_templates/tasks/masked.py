"""Masked auto-encoding as a training task."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree, UInt8

from .. import trees
from ..constrained import Constrained
from ..data import Batch, normalize
from ..models import MAE, Reconstruction
from ..models.mae import reconstruction_loss


def loss(model: MAE, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """The mean reconstruction loss (SWEET Eq. 1) of a batch; `keys`, one an image, choose the hidden patches."""
    return jnp.mean(jax.vmap(reconstruction_loss)(_reconstruct(model, batch["image"], keys)))


def reconstruct(model: MAE, images: UInt8[Array, "batch h w 3"], *, key: PRNGKeyArray) -> Reconstruction:
    """Reconstructions of a batch, under masks that depend on `key` alone."""
    return _reconstruct(model, images, jr.split(key, len(images)))


def evaluate(model: MAE, images: UInt8[Array, "images h w 3"], *, chunk: int, key: PRNGKeyArray) -> Float[Array, ""]:
    """The mean loss of many images, `chunk` at a time, under masks that depend on `key` alone."""
    count = len(images)
    padding = -count % chunk
    images = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    keys = jr.split(key, count + padding)
    parts = jax.lax.map(
        lambda part: jax.vmap(reconstruction_loss)(_reconstruct(model, *part)),
        (images.reshape(-1, chunk, *images.shape[1:]), keys.reshape(-1, chunk)),
    )
    return parts.reshape(-1)[:count].mean()


def trainable(model: PyTree) -> PyTree:
    """True at the leaves that pre-training trains: all floating-point arrays but the sin-cos tables, as in MAE, and the
    scalers of a constraint whose scalers are fixed."""
    nodes = jax.tree_util.tree_leaves_with_path(model, is_leaf=lambda node: isinstance(node, Constrained))
    fixed = tuple(
        f"{trees.name_of(path)}.".lstrip(".") + "factors."
        for path, node in nodes
        if isinstance(node, Constrained) and node.constraint.fixed
    )

    def one(path: tuple, leaf: Any) -> bool:
        name = trees.name_of(path)
        frozen = name.endswith("positions.table") or (".scalers." in name and name.startswith(fixed))
        return eqx.is_inexact_array(leaf) and not frozen

    return jax.tree_util.tree_map_with_path(one, model)


def _reconstruct(model: MAE, images: UInt8[Array, "batch h w 3"], keys: Key[Array, " batch"]) -> Reconstruction:
    return jax.vmap(lambda image, key: model(image, key=key))(normalize(images), keys)
