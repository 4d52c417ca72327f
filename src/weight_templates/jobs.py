"""Jobs: functions of a configuration, by name, so that whatever runs one runs the code that is on the disk then.

A job leaves in `root/jobs/NAME-DIGEST`:

    job.json       what was asked, and how it was submitted
    result.json    what the function returned: the job is done, and is not submitted again
    error.json     why it failed, in one sentence
    again.json     it has stopped to be started again, and has not been yet

Preempted, timed out or killed, a job is called again with the same configuration, and its runs go on from their last
checkpoints. Whether jobs are waiting, running or gone, SLURM's `squeue` tells; its accounting need not be there.
"""

import dataclasses
import functools
import importlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .config import digest, to_json
from .entry import plain
from .errors import RunError, UserError
from .files import digest_of_file, expanded, write_json


State = Literal["done", "failed", "running", "waiting", "stopped", "new", "unknown"]


@dataclasses.dataclass(frozen=True)
class Job:
    """A function by name, `module:function`, and its configuration: what submitit pickles and calls."""

    function: str
    config: Any
    """A dataclass with a `root`, or a `run.root`, in which the job's folder is."""
    name: str

    @property
    def path(self) -> Path:
        """The job's folder: a function of the configuration."""
        root = self.config.root if hasattr(self.config, "root") else self.config.run.root
        asked = {
            "function": self.function,
            "kind": type(self.config).__name__,
            "config": _identified(to_json(self.config)),
        }
        if out := getattr(getattr(self.config, "run", None), "out", None):
            asked["out"] = out
        return expanded(root) / "jobs" / f"{self.name}-{digest(asked)}"

    @property
    def result(self) -> Any:
        """What the function returned, None before; a path that is gone counts as nothing, and so does all that is to be
        overwritten."""
        found = read_json(self.path / "result.json")
        if found is None or getattr(getattr(self.config, "run", None), "overwrite", False):
            return None
        return None if found["path"] and not Path(found["value"]).exists() else found["value"]

    def resolved(self, name: str | None = None) -> Any:
        """The function, or another of its module; None if there is none of this name."""
        module, own = self.function.split(":")
        return getattr(importlib.import_module(module), name or own, None)

    def __call__(self) -> Any:
        """Calls the function, and writes down what came out."""
        config = self.again().config if int(os.environ.get("SLURM_RESTART_COUNT", 0)) else self.config
        error = self.path / "error.json"
        for file in (error, self.path / "again.json"):
            file.unlink(missing_ok=True)
        try:
            compute_inline()
            leads = _join()
            value = self.resolved()(config)
        except Exception as problem:
            words = (
                str(problem) if isinstance(problem, UserError | RunError) else f"{type(problem).__name__}: {problem}"
            )
            if not error.exists():  # of several processes, the first to fail knows why
                write_json(error, {"error": plain(words), "log": _log()})
            raise
        path = isinstance(value, Path)
        if leads:
            write_json(self.path / "result.json", {"value": str(value) if path else value, "path": path})
        return None

    def again(self) -> "Job":
        """The same job once it has begun: what it has done is not to be overwritten."""
        run = getattr(self.config, "run", None)
        if run is None or not run.overwrite:
            return self
        return dataclasses.replace(
            self, config=dataclasses.replace(self.config, run=dataclasses.replace(run, overwrite=False))
        )

    def checkpoint(self) -> Any:
        """What submitit queues again when the job is preempted or runs out of time."""
        from submitit.helpers import DelayedSubmission

        if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # which starts a process six times, and no more
            write_json(self.path / "again.json", {})
        return DelayedSubmission(self.again())


def compute_inline() -> None:
    """Has JAX run programs of one CPU in the thread that calls them; call it before the first array.

    The allocator keeps freed memory of any size for the main thread alone, see `weight_templates.cli.TUNABLES`.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def _log() -> str:
    """Where the errors of this process of a submitted job go; nothing where it was not submitted."""
    if "SUBMITIT_FOLDER" not in os.environ:
        return ""
    import submitit

    return str(submitit.JobEnvironment().paths.stderr)


def _join() -> bool:
    """Joins the other processes of a submitted job, if there are any; returns whether this is the first."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return True
    import jax
    import submitit

    here = submitit.JobEnvironment()
    if here.num_tasks > 1:
        words: dict[str, Any] = {"shutdown_timeout_seconds": 60}
        if here.cluster != "slurm":  # which JAX knows by itself
            port = 20000 + int(here.job_id) % 20000
            words |= {
                "coordinator_address": f"localhost:{port}",
                "num_processes": here.num_tasks,
                "process_id": here.global_rank,
                "local_device_ids": [here.local_rank],
            }
        jax.distributed.initialize(**words)
    return here.global_rank == 0


