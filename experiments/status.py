"""What is running, waiting, finished or failed, and how far it is.

    python experiments/status.py

reads the run directories and jobs under `--root`; nothing needs to run for it.
"""

import contextlib
import dataclasses
import fcntl
import json
import time
from pathlib import Path
from typing import Any

from weight_templates import cli
from weight_templates.errors import RunError, UserError
from weight_templates.files import expanded
from weight_templates.jobs import read_json, states


@dataclasses.dataclass(frozen=True)
class Config:
    """Show all runs and jobs, and how far they are."""

    root: str = "runs"
    """Folder of all runs."""
    every: float | None = None
    """Show it again every so many seconds, until Ctrl-C."""


def main(config: Config) -> None:
    """Prints two tables; raises UserError if there is nothing to show, or no time between two looks."""
    root = expanded(config.root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give --root the folder of your runs.")
    if config.every is not None and not 0 < config.every <= 86400:
        raise UserError(f"--every {config.every:g} is not between 0 and a day's 86400 seconds.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            print(report(root))
            if config.every is None:
                return
            time.sleep(config.every)
            print("\x1b[2J\x1b[H", end="")


def report(root: Path) -> str:
    """The tables of the runs and the jobs under a folder, the latest last."""
    runs = [progress(path.parent) for path in sorted(root.glob("*/*/config.json"), key=lambda p: p.stat().st_mtime)]
    text = table(("run", "state", "step", "last record", "images/s", "ETA", "last heard"), runs) if runs else "no runs"
    told = {path.parent for path in root.glob("jobs/*/*.json")}  # those that ran here, too
    folders = sorted(told, key=lambda folder: folder.stat().st_mtime)
    if folders:
        silence = ""
        try:
            found = states(folders)
        except RunError as error:
            found, silence = states(folders, ask=False), f"\n{error}"
        rows = [(folder.name, now.state, now.id, now.why) for folder, now in zip(folders, found, strict=True)]
        text += "\n\n" + table(("job", "state", "number", ""), rows) + silence
    return text


def progress(run: Path) -> tuple[str, ...]:
    """One line about a run."""
    starts, lines = read_json(run / "environment.json") or [], records(run / "metrics.jsonl")
    done, of = max([line.get("step", 0) for line in lines], default=0), starts[-1].get("steps") if starts else None
    state = "finished" if (run / "summary.json").exists() else "running" if held(run) else "stopped"
    shown = {key: value for line in lines for key, value in line.items() if key.endswith(("loss", "top1"))}
    speeds = records(run / "timing.jsonl")
    rate = speeds[-1]["images_per_second"] if speeds and state == "running" else 0
    config = read_json(run / "config.json") or {}
    left = (of - done) * config.get("optim", {}).get("batch", 0) / rate if rate and of else None
    heard = max(path.stat().st_mtime for path in run.iterdir() if not path.name.startswith("."))
    return (
        f"{run.parent.name}/{run.name}",
        state,
        f"{done}/{of or '?'}" if starts else "",
        ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in shown.items()),
        f"{rate:,.0f}" if rate else "",
        "" if left is None else cli.clock(left),
        f"{cli.clock(time.time() - heard)} ago",
    )


def records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of records."""
    found = []
    for line in path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []:
        with contextlib.suppress(ValueError):  # another's file
            if line.endswith("\n") and isinstance(record := json.loads(line), dict):
                found.append(record)
    return found


def held(run: Path) -> bool:
    """Whether a process holds a run's directory."""
    if not (run / ".lock").exists():
        return False
    with open(run / ".lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Plain columns."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
