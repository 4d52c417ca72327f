"""Tables that stand beside the paper's: accuracy, ranks, gains, and how far the two agree on what is better."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from figures.records import noise, signed, spread


CELLS = (
    "In a cell: top-1 accuracy in percent on test images, of the epoch that was best on held-out ones, the mean ± the "
    "deviation over seeds, and in brackets their number"
)
"""What a cell of `accuracy` holds."""


class Table(NamedTuple):
    """Our accuracies and the paper's."""

    rows: list[str]
    columns: list[str]
    ours: dict[tuple[str, str], np.ndarray]
    """In percent, one number a seed; cells without runs are left out."""
    paper: dict[tuple[str, str], float]
    images: int
    """Test images of each."""

    def both(self) -> bool:
        """Whether any cell has a number of the paper beside it."""
        return any(key in self.paper for key in self.ours)


def table(runs: Any, order: list[str], column: str, printed: dict[str, dict[str, float]]) -> Table:
    """The runs of one page; rows in `order`, columns as the paper has them, then as they come.

    **Arguments:**

    - `column`: what the columns are: `size` or `data`.
    """
    theirs = list(dict.fromkeys(name for row in printed.values() for name in row))
    columns = sorted(
        dict.fromkeys(runs[column]), key=lambda name: theirs.index(name) if name in theirs else len(theirs)
    )
    ours = {
        (str(row), str(name)): some.sort_values("seed")["top1"].to_numpy()
        for (row, name), some in runs.groupby(["arm", column], sort=False)
    }
    paper = {(row, name): value for row, values in printed.items() for name, value in values.items()}
    rows = [row for row in order if row in set(runs["arm"])]
    images = min((test or held)["images"] for test, held in zip(runs["test"], runs["held_out"], strict=True))
    return Table(rows, columns, ours, paper, images)


def cell(values: np.ndarray, theirs: float | None = None) -> str:
    """Ours, the number of seeds, and where there is one the paper's number and the difference."""
    return f"{spread(values)} ({len(values)})" + (
        "" if theirs is None else f" \\| {theirs:.2f} \\| {signed(values.mean() - theirs)}"
    )


def accuracy(t: Table) -> list[str]:
    """One row a method or variant: `cell`s, and the mean over the columns where none is empty."""
    lines = header([*t.columns, "mean"])
    for row in t.rows:
        found = [(t.ours.get((row, c)), t.paper.get((row, c))) for c in t.columns]
        cells = ["" if ours is None else cell(ours, theirs) for ours, theirs in found]
        means = [ours.mean() for ours, _ in found if ours is not None]
        lines.append(line([row, *cells, f"{np.mean(means):.1f}" if len(means) == len(found) else ""]))
    return lines


def ranks(t: Table) -> list[str]:
    """Places in each column: among all of ours; and, of rows that both have, among these in ours and in the paper's."""
    lines = header([*t.columns, "mean"])
    own = {key: ours.mean() for key, ours in t.ours.items()}
    shared = {key: mean for key, mean in own.items() if key in t.paper}
    theirs = {key: value for key, value in t.paper.items() if key in own}
    every, ours, printed = ({c: standings(t.rows, c, of) for c in t.columns} for of in (own, shared, theirs))
    for row in t.rows:
        places = [every[c].get(row) for c in t.columns]
        cells = [
            ""
            if place is None
            else f"{place} \\| {ours[c][row]} \\| {printed[c][row]}"
            if row in ours[c]
            else str(place)
            for c, place in zip(t.columns, places, strict=True)
        ]
        lines.append(line([row, *cells, "" if None in places else f"{np.mean([p for p in places if p]):.1f}"]))
    return lines


def standings(rows: list[str], column: str, values: dict[tuple[str, str], float]) -> dict[str, int]:
    """The place of each row in a column, those with equal values sharing the better one."""
    known = {row: values[row, column] for row in rows if (row, column) in values}
    return {row: 1 + sum(other > value for other in known.values()) for row, value in known.items()}


def gains(t: Table) -> list[str]:
    """By how much each row is above the first: ours, and where it has both rows the paper's and the difference."""
    first, *others = t.rows
    lines = header(t.columns)
    for row in others:
        cells = []
        for c in t.columns:
            text = ""
            if (row, c) in t.ours and (first, c) in t.ours:
                ours = t.ours[row, c].mean() - t.ours[first, c].mean()
                text = signed(ours)
                if (row, c) in t.paper and (first, c) in t.paper:
                    theirs = t.paper[row, c] - t.paper[first, c]
                    text += f" \\| {signed(theirs)} \\| {signed(ours - theirs)}"
            cells.append(text)
        lines.append(line([row, *cells]))
    return lines


def agreement(t: Table) -> str:
    """In how many pairs of rows the better one is the same in ours and in the paper's, in words."""
    pairs, same, told, told_same = 0, 0, 0, 0
    for c, (a, b) in itertools.product(t.columns, itertools.combinations(t.rows, 2)):
        if {(a, c), (b, c)} <= t.ours.keys() & t.paper.keys():
            ours, theirs = t.ours[a, c].mean() - t.ours[b, c].mean(), t.paper[a, c] - t.paper[b, c]
            agrees = bool(ours * theirs > 0)
            pairs, same = pairs + 1, same + agrees
            if abs(ours) > apart(t, c):
                told, told_same = told + 1, told_same + agrees
    return (
        f"Two rows of a column are in the paper's order in {same} of {pairs} pairs; among the {told} pairs that are "
        f"further apart than by chance nineteen times in twenty, in {told_same}.{caveat(t)}"
    )


def caveat(t: Table) -> str:
    """What chance leaves out where no row of a column has several seeds, in words; else nothing."""
    if all(freedom(t, column) for column in t.columns):
        return ""
    return " Chance is that of the test images alone, where no row has several seeds: other seeds may change the order."


def freedom(t: Table, column: str) -> int:
    """Degrees of freedom of a column's spread over seeds, all rows together; 0 where each has one seed."""
    return sum(len(t.ours[row, column]) - 1 for row in t.rows if (row, column) in t.ours)


def apart(t: Table, column: str) -> float:
    """How far two means of a column are apart by chance, nineteen times in twenty, in points.

    With several seeds by Student's t, from the spread within all rows together, taken to be the same in each; with one,
    from the number of test images alone, which is less than the truth.
    """
    values = [t.ours[row, column] for row in t.rows if (row, column) in t.ours]
    if not (free := freedom(t, column)):
        return noise(float(np.mean([v.mean() for v in values])), t.images)
    from scipy.special import stdtrit  # slow to import, and the command lines of ablations import this

    variance = sum(((v - v.mean()) ** 2).sum() for v in values) / free
    return float(stdtrit(free, 0.975) * np.sqrt(2 * variance * np.mean([1 / len(v) for v in values])))


def header(columns: list[str]) -> list[str]:
    """The head of a table whose first column has no name."""
    return [line(["", *columns]), "|---" * (len(columns) + 1) + "|"]


def line(cells: list[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"