class Found(NamedTuple):
    """What is known of a job from the disk and the queue."""

    state: State
    words: str
    """Why it failed, else nothing."""
    id: str
    """The last submission's, or nothing."""
    log: str

    @property
    def why(self) -> str:
        """What to know of it if it failed."""
        log = f" Log: {self.log}" if self.log else ""  # what ran in the terminal has none
        return f"{self.words.rstrip('.')}.{log}" if self.state == "failed" else ""


def _identified(tree: Any) -> Any:
    """A configuration as JSON without the folder of all runs, and with the digests of the files that it names."""
    if isinstance(tree, dict):
        return {name: _identified(value) for name, value in tree.items() if name != "root"}
    if isinstance(tree, list):
        return [_identified(value) for value in tree]
    if isinstance(tree, str) and tree and (path := Path(os.path.expanduser(tree))).is_file():
        return [tree, _digest(path, path.stat().st_mtime_ns)]
    return tree


@functools.cache
def _digest(path: Path, changed: int) -> str:
    return digest_of_file(path)


def states(folders: Sequence[Path], ask: bool = True) -> list[Found]:
    """The states of jobs, by their folders; raises RunError where SLURM has to be asked, and does not answer.

    **Arguments:**

    - `ask`: whether to ask SLURM. If not, what only its queue tells is unknown.
    """
    said = [(read_json(folder / "job.json") or {}).get("submissions") for folder in folders]
    last = [submissions[-1] if submissions else None for submissions in said]
    done = [(folder / "result.json").exists() for folder in folders]
    queued = [one and one["cluster"] == "slurm" and not ended for one, ended in zip(last, done, strict=True)]
    queue = _queue() if ask and any(queued) else {}
    found = []
    for folder, one, ended, waits in zip(folders, last, done, queued, strict=True):
        name, log = (one["id"], one["log"]) if one else ("", "")
        alive = one and (queue.get(name) if one["cluster"] == "slurm" else _process(int(name)))
        error = read_json(folder / "error.json")
        if ended:
            found.append(Found("done", "", name, log))
        elif alive:
            found.append(Found(alive, "", name, log))
        elif waits and error is None and not ask:
            found.append(Found("unknown", "", name, log))
        elif one and one["cluster"] == "local" and error is None and (folder / "again.json").exists():
            found.append(Found("stopped", "", name, log))
        elif one is None and error is None:
            found.append(Found("new", "", name, log))
        else:
            words = error["error"] if error else _last_words(Path(log))
            told = (error or {}).get("log") or log
            if one and one["cluster"] == "local" and not Path(told).is_file():
                told = ""  # another machine's may only be out of sight
            found.append(Found("failed", words, name, told))
    return found


def _queue() -> dict[str, State]:
    """What SLURM has of this user's jobs."""
    try:
        asked = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
        lines = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    except (subprocess.SubprocessError, OSError) as error:
        raise RunError(f"squeue does not answer ({error}); the jobs go on, ask again later.") from None
    waiting = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED")
    return {name: "waiting" if state in waiting else "running" for name, state in map(str.split, lines)}


def _process(number: int) -> State | None:
    try:
        status = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        ours = b"submitit" in Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return None
    return "running" if ours and status != "Z" else None


_NOISE = re.compile(r"step |[EWIF]\d{4} |\[Compiling module|Very slow compile|\W*$")
"""How lines begin that give no reason: progress, and XLA's alarms."""


def _last_words(log: Path) -> str:
    if not log.is_file():
        return "it was killed before it began, or a line of its --setup failed"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    told = [line for line in lines if not _NOISE.match(line)]
    reasons = [line for line in told if line.startswith("slurmstepd") and "REQUEUE" not in line]  # cancelled, memory
    return "it was killed, or ended without a result" + (f"; last words: {(reasons or told)[-1]}" if told else "")


def read_json(path: Path) -> Any:
    """What a file holds; None if it is not there, or not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
