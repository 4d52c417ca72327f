"""Masked auto-encoding: hide most patches of an image, reconstruct them (He et al., 2022; SWEET Eq. 1)."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from .. import counting, data, pictures
from ..config import BackboneConfig, DataOptions, DecoderConfig
from ..data import Batch, Source, Split, denormalize, normalize
from ..models import MAE, Reconstruction, patchify, unpatchify
from ..models.mae import patch_statistics, reconstruction_loss
from .base import AbstractTask, Curves, Data, Terms, read


CHUNK = 128
"""Images that are judged at a time."""
DRAWN = 6
"""Images of a picture."""


class Views(NamedTuple):
    """Images to be judged by."""

    images: UInt8[Array, "images h w 3"]
    key: PRNGKeyArray
    """Chooses the hidden patches: always the same ones."""


class Masked(AbstractTask):
    """Masked auto-encoding as a training task."""

    score: ClassVar[str] = "loss"
    lowest: ClassVar[bool] = True
    terms: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[Curves] = Curves(
        "loss.png", {"loss": "training", "held_out_loss": "held out"}, "step", "reconstruction loss"
    )
    shown: ClassVar[str] = "reconstructions.png"

    decoder: DecoderConfig = eqx.field(static=True)
    seed: int = eqx.field(static=True, default=0)
    """Chooses the hidden patches of what is judged."""

    def tokens(self, config: BackboneConfig) -> int:
        return int((config.tokens - 1) * (1 - self.decoder.mask_ratio)) + 1

    def flops(self, config: BackboneConfig) -> int | float:
        return counting.count_mae(config, self.decoder)

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
        views = Views(
            jnp.asarray(data.evaluation_views(loaded, chosen.held_out, config.image)),
            jr.split(jr.key(self.seed), 3)[2],
        )
        return Data(
            data.feed_of(loaded, chosen, config.image, options, sharding),
            views,
            None,
            None,
            chosen,
            (),
            source.name,
            f"{len(loaded.good)} images of {source.name}",
            data.described(loaded).record(),
        )

    def attach(self, backbone: Any, classes: tuple[str, ...] = (), *, key: PRNGKeyArray) -> MAE:
        return MAE(backbone, self.decoder, key=key)

    def loss(self, model: MAE, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        return loss(model, batch, keys), {}

    def evaluate(self, model: MAE, views: Views) -> dict[str, float]:
        chunk = min(len(views.images), CHUNK)
        return {"loss": float(evaluate(model, views.images, chunk=chunk, key=views.key))}

    def picture(self, models: Mapping[str, MAE], views: Views, path: Path) -> None:
        columns, losses = reconstructions(models, views.images[:DRAWN], key=views.key)
        pictures.save(pictures.grid(columns, losses), path)


def loss(model: MAE, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """The mean reconstruction loss (SWEET Eq. 1) of a batch; `keys`, one an image, choose the hidden patches."""
    return jnp.mean(jax.vmap(reconstruction_loss)(_reconstruct(model, batch["image"], keys)))


def reconstruct(model: MAE, images: UInt8[Array, "batch h w 3"], *, key: PRNGKeyArray) -> Reconstruction:
    """Reconstructions of a batch, under masks that depend on `key` alone."""
    return _reconstruct(model, images, jr.split(key, len(images)))


@eqx.filter_jit
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


def reconstructions(
    models: Mapping[str, MAE], images: UInt8[Array, "batch h w 3"], *, key: PRNGKeyArray
) -> tuple[dict[str, UInt8[np.ndarray, "batch h w 3"]], dict[str, float]]:
    """Images, what is visible of them, and the reconstructions of several auto-encoders, which all see the same patches.

    Reconstructions show the visible patches as they are; with `norm_pix`, hidden ones are put back at their own mean
    and deviation, which the network does not predict.

    **Returns:** columns of a `pictures.grid` by title, and the mean loss of these images by the titles of `models`.
    """
    columns: dict[str, Any] = {"image": np.asarray(images)}
    losses = {}
    for title, model in models.items():
        painted, hidden, mean = _paint(model, jnp.asarray(images), key=key)
        columns.setdefault("visible", pictures.to_pixels(hidden))
        columns[title] = pictures.to_pixels(painted)
        losses[title] = float(mean)
    return columns, losses


@eqx.filter_jit
def _paint(
    model: MAE, images: UInt8[Array, "batch h w 3"], *, key: PRNGKeyArray
) -> tuple[Float[Array, "batch h w 3"], Float[Array, "batch h w 3"], Float[Array, ""]]:
    made = reconstruct(model, images, key=key)
    patch = model.backbone.config.patch
    pixels = eqx.filter_vmap(functools.partial(patchify, patch=patch))(normalize(images))
    predicted = made.predicted
    if model.config.norm_pix:
        mean, deviation = patch_statistics(pixels)
        predicted = predicted * deviation + mean
    hidden = made.hidden[..., None]
    together = eqx.filter_vmap(functools.partial(unpatchify, patch=patch))
    shown = denormalize(together(jnp.where(hidden, predicted, pixels)))
    grey = jnp.where(together(jnp.broadcast_to(hidden, pixels.shape)), 0.5, images / 255)
    return shown, grey, jnp.mean(eqx.filter_vmap(reconstruction_loss)(made))


def _reconstruct(model: MAE, images: UInt8[Array, "batch h w 3"], keys: Key[Array, " batch"]) -> Reconstruction:
    return jax.vmap(lambda image, key: model(image, key=key))(normalize(images), keys)
