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


def reconstruction_grid(
    shown: dict[str, tuple[MAE, int]], images: UInt8[Array, "batch h w 3"], path: Path, *, key: PRNGKeyArray
) -> dict[str, float]:
    """Draws images, what is visible of them, and several reconstructions.

    Reconstructions show the visible patches as they are; with `norm_pix`, hidden ones are put back at their own mean
    and deviation. All see the same patches.

    **Arguments:**

    - `shown`: auto-encoders, and the width in heads that each is to have, by the title of their column.

    **Returns:** the mean reconstruction loss of these images by title.
    """
    columns: list[tuple[str, np.ndarray]] = [("image", np.asarray(images) / 255)]
    losses = {}
    for title, (mae, count) in shown.items():
        painted, hidden, loss = _paint(mae, jnp.asarray(images), Widths(jnp.array(count), jnp.array(count)), key=key)
        if len(columns) == 1:
            columns.append(("visible", np.asarray(hidden)))
        losses[title] = float(loss)
        columns.append((title, np.asarray(painted)))
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(1.25 * len(columns), 1.25 * len(images) + 0.25), layout="constrained")
        grid = figure.subplots(len(images), len(columns), squeeze=False)
        for j, (title, pictures) in enumerate(columns):
            grid[0, j].set_title(title, fontsize=9)
            for i, picture in enumerate(pictures):
                grid[i, j].imshow(np.clip(picture, 0, 1), interpolation="nearest")
                grid[i, j].set_axis_off()
        figure.savefig(path, dpi=160, metadata={"Software": None})
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
