"""How a step's time grows with depth, width, tokens and ranks, beside the FLOPs that are counted.

    python benchmarks/growth.py --picture docs/results/growth.png

Everything else is ViT-B in small with its light decoder. All points of a curve are timed in turns.
"""

import dataclasses
from typing import Any

from weight_templates import cli
from weight_templates.config import DecoderConfig, ScalingOptions, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time steps of growing networks."""

    batch: int = 64
    """Images a step."""
    rounds: int = 5
    """Turns."""
    picture: str | None = None
    """A .png to draw the curves in."""


BASE, DECODER = ViTConfig(depth=12, head_dim=16), DecoderConfig()
CURVES = {
    "layers": {n: dataclasses.replace(BASE, depth=n) for n in (3, 6, 12, 24)},
    "heads": {n: dataclasses.replace(BASE, heads=n) for n in (3, 6, 12, 18)},
    "visible tokens": {(s // 4) ** 2 // 4 + 1: dataclasses.replace(BASE, image=s, depth=6) for s in (16, 32, 64)},
    "ranks": dict.fromkeys((24, 48, 96, 192), BASE),
}


def main(config: Config) -> None:
    """Prints a table in Markdown, and draws it."""
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    import weight_templates as wt
    from benchmarks.interleave import compare
    from benchmarks.steps import our_step
    from weight_templates.counting import count_mae

    rows = []
    print(
        "| what grows | to | family | GFLOPs | ms | of the smallest's (quartiles), fastest | FLOPs of the smallest's |\n"
        + "|---" * 7
        + "|"
    )
    for what, curve in CURVES.items():
        for family in ("tucker",) if what == "ranks" else ("none", "tucker"):
            tasks, flops = {}, {}
            for n, vit in curve.items():
                constraint = wt.Tucker(ranks=(24, n, n)) if what == "ranks" else None
                tasks[str(n)] = our_step(
                    family,
                    vit,
                    DECODER,
                    config.batch,
                    scaled=ScalingOptions("off"),
                    constraint=constraint,
                    application="auto",
                )
                flops[str(n)] = 3 * count_mae(vit, DECODER) * config.batch
            first = next(iter(tasks))
            for n, t in compare(tasks, first, config.rounds).items():
                rows.append({"what": what, "n": int(n), "family": family, "ms": 1e3 * t.seconds, "flops": flops[n]})
                print(
                    f"| {what} | {n} | {family} | {flops[n] / 1e9:.1f} | {1e3 * t.seconds:.0f} | {t.words} | {flops[n] / flops[first]:.2f} |",
                    flush=True,
                )
    if config.picture:
        draw(rows, config.picture)


def draw(rows: list[dict[str, object]], path: str) -> None:
    """The curves on logarithmic axes; dotted: what the FLOPs alone would give, from the first point on."""
    import matplotlib as mpl
    import pandas as pd
    import seaborn as sns
    from matplotlib.figure import Figure

    table: Any = pd.DataFrame(rows)
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 2.8), layout="constrained")
        for axes, what in zip(figure.subplots(1, len(CURVES), sharey=True), CURVES, strict=True):
            some = table[table["what"] == what]
            sns.lineplot(some, x="n", y="ms", hue="family", style="family", markers=True, dashes=False, ax=axes, hue_order=["none", "tucker"], legend=what == "layers")  # fmt: skip
            for _, own in some.groupby("family"):
                axes.plot(own["n"], own["flops"] * own["ms"].iloc[0] / own["flops"].iloc[0], ":", color="0.5", lw=1)
            axes.set(xscale="log", yscale="log", xlabel=what, ylabel="ms a step")
            axes.set_xticks(some["n"].unique(), map(str, some["n"].unique()), minor=False)
            axes.minorticks_off()
        sns.despine(figure)
        figure.savefig(path, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
