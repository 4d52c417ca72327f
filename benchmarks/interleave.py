"""Timing things against each other: in turns, in one process, so that the machine's moods fall on all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """How long something takes, and how long in units of another, turn by turn."""

    seconds: float
    """Median."""
    ratio: float
    """Median over the turns of this one's time over the reference's in the same turn."""
    spread: tuple[float, float]
    """First and last quartile of those ratios."""
    fastest: float
    """This one's fastest turn over the reference's: what the machine's moods, which only ever slow down, disturb least."""

    @property
    def words(self) -> str:
        """The ratio, its quartiles, and that of the fastest turns."""
        return f"{self.ratio:.2f} ({self.spread[0]:.2f}–{self.spread[1]:.2f}), {self.fastest:.2f}"


def compare(
    tasks: Mapping[str, Callable[[], Any]], reference: str, rounds: int, units: Mapping[str, int] | None = None
) -> dict[str, Timing]:
    """How long every task takes, against one of them; see `turns`."""
    times = turns(tasks, rounds, units)
    return {name: timing(own, times[reference]) for name, own in times.items()}


def turns(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, units: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Runs every task once to warm up, then all of them in turn, `rounds` times; each must wait for its own result.

    `units` says how much a task does in one call, where that is not 1; the seconds returned are of one unit.
    """
    units = units or {}
    for task in tasks.values():
        task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds):
        names = list(tasks) if turn % 2 == 0 else list(tasks)[::-1]
        for name in names:
            start = time.perf_counter()
            tasks[name]()
            times[name].append((time.perf_counter() - start) / units.get(name, 1))
    return times


def timing(own: Sequence[float], reference: Sequence[float]) -> Timing:
    """What the seconds of one task's turns say, against those of another in the same turns."""
    ratios = sorted(a / b for a, b in zip(own, reference, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratios[0],) * 3
    return Timing(statistics.median(own), statistics.median(ratios), (low, high), min(own) / min(reference))
