"""The page of `ablations/methods.py`, from its records alone: accuracy of all methods at five sizes, and what they cost.

    python figures/methods.py

reads `results/methods.json` and writes `docs/results/methods.md` with its figures.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from figures import paper
from figures.records import HEADS, by_epoch, commits, devices, read, save, spread, write
from matplotlib.figure import Figure


METHODS = {
    "scratch": "nothing",
    "mimetic": "nothing",
    "weight-selection": "evenly spaced weights",
    "isomorphic-pruning": "the best-scored weights",
    "front": "low frequencies of the weights",
    "dmae": "a teacher's features",
    "wave": "Kronecker templates, distilled",
    "tleg": "two layers, distilled",
    "fine": "shared bases, distilled",
    "sweet": "Tucker templates, zero-shot",
    "sweet-adapted": "Tucker templates, scalers adapted",
}
"""What each takes from its source. HydraViT needs a source pre-trained with random widths, so it has no row here."""


def main() -> None:
    """Writes the page and its figures."""
    about, runs = read("methods")
    write("methods", page(about, runs))
    for data in runs["data"].unique():
        curves(runs[runs["data"] == data], f"methods-{data}-curves")


def page(about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    model, bank, source = about["model"], about["bank"], about["source"]
    text = [
        "# All methods at five sizes",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        f"Sources: {model['depth']} layers, {model['heads']} heads of {model['head_dim']} channels, {model['image']} px in "
        f"patches of {model['patch']} px. SWEET's is a {bank['family']} bank, {bank['steps']} steps of {bank['batch']} "
        f"images of {bank['data']}; the others' an ordinary auto-encoder, {source['steps']} steps of {source['batch']}. DMAE's "
        f"student, the teacher and each distillation have {about['steps']} steps of 128. Fine-tuning is the same for all: at "
        f"most {about['count']} images, a tenth of them held out, {about['epochs']} epochs of batch {about['batch']} at a base "
        f"learning rate of {about['base_lr']:g}, the head {HEADS[about['head']]}. {runs['seed'].nunique()} seed(s). Trained at {commits(runs)} on "
        f"{devices(runs)}.",
        "",
        "Numbers are top-1 accuracy in percent on test images, of the epoch that was best on held-out ones; in brackets the "
        "rank in the column; after the bar the paper's, on ImageNet at 224 px after 30 epochs. Weight selection takes whole "
        "heads where positions are rotary, since strided ones would lose their frequencies.",
    ]
    for data in runs["data"].unique():
        some = runs[runs["data"] == data]
        text += [
            "",
            f"## {data}",
            "",
            *table(some),
            "",
            f"![held-out accuracy while training, {data}](methods-{data}-curves.png)",
        ]
    return [*text, "", "## Cost", "", *costs(runs)]


def table(runs: Any) -> list[str]:
    """One row a method, one column a size."""
    printed = list(paper.CLASSIFICATION["sweet"])
    sizes = sorted(
        runs["size"].unique(), key=lambda size: (size not in printed, printed.index(size) if size in printed else 0)
    )
    methods = [method for method in METHODS if method in set(runs["arm"])]
    means = runs.groupby(["arm", "size"])["top1"].mean().unstack("size")
    ranks = means.rank(ascending=False, method="min").astype("Int64")
    lines = ["| method | " + " | ".join(sizes) + " | mean | mean rank |", "|---" * (len(sizes) + 3) + "|"]
    for method in methods:
        cells = []
        for size in sizes:
            values = runs[(runs["arm"] == method) & (runs["size"] == size)].sort_values("seed")["top1"].to_numpy()
            theirs = paper.CLASSIFICATION.get(method, {}).get(size)
            cells.append(
                f"{spread(values)} ({ranks.loc[method, size]})" + (f" \\| {theirs}" if theirs else "")
                if len(values)
                else ""
            )
        complete = means.loc[method, sizes].notna().all()
        total = (
            [f"{means.loc[method, sizes].mean():.1f}", f"{ranks.loc[method, sizes].mean():.1f}"]
            if complete
            else ["", ""]
        )
        lines.append("| " + " | ".join([method, *cells, *total]) + " |")
    return lines


def costs(runs: Any) -> list[str]:
    """What each method took from its source, and what that cost."""
    lines = ["| method | takes | source, FLOPs | each size, FLOPs | numbers taken |", "|---|---|---|---|---|"]
    for method, takes in METHODS.items():
        if some := [cost for arm, cost in zip(runs["arm"], runs["cost"], strict=True) if arm == method]:
            source = some[0]["source_flops"]
            numbers = sorted({cost["transferred"] for cost in some})
            span = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
            each = np.mean([cost["size_flops"] for cost in some])
            cells = [method, takes, "–" if source is None else f"{source:.2g}", f"{each:.2g}" if each else "–", span]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def curves(runs: Any, name: str) -> None:
    """Held-out accuracy against the epoch, one panel a size."""
    order = [method for method in METHODS if method in set(runs["arm"])]
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        table = by_epoch(runs).rename(columns={"arm": "method"})
        sizes = list(dict.fromkeys(table["size"]))
        figure = Figure(figsize=(2.1 * len(sizes) + 1.4, 2.4), layout="constrained")
        for axes, size in zip(np.atleast_1d(figure.subplots(1, len(sizes), sharey=True)), sizes, strict=True):
            last = size == sizes[-1]
            some: Any = table[table["size"] == size]
            sns.lineplot(
                some, x="epoch", y="held-out top-1, %", hue="method", style="method", hue_order=order, style_order=order,
                errorbar="sd", ax=axes, legend=last,
            )  # fmt: skip
            axes.set_title(size, fontsize=9)
            if last:
                axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        sns.despine(figure)
        save(figure, name)


if __name__ == "__main__":
    main()
