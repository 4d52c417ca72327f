"""A sweep of jobs that only wait, in the shape of an ablation."""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

from weight_templates.errors import UserError
from weight_templates.files import write_json
from weight_templates.jobs import Job


@dataclasses.dataclass(frozen=True)
class Config:
    """Wait several times."""

    root: str = "runs"
    count: int = 2
    """Jobs."""
    seconds: float = 0.1
    """How long each waits."""
    fails: int = -1
    """The number of the job that makes a mistake, unless a file `mended` lies in `root`."""
    again: int = 0
    """How often each asks to be queued again."""


PRESETS = {"default": Config()}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One job."""

    root: str
    number: int
    seconds: float
    fails: bool
    again: int = 0


def jobs(config: Config) -> list[Job]:
    """The grid."""
    cells = [Cell(config.root, n, config.seconds, n == config.fails, config.again) for n in range(config.count)]
    return [Job("tests.slurm.work:cell", cell, f"wait-{cell.number}") for cell in cells]


def cell(cell: Cell) -> dict[str, Any]:
    """Waits, in steps that are not waited for again."""
    root = Path(cell.root)
    if cell.fails and not (root / "mended").exists():
        raise UserError(f"cell {cell.number} is broken; mend it.")
    with open(root / f"starts-{cell.number}", "a") as file:
        file.write(f"{os.getpid()}\n")
    if len((root / f"starts-{cell.number}").read_text().split()) <= cell.again:
        os.kill(os.getpid(), signal.SIGUSR2)
    done = root / f"done-{cell.number}"
    while (waited := float(done.read_text()) if done.exists() else 0) < cell.seconds:
        time.sleep(0.1)
        done.write_text(str(waited + 0.1))
    return {"number": cell.number, "waited": waited}


def cost(cell: Cell) -> float:
    """FLOPs."""
    return 1e6 * cell.seconds


def collect(config: Config, jobs: list[Job]) -> None:
    """What came out of all."""
    write_json(Path(config.root) / "collected.json", [job.result for job in jobs])
