"""The pages of `ablations/methods.py` and `ablations/downstream.py`, from their records alone: accuracy and cost of all methods.

    python figures/methods.py

reads `results/{methods,downstream}.json`, those that are there, and writes `docs/results/NAME.md` with its figures.
"""

from typing import Any

import numpy as np
from figures import beside, paper, records
from figures.records import HEADS, by_epoch, commits, devices, rates, read, save, write


METHODS = {
    "scratch": "nothing",
    "mimetic": "nothing",
    "weight-selection": "evenly spaced weights",
    "isomorphic-pruning": "the best-scored weights",
    "front": "low frequencies of the weights",
    "hydravit": "the first heads, pre-trained with random widths",
    "dmae": "a teacher's features",
    "wave": "Kronecker templates, distilled",
    "tleg": "two layers, distilled",
    "fine": "shared bases, distilled",
    "sweet": "Tucker templates, zero-shot",
    "sweet-adapted": "Tucker templates, scalers adapted",
}
"""What each takes from its source; HydraViT's is another."""


TITLES = {"methods": "All methods at five sizes", "downstream": "All methods on other data"}
"""Of the two pages: SWEET's Table 1, a section for each set, and its Table 3, a section for each size."""
SECTION = {"methods": "data", "downstream": "size"}
COLUMN = {"methods": "size", "downstream": "data"}
PRINTED = {"methods": paper.CLASSIFICATION, "downstream": paper.DOWNSTREAM}


def main(name: str = "methods") -> None:
    """Writes a page and its figures."""
    about, runs = read(name)
    write(name, page(name, about, runs))
    own = records.subject(name)
    for section in runs[SECTION[own]].unique():
        curves(runs[runs[SECTION[own]] == section], COLUMN[own], f"{name}-{section}-curves")


def page(name: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    own = records.subject(name)
    model, bank, source = about["model"], about["bank"], about["source"]
    text = [
        f"# {records.title(TITLES, name)}",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        f"Sources: {model['depth']} layers, {model['heads']} heads of {model['head_dim']} channels, {model['image']} px in "
        f"patches of {model['patch']} px. SWEET's is a {bank['family']} bank, {bank['steps']} steps of {bank['batch']} "
        f"images of {bank['data']}; the others' an ordinary auto-encoder, {source['steps']} steps of {source['batch']}. "
        f"What each cost is below. DMAE's "
        f"student, the teacher and each distillation have {about['steps']} steps of 128. Fine-tuning is the same for all: at "
        f"most {about['count']} images, a tenth of them held out, {about['epochs']} epochs of batch {about['batch']} at a base "
        f"learning rate of {rates(about)}, the head {HEADS[about['head']]}. {runs['seed'].nunique()} seed(s). Trained at {commits(runs)} on "
        f"{devices(runs)}.",
        "",
        f"{beside.CELLS}; after the bars the paper's, on ImageNet at 224 px after 30 epochs and on its downstream sets, and the "
        "difference. Weight selection takes whole heads where positions are rotary, since strided ones would lose their frequencies.",
    ]
    for section in runs[SECTION[own]].unique():
        some = runs[runs[SECTION[own]] == section]
        table = beside.table(some, list(METHODS), COLUMN[own], PRINTED[own])
        text += ["", f"## {section}", "", *beside.accuracy(table), "", "The place of each method in its column"]
        if table.both():
            text[-1] += "; after the bars among the methods of the paper: ours, and the paper's"
        text[-1] += "."
        text += ["", *beside.ranks(table)]
        if table.both():
            text += ["", beside.agreement(table)]
        text += ["", f"![held-out accuracy while training, {section}]({name}-{section}-curves.png)"]
    return [*text, "", "## Cost", "", *costs(runs), "", "## The paper's numbers", "", paper.NOTES[own]]


def costs(runs: Any) -> list[str]:
    """What each method took from its source, and what that cost."""
    lines = ["| method | takes | source, FLOPs | each size, FLOPs | numbers taken |", "|---|---|---|---|---|"]
    for method, takes in METHODS.items():
        if some := [cost for arm, cost in zip(runs["arm"], runs["cost"], strict=True) if arm == method]:
            source = some[0]["source_flops"]
            numbers = sorted({cost["transferred"] for cost in some})
            span = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
            each = np.mean([cost["size_flops"] for cost in some])
            cells = [
                method,
                takes,
                "unknown" if source is None else f"{source:.2g}" if source else "–",
                f"{each:.2g}" if each else "–",
                span,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def curves(runs: Any, column: str, name: str) -> None:
    """Held-out accuracy against the epoch, one panel a column of the table."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure

    order = [method for method in METHODS if method in set(runs["arm"])]
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9}):
        table = by_epoch(runs).rename(columns={"arm": "method"})
        panels = list(dict.fromkeys(table[column]))
        figure = Figure(figsize=(2.1 * len(panels) + 1.4, 2.4), layout="constrained")
        for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True):
            last = panel == panels[-1]
            some: Any = table[table[column] == panel]
            sns.lineplot(
                some, x="epoch", y="held-out top-1, %", hue="method", style="method", hue_order=order, style_order=order,
                errorbar="sd", ax=axes, legend=last,
            )  # fmt: skip
            axes.set_title(panel, fontsize=9)
            if last:
                axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        sns.despine(figure)
        save(figure, name)


if __name__ == "__main__":
    for ablation in TITLES:
        for name in records.names(ablation):
            main(name)
