"""How long a user waits: `--help`, and the first step with an empty and with a filled cache of compiled programs.

    python benchmarks/startup.py

starts `experiments/pretrain.py` in a process of its own each time, from Python's start to the first recorded step.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from weight_templates import cli
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the start of a command."""

    rounds: int = 3
    """Turns."""


ROOT = Path(__file__).parents[1]
IMPORT = "import jax"
COMMAND = [sys.executable, str(ROOT / "experiments" / "pretrain.py")]


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    times: dict[str, list[float]] = {IMPORT: [], "--help": [], "first step, cold": [], "first step, warm": []}
    for _ in range(config.rounds):
        with tempfile.TemporaryDirectory() as name:
            cache = fresh(name)
            for what, command in ((IMPORT, [sys.executable, "-c", "import jax"]), ("--help", [*COMMAND, "--help"])):
                start = time.perf_counter()
                subprocess.run(command, env=cache, stdout=subprocess.DEVNULL, check=True)
                times[what].append(time.perf_counter() - start)
            times["first step, cold"].append(first_step(Path(name) / "cold", cache))
            times["first step, warm"].append(first_step(Path(name) / "warm", cache))
    reference = times["first step, cold"]
    print("| what | seconds | of the cold start (least to most) |\n|---|---|---|")
    for what, own in times.items():
        ratios = sorted(a / b for a, b in zip(own, reference, strict=True))
        print(
            f"| {what} | {statistics.median(own):.1f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) |"
        )


def fresh(cache: str) -> dict[str, str]:
    """This process's environment without what `cli.run` sets in it, and with another folder of caches."""
    own = ("JAX_COMPILATION_CACHE_DIR", "GLIBC_TUNABLES")  # with the latter a command would not start itself again
    return {name: value for name, value in os.environ.items() if name not in own} | {"XDG_CACHE_HOME": cache}


def first_step(root: Path, environment: dict[str, str]) -> float:
    """Seconds to the first recorded step of the tiny preset."""
    words = [f"--run.root={root}", "--run.log-every=1", "--data.count=512"]
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *words], env=environment, cwd=ROOT, stdout=-3, stderr=-3)
    try:
        while not any(path.stat().st_size for path in root.glob("pretrain/*/metrics.jsonl")):
            if process.poll() is not None:
                raise UserError("the command ended before its first step; run it by hand to see why.")
            time.sleep(0.02)
        return time.perf_counter() - start
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
