"""Classification: the loss under a recipe of augmentations, top-k accuracy, and linear probes on frozen features."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree, UInt8

from .. import counting, data, pictures
from ..config import BackboneConfig, DataOptions, RecipeOptions, ViTConfig, depths
from ..data import Batch, Source, Split, normalize
from ..data.randaugment import randaugment
from ..data.regularize import drop_gates, erase, mix, smooth
from ..errors import UserError
from ..models import Classifier
from ..nn import Linear
from .base import AbstractTask, Curves, Data, Terms, read


HELD_OUT = 1 / 10
"""Share of the training images that chooses the best state."""
CURVES = Curves(
    "accuracy.png",
    {"held_out_top1": "top-1", "held_out_top5": "top-5"},
    "epoch",
    "accuracy on held-out images",
    share=True,
)


class Labelled(NamedTuple):
    """Images to be judged by, or what a frozen backbone made of them, with their classes."""

    views: Any
    """`data.Views`; for a probe an array of features."""
    labels: Int[np.ndarray, " images"]
    classes: tuple[str, ...] = ()


class Classify(AbstractTask):
    """Classification as a training task: all weights are trained, on augmented images."""

    score: ClassVar[str] = "top1"
    lowest: ClassVar[bool] = False
    terms: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[Curves] = CURVES
    shown: ClassVar[str] = "predictions.png"

    recipe: RecipeOptions = eqx.field(static=True, default=RecipeOptions())
    pool: str = eqx.field(static=True, default="mean")
    """What the head sees; see the backbone's `pooled`."""

    def tokens(self, config: BackboneConfig) -> int:
        return config.tokens

    def flops(self, config: BackboneConfig) -> int | float:
        return counting.count(config).flops

    def split(self, good: Int[np.ndarray, " good"], batch: int, seed: int, flag: str | None = "--optim.batch") -> Split:
        return data.split(good, batch, seed, part=HELD_OUT, most=float("inf"), flag=flag)

    def open(
        self,
        source: Source,
        options: DataOptions,
        config: BackboneConfig,
        sharding: Any,
        *,
        batch: int,
        seed: int,
        test: Source | None = None,
    ) -> Data:
        loaded = read(source, options)
        data.check_classes(source)
        labels = np.full(len(source), -1, np.int32)
        labels[loaded.good] = data.labels_of(loaded, loaded.good, source.classes)
        chosen = self.split(loaded.good, batch, seed)
        held_out = data.views_of(loaded, chosen.held_out, config.image, options)
        tested = None
        if test is not None:
            others = read(test, options)
            own = data.labels_of(others, others.good, source.classes)
            tested = Labelled(data.views_of(others, others.good, config.image, options), own, source.classes)
        return Data(
            data.feed_of(loaded, chosen, config.image, options, sharding, self.recipe.crop),
            Labelled(held_out, labels[chosen.held_out], source.classes),
            tested,
            Labelled(data.views_of(loaded, chosen.train, config.image, options), labels[chosen.train], source.classes),
            chosen,
            source.classes,
            source.name,
            f"{len(loaded.good)} images of {source.name}",
            data.described(loaded).record(),
        )

    def attach(self, backbone: Any, classes: tuple[str, ...], *, key: PRNGKeyArray) -> Classifier:
        if self.pool == "cls" and not isinstance(backbone.config, ViTConfig):
            raise UserError("--pool cls is for vision transformers, which have a class token; say --pool mean.")
        return Classifier(backbone, len(classes), self.pool, key=key)

    def loss(self, model: Classifier, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        logits, targets, _ = forward(self.recipe, model, batch, keys)
        return optax.softmax_cross_entropy(logits, targets).mean(), {}

    def evaluate(self, model: Classifier, views: Labelled) -> dict[str, float]:
        return accuracy(over(logits_of, model, views.views, len(views.views)), views.labels)._asdict()

    def picture(self, models: Mapping[str, Classifier], views: Labelled, path: Path) -> None:
        """Draws up to 24 images, each with the class that the last of the models takes it for."""
        chunk = next(iter(views.views))[: min(24, len(views.views))]
        model = list(models.values())[-1]
        found = np.asarray(logits_of(model, jnp.asarray(chunk))).argmax(axis=1)
        names = [views.classes[i] for i in found]
        right = [bool(i == label) for i, label in zip(found, views.labels, strict=False)]
        pictures.save(pictures.labelled(chunk, names, right), path)


class Probe(AbstractTask):
    """A linear head on what a frozen backbone makes of images, standardised; `features` makes its data."""

    score: ClassVar[str] = "top1"
    lowest: ClassVar[bool] = False
    terms: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[Curves] = CURVES
    shown: ClassVar[str] = "predictions.png"

    classify: Classify

    def tokens(self, config: BackboneConfig) -> int:
        return config.tokens

    def flops(self, config: BackboneConfig) -> int | float:
        return 0.0

    def split(self, good: Int[np.ndarray, " good"], batch: int, seed: int, flag: str | None = "--optim.batch") -> Split:
        return self.classify.split(good, batch, seed, flag)

    def open(self, source: Source, options: DataOptions, config: BackboneConfig, sharding: Any, **words: Any) -> Data:
        return self.classify.open(source, options, config, sharding, **words)

    def attach(self, backbone: Any, classes: tuple[str, ...], *, key: PRNGKeyArray) -> Classifier:
        return self.classify.attach(backbone, classes, key=key)

    def loss(self, model: Linear, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        return probe_loss(model, batch, keys), {}

    def evaluate(self, model: Linear, views: Labelled) -> dict[str, float]:
        return accuracy(np.asarray(jax.vmap(model)(views.views)), views.labels)._asdict()

    def picture(self, models: Mapping[str, Classifier], views: Labelled, path: Path) -> None:
        self.classify.picture(models, views, path)


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
    """The logits of a model on a batch under a recipe, in float32, the soft targets, and the augmented images.

    RandAugment, normalisation, random erasing, then mixup or cutmix, in timm's order. Crops and flips are the feed's.
    """
    config, classes = model.backbone.config, len(model.head.bias)
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
        gates = jax.vmap(lambda key: drop_gates(sum(depths(config)), recipe.drop_path, config.branches, key=key))(
            streams.drop_path
        )
        logits = jax.vmap(model)(images, gates)
    else:
        logits = jax.vmap(model)(images)
    return logits.astype(jnp.float32), targets, images


class Accuracy(NamedTuple):
    """How often the class of an image is the likeliest one, or among the five likeliest."""

    top1: float
    top5: float


def accuracy(logits: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]) -> Accuracy:
    """Top-1 and top-5 accuracy, in [0, 1]. Among equal logits the classes of lower index come first; where a logit is not
    a number, the answer is wrong."""
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    told = ~np.isnan(logits).any(axis=1)
    return Accuracy(float(np.mean(told & (rank < 1))), float(np.mean(told & (rank < 5))))


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


def features(model: Classifier, images: Data, sharding: Any) -> tuple[Data, Standard]:
    """What a probe learns from: the features of all images, made once by the frozen backbone of `model`.

    **Returns:** data of standardised features, and the mean and deviation by which they are.
    """
    raw, raw_held = (over(features_of, model, v.views, len(v.views)) for v in (images.training, images.held_out))
    standard = standard_of(raw)
    made, held = (jnp.asarray((x - standard.mean) / standard.deviation) for x in (raw, raw_held))
    feed = data.Features(made, jnp.asarray(images.training.labels), images.split, sharding)
    return dataclasses.replace(images, feed=feed, held_out=images.held_out._replace(views=held)), standard
