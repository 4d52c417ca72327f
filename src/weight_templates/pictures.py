"""Pictures of a run: the loss, and what the auto-encoder makes of images at several widths."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .constrained import Widths, materialize
from .data import denormalize, normalize
from .models import MAE, patchify, unpatchify
from .models.mae import patch_statistics
from .tasks import masked


def widths_to_show(heads: int) -> list[int]:
    """A quarter, a half, three quarters and all of the heads: 3, 6, 9 and 12 of 12."""
    return sorted({max(1, round(heads * part / 4)) for part in (1, 2, 3, 4)})


def loss_curve(metrics: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draws the training loss and the held-out loss against the step."""
    figure, axes = _curves(metrics, {"loss": "training", "held_out_loss": "held out"}, "step", title)
    axes.set_ylabel("reconstruction loss")
    figure.savefig(path, dpi=160, metadata={"Software": None})


def accuracy_curve(metrics: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draws the held-out top-1 and top-5 accuracy against the epoch."""
    figure, axes = _curves(metrics, {"held_out_top1": "top-1", "held_out_top5": "top-5"}, "epoch", title, markers=True)
    axes.set_ylabel("accuracy on held-out images")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, 1)
    figure.savefig(path, dpi=160, metadata={"Software": None})


def _curves(
    metrics: list[dict[str, Any]], labels: dict[str, str], x: str, title: str, markers: bool = False
) -> tuple[Figure, Axes]:
    """A figure with one line for each of the metrics that `labels` names."""
    import pandas as pd
    import seaborn as sns

    rows = [
        {x: line[x], "value": line[name], "what": label}
        for line in metrics
        for name, label in labels.items()
        if name in line
    ]
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        table = pd.DataFrame(rows)
        sns.lineplot(table, x=x, y="value", hue="what", style="what", markers=markers, errorbar=None, ax=axes)
        axes.set_title(title, fontsize=10)
        axes.legend(title=None)
        sns.despine(figure)
    return figure, axes


def widths_of(mae: MAE, heads: Iterable[int]) -> dict[str, tuple[MAE, int]]:
    """The columns of a grid of reconstructions at several widths of one bank."""
    return {f"{count} head{'s' if count > 1 else ''}": (mae, count) for count in heads}


def reconstructions(
    shown: dict[str, tuple[MAE, int]], images: UInt8[Array, "batch h w 3"], *, key: PRNGKeyArray
) -> tuple[dict[str, UInt8[np.ndarray, "batch h w 3"]], dict[str, float]]:
    """Images, what is visible of them, and several reconstructions.

    Reconstructions show the visible patches as they are; with `norm_pix`, hidden ones are put back at their own mean
    and deviation, which the network does not predict. All see the same patches.

    **Arguments:**

    - `shown`: auto-encoders, and the width in heads that each is to have, by the title of their column.

    **Returns:** the columns of a `grid` by title, and the mean reconstruction loss of these images by the titles of `shown`.
    """
    columns: dict[str, Any] = {"image": np.asarray(images)}
    losses = {}
    for title, (mae, count) in shown.items():
        painted, hidden, loss = _paint(mae, jnp.asarray(images), Widths(jnp.array(count), jnp.array(count)), key=key)
        columns.setdefault("visible", _pixels(hidden))
        columns[title] = _pixels(painted)
        losses[title] = float(loss)
    return columns, losses


def _pixels(pictures: Float[Array, "batch h w 3"]) -> UInt8[np.ndarray, "batch h w 3"]:
    return np.round(255 * np.clip(np.asarray(pictures), 0, 1)).astype(np.uint8)


def grid(columns: dict[str, UInt8[np.ndarray, "batch h w 3"]], losses: dict[str, float]) -> Figure:
    """A figure with a column for each of several batches of pictures, and its title and loss above it; 6.6 inches wide."""
    count = len(next(iter(columns.values())))
    side = 6.6 / len(columns)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(6.6, side * count + 0.35), layout="constrained")
        panels = figure.subplots(count, len(columns), squeeze=False)
        for j, (title, pictures) in enumerate(columns.items()):
            panels[0, j].set_title(title + (f"\n{losses[title]:.3f}" if title in losses else ""), fontsize=8)
            for i, picture in enumerate(pictures):
                panels[i, j].imshow(picture, interpolation="nearest")
                panels[i, j].set_axis_off()
    return figure


def reconstruction_grid(
    shown: dict[str, tuple[MAE, int]], images: UInt8[Array, "batch h w 3"], path: Path, *, key: PRNGKeyArray
) -> dict[str, float]:
    """Draws `reconstructions` as a `grid`; returns the losses."""
    columns, losses = reconstructions(shown, images, key=key)
    grid(columns, losses).savefig(path, dpi=160, metadata={"Software": None})
    return losses


@eqx.filter_jit
def _paint(
    mae: MAE, images: UInt8[Array, "batch h w 3"], widths: Widths, *, key: PRNGKeyArray
) -> tuple[Float[Array, "batch h w 3"], Float[Array, "batch h w 3"], Float[Array, ""]]:
    model = materialize(mae, widths)
    made = masked.reconstruct(model, images, key=key)
    patch = mae.encoder.config.patch
    pixels = eqx.filter_vmap(functools.partial(patchify, patch=patch))(normalize(images))
    predicted = made.predicted
    if mae.config.norm_pix:
        mean, deviation = patch_statistics(pixels)
        predicted = predicted * deviation + mean
    hidden = made.hidden[..., None]
    together = eqx.filter_vmap(functools.partial(unpatchify, patch=patch))
    shown = denormalize(together(jnp.where(hidden, predicted, pixels)))
    grey = jnp.where(together(jnp.broadcast_to(hidden, pixels.shape)), 0.5, images / 255)
    loss = jnp.mean(eqx.filter_vmap(masked.reconstruction_loss)(made))
    return shown, grey, loss
