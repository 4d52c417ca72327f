"""What the pages made from `results/` have in common: reading records, and saying where they are from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


HEADS = {"new": "new", "probe": "the one that a linear probe on the same images found first"}
"""Where a network's head started, in words."""


def read(path: Path) -> tuple[dict[str, Any], Any]:
    """What a file of records says of itself, and its runs as a table, with test (else held-out) accuracies in percent."""
    tree = json.loads(path.read_text())
    runs: Any = pd.DataFrame(tree["runs"])
    for score in ("top1", "top5"):
        runs[score] = [100 * (test or held)[score] for test, held in zip(runs["test"], runs["held_out"], strict=True)]
    runs["size"] = [f"L{depth}H{heads}" for depth, heads in zip(runs["depth"], runs["heads"], strict=True)]
    return tree["about"], runs


def commits(runs: Any) -> str:
    """The commits that runs were trained at."""
    known = zip(runs["commit"], runs["dirty"], strict=True)
    return ", ".join(sorted({str(c)[:8] + (" with uncommitted changes" if d else "") for c, d in known}))


def by_epoch(runs: Any) -> Any:
    """The curves of held-out accuracy as a table, one row an epoch; other columns as they are."""
    table = runs.explode("curve", ignore_index=True)
    table["epoch"] = [epoch for epoch, _ in table["curve"]]
    table["held-out top-1, %"] = [100 * value for _, value in table["curve"]]
    return table


def spread(values: np.ndarray, sign: bool = False) -> str:
    """Mean, and deviation over seeds where there are several."""
    mean = f"{values.mean():+.1f}" if sign else f"{values.mean():.1f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.1f}"
