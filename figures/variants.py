"""The pages of the ablations of pre-training, from their records alone: ours, the paper's, and the difference.

    python figures/variants.py

reads `results/{constraints,architecture,choices}.json`, those that are there, and writes `docs/results/NAME.md`.
"""

from typing import Any

import numpy as np
from figures import paper, records
from figures.records import HEADS, commits, devices, read, spread, write


TITLES = {
    "constraints": "Families of constraints",
    "architecture": "Stochastic scaling and enhancements",
    "choices": "Ranks, masks, layers, adaptation, decoder, length",
}


def main(ablation: str) -> None:
    """Writes the page of one ablation."""
    write(ablation, page(ablation, *read(ablation)))


def page(ablation: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    model, before = about["model"], about["pretraining"]
    return [
        f"# {TITLES[ablation]}",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        f"Pre-trained on {about['data']}: {model['depth']} layers, {model['heads']} heads of {model['head_dim']} channels, "
        f"{model['image']} px in patches of {model['patch']} px; {before['steps']} steps of {before['batch']} at a base learning "
        f"rate of {before['base_lr']:g}, where a row does not say otherwise; scalers adapted for {about['adapt_steps']} steps. "
        f"Fine-tuned on at most {about['count']} images, a tenth of them held out, for {about['epochs']} epochs of batch "
        f"{about['batch']} at a base learning rate of {about['base_lr']:g}, the head {HEADS[about['head']]}. "
        f"{runs['seed'].nunique()} seed(s). Trained at {commits(runs)} on {devices(runs)}.",
        "",
        "Numbers are top-1 accuracy in percent on test images, of the epoch that was best on held-out ones"
        + (
            "; after the bar the paper's, on ImageNet at 224 px after 30 epochs, and in brackets the gains over the first "
            "row, ours and theirs."
            if ablation in paper.ABLATIONS
            else "; in brackets the gain over the first row."
        )
        + " *Held out* is the reconstruction loss of pre-training at 3 and at 12 heads.",
        "",
        *table(ablation, runs),
    ]


def table(ablation: str, runs: Any) -> list[str]:
    """One row a variant, one column a size."""
    printed, sizes = paper.ABLATIONS.get(ablation, {}), list(dict.fromkeys(runs["size"]))
    rows = list(dict.fromkeys(runs["arm"]))
    lines = [
        "| variant | " + " | ".join(sizes) + " | mean | template | held out, 3 heads | 12 heads |",
        "|---" * (len(sizes) + 5) + "|",
    ]

    def values(row: str, size: str) -> np.ndarray:
        return runs[(runs["arm"] == row) & (runs["size"] == size)].sort_values("seed")["top1"].to_numpy()

    for row in rows:
        cells, means = [], []
        for size in sizes:
            ours, base = values(row, size), values(rows[0], size)
            if not len(ours):
                cells.append("")
                continue
            means.append(ours.mean())
            gain = f"{ours.mean() - base.mean():+.1f}" if len(base) and row != rows[0] else ""
            theirs, first = printed.get(row, {}).get(size), printed.get(rows[0], {}).get(size)
            if theirs:
                gain += f"; {theirs - first:+.1f}" if gain and first else ""
            cell = spread(ours) + (f" \\| {theirs:.2f}" if theirs else "")
            cells.append(cell + (f" ({gain})" if gain else ""))
        some = runs[runs["arm"] == row]
        held = [f"{np.mean([loss[key] for loss in some['held_out_loss']]):.4f}" for key in ("3", "12")]
        mean = f"{np.mean(means):.1f}" if len(means) == len(sizes) else ""
        template = f"{some['sizes'].iloc[0]['template']:,}"
        lines.append("| " + " | ".join([row, *cells, mean, template, *held]) + " |")
    return lines


if __name__ == "__main__":
    for name in TITLES:
        if (records.RECORDS / f"{name}.json").exists():
            main(name)
