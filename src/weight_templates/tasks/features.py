"""Features: a network under a constraint learns to compute what another network computes, at any width.

This fits a bank that was made by a decomposition to the function of its source. The teacher's features are standardised by
their mean and deviation over the positions of an image, channel by channel, so that no channel dominates; a linear map,
which begins as the identity, takes the student's features to them. Under width masks the student's features beyond the
width are zero, so that each prefix of the width learns to tell as much as it can. Both choices are ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree, UInt8

from .. import counting, data, pictures
from ..config import BackboneConfig, DataOptions
from ..data import Batch, Source, Split, normalize
from ..models import AbstractHead, Bare
from ..nn import Linear
from .base import AbstractTask, Curves, Data, Terms, read


DRAWN = 6
"""Images of a picture."""


class Pair(AbstractHead):
    """A backbone that learns, and the one that it learns from."""

    backbone: Any
    teacher: Any
    project: Linear

    def __init__(self, backbone: Any, teacher: Any, *, key: PRNGKeyArray):
        """The map between their features begins as the identity."""
        axis = teacher.config.features
        width = teacher.config.axes()[axis]
        self.backbone, self.teacher = backbone, teacher
        linear = Linear(width, width, reads=axis, key=key)
        self.project = eqx.tree_at(lambda p: p.weight, linear, jnp.eye(width))

    @property
    def options(self) -> dict[str, Any]:
        raise TypeError("a teacher is not part of a bank; keep `Bare(pair.backbone)`")

    @classmethod
    def around(cls, backbone: Any, options: dict[str, Any], *, key: PRNGKeyArray) -> "Pair":
        return cls(backbone, **options, key=key)

    def __call__(self, image: Float[Array, "h w 3"]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """The student's features of an image, mapped to the teacher's, and the teacher's, in float32."""
        goal = jax.lax.stop_gradient(self.teacher(image)).astype(jnp.float32)
        return self.project(self.backbone(image)).astype(jnp.float32), goal


class Features(AbstractTask):
    """Distillation of features; labels are not looked at."""

    score: ClassVar[str] = "distance"
    lowest: ClassVar[bool] = True
    terms: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[Curves] = Curves(
        "loss.png", {"loss": "training", "held_out_distance": "held out"}, "step", "distance of features"
    )
    shown: ClassVar[str] = "features.png"

    def tokens(self, config: BackboneConfig) -> int:
        return config.tokens

    def flops(self, config: BackboneConfig) -> int | float:
        return counting.count(config).flops

    def split(self, good: Int[np.ndarray, " good"], batch: int, seed: int, flag: str | None = "--optim.batch") -> Split:
        return data.split(good, batch, seed, flag=flag)

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
        chosen = self.split(loaded.good, batch, seed)
        image: int = config.image  # pyright: ignore[reportAttributeAccessIssue]
        return Data(
            data.feed_of(loaded, chosen, image, options, sharding),
            jnp.asarray(data.evaluation_views(loaded, chosen.held_out, image)),
            None,
            None,
            chosen,
            (),
            source.name,
            f"{len(loaded.good)} images of {source.name}",
            data.described(loaded).record(),
        )

    def attach(self, backbone: Any, classes: tuple[str, ...], *, key: PRNGKeyArray) -> Bare:
        return Bare(backbone)

    def loss(self, model: Pair, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        return distances(model, batch["image"]).mean(), {}

    def evaluate(self, model: Pair, views: UInt8[Array, "images h w 3"]) -> dict[str, float]:
        chunks = [_distances(model, views[i : i + 64]) for i in range(0, len(views), 64)]
        return {"distance": float(np.concatenate([np.asarray(chunk) for chunk in chunks]).mean())}

    def picture(self, models: Mapping[str, PyTree], views: UInt8[Array, "images h w 3"], path: Path) -> None:
        """Draws the features of some images as colours: their three leading directions in the last of the models."""
        images = views[:DRAWN]
        maps = {title: _map(getattr(model, "backbone", model), images) for title, model in models.items()}
        last = list(maps.values())[-1]
        flat = last.reshape(-1, last.shape[-1])
        mean = flat.mean(axis=0)
        directions = np.linalg.svd(flat - mean, full_matrices=False)[2][:3]
        columns: dict[str, Any] = {"image": np.asarray(images)}
        for title, found in maps.items():
            padded = np.pad(found, ((0, 0), (0, 0), (0, 0), (0, last.shape[-1] - found.shape[-1])))
            colours = (padded - mean) @ directions.T
            low, high = np.percentile(colours, [2, 98], axis=(0, 1, 2))
            columns[title] = pictures.to_pixels(jnp.asarray((colours - low) / np.maximum(high - low, 1e-6)))
        pictures.save(pictures.grid(columns, {}), path)


def distances(pair: Pair, images: UInt8[Array, "batch h w 3"]) -> Float[Array, " batch"]:
    """The mean squared distance between the student's features and the teacher's, by image, in units of the variance of
    the teacher's channels over the positions of that image."""

    def one(image: Float[Array, "h w 3"]) -> Float[Array, ""]:
        found, goal = pair(image)
        axes = tuple(range(goal.ndim - 1))
        scale = goal.var(axis=axes, keepdims=True).mean() + 1e-6
        return jnp.mean(jnp.square(found - goal)) / scale

    return jax.vmap(one)(normalize(images))


_distances = eqx.filter_jit(distances)


@eqx.filter_jit
def _features(backbone: Any, images: UInt8[Array, "batch h w 3"]) -> Float[Array, "batch *position width"]:
    return jax.vmap(backbone)(normalize(images)).astype(jnp.float32)


def _map(backbone: Any, images: UInt8[Array, "batch h w 3"]) -> Float[np.ndarray, "batch row col width"]:
    """Features on their square grid; a class token is left out."""
    found = np.asarray(_features(backbone, images))
    if found.ndim == 4:
        return found
    side = int(found.shape[1] ** 0.5)
    return found[:, -(side**2) :].reshape(len(found), side, side, -1)
