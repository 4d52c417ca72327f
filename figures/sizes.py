"""Tables and figures of `ablations/sizes.py`, from its records alone: accuracy over a grid of sizes, and convergence.

    python figures/sizes.py

reads `results/sizes.json` and writes `docs/results/sizes.md` with its figures.
"""

from typing import Any

import numpy as np
from figures import reconstructions, records
from figures.records import HEADS, by_epoch, commits, devices, noise, rates, read, save, slug, spread, write


ARMS = ("probe of a random network", "zero-shot probe", "adapted probe", "scratch", "initialised", "adapted")
GAINING = ("initialised", "adapted")
PROBES = {"scratch": ARMS[0], "initialised": ARMS[1], "adapted": ARMS[2]}
"""The probe of the network that each starts as."""


TITLES = {"sizes": "Any size from one bank"}


def main(name: str = "sizes") -> None:
    """Writes a page and its figures."""
    about, runs = read(name)
    if about["head"] == "probe":
        runs["curve"] = [from_probe(runs, run) for run in runs.to_dict("records")]
    write(name, page(name, about, runs))
    reconstructions.draw(runs, name)
    for data in runs["data"].unique():
        against_parameters(runs[runs["data"] == data], f"{name}-{slug(data)}-parameters")
        curves(runs[runs["data"] == data], f"{name}-{slug(data)}-curves")


def from_probe(runs: Any, run: dict[str, Any]) -> list[list[float]]:
    """A curve of held-out accuracy that begins, at epoch 0, with the probe whose head the network had."""
    if run["arm"] not in PROBES:
        return run["curve"]
    same = runs["arm"] == PROBES[run["arm"]]
    for key in ("data", "depth", "heads", "seed"):
        same &= runs[key] == run[key]
    return records.begun(run["curve"], {"held_out": runs[same]["held_out"].iloc[0]} if same.any() else None)


