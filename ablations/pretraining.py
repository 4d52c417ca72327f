"""The families of constraints, pre-trained alike: what each costs and how well it reconstructs.

Counterpart of: the pre-training behind SWEET's Table 4 (which prints fine-tuned accuracies only; no number of the paper
compares with these losses).
Command: python ablations/pretraining.py PATH/TO/cifar10 PATH/TO/tiny-imagenet:64:8:2
Cost: about 8 minutes a family and data set on two CPU cores.
Expected: at full width `none` reconstructs best, having all its weights to itself; at 3 heads the others do.

Every argument is a data source, then optionally `:IMAGE:PATCH:EPOCHS`. All runs are those of `experiments/pretrain.py`, so
a second call goes on where the first was stopped. Step times are a job of their own: all families in turn in one process.
Writes `results/pretraining.json`, the records, and from them, through `figures/pretraining.py`, the page in `docs/results`.
"""

if __name__ == "__main__":  # before the imports, which take a second: Ctrl-C is heard meanwhile
    try:
        from weight_templates.entry import command
    except ModuleNotFoundError:
        raise SystemExit(
            "failed: this Python has no weight_templates; install it as README.md says, or call one that has it."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command("ablations.pretraining")

import base64
import dataclasses
import io
import json
import re
import typing
from pathlib import Path
from typing import Any

import tyro
from figures import pretraining as figures
from figures.records import keep

from ablations.protocol import called, check_distinct, check_positive, extent, flags
from experiments import pretrain
from weight_templates import cli
from weight_templates.config import ConstraintOptions, DataOptions, Family, RunOptions
from weight_templates.errors import UserError
from weight_templates.jobs import Job


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


PRESETS = {"default": Config()}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A family on a source; or the timing of all, in so many turns."""

    source: str
    epochs: int
    root: str
    family: Family = "none"
    rounds: int = 0


def configuration(cell: Cell) -> pretrain.Config:
    """The run of a family on a source: 4 layers, 12 heads of 8 channels, 0.44 M governed weights."""
    name, numbers = parts(cell.source)
    image, patch, epochs = numbers or (32, 4, cell.epochs)
    base = pretrain.PRESETS["tiny"]
    return dataclasses.replace(
        base,
        constraint=ConstraintOptions(cell.family),
        data=DataOptions(name),
        model=dataclasses.replace(base.model, depth=4, image=image, patch=patch),
        optim=dataclasses.replace(base.optim, epochs=epochs),
        run=RunOptions(root=cell.root, log_every=50),
    )


def parts(source: str) -> tuple[str, tuple[int, ...]]:
    """A data source and the numbers after it, three or none; raises UserError for others."""
    name, digits = re.fullmatch(r"(.*?)((?::\d+)*)", source).groups()  # pyright: ignore[reportOptionalMemberAccess]
    numbers = tuple(map(int, digits.split(":")[1:]))
    if len(numbers) not in (0, 3) or 0 in numbers:
        raise UserError(f"{source} does not read as SOURCE:IMAGE:PATCH:EPOCHS, such as tiny-imagenet:64:8:2.")
    return name, numbers


def jobs(config: Config) -> list[Job]:
    """The grid: of each source a job for each family, and one for the timing."""
    if not config.data:
        raise UserError("no data was given; say `python ablations/pretraining.py PATH/TO/cifar10`.")
    check_distinct("the list of data", [_public(source) for source in config.data])
    check_positive(config, "epochs")
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    grid = []
    for source in config.data:
        cell = Cell(source, config.epochs, config.root)
        name = f"pretraining-{called(configuration(cell).data.source)}".replace(":", "-")
        grid += [
            Job("ablations.pretraining:cell", dataclasses.replace(cell, family=f), f"{name}-{f}") for f in FAMILIES
        ]
        grid.append(Job("ablations.pretraining:cell", dataclasses.replace(cell, rounds=config.rounds), f"{name}-steps"))
    return grid


def cell(cell: Cell) -> dict[str, Any]:
    """Runs what has not been run of a family; its record. Or times the steps of all families."""
    asked = configuration(cell)
    if cell.rounds:
        return timing(asked, cell.rounds)
    cli.say(f"{called(asked.data.source)}: {cell.family}")
    run = pretrain.main(asked).parent
    summary = json.loads((run / "summary.json").read_text())
    start = json.loads((run / "environment.json").read_text())[0]
    pictures = {"reconstructions": shrunk(run / "reconstructions.png")} if cell.family in figures.SHOWN else {}
    return pictures | {
        "data": called(asked.data.source),
        "extent": extent(asked.data.source),
        "arm": cell.family,
        "depth": asked.model.depth,
        "heads": asked.model.heads,
        "image": asked.model.image,
        "patch": asked.model.patch,
        "epochs": asked.optim.epochs,
        "seed": asked.seed,
        **{name: summary[name] for name in ("steps", "loss", "held_out_loss", "sizes")},
        **{name: start[name] for name in ("commit", "dirty", "device", "cores")},
    }


def shrunk(picture: Path) -> str:
    """A PNG for a record: in 256 colours, as base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(picture).convert("RGB").quantize(256).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def timing(asked: pretrain.Config, rounds: int) -> dict[str, Any]:
    """Images a second of each family's bare step, and its time over that of `none`: the median and two quartiles."""
    from benchmarks.interleave import compare
    from benchmarks.steps import our_step

    batch = asked.optim.batch
    found = compare({f: our_step(f, asked.model, asked.decoder, batch) for f in FAMILIES}, "none", rounds)
    return {f: {"images_per_second": batch / t.seconds, "ratio": [t.ratio, *t.spread]} for f, t in found.items()}


def check(cell: Cell) -> None:
    """Raises UserError for a mistake in what is pre-trained, and where there are no images."""
    pretrain.check(configuration(cell))


def cost(cell: Cell) -> float:
    """FLOPs of the run; the timing costs little beside it."""
    return 0.0 if cell.rounds else pretrain.cost(configuration(cell))


def collect(config: Config, jobs: list[Job]) -> None:
    """Writes records and page of what is done."""
    asked = configuration(jobs[0].config)
    words = " ".join(map(_public, config.data)) + flags(config, Config(), ("epochs",))
    about = {
        "command": f"python ablations/pretraining.py {words}",
        "model": {"depth": asked.model.depth, "heads": asked.model.heads, "head_dim": asked.model.head_dim},
        "batch": asked.optim.batch,
        "base_lr": asked.optim.base_lr,
    }
    times = {job.config.source: job.result for job in jobs if job.config.rounds}
    runs = [job.result | times.get(job.config.source, {}).get(job.config.family, {}) for job in jobs if not job.config.rounds]  # fmt: skip
    if not runs:
        return
    figures.main(keep("pretraining", about, runs))


def _public(source: str) -> str:
    """A source without the folders that it lies in, which are nobody's business."""
    name, numbers = parts(source)
    return ":".join([name if name.startswith("hub:") else called(name), *map(str, numbers)])
