"""The pages of the ablations of pre-training, from their records alone: ours, the paper's, and the difference.

    python figures/variants.py

reads `results/{constraints,architecture,choices}.json`, those that are there, and writes `docs/results/NAME.md` with its
figure.
"""

from typing import Any

import numpy as np
from figures import beside, paper, records
from figures.records import HEADS, commits, devices, rates, read, write


TITLES = {
    "constraints": "Families of constraints",
    "architecture": "Stochastic scaling and enhancements",
    "choices": "Ranks, masks, layers, adaptation, decoder, length",
}


def main(name: str) -> None:
    """Writes the page of a file of records, and its figure."""
    about, runs = read(name)
    order = order_of(about, runs)
    runs = runs.sort_values("arm", key=lambda arms: arms.map(order.index), kind="stable")
    write(name, page(name, about, runs))
    beside.curves(runs, "size", order, "row", f"{name}-curves")


def order_of(about: dict[str, Any], runs: Any) -> list[str]:
    """All rows that there can be, as the ablation has them."""
    return list(dict.fromkeys([*about.get("rows", []), *runs["arm"]]))


def page(name: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    ablation = records.subject(name)
    model, before = about["model"], about["pretraining"]
    printed = paper.ABLATIONS.get(ablation, {})
    order = list(dict.fromkeys([*order_of(about, runs), *printed]))
    present = [row for row in order if row in {*runs["arm"], *printed}]
    table = beside.table(runs, present, "size", printed)
    gains = [
        "",
        f"Gains over “{beside.measured(table)[0]}”"
        + (": ours, the paper's, and the difference." if table.both() else ".")
        + f" By chance, {', '.join(f'{beside.apart(table, c):.1f} points at {c}' for c in table.columns)} may lie between two "
        f"rows of the same worth.{beside.caveat(table)}",
        "",
        *beside.gains(table),
    ]
    return [
        f"# {records.title(TITLES, name)}",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        f"Pre-trained on {about['data']}: {model['depth']} layers, {model['heads']} heads of {model['head_dim']} channels, "
        f"{model['image']} px in patches of {model['patch']} px; {before['steps']} steps of {before['batch']} at a base learning "
        f"rate of {before['base_lr']:g}, where a row does not say otherwise; scalers adapted for {about['adapt_steps']} steps. "
        f"Fine-tuned on at most {about['count']} images, a tenth of them held out, for {about['epochs']} epochs of batch "
        f"{about['batch']} at a base learning rate of {rates(about)}, the head {HEADS[about['head']]}. "
        f"{runs['seed'].nunique()} seed(s). Trained at {commits(runs)} on {devices(runs)}.",
        "",
        beside.cells(runs, "top1")
        + ("; after the bars the paper's, on ImageNet at 224 px, and the difference." if table.both() else "."),
        "",
        *beside.scores(table),
        *beside.probes(runs, table.rows, "size"),
        *(gains if len(beside.measured(table)) > 1 else []),
        *(["", agreement] if (agreement := beside.agreement(table)) else []),
        "",
        "Pre-training: numbers in the template and in the scalers, FLOPs of the widths that were computed, and the "
        "reconstruction loss on held-out images at 3 and at 12 heads. Of rows with as many steps, those that draw "
        "widths had less compute.",
        "",
        *pretraining(runs),
        *beside.pictures(runs, order, "held-out accuracy while training", f"{name}-curves"),
        *(["", "## The paper's numbers", "", paper.NOTES[ablation]] if ablation in paper.NOTES else []),
    ]


def pretraining(runs: Any) -> list[str]:
    """One row a variant."""
    lines = beside.header(["template", "scalers", "FLOPs", "held out, 3 heads", "held out, 12 heads"])
    for row, some in runs.groupby("arm", sort=False):
        held = [f"{np.mean([loss[key] for loss in some['held_out_loss']]):.4f}" for key in ("3", "12")]
        sizes = some["sizes"].iloc[0]
        cells = [f"{sizes['template']:,}", f"{sizes['scalers']:,}", f"{some['flops'].iloc[0]:.2g}", *held]
        lines.append(beside.line([str(row), *cells]))
    return lines


if __name__ == "__main__":
    records.command(main, TITLES)
