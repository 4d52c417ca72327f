"""Tables that stand beside the paper's: accuracy, ranks, gains, and how far the two agree on what is better; and the curves
of training behind them."""

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from figures.records import by_epoch, noise, save, signed, spread


if TYPE_CHECKING:
    from matplotlib.figure import Figure


WORDS = {
    "top1": "top-1 accuracy in percent",
    "top5": "top-5 accuracy in percent",
    "fid": "FID, of which less is better,",
    "is": "Inception Score, of which more is better",
}
"""Scores by the names that records have for them."""


class Table(NamedTuple):
    """Our scores and the paper's."""

    rows: list[str]
    columns: list[str]
    ours: dict[tuple[str, str], np.ndarray]
    """Accuracies in percent, one number a seed; cells without runs are left out."""
    paper: dict[tuple[str, str], float]
    images: int
    """Test images of each."""
    score: str = "top1"
    """What the numbers are; see `WORDS`."""

    def both(self) -> bool:
        """Whether any cell has a number of the paper beside it."""
        return any(key in self.paper for key in self.ours)


def table(runs: Any, order: list[str], column: str, printed: dict[str, dict[str, float]], score: str = "top1") -> Table:
    """The runs of one page; rows in `order`, those that the paper has without runs of ours, too; columns as the paper has
    them, then as they come.

    **Arguments:**

    - `column`: what the columns are: `size` or `data`.
    """
    theirs = list(dict.fromkeys(name for row in printed.values() for name in row))
    columns = sorted(
        dict.fromkeys(runs[column]), key=lambda name: theirs.index(name) if name in theirs else len(theirs)
    )
    ours = {
        (str(row), str(name)): some.sort_values("seed")[score].to_numpy()
        for (row, name), some in runs.groupby(["arm", column], sort=False)
    }
    paper = {(row, name): value for row, values in printed.items() for name, value in values.items()}
    rows = [row for row in order if row in set(runs["arm"]) or any(name in columns for name in printed.get(row, {}))]
    images = min((test or held)["images"] for test, held in zip(runs["test"], runs["held_out"], strict=True))
    return Table(rows, columns, ours, paper, images, score)


def cell(ours: str, mean: float | None, theirs: float | None = None) -> str:
    """Ours, in words, and where there is one the paper's number and the difference; what is not there stays empty."""
    if theirs is None:
        return ours
    return f"{ours} \\| {theirs:.2f} \\|" + ("" if mean is None else f" {signed(mean - theirs)}")


def scores(t: Table) -> list[str]:
    """One row a method or variant: `cell`s, and one of the means over the columns where none is empty."""
    lines = header([*t.columns, "mean"])
    for row in t.rows:
        ours = [t.ours.get((row, c)) for c in t.columns]
        means = [None if values is None else float(values.mean()) for values in ours]
        printed = [t.paper.get((row, c)) for c in t.columns]
        words = ["" if values is None else f"{spread(values)} ({len(values)})" for values in ours]
        mean, average = whole(means), whole(printed)
        cells = [*map(cell, words, means, printed), cell("" if mean is None else f"{mean:.1f}", mean, average)]
        lines.append(line([row, *cells]))
    return lines


def cells(runs: Any, score: str) -> str:
    """What a cell of `scores` holds, in words."""
    tested = [test is not None for test in runs["test"]]
    images = "test images" if any(tested) else "the held-out images"
    if any(tested) and not all(tested):
        images += ", held-out ones where there are none,"
    return (
        f"In a cell: {WORDS[score]} on {images}, of the epoch that was best on held-out ones, the mean "
        "± the deviation over seeds, and in brackets their number"
    )


def whole(values: list[float | None]) -> float | None:
    """The mean; None where a value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def probes(runs: Any, order: list[str], column: str) -> list[str]:
    """What a page says of the probes that heads are from, on the same images; nothing where none is known."""
    if "probe" not in runs or not (known := runs[[isinstance(probe, dict) for probe in runs["probe"]]]).size:
        return []
    judged = [probe["test"] or probe["held_out"] for probe in known["probe"]]
    known = known.assign(top1=[100 * found["top1"] for found in judged])
    words = "Before fine-tuning: top-1 accuracy of the linear probe whose head each network begins with, likewise."
    return ["", words, "", *scores(table(known, order, column, {}))]


def measured(t: Table) -> list[str]:
    """The rows that have runs of ours."""
    return [row for row in t.rows if any((row, c) in t.ours for c in t.columns)]


def ranks(t: Table) -> list[str]:
    """Places in each column: among all of ours; and, of rows that both have, among these in ours and in the paper's."""
    lines = header([*t.columns, "mean"])
    own = {key: ours.mean() for key, ours in t.ours.items()}
    shared = {key: mean for key, mean in own.items() if key in t.paper}
    theirs = {key: value for key, value in t.paper.items() if key in own}
    every, ours, printed = ({c: standings(t, c, of) for c in t.columns} for of in (own, shared, theirs))
    for row in measured(t):
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