def page(name: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    bank, model = about["bank"], about["bank"]["model"]
    seeds = runs["seed"].nunique()
    adaptation = about.get("adaptation")
    adapted = (
        f" The adapted ones' scalers first learned, template frozen, for {adaptation['steps']} steps of {adaptation['batch']} "
        f"images of {adaptation['data']}."
        if adaptation
        else ""
    )
    text = [
        f"# {records.title(TITLES, name)}",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        f"One {bank['family']} bank, {records.pretraining(bank)}: {model['depth']} layers, {model['heads']} heads of "
        f"{model['head_dim']} channels, {model['image']} px, patches of {model['patch']} px. Every network is fine-tuned on at most {about['count']} training images, a tenth "
        f"of them held out, for {about['epochs']} epochs of batch {about['batch']} at a base learning rate of "
        f"{rates(about)}, crops and flips and label smoothing, its head {HEADS[about['head']]}; all alike.{adapted} {seeds} seed(s). "
        f"Trained at {commits(runs)} on {devices(runs)}.",
        "",
        "Numbers are top-1 / top-5 accuracy in percent on test images (on tiny-imagenet its validation split), of the epoch that "
        "was best on the held-out images. *Gain* is over scratch's top-1. *Ratio* is the epochs after which a network has scratch's "
        "final held-out accuracy, between evaluations by linear interpolation, over all epochs: 1 would be no gain, 0 is "
        "before the first step, a dash says never.",
    ]
    text += reconstructions.words(runs, name)
    for data in runs["data"].unique():
        text += ["", f"## {data}", "", *table(runs[runs["data"] == data]), "", chance(runs[runs["data"] == data])]
        for kind, words in (
            ("parameters", "accuracy against parameters"),
            ("curves", "held-out accuracy while training"),
        ):
            text += ["", f"![{words}, {data}]({name}-{slug(data)}-{kind}.png)"]
    return text


def table(runs: Any) -> list[str]:
    """One row a size."""
    arms = [arm for arm in ARMS if arm in set(runs["arm"])]
    gaining = [arm for arm in GAINING if arm in arms]
    heading = ["layers", "heads", "parameters", *arms] + [
        f"{what}, {arm}" for arm in gaining for what in ("gain", "ratio")
    ]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    gains: dict[str, dict[str, float]] = {arm: {} for arm in gaining}
    for (depth, heads), some in runs.groupby(["depth", "heads"]):
        cells = {arm: some[some["arm"] == arm].set_index("seed").sort_index() for arm in arms}
        row = [str(depth), str(heads), f"{int(some['parameters'].max()):,}"]  # with the head, which probes have alone
        row += [scored(cells[arm]) for arm in arms]
        for arm in gaining:
            own, scratch = (cells.get(of, some[:0]) for of in (arm, "scratch"))
            both = own.index.intersection(scratch.index)  # the seeds that both have
            if not len(both):
                row += ["", ""]
                continue
            gain = (own["top1"] - scratch["top1"])[both].to_numpy()
            ratios = [convergence(own["curve"][seed], scratch["curve"][seed]) for seed in both]
            reached = [ratio for ratio in ratios if ratio is not None]
            row += [spread(gain, sign=True), f"{np.mean(reached):.2f}" if len(reached) == len(ratios) else "–"]
            gains[arm][f"L{depth}H{heads}"] = gain.mean()
        lines.append("| " + " | ".join(row) + " |")
    margin = by_chance(runs)
    for arm, found in gains.items():
        within = [size for size, gain in found.items() if abs(gain) <= margin]
        behind = [size for size, gain in found.items() if gain < -margin]
        told = "".join(
            f"; {words} {', '.join(sizes)}"
            for words, sizes in (("within chance at", within), ("behind it at", behind))
            if sizes
        )
        ahead = len(found) - len(within) - len(behind)
        lines += ["", f"{arm.capitalize()} beats scratch by more than chance at {ahead} of {len(found)} sizes{told}."]
    return lines


def scored(some: Any) -> str:
    """Top-1 and top-5 of an arm at a size; empty where there are no runs."""
    return f"{spread(some['top1'].to_numpy())} / {some['top5'].mean():.1f}" if len(some) else ""


def images_of(runs: Any) -> int:
    """Images that runs were judged on."""
    return (runs["test"].where(runs["test"].notna(), runs["held_out"])).iloc[0]["images"]


def by_chance(runs: Any) -> float:
    """How far two networks of the same accuracy are apart by chance, nineteen times in twenty, in points."""
    return noise(runs["top1"].mean(), images_of(runs))


def chance(runs: Any) -> str:
    """How far two accuracies are apart by chance, in words."""
    return (
        f"On {images_of(runs):,} test images, two networks of the same accuracy are up to {by_chance(runs):.1f} "
        "points apart nineteen times in twenty: smaller gains tell nothing."
        + (" What another seed would change is not in that." if runs["seed"].nunique() == 1 else "")
    )


def convergence(curve: list[list[float]], scratch: list[list[float]]) -> float | None:
    """Share of all epochs after which one curve has the other's last value; None if it never has."""
    goal, before = scratch[-1][1], None
    for epoch, value in curve:
        if value >= goal:
            if before is not None:
                epoch = before[0] + (epoch - before[0]) * (goal - before[1]) / (value - before[1])
            return epoch / scratch[-1][0]
        before = (epoch, value)
    return None


def against_parameters(runs: Any, name: str) -> None:
    """Accuracy against parameters over the grid."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure

    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        table = runs.rename(columns={"top1": "test top-1, %", "heads": "number of heads"})
        sns.lineplot(
            table, x="parameters", y="test top-1, %", hue="arm", hue_order=[arm for arm in ARMS[::-1] if arm in set(runs["arm"])], style="number of heads",
            markers=True, errorbar="sd", ax=axes,
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_title(runs["data"].iloc[0], fontsize=10)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        sns.despine(figure)
        save(figure, name)


def curves(runs: Any, name: str) -> None:
    """Held-out accuracy against the epoch, one panel a size."""
    import matplotlib as mpl
    import seaborn as sns

    table = by_epoch(runs[runs["arm"].isin(("scratch", *GAINING))])
    table = table.rename(columns={"arm": "from", "depth": "layers"})
    order = [arm for arm in (*GAINING[::-1], "scratch") if arm in set(runs["arm"])]
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        grid = sns.relplot(
            table, x="epoch", y="held-out top-1, %", hue="from", hue_order=order, style="from", style_order=order,
            row="layers", col="heads", kind="line", height=1.6, aspect=1.25, errorbar="sd",
        )  # fmt: skip
        grid.set_titles("L{row_name} H{col_name}", size=9)
        save(grid.figure, name)


if __name__ == "__main__":
    records.command(main, TITLES)
