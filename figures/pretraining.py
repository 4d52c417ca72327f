"""The page of `ablations/pretraining.py`, from its records alone: losses at several widths, sizes, and step times.

    python figures/pretraining.py

reads `results/pretraining.json` and writes `docs/results/pretraining.md`.
"""

import base64
from collections.abc import Mapping
from typing import Any

from figures import records
from figures.beside import line
from figures.records import commits, read_runs, slug, write

from weight_templates.files import write_bytes


TITLES = {"pretraining": "Families of constraints, pre-trained alike"}
SHOWN = ("none", "tucker")
"""Whose reconstructions are shown."""
INTRODUCTION = """Losses are mean squared errors over the hidden patches, pixels normalised by their patch (lower is better; 1 is what
predicting every patch's mean gives). *Held out* is on images kept from training, at several widths of the same bank,
sliced without any adaptation. `none` is pre-trained without width scaling, as ordinary pre-training is, the others with
it: every one of their steps sees a random narrower model. Images/s and the ratio of step times are of the bare step,
measured in turns in one process."""


def main(name: str = "pretraining") -> None:
    """Writes a page and its pictures."""
    about, runs = read_runs(name)
    write(name, page(name, about, runs))
    for run in runs.to_dict("records"):
        if run["arm"] in SHOWN:
            write_bytes(records.RESULTS / picture(name, run), base64.b64decode(run["reconstructions"]))


def page(name: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    text = [
        f"# {records.title(TITLES, name)}",
        "",
        f"Made by `{about['command']}` (see that file for the protocol); nothing here is typed by hand.",
        "",
        *INTRODUCTION.splitlines(),
    ]
    for (data, *_), some in runs.groupby(["data", "image", "patch", "epochs"], sort=False):
        text += ["", *section(name, data, about, some)]
    return text


def section(name: str, data: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The table of one data set, a row a family, and its pictures."""
    model, first = about["model"], runs.iloc[0]
    heads = sorted(first["held_out_loss"], key=int)
    head = ["family", "training loss", *(f"held out, {n} heads" for n in heads)]
    head += ["template", "scalers", "images/s", "step / none (quartiles)"]
    lines = [
        f"## {data}",
        "",
        f"{first['epochs']} epochs, {first['steps']} steps of {about['batch']} images of {first['image']} px; "
        f"{model['depth']} layers, {model['heads']} heads of {model['head_dim']} channels, patch {first['patch']}; "
        f"seed {first['seed']}. Trained at {commits(runs)} on {first['device']} with {first['cores']} cores.",
        "",
        line(head),
        "|---" * len(head) + "|",
    ]
    for run in runs.to_dict("records"):
        timed = isinstance(run.get("ratio"), list)
        lines.append(
            line([
                run["arm"],
                f"{run['loss']:.4f}",
                *(f"{run['held_out_loss'][n]:.4f}" for n in heads),
                f"{run['sizes']['template']:,}",
                f"{run['sizes']['scalers']:,}",
                f"{run['images_per_second']:,.0f}" if timed else "",
                "{:.2f} ({:.2f}–{:.2f})".format(*run["ratio"]) if timed else "",
            ])
        )  # fmt: skip
    for run in runs.to_dict("records"):
        if (family := run["arm"]) in SHOWN:
            shown = picture(name, run)
            lines += [
                "",
                f"![reconstructions of {family} on {data}]({shown})",
                f"*{family} on {data}: held-out images; hidden patches are put back at their own mean and deviation, which the "
                "network, trained on normalised pixels, does not predict.*",
            ]
    return lines


def picture(name: str, run: Mapping[str, Any]) -> str:
    """The file of a run's reconstructions, beside the page."""
    return f"{name}-{slug(run['data'])}-{run['image']}px-{run['patch']}px-{run['epochs']}-{run['arm']}.png"


if __name__ == "__main__":
    records.command(main, TITLES)
