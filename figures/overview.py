"""Draws the idea: one template, thin scalers, models of any size (the counterpart of SWEET's Figures 1 and 2).

    python figures/overview.py

writes `docs/overview.png` and, for print, `docs/overview.pdf`. Nothing in it is measured.
"""

from pathlib import Path

import matplotlib as mpl
from figures.records import UNDATED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle


TEMPLATE, SLICE, ROW, COL, WEIGHT = "#c44e52", "#8172b3", "#4c72b0", "#55a868", "#d9d9d9"
TARGET = Path(__file__).parents[1] / "docs" / "overview.png"


def box(axes: Axes, x: float, y: float, w: float, h: float, d: float, color: str, kept: float = 1.0) -> None:
    """A box seen from the left, above and in front: `w` x `h`, `d` deep. What is not `kept` of it is pale."""
    shift = 0.45 * d
    faces = (
        [(x, y), (x + w, y), (x + w, y + h), (x, y + h)],
        [(x, y + h), (x + w, y + h), (x + w + shift, y + h + shift), (x + shift, y + h + shift)],
        [(x + w, y), (x + w + shift, y + shift), (x + w + shift, y + h + shift), (x + w, y + h)],
    )
    for face, alpha in zip(faces, (0.9, 0.65, 0.5), strict=True):
        axes.add_patch(Polygon(face, facecolor=color, edgecolor="white", linewidth=0.8, alpha=alpha * kept))


def strip(axes: Axes, x: float, y: float, w: float, h: float, color: str, kept: float = 1.0) -> None:
    """A matrix of which the first `kept` is in use: from the top if it stands, from the left if it lies."""
    axes.add_patch(Rectangle((x, y), w, h, facecolor=color, alpha=0.2, edgecolor="none"))
    if h >= w:
        y, h = y + h * (1 - kept), h * kept
    else:
        w = w * kept
    axes.add_patch(Rectangle((x, y), w, h, facecolor=color, alpha=0.9, edgecolor="none"))


def factors(axes: Axes, x: float, y: float, depth: float, rows: float, cols: float) -> None:
    """The template with its three scalers, of which a part is in use."""
    box(axes, x + 0.55, y + 0.5, 0.7, 0.7, 0.5, TEMPLATE)
    strip(axes, x, y + 0.1, 0.3, 1.5, ROW, rows)
    strip(axes, x + 0.4, y - 0.25, 1.5, 0.3, COL, cols)
    strip(axes, x + 1.7, y + 0.3, 0.3, 1.3, SLICE, depth)


def arrow(axes: Axes, x0: float, x1: float, y: float) -> None:
    """An arrow to the right."""
    axes.add_patch(FancyArrowPatch((x0, y), (x1, y), arrowstyle="-|>", mutation_scale=14, color="0.3", linewidth=1.4))


def main() -> None:
    """Writes the picture."""
    with mpl.rc_context({"font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.set_xlim(-0.4, 13.2)
        axes.set_ylim(-1.6, 3.95)
        axes.set_aspect("equal")
        axes.set_axis_off()

        axes.text(2.35, 3.7, "pre-train under a constraint", ha="center", weight="bold")
        factors(axes, 0, 0.9, 1, 0.67, 0.67)  # what is pale is masked in this step
        for x, y, text, color in (
            (0.15, 2.6, "U\nrows: heads,\nhidden units", ROW),
            (1.15, 0.45, "V  columns:\nresidual channels", COL),
            (1.9, 2.6, "X\nslices:\nlayers", SLICE),
        ):
            axes.text(x, y, text, ha="center", va="bottom" if y > 1 else "top", color=color)
        axes.text(0.9, 1.75, "G", ha="center", va="center", color="white", weight="bold")
        arrow(axes, 2.3, 2.9, 1.7)
        for i in range(5):
            shift = 0.17 * (4 - i)
            axes.add_patch(
                Rectangle((3.1 + shift, 0.85 + shift), 1.3, 1.3, facecolor=WEIGHT, edgecolor="white", linewidth=1.2)
            )
        axes.add_patch(Rectangle((3.1, 1.28), 0.87, 0.87, facecolor="none", edgecolor=TEMPLATE, linewidth=1.6))
        axes.text(3.53, 1.72, "kept", ha="center", va="center", color=TEMPLATE)
        axes.text(3.75, 0.7, "W = G ×₁ X ×₂ U ×₃ V", ha="center", va="top")
        axes.text(
            3.75,
            0.3,
            "all matrices of a ViT,\nin D × D slices, and what\nmasks keep of it in a step",
            ha="center",
            va="top",
            color="0.35",
        )
        axes.text(
            2.35, -0.85, "masked auto-encoding; masks leave a random\nprefix of the width, so that each is a model",
            ha="center", va="top", color="0.25",
        )  # fmt: skip

        arrow(axes, 5.15, 6.0, 1.7)
        axes.text(5.55, 1.95, "bank", ha="center")

        axes.text(9.6, 3.7, "initialise any size", ha="center", weight="bold")
        sizes = (
            (6.3, 1.0, 0.5, "12 layers, 6 heads"),
            (8.75, 0.5, 1.0, "6 layers, 12 heads"),
            (11.2, 0.5, 0.5, "6 layers, 6 heads"),
        )
        for x, depth, width, text in sizes:
            factors(axes, x, 0.9, depth, width, width)
            axes.text(x + 1.0, 0.4, text, ha="center", va="top")
        axes.text(
            9.6, -0.85, "the template stays; scalers are sliced, or learned in a few hundred steps;\n"
            "the constraint is lifted, and what is left is a plain model to train as usual",
            ha="center", va="top", color="0.25",
        )  # fmt: skip
        figure.savefig(TARGET, dpi=150, metadata={"Software": None})
        figure.savefig(TARGET.with_suffix(".pdf"), metadata=UNDATED)


if __name__ == "__main__":
    main()
