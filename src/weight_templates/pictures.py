"""Pictures of a run: curves of metrics, and grids of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float, UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter


def widths_to_show(heads: int) -> list[int]:
    """A quarter, a half, three quarters and all of the heads: 3, 6, 9 and 12 of 12."""
    return sorted({max(1, round(heads * part / 4)) for part in (1, 2, 3, 4)})


def title_of(heads: int) -> str:
    """What a column of a grid is called that shows a width."""
    return f"{heads} head{'s' if heads > 1 else ''}"


def curves(
    metrics: list[dict[str, Any]], lines: dict[str, str], time: str, unit: str, title: str, share: bool = False
) -> Figure:
    """Metrics against time.

    **Arguments:**

    - `metrics`: what was recorded, a dictionary for each moment.
    - `lines`: the metrics to draw, and what they are called in the legend.
    - `time`: `step` or `epoch`.
    - `unit`: what the vertical axis is called.
    - `share`: whether the numbers are shares in [0, 1], written as percentages.
    """
    import pandas as pd
    import seaborn as sns

    rows = [
        {time: line[time], "value": line[name], "what": label}
        for line in metrics
        for name, label in lines.items()
        if name in line
    ]
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        table = pd.DataFrame(rows, columns=[time, "value", "what"])
        sns.lineplot(table, x=time, y="value", hue="what", style="what", markers=share, errorbar=None, ax=axes)
        axes.set_title(title.replace("$", r"\$"), fontsize=10)
        axes.set_ylabel(unit)
        if share:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_ylim(0, 1)
        if rows:
            axes.legend(title=None)
        sns.despine(figure)
    return figure


def grid(columns: Mapping[str, UInt8[np.ndarray, "batch h w 3"]], losses: Mapping[str, float]) -> Figure:
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


def labelled(images: UInt8[np.ndarray, "batch h w 3"], titles: list[str], right: list[bool], across: int = 6) -> Figure:
    """Images in rows of `across`, each under a title, which is red and marked with a cross where it is wrong."""
    down = -(-len(images) // across)
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(6.6, 1.35 * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).reshape(-1)
        for panel in panels:
            panel.set_axis_off()
        for panel, image, title, good in zip(panels, images, titles, right, strict=False):
            panel.imshow(image, interpolation="nearest")
            words = title.replace("$", r"\$") if good else f"✗ {title}".replace("$", r"\$")
            panel.set_title(words, fontsize=7, color="black" if good else "#b03030")
    return figure


def to_pixels(pictures: Float[Array, "batch h w 3"]) -> UInt8[np.ndarray, "batch h w 3"]:
    """Intensities in [0, 1] as pixels."""
    return np.round(255 * np.clip(np.asarray(pictures), 0, 1)).astype(np.uint8)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG; the same figure gives the same bytes."""
    figure.savefig(path, dpi=160, metadata={"Software": None})
