"""Reconstructions across sizes (the counterpart of SWEET's Figure 4), from the records of adapted networks alone."""

import base64
import io
from typing import Any

import numpy as np
from figures.records import save


CAPTION = (
    "Images of the set of pre-training, {whose}, the patches of them that are visible, and what the adapted auto-encoders of several "
    "sizes make of it; above them the loss over 64 such images. Hidden patches are put back at their own mean and deviation where the networks were "
    "trained on normalised pixels, as by default, since they do not predict these."
)


ACROSS = 9
"""Columns beside each other: as many as have room for their titles."""


def drawn(runs: Any) -> list[dict[str, Any]]:
    """The runs that have pictures, one a size; none where there is one size, of which nothing can be compared."""
    if "pictures" not in runs:
        return []
    some = runs[runs["pictures"].notna()].drop_duplicates("size").to_dict("records")
    return some if len(some) > 1 else []


def words(runs: Any, name: str) -> list[str]:
    """What a page says of the figure, if there is one."""
    if not (some := drawn(runs)):
        return []
    splits = sorted({run["pictures"].get("split", "train") for run in some})
    whose = "most of which the bank has seen" if "train" in splits else f"its split {' and '.join(splits)}"
    return ["", f"![reconstructions across sizes]({name}-reconstructions.png)", "", CAPTION.format(whose=whose)]


def draw(runs: Any, name: str) -> None:
    """Writes the figure, if any run has pictures."""
    if not (some := drawn(runs)):
        return
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from PIL import Image

    strips = [np.asarray(Image.open(io.BytesIO(base64.b64decode(run["pictures"]["png"])))) for run in some]
    side = strips[0].shape[1] // 3
    columns = {"image": strips[0][:, :side], "visible": strips[0][:, side : 2 * side]}
    for run, strip in zip(some, strips, strict=True):
        columns[f"{run['size']}\n{run['pictures']['loss']:.3f}"] = strip[:, 2 * side :]
    rows = -(-len(columns) // ACROSS)
    across = min(ACROSS, len(columns))
    with mpl.rc_context({"font.size": 8}):
        tall = 6.6 / across * len(strips[0]) / side + 0.4
        figure = Figure(figsize=(6.6, rows * tall), layout="constrained")
        grid = [*figure.subplots(rows, across, squeeze=False).flat]
        for axes in grid:
            axes.set_axis_off()
        for axes, (title, strip) in zip(grid, columns.items(), strict=False):
            axes.imshow(strip, interpolation="nearest")
            axes.set_title(title, fontsize=8)
        save(figure, f"{name}-reconstructions")