def standings(t: Table, column: str, values: dict[tuple[str, str], float]) -> dict[str, int]:
    """The place of each row in a column, those with equal values sharing the better one."""
    sign = -1 if t.score == "fid" else 1
    known = {row: sign * values[row, column] for row in t.rows if (row, column) in values}
    return {row: 1 + sum(other > value for other in known.values()) for row, value in known.items()}


def gains(t: Table) -> list[str]:
    """By how much each row is above the first: ours, and where it has both rows the paper's and the difference."""
    first, *others = measured(t)
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
    """In how many pairs of rows the better one is the same in ours and in the paper's, in words; nothing where no column has
    two rows that both have."""
    pairs, same, told, told_same = 0, 0, 0, 0
    for c, (a, b) in itertools.product(t.columns, itertools.combinations(t.rows, 2)):
        if {(a, c), (b, c)} <= t.ours.keys() & t.paper.keys():
            ours, theirs = t.ours[a, c].mean() - t.ours[b, c].mean(), t.paper[a, c] - t.paper[b, c]
            agrees = bool(ours * theirs > 0)
            pairs, same = pairs + 1, same + agrees
            if abs(ours) > apart(t, c):
                told, told_same = told + 1, told_same + agrees
    if not pairs:
        return ""
    return (
        f"Two rows of a column are in the paper's order in {same} of {pairs} pairs; among the {told} pairs that are "
        f"further apart than by chance nineteen times in twenty, in {told_same}.{caveat(t)}"
    )


def caveat(t: Table) -> str:
    """What chance leaves out where no row of a column has several seeds, in words; else nothing."""
    if all(freedom(t, column) for column in t.columns):
        return ""
    if t.score != "top1":
        return " Where no row has several seeds, nothing is known of chance."
    return " Chance is that of the test images alone, where no row has several seeds: other seeds may change the order."


def freedom(t: Table, column: str) -> int:
    """Degrees of freedom of a column's spread over seeds, all rows together; 0 where each has one seed."""
    return sum(len(t.ours[row, column]) - 1 for row in t.rows if (row, column) in t.ours)


def apart(t: Table, column: str) -> float:
    """How far two means of a column are apart by chance, nineteen times in twenty, in points.

    With several seeds by Student's t, from the spread within all rows together, taken to be the same in each; with one,
    from the number of test images alone, which is less than the truth, or for other scores than accuracy not known.
    """
    values = [t.ours[row, column] for row in t.rows if (row, column) in t.ours]
    free = freedom(t, column)
    if not free and t.score != "top1":
        return float("inf")
    if not free:
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


MOST = 10
"""Lines that can be told apart in a panel."""


def shares(runs: Any, order: list[str]) -> list[list[str]]:
    """The rows that have runs, in `order`, as many figures as it takes so that no panel has more than `MOST` lines; the first
    row is in each, to compare with."""
    first, *others = [row for row in order if row in set(runs["arm"])]
    figures = max(1, -(-len(others) // (MOST - 1)))
    size = max(1, -(-len(others) // figures))
    return [[first, *others[at : at + size]] for at in range(0, max(1, len(others)), size)]


def pictures(runs: Any, order: list[str], words: str, name: str) -> list[str]:
    """What a page has of the figures that `curves` draws."""
    count = len(shares(runs, order))
    return [line for number in range(count) for line in ("", f"![{words}]({numbered(name, number)}.png)")]


def numbered(name: str, number: int) -> str:
    """The name of a figure that there may be several of, the first without a number."""
    return f"{name}-{number + 1}" if number else name


def curves(runs: Any, column: str, order: list[str], legend: str, name: str) -> None:
    """Held-out accuracy against the epoch, one panel a column of the table, three panels in a row, a figure for each of
    `shares`.

    **Arguments:**

    - `order`: of the rows of the table, all that there can be.
    - `legend`: what a row is called.
    """
    for number, rows in enumerate(shares(runs, order)):
        save(drawn(runs[runs["arm"].isin(rows)], column, rows, legend), numbered(name, number))


def drawn(runs: Any, column: str, order: list[str], legend: str) -> "Figure":
    """One figure of `curves`."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    table = by_epoch(runs).rename(columns={"arm": legend})
    panels = list(dict.fromkeys(table[column]))
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    ncols = max(
        1, min(4, 115 // (max(map(len, order)) + 9))
    )  # as many as 6.6 inches hold, a line's sample being nine letters
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(6.6, 2 * down + 0.2 * -(-len(order) // ncols)), layout="constrained")
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, panel in zip(grid, panels, strict=False):
            some: Any = table[table[column] == panel]
            sns.lineplot(
                some, x="epoch", y="held-out top-1, %", hue=legend, style=legend, hue_order=order, style_order=order,
                errorbar="sd", ax=axes, legend=panel == panels[-1],
            )  # fmt: skip
            axes.set_title(panel, fontsize=8)
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        axes.get_legend().remove()
        for empty in grid[len(panels) :]:
            empty.set_axis_off()
        figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False)
        sns.despine(figure)
    return figure
