"""A run's directory: what was asked, where it ran, what came out. A pure function of the configuration."""

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from .. import cli
from ..config import RunOptions, digest
from ..errors import UserError
from ..files import expanded, write_bytes, write_json
from .checkpoint import Checkpoints
from .sharding import leads, meet


class Run:
    """The directory of one run, held by one process at a time; of several that train together, by the first.

    config.json          what was asked; another configuration is refused
    environment.json     versions, device, commit, for every start
    metrics.jsonl        what was measured, free of clocks: the same bytes however often the run was interrupted
    timing.jsonl         images a second, by the clock
    checkpoints/         see `Checkpoints`
    summary.json         written last: the run is finished
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        config: dict[str, Any],
        options: RunOptions,
        leaves: Sequence[str] = (),
    ):
        """Looks at the directory, and touches nothing; entering the run does.

        **Arguments:**

        - `experiment`, `name`: the directory is `root/experiment/name-digest`, unless `options.out` says otherwise.
        - `config`: all that determines the result, as JSON.
        - `leaves`: what the run is for: files without one of which it is not finished.

        Raises UserError if the directory holds another configuration, or something that is no run.
        """
        options.check()
        self.path = expanded(options.out or Path(options.root) / experiment / f"{name}-{digest(config)}")
        self.config, self.options, self.leaves = config, options, leaves
        self.checkpoints = Checkpoints(self.path / "checkpoints")
        self._loggers: list[Callable[[dict[str, Any]], None]] = []
        self._check()

    def __enter__(self) -> "Run":
        """Makes the directory and holds it; with `overwrite`, first empties it of an earlier run.

        Raises UserError if another process holds it, or it cannot be written.
        """
        if not leads():
            meet(str(self.path))
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")
        except OSError as error:
            raise UserError(f"cannot write to {self.path} ({error.strerror}); choose another --run.root.") from None
        try:
            self._claim()
        except BaseException:
            self._lock.close()
            raise
        meet(str(self.path))
        return self

    def _wait(self) -> None:
        for _ in range(3):  # somebody may only be asking whether it is held
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.1)
        if "SUBMITIT_EXECUTOR" not in os.environ:
            raise UserError(f"another process is running in {self.path}; wait for it, or stop it.")
        cli.say(f"waiting for another job, which is running in {self.path}")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _claim(self) -> None:
        self._wait()
        self._check()  # again: it may have become another run's since
        if self.options.logger != "none":
            check_logger(self.options.logger)
        if self.options.overwrite:
            for entry in self._content():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
            self.options = dataclasses.replace(self.options, overwrite=False)  # once, however often it is entered
        for litter in self.path.rglob(".*.tmp"):  # of writes that were killed
            litter.unlink()
        write_json(self.path / "config.json", self.config)
        if self.options.logger != "none":
            self._loggers.append(_logger(self.options.logger, self.path, self.config))

    def __exit__(self, *_: object) -> None:
        self.checkpoints.wait()
        if leads():
            self._lock.close()

    def _content(self) -> list[Path]:
        """What a run has written, in the order in which it is deleted; nothing else ever is."""
        pictures = sorted(path.name for path in self.path.glob("*.png"))
        return [self.path / name for name in (*FIRST, *self.leaves, *pictures, "tensorboard", *LAST)]

    def _check(self) -> None:
        said = self.path / "config.json"
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; give --run.out a directory.")
        if said.exists():
            try:
                before = json.loads(said.read_text())
            except ValueError:
                before = None
            if before != self.config and not self.options.overwrite:
                raise UserError(
                    f"{self.path} belongs to a run with another configuration ({_difference(before, self.config)}); "
                    "choose another --run.out, or say --run.overwrite to start anew."
                )
        elif self.path.exists() and (stray := [e.name for e in self.path.iterdir() if not e.name.startswith(".")]):
            raise UserError(f"{self.path} is not a run's directory (it holds {stray[0]}); choose another --run.out.")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What a finished run came to; None before, if one of its files is gone, or if it is to be overwritten."""
        path = self.path / "summary.json"
        if self.options.overwrite or not path.exists():
            return None
        if gone := [name for name in self.leaves if not (self.path / name).is_file()]:
            cli.say(
                f"note: {self.path} was finished, but its {gone[0]} is gone; it is made again from the last checkpoint."
            )
            return None
        try:
            return json.loads(path.read_text())
        except ValueError:
            return None  # damaged: it is written again

    def begin(self, step: int, steps: int) -> None:
        """Notes a start at `step` of `steps`: drops records beyond it, and writes down the environment."""
        if not leads():
            return
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.path / name
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_bytes(path, "".join(kept).encode())
        starts = self.path / "environment.json"
        before = json.loads(starts.read_text()) if starts.exists() else []
        write_json(starts, [*before, {"step": step, "steps": steps, **environment()}])

    def record(self, **values: Any) -> None:
        """Adds a line to the metrics: floats, and a `step`. Nothing that depends on a clock may be in it."""
        if not leads():
            return
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before any checkpoint that is newer
        for log in self._loggers:
            log(values)

    def time(self, **values: Any) -> None:
        """Adds a line to the timings."""
        if not leads():
            return
        with open(self.path / "timing.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def finish(self, **values: Any) -> None:
        """Writes the summary, after which the run is finished."""
        if leads():
            write_json(self.path / "summary.json", values)
        meet("finished")


FIRST = ("summary.json", "checkpoints")
LAST = ("timing.jsonl", "metrics.jsonl", "environment.json", "config.json")
"""What `--run.overwrite` deletes first and last, so that it may be killed meanwhile."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, one dictionary a line."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def environment() -> dict[str, Any]:
    """Versions, device and commit."""
    packages = ("jax", "jaxlib", "equinox", "optax", "numpy", "weight-templates")
    device = jax.devices()[0]
    return {
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        **_commit(),
    }


def _commit() -> dict[str, Any]:
    def git(*words: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _difference(before: Any, after: Any, name: str = "") -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                return _difference(before.get(key), after.get(key), f"{name}.{key}".lstrip("."))
    return f"{name} was {before}, now {after}"


def check_logger(kind: str) -> None:
    """Raises UserError if the package of a logger is not installed."""
    module = {"tensorboard": "tensorboardX", "wandb": "wandb"}[kind]
    if importlib.util.find_spec(module) is None:
        raise UserError(f"--run.logger {kind} needs {module}; install it with `pip install -e '.[track]'`.")


def _logger(kind: str, path: Path, config: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    if kind == "tensorboard":
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports] - an extra

        writer = SummaryWriter(str(path / "tensorboard"))

        def write(values: dict[str, Any]) -> None:
            for name, value in values.items():
                if name != "step":
                    writer.add_scalar(name, value, values["step"])
            writer.flush()

        return write
    import wandb  # pyright: ignore[reportMissingImports] - an extra

    own = f"{path.name}-{digest({'path': str(path.resolve())})}"
    run = wandb.init(project="weight-templates", name=path.name, id=own, resume="allow", dir=path, config=config)
    return lambda values: run.log({k: v for k, v in values.items() if k != "step"}, step=values["step"])


class Stopwatch:
    """Tells the progress of a run on one line of the terminal, or now and then on lines of a log."""

    def __init__(self, start: int, stop: int, images_per_step: int):
        self.start, self.stop, self.images = start, stop, images_per_step
        self.began = self.last = time.perf_counter()
        self.seen = self.spoken = start
        self.terminal = sys.stderr.isatty()
        self.told = 0.0

    def lap(self, step: int, loss: float) -> float:
        """Tells that `step` steps are done; returns images per second since the last lap."""
        now = time.perf_counter()
        rate = self.images * (step - self.seen) / max(now - self.last, 1e-9)
        # The first lap holds the compilation; leave it out of the estimate as soon as there is another.
        if self.seen == self.start and step < self.stop:
            self.began, self.spoken = now, step
        pace = (now - self.began) / max(step - self.spoken, 1) if step > self.spoken else self.images / max(rate, 1e-9)
        self.last, self.seen = now, step
        line = f"step {step}/{self.stop}  loss {loss:.4f}  {rate:,.0f} images/s  ETA {cli.clock((self.stop - step) * pace)}"
        if self.terminal:
            print(f"\r{line}\x1b[K", end="\n" if step == self.stop else "", file=sys.stderr, flush=True)
        elif step == self.stop or now - self.told > 10:
            print(line, file=sys.stderr, flush=True)
            self.told = now
        return rate
