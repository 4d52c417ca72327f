"""Classification: the loss under a recipe of augmentations, top-k accuracy, and linear probes on frozen features."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8

from .. import trees
from ..config import RecipeOptions
from ..data import Batch, normalize
from ..data.randaugment import randaugment
from ..data.regularize import drop_gates, erase, mix, smooth
from ..models import Classifier
from ..nn import Linear


def loss_of(recipe: RecipeOptions) -> Callable[[Classifier, Batch, Key[Array, " batch"]], Float[Array, ""]]:
    """The loss of a step: cross entropy with soft targets, images augmented as the recipe says.

    RandAugment, normalisation, random erasing, then mixup or cutmix, in timm's order. Crops and flips are the feed's.
    """

    def loss(model: Classifier, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
        logits, targets, _ = forward(recipe, model, batch, keys)
        return optax.softmax_cross_entropy(logits, targets).mean()

    return loss


class Streams(NamedTuple):
    """One key an image for everything that is random: all are from one split, so that no two of them coincide.

    A new stream comes last: the keys of the others then stay what they are.
    """

    randaugment: Key[Array, " batch"]
    erasing: Key[Array, " batch"]
    drop_path: Key[Array, " batch"]
    mixing: Key[Array, " batch"]
    """A batch is mixed by one draw, under the key of its first image."""


def forward(
    recipe: RecipeOptions, model: Classifier, batch: Batch, keys: Key[Array, " batch"]
) -> tuple[Float[Array, "batch classes"], Float[Array, "batch classes"], Float[Array, "batch h w 3"]]:
    """The logits of a model on a batch under a recipe, in float32, the soft targets, and the augmented images."""
    depth, classes = model.backbone.config.depth, len(model.head.bias)
    streams = Streams(*jnp.moveaxis(jax.vmap(lambda key: jr.split(key, len(Streams._fields)))(keys), 1, 0))
    images = batch["image"]
    if recipe.randaugment:
        images = jax.vmap(lambda image, key: randaugment(image, recipe.randaugment, key=key))(
            images, streams.randaugment
        )
    images = normalize(images)
    if recipe.erasing:
        images = jax.vmap(lambda image, key: erase(image, recipe.erasing, key=key))(images, streams.erasing)
    targets = smooth(batch["label"], classes, recipe.smoothing)
    images, targets = mix(images, targets, recipe.mixup, recipe.cutmix, key=streams.mixing[0])
    if recipe.drop_path:
        gates = jax.vmap(lambda key: drop_gates(depth, recipe.drop_path, key=key))(streams.drop_path)
        logits = jax.vmap(model)(images, gates)
    else:
        logits = jax.vmap(model)(images)
    return logits.astype(jnp.float32), targets, images


class Accuracy(NamedTuple):
    """How often the class of an image is the likeliest one, or among the five likeliest."""

    top1: float
    top5: float


def accuracy(logits: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]) -> Accuracy:
    """Top-1 and top-5 accuracy, in [0, 1]. Among equal logits the classes of lower index come first."""
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    return Accuracy(float(np.mean(rank < 1)), float(np.mean(rank < 5)))


@eqx.filter_jit
def logits_of(model: Classifier, images: UInt8[Array, "batch h w 3"]) -> Float[Array, "batch classes"]:
    """The logits of a batch, in float32."""
    return jax.vmap(model)(normalize(images)).astype(jnp.float32)


@eqx.filter_jit
def features_of(model: Classifier, images: UInt8[Array, "batch h w 3"]) -> Float[Array, "batch width"]:
    """What the head sees of a batch, in float32."""
    return jax.vmap(model.pooled)(normalize(images)).astype(jnp.float32)


def over(
    function: Callable[[PyTree, Array], Array],
    model: PyTree,
    chunks: Iterable[UInt8[np.ndarray, "chunk h w 3"]],
    count: int,
) -> Float[np.ndarray, "images out"]:
    """`function(model, images)` over chunks that hold `count` images and then some filling."""
    return np.concatenate([np.asarray(function(model, jnp.asarray(chunk))) for chunk in chunks])[:count]


def layer_scales(model: Classifier, decay: float) -> PyTree:
    """The learning rate of every leaf over that of the head (layer-wise decay; Clark et al., 2020; Bao et al., 2022).

    Embedding, class token and position table have decay^(L + 1); block i of L = 1 … L has decay^(L + 1 - i), by the
    model's own depth; the last norm and the head 1. Leaves of stacked blocks get one number a layer.
    """
    depth = model.backbone.config.depth

    def scale(path: tuple, leaf: Array) -> Float[Array, "..."] | None:
        name = trees.name_of(path)
        if not eqx.is_inexact_array(leaf):
            return None
        if name.startswith("backbone.blocks."):
            return (decay ** jnp.arange(depth, 0.0, -1)).reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.asarray(1.0 if name.startswith(("head.", "backbone.norm.")) else decay ** (depth + 1.0))

    return jax.tree_util.tree_map_with_path(scale, model)


def scaled(optimizer: optax.GradientTransformation, scales: PyTree) -> optax.GradientTransformation:
    """An optimiser whose every update, decay included, is multiplied leaf by leaf."""
    return optax.chain(optimizer, optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)))


class Standard(NamedTuple):
    """Mean and deviation of features over the training images."""

    mean: Float[np.ndarray, " width"]
    deviation: Float[np.ndarray, " width"]


def standard_of(features: Float[np.ndarray, "images width"]) -> Standard:
    """What MAE's batch normalisation without gain and bias converges to, for a frozen backbone."""
    return Standard(features.mean(axis=0), np.sqrt(features.var(axis=0) + 1e-6))


def probe_loss(head: Linear, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """Cross entropy of a linear head on standardised features."""
    logits = head(batch["feature"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def with_probe(model: Classifier, head: Linear, standard: Standard) -> Classifier:
    """The classifier whose head does on raw features what `head` does on standardised ones."""
    weight = head.weight / standard.deviation
    bias = head.bias - weight @ standard.mean
    return eqx.tree_at(lambda m: (m.head.weight, m.head.bias), model, (weight, bias))
