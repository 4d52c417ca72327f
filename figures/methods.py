"""The pages of `ablations/methods.py` and `ablations/downstream.py`, from their records alone: accuracy and cost of all methods.

    python figures/methods.py

reads `results/{methods,downstream,generation}.json`, those that are there, and writes `docs/results/NAME.md` with its figures.
"""

from typing import Any, NamedTuple

import numpy as np
from figures import beside, paper, reconstructions, records
from figures.records import HEADS, commits, devices, pretraining, rates, read, slug, write


METHODS = {
    "scratch": "nothing",
    "mimetic": "nothing",
    "weight-selection": "evenly spaced weights",
    "weight-selection-strided": "the same, channels through all heads",
    "isomorphic-pruning": "the best-scored weights",
    "front": "low frequencies of the weights",
    "hydravit": "the first heads, pre-trained with random widths",
    "decomposed": "factors of the weights",
    "dmae": "a teacher's features",
    "wave": "Kronecker templates, distilled",
    "tleg": "two layers, distilled",
    "fine": "shared bases, distilled",
    "sweet": "Tucker templates, zero-shot",
    "sweet-adapted": "Tucker templates, scalers adapted",
}
"""What each takes from its source; HydraViT's is another."""


class Page(NamedTuple):
    """What sets the page of one of SWEET's tables apart."""

    title: str
    section: str
    """What a section is for: `data` or `size`."""
    column: str
    """What the columns are, likewise."""
    score: str
    printed: dict[str, dict[str, float]]
    theirs: str
    """What the paper's numbers are of."""
    second: tuple[str, dict[str, dict[str, float]]] | None = None
    """The table's other score, and what the paper prints of it."""


PAGES = {
    "methods": Page(
        "All methods at five sizes", "data", "size", "top1", paper.CLASSIFICATION,
        "on ImageNet at 224 px after 30 epochs", ("top5", paper.CLASSIFICATION_TOP5),
    ),
    "downstream": Page(
        "All methods on other data", "size", "data", "top1", paper.DOWNSTREAM, "from sources of ImageNet",
    ),
    "generation": Page(
        "All methods at five sizes, generating", "data", "size", "fid", paper.GENERATION,
        "on ImageNet after 50 epochs", ("is", paper.GENERATION_SCORES),
    ),
}  # fmt: skip
"""SWEET's Tables 1, 3 and 2."""
TITLES = {name: of.title for name, of in PAGES.items()}


def main(name: str = "methods") -> None:
    """Writes a page and its figures."""
    about, runs = read(name)
    write(name, page(name, about, runs))
    reconstructions.draw(runs, name)
    of = PAGES[records.subject(name)]
    for section in runs[of.section].unique() if of.score == "top1" else ():
        some = runs[runs[of.section] == section]
        beside.curves(some, of.column, list(METHODS), "method", f"{name}-{slug(section)}-curves")


def page(name: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    own = records.subject(name)
    of = PAGES[own]
    model, bank = about["model"], about["bank"]
    sources = f"an ordinary auto-encoder, {pretraining(about['source'])}"
    if runs["arm"].str.startswith("sweet").any():
        sources = f"SWEET's is a {bank['family']} bank, {pretraining(bank)}; the others' {sources}"
    if "nested" in runs:
        nested = dict.fromkeys(map(pretraining, runs["nested"].dropna()))
        sources += f"; HydraViT's another ordinary one, {' or '.join(nested)}"
    text = [
        f"# {records.title(TITLES, name)}",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        f"Sources: {model['depth']} layers, {model['heads']} heads of {model['head_dim']} channels, {model['image']} px in "
        f"patches of {model['patch']} px. {sources[0].upper()}{sources[1:]}. What each cost is below. "
        f"{trained(about, set(runs['arm']))}Fine-tuning is the same for all: at "
        f"most {about['count']} images, a tenth of them held out, {about['epochs']} epochs of batch {about['batch']} at a base "
        f"learning rate of {rates(about)}, the head {HEADS[about['head']]}. {runs['seed'].nunique()} seed(s). Trained at {commits(runs)} on "
        f"{devices(runs)}.",
        "",
        f"{beside.cells(runs, of.score)}; after the bars the paper's, {of.theirs}, and the "
        "difference. Weight selection takes whole heads where positions are rotary, since strided channels, which are what is "
        "published, lose their frequencies.",
    ]
    for section in runs[of.section].unique():
        some = runs[runs[of.section] == section]
        table = beside.table(some, list(METHODS), of.column, of.printed, of.score)
        text += ["", f"## {section}", "", *beside.scores(table)]
        if of.second:
            score, printed = of.second
            second = beside.table(some, list(METHODS), of.column, printed, score)
            text += ["", f"Likewise, {beside.WORDS[score]}:", "", *beside.scores(second)]
        text += beside.probes(some, list(METHODS), of.column)
        text += ["", "The place of each method in its column"]
        if table.both():
            text[-1] += "; after the bars among the methods of the paper: ours, and the paper's"
        text[-1] += "."
        text += ["", *beside.ranks(table)]
        if agreement := beside.agreement(table):
            text += ["", agreement]
        if of.score == "top1":
            words = f"held-out accuracy while training, {section}"
            text += beside.pictures(some, list(METHODS), words, f"{name}-{slug(section)}-curves")
    return [
        *text,
        *reconstructions.words(runs, name),
        "",
        "## Cost",
        "",
        *costs(runs),
        "",
        "## The paper's numbers",
        "",
        paper.NOTES[own],
    ]


def trained(about: dict[str, Any], methods: set[str]) -> str:
    """What the baselines train themselves, in words."""
    steps = f"{about['steps']} steps of 128 images"
    words = f"DMAE's students have {steps} at the source's learning rate. " if "dmae" in methods else ""
    if methods & {"wave", "tleg", "fine"}:
        words += f"The supervised teacher has {steps} at a base learning rate of 0.001, and so has each distillation. "
    return words


def costs(runs: Any) -> list[str]:
    """What each method took from its source, and what that cost."""
    sizes = runs["size"].nunique()
    lines = [
        f"| method | takes | source, FLOPs | each size, FLOPs | source and {sizes} size{'s' * (sizes > 1)}, FLOPs | numbers taken |",
        "|---|---|---|---|---|---|",
    ]
    for method, takes in METHODS.items():
        if some := [cost for arm, cost in zip(runs["arm"], runs["cost"], strict=True) if arm == method]:
            source = some[0]["source_flops"]
            numbers = sorted({cost["transferred"] for cost in some})
            span = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
            each = np.mean([cost["size_flops"] for cost in some])
            together = None if source is None else source + sizes * each
            cells = [
                method,
                takes,
                "unknown" if source is None else f"{source:.2g}" if source else "–",
                f"{each:.2g}" if each else "–",
                "unknown" if together is None else f"{together:.2g}" if together else "–",
                span,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    records.command(main, TITLES)
