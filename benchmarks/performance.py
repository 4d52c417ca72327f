"""All benchmarks of speed and memory, one after the other, as one page.

    pip install -e '.[bench]'
    python benchmarks/performance.py

writes `docs/results/performance.md`, in about half an hour on two CPU cores. Leave the machine alone meanwhile.
"""

import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

from weight_templates import cli
from weight_templates.errors import RunError


@dataclasses.dataclass(frozen=True)
class Config:
    """Run all benchmarks, and write their page."""

    quick: bool = False
    """Few turns and small batches: to see that all of them run."""


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "performance.md"
PARTS = {
    "Where a step's time goes": (["breakdown.py"], ["--steps=1", "--batch=2"]),
    "A step, growing": (["growth.py", "--picture", str(PAGE.with_name("growth.png"))], ["--rounds=2", "--batch=2"]),
    "Expansion alone": (["expansion.py"], ["--rounds=2"]),
    "Memory of a step": (["memory.py"], ["--batches=2"]),
    "Images from the disk": (["pipeline.py"], ["--rounds=2", "--images=32", "--batch=8"]),
    "Starting": (["startup.py"], ["--rounds=2"]),
}


def main(config: Config) -> None:
    """Writes the page; raises RunError if a benchmark fails."""
    import jax

    text = [
        "# Performance",
        "",
        f"Made by `python benchmarks/performance.py` (see `benchmarks/README.md` for what each number means); nothing here is "
        f"typed by hand. {platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}, JAX {jax.__version__}, "
        f"Python {platform.python_version()}. The step against PyTorch: [pretrain-step.md](pretrain-step.md); sizes from a "
        "bank: [initialize.md](initialize.md).",
    ]
    for title, (words, quick) in PARTS.items():
        cli.say(title)
        command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:], *(quick if config.quick else [])]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise RunError(f"benchmarks/{words[0]} ended with code {done.returncode}; see above.")
        text += ["", f"## {title}", "", f"`python benchmarks/{words[0]}`", "", done.stdout.rstrip()]
        if words[0] == "growth.py":
            text += ["", "![step time on logarithmic axes; dotted: what the FLOPs alone would give](growth.png)"]
    PAGE.write_text("\n".join(text) + "\n")
    cli.say(f"page             {PAGE}")


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
