"""How a step's time grows with depth, width, tokens, batch and ranks, beside the FLOPs that are counted.

    python benchmarks/growth.py --picture docs/results/growth.png

Everything else is ViT-B in small with its light decoder. All points of a panel are timed in turns. Counted are all products,
attention's included, forward and backward; under Tucker also those that expand the weights, once a step, as XLA counts
them. `tucker` multiplies its weights out and `tucker, factored` applies factor by factor, in a panel of their own over the
ranks; a second table sets what `--application auto` counts there against what it takes, which is what `constrained.WORTH` rests on.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from weight_templates import cli
from weight_templates.config import Application, DecoderConfig, Family, ScalingOptions, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time steps of growing networks."""

    batch: int = 64
    """Images a step, where the batch is not what grows."""
    rounds: int = 5
    """Turns."""
    picture: str | None = None
    """A .png to draw the curves in."""


BASE, DECODER = ViTConfig(depth=12, head_dim=16), DecoderConfig()
LINES: dict[str, tuple[Family, Application]] = {
    "none": ("none", "expanded"),
    "tucker": ("tucker", "expanded"),
    "tucker, factored": ("tucker", "factored"),
}


class Point(NamedTuple):
    """A step among growing ones."""

    batch: int
    vit: ViTConfig = BASE
    ranks: tuple[int, int, int] | None = None


def panels(batch: int) -> dict[str, dict[int, Point]]:
    """What grows, and to what."""

    def sized(**sizes: int) -> Point:
        return Point(batch, dataclasses.replace(BASE, **sizes))

    return {
        "layers": {n: sized(depth=n) for n in (3, 6, 12, 24)},
        "heads": {n: sized(heads=n) for n in (3, 6, 12, 18)},
        "visible tokens": {(s // 4) ** 2 // 4 + 1: sized(image=s, depth=6) for s in (16, 32, 64)},
        "images": {n: Point(n) for n in (16, 32, 64, 128)},
        "ranks": {n: Point(batch, ranks=(24, n, n)) for n in (24, 48, 64, 80, 96, 192)},
    }


def main(config: Config) -> None:
    """Prints two tables in Markdown, and draws the first."""
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    if config.batch < 1:
        raise UserError(f"--batch {config.batch} has no images; give at least 1.")
    from benchmarks.interleave import timing, turns

    rows, took = [], {}
    print(
        "| what grows | to | step | GFLOPs | ms | of the smallest's (quartiles), fastest | FLOPs of the smallest's |\n"
        + "|---" * 7
        + "|"
    )
    for what, points in panels(config.batch).items():
        lines = ("tucker", "tucker, factored") if what == "ranks" else ("none", "tucker")
        took = turns({f"{line} {n}": step(line, point) for line in lines for n, point in points.items()}, config.rounds)
        for line in lines:
            first = next(iter(points))
            smallest = counted(line, points[first])
            for n, point in points.items():
                flops, t = counted(line, point), timing(took[f"{line} {n}"], took[f"{line} {first}"])
                rows.append({"what": what, "n": n, "step": line, "ms": 1e3 * t.seconds, "flops": flops})
                print(
                    f"| {what} | {n} | {line} | {flops / 1e9:.1f} | {1e3 * t.seconds:.0f} | {t.words} | "
                    f"{flops / smallest:.2f} |",
                    flush=True,
                )
    print("\nFactored of expanded, by ranks:\n")
    print("| ranks | FLOPs of the weights | of the step | time of the step (quartiles), fastest | `auto` is |")
    print("|---|---|---|---|---|")
    for n, point in panels(config.batch)["ranks"].items():
        t = timing(took[f"tucker, factored {n}"], took[f"tucker {n}"])
        print(f"| {n} | {' | '.join(shares(point))} | {t.words} | {chosen(point)} |")
    if config.picture:
        draw(rows, config.picture)


def step(line: str, point: Point) -> Callable[[], None]:
    """The step, ready to be timed."""
    import weight_templates as wt
    from benchmarks.steps import our_step

    family, application = LINES[line]
    return our_step(
        family,
        point.vit,
        DECODER,
        point.batch,
        scaled=ScalingOptions("off"),
        constraint=wt.Tucker(ranks=point.ranks) if family == "tucker" else None,
        application=application,
    )


def constrained(point: Point) -> tuple[Any, int]:
    """The shapes of the point's backbone under Tucker, and the tokens that it sees."""
    import equinox as eqx

    import weight_templates as wt
    from benchmarks import flops, steps

    model = eqx.filter_eval_shape(steps.auto_encoder, "tucker", point.vit, DECODER, wt.Tucker(ranks=point.ranks))
    return model.backbone, point.batch * flops.tokens(point.vit, DECODER)


def counted(line: str, point: Point) -> int:
    """The step's FLOPs."""
    from benchmarks import flops

    plain = flops.of_step(point.vit, DECODER, point.batch)
    return plain if line == "none" else plain + flops.of_constraint(*constrained(point), line == "tucker, factored")


def shares(point: Point) -> tuple[str, str]:
    """FLOPs factored over FLOPs expanded: of the governed weights alone, as `auto` counts them, and of the step."""
    import equinox as eqx

    from weight_templates.constrained import factored_share

    return (
        f"{eqx.filter_eval_shape(factored_share, *constrained(point)):.2f}",
        f"{counted('tucker, factored', point) / counted('tucker', point):.2f}",
    )


def chosen(point: Point) -> str:
    """What `--application auto` would do."""
    import equinox as eqx

    from weight_templates.constrained import is_cheaper_factored

    return "factored" if eqx.filter_eval_shape(is_cheaper_factored, *constrained(point)) else "expanded"


def told(points: list[int]) -> list[str]:
    """Labels of points on a logarithmic axis: of those that stand too close to the one before, none."""
    labels, last = [], 0.0
    for n in points:
        labels.append(str(n) if n > 1.3 * last else "")
        last = n if labels[-1] else last
    return labels


def draw(rows: list[dict[str, object]], path: str) -> None:
    """The curves on logarithmic axes; dotted: what the FLOPs alone would give, from the first point on."""
    import matplotlib as mpl
    import pandas as pd
    import seaborn as sns
    from matplotlib.figure import Figure

    table: Any = pd.DataFrame(rows)
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 8}):
        names = table["what"].unique()
        down = -(-len(names) // 3)
        figure = Figure(figsize=(6.6, 2.2 * down), layout="constrained")
        grid = figure.subplots(down, 3, sharey=True, squeeze=False).flatten()
        for empty in grid[len(names) :]:
            empty.set_axis_off()
        for axes, what in zip(grid, names, strict=False):
            some = table[table["what"] == what]
            sns.lineplot(some, x="n", y="ms", hue="step", style="step", markers=True, dashes=False, ax=axes, hue_order=list(LINES), style_order=list(LINES), legend=what == "layers")  # fmt: skip
            for _, own in some.groupby("step"):
                axes.plot(own["n"], own["flops"] * own["ms"].iloc[0] / own["flops"].iloc[0], ":", color="0.5", lw=1)
            axes.set(xscale="log", yscale="log", xlabel=what, ylabel="ms a step")
            axes.set_xticks(own := sorted(some["n"].unique()), told(own), minor=False)
            axes.minorticks_off()
        sns.despine(figure)
        figure.savefig(path, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
