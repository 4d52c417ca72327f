"""The families of constraints, pre-trained alike: what each costs and how well it reconstructs.

Counterpart of: the pre-training behind SWEET's Table 4 (which prints fine-tuned accuracies only; no number of the paper
compares with these losses).
Command: python ablations/pretraining.py PATH/TO/cifar10 PATH/TO/tiny-imagenet:64:8:2
Cost: about 8 minutes a family and data set on two CPU cores.

Every argument is a data source, then optionally `:IMAGE:PATCH:EPOCHS`. All runs are those of
`experiments/pretrain.py`, so a second call goes on where the first was stopped. Writes `docs/results/pretraining.md`
and the reconstructions beside it. Step times are measured afterwards, all families in turn in one process.
"""

import dataclasses
import json
import shutil
import typing
from pathlib import Path

import tyro

from experiments import pretrain
from weight_templates import cli
from weight_templates.config import ConstraintOptions, DataOptions, Family, RunOptions
from weight_templates.errors import UserError


RESULTS = Path(__file__).parents[1] / "docs" / "results"
FAMILIES: tuple[Family, ...] = typing.get_args(Family)


@dataclasses.dataclass(frozen=True)
class Config:
    """Pre-train every family of constraints on the same data, and tabulate what comes out."""

    data: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sources, each `SOURCE` or `SOURCE:IMAGE:PATCH:EPOCHS`."""
    epochs: int = 5
    """Epochs on the sources that do not say."""
    rounds: int = 15
    """Turns of the timing."""
    root: str = "runs"
    """Folder of all runs."""


def configuration(source: str, family: Family, config: Config) -> pretrain.Config:
    """The run of a family on a source: 4 layers, 12 heads of 8 channels, 0.44 M governed weights."""
    name, *rest = source.split(":") if not source.startswith("hub:") else [source]
    if rest and (len(rest) != 3 or not all(n.isdigit() for n in rest)):
        raise UserError(f"{source} does not read as SOURCE:IMAGE:PATCH:EPOCHS, such as tiny-imagenet:64:8:2.")
    image, patch, epochs = (int(n) for n in rest) if rest else (32, 4, config.epochs)
    base = pretrain.PRESETS["tiny"]
    return dataclasses.replace(
        base,
        constraint=ConstraintOptions(family),
        data=DataOptions(name),
        model=dataclasses.replace(base.model, depth=4, image=image, patch=patch),
        optim=dataclasses.replace(base.optim, epochs=epochs),
        run=RunOptions(root=config.root, log_every=50),
    )


def main(config: Config) -> None:
    """Runs what has not been run, times the steps, writes the table."""
    if not config.data:
        raise UserError("no data was given; say `python ablations/pretraining.py PATH/TO/cifar10`.")
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    runs = {
        (source, family): pretrain.main(configuration(source, family, config)).parent
        for source in config.data
        for family in FAMILIES
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = [HEADER.format(command=f"python ablations/pretraining.py {' '.join(_public(s) for s in config.data)}")]
    for source in config.data:
        text.append(section(source, {f: runs[source, f] for f in FAMILIES}, config))
    (RESULTS / "pretraining.md").write_text("\n".join(text))
    cli.say(f"table            {RESULTS / 'pretraining.md'}")


def section(source: str, runs: dict[Family, Path], config: Config) -> str:
    """The table of one data set."""
    from benchmarks.interleave import compare
    from benchmarks.steps import our_step

    shown = configuration(source, "none", config)
    batch = shown.optim.batch
    timing = compare({f: our_step(f, shown.model, shown.decoder, batch) for f in FAMILIES}, "none", config.rounds)
    summary = {f: json.loads((run / "summary.json").read_text()) for f, run in runs.items()}
    starts = [json.loads((run / "environment.json").read_text())[0] for run in runs.values()]
    commits = {s["commit"][:8] + (" with uncommitted changes" if s["dirty"] else "") for s in starts if s["commit"]}
    about = json.loads((runs["none"] / "config.json").read_text())
    heads = [int(h) for h in summary["none"]["held_out_loss"]]
    name = Path(_public(source).split(":")[0]).name
    lines = [
        f"## {name}",
        "",
        f"{about['optim']['epochs']} epochs, {summary['none']['steps']} steps of {batch} images of {shown.model.image} px; "
        f"{shown.model.depth} layers, {shown.model.heads} heads of {shown.model.head_dim} channels, patch "
        f"{shown.model.patch}; one seed. Trained at {', '.join(sorted(commits))} on {starts[0]['device']} "
        f"with {starts[0]['cores']} cores.",
        "",
        "| family | training loss | "
        + " | ".join(f"held out, {h} heads" for h in heads)
        + " | template | scalers | images/s | step / none (quartiles) |",
        "|---" * (len(heads) + 6) + "|",
    ]
    for family in FAMILIES:
        s, t = summary[family], timing[family]
        held = " | ".join(f"{s['held_out_loss'][str(h)]:.4f}" for h in heads)
        lines.append(
            f"| {family} | {s['loss']:.4f} | {held} | {s['sizes']['template']:,} | {s['sizes']['scalers']:,} | "
            f"{batch / t.seconds:,.0f} | {t.words} |"
        )
    for family in ("none", "tucker"):
        picture = f"reconstructions-{name}-{family}.png"
        shutil.copyfile(runs[family] / "reconstructions.png", RESULTS / picture)
        lines += [
            "",
            f"![reconstructions of {family} on {name}]({picture})",
            f"*{family} on {name}: held-out images.*",
        ]
    return "\n".join(lines) + "\n"


HEADER = """# Families of constraints, pre-trained alike

Made by `{command}` (see that file for the protocol); nothing here is typed by hand.

Losses are mean squared errors over the hidden patches, pixels normalised by their patch (lower is better; 1 is what
predicting every patch's mean gives). *Held out* is on images kept from training, at several widths of the same bank,
sliced without any adaptation. `none` is pre-trained without width scaling, as ordinary pre-training is, the others with
it: every one of their steps sees a random narrower model. Images/s and the ratio of step times are of the bare step,
measured in turns in one process.
"""


def _public(source: str) -> str:
    """A source without the folders that it lies in, which are nobody's business."""
    path, *rest = source.split(":") if not source.startswith("hub:") else [source]
    return ":".join([Path(path).name if not path.startswith("hub:") else path, *rest])


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
