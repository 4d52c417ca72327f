"""All benchmarks of speed and memory, one after the other, as one page.

    pip install -e '.[bench]'
    python benchmarks/performance.py

writes `docs/results/performance.md` and the picture beside it, in about half an hour on two CPU cores. Leave
the machine alone meanwhile.
"""

import dataclasses
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from weight_templates import cli
from weight_templates.errors import RunError


@dataclasses.dataclass(frozen=True)
class Config:
    """Run all benchmarks, and write their page."""

    quick: bool = False
    """Few turns and small batches, into a temporary folder: to see that all of them run."""


ROOT = Path(__file__).parents[1]
RESULTS = "docs/results"  # under ROOT, where the benchmarks are run
PARTS = {
    "Where a step's time goes": ("breakdown.py", ["--steps=1", "--batch=2"]),
    "The products alone": ("products.py", ["--rounds=2", "--batch=2"]),
    "A step, growing": ("growth.py", ["--rounds=2", "--batch=2"]),
    "Expansion alone": ("expansion.py", ["--rounds=2"]),
    "Memory of a step": ("memory.py", ["--batches=2"]),
    "Images from the disk": ("pipeline.py", ["--rounds=2", "--images=32", "--batch=8"]),
    "Starting": ("startup.py", ["--rounds=2"]),
}


def main(config: Config) -> None:
    """Writes the page; raises RunError if a benchmark fails."""
    folder = tempfile.mkdtemp(prefix="performance-") if config.quick else RESULTS
    # In a process of its own: one that has seen a GPU keeps most of its memory from the benchmarks.
    device = printed([sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"]).strip()
    text = [
        "# Performance",
        "",
        f"Made by `python benchmarks/performance.py{' --quick' * config.quick}` (see `benchmarks/README.md` for what each "
        f"number means); nothing here is typed by hand. {platform.machine()}, {os.cpu_count()} cores, {device}, "
        f"JAX {importlib.metadata.version('jax')}, Python {platform.python_version()}. The step against PyTorch: "
        "[pretrain-step.md](pretrain-step.md), and [in bfloat16](pretrain-step-bfloat16.md); sizes from a bank: [initialize.md](initialize.md).",
    ]
    for title, (name, quick) in PARTS.items():
        cli.say(title)
        drawn = name == "growth.py"
        picture = [f"--picture={folder}/growth.png"] if drawn else []
        command = [f"benchmarks/{name}", *picture, *(quick if config.quick else [])]
        text += [
            "",
            f"## {title}",
            "",
            f"`python {shlex.join(command)}`",
            "",
            printed([sys.executable, *command]).rstrip(),
        ]
        if drawn:
            text += ["", "![step time on logarithmic axes; dotted: what the FLOPs alone would give](growth.png)"]
    page = ROOT / folder / "performance.md"
    page.write_text("\n".join(text) + "\n")
    cli.say(f"page             {page}")


def printed(command: list[str]) -> str:
    """What a command prints, run where its words are relative to; raises RunError if it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RunError(f"`{shlex.join(command)}` ended with code {done.returncode}; see above.")
    return done.stdout


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
