"""What the pages made from `results/` have in common: reading records, writing pages and figures, saying where they are from."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weight_templates import cli
from weight_templates.config import digest
from weight_templates.errors import UserError
from weight_templates.files import write_bytes


if TYPE_CHECKING:
    from matplotlib.figure import Figure


ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results"
"""Records of runs, one JSON file a page: NAME.json, and NAME-DIGITS.json where there are several protocols."""
RESULTS = ROOT / "docs" / "results"
"""Pages and figures."""
HEADS = {"new": "new", "probe": "the one that a linear probe on the same images found first"}
"""Where a network's head started, in words."""


UNDATED = {"CreationDate": None, "Creator": None, "Producer": None}
"""Metadata of a PDF without what differs from one run to the next."""


def parsed(name: str) -> dict[str, Any]:
    """A file of records; raises UserError where it is not one, or not whole."""
    path = RECORDS / f"{name}.json"
    try:
        tree = json.loads(path.read_text())
        whole = isinstance(tree["about"], dict) and all(isinstance(run, dict) for run in tree["runs"]) and tree["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path} has no whole records; restore it, as by `git checkout {path}`, or remove it.")
    return tree


def read_runs(name: str) -> tuple[dict[str, Any], Any]:
    """What a file of records says of itself, and its runs as a table; raises UserError as `parsed` does."""
    import pandas as pd  # slow to import, like all that draws, and the command lines of ablations import this

    tree = parsed(name)
    return tree["about"], pd.DataFrame(tree["runs"])


def make(page: Callable[[str], None], name: str) -> None:
    """Writes a page; raises UserError where its records are not whole."""
    try:
        page(name)
    except KeyError as error:
        raise UserError(f"{RECORDS / name}.json has runs without {error}; restore the file, or remove it.") from None


def command(page: Callable[[str], None], ablations: Iterable[str]) -> None:
    """The command line of what makes the pages of some ablations: makes all that have records."""
    cli.run(lambda: [make(page, name) for ablation in ablations for name in names(ablation)])


def read(name: str) -> tuple[dict[str, Any], Any]:
    """As `read_runs`, with the scores on test (else held-out) images, accuracies in percent."""
    about, runs = read_runs(name)
    judged = [test or held for test, held in zip(runs["test"], runs["held_out"], strict=True)]
    for score in judged[0].keys() - {"images"}:
        runs[score] = [(100 if score.startswith("top") else 1) * found[score] for found in judged]
    runs["size"] = [f"L{depth}H{heads}" for depth, heads in zip(runs["depth"], runs["heads"], strict=True)]
    return about, runs


IDENTITY = ("data", "arm", "depth", "heads", "seed", "image", "patch", "epochs")
"""What tells the runs of one protocol apart, as far as their records have it."""


def keep(ablation: str, about: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Writes records, from which their page can be made again at any time.

    Those of the same protocol, all that `about` says but for the command, the seeds and the order of rows, are merged: a new record takes the
    place of an old one of the same `IDENTITY`, and the others stay. Where a file of another protocol has the name already,
    or one with other data of the same name, that stays as it is, and these go to one with digits after its name.

    **Returns:** the name of the file and of its page.
    """
    own = json.loads(json.dumps({"about": about, "runs": runs}))
    candidates = ablation, *(f"{ablation}-{digest(of)}" for of in (protocol(own), [protocol(own), extents(own)]))
    for name in candidates:
        path = RECORDS / f"{name}.json"
        before = parsed(name) if path.exists() else None
        if before is None or (protocol(before) == protocol(own) and not clash(before, own)):
            break
    if name != ablation:
        other = RECORDS / f"{ablation}.json"
        cli.say(
            f"note: {other} is of another protocol or of other data, and stays until you remove it; these records go to {path}."
        )
    own = merged(before, own) if before else own
    rows = ",\n".join(json.dumps(run, sort_keys=True) for run in own["runs"])
    write_bytes(path, f'{{"about": {json.dumps(own["about"], sort_keys=True)}, "runs": [\n{rows}\n]}}\n'.encode())
    return name


def protocol(tree: dict[str, Any]) -> dict[str, Any]:
    """What records of a file have in common."""
    return {key: value for key, value in tree["about"].items() if key not in ("command", "seeds", "rows")}


def extents(tree: dict[str, Any]) -> dict[str, list[int]]:
    """How many images and classes the data of a file have, by name, where its records tell."""
    return {run["data"]: run["extent"] for run in tree["runs"] if "extent" in run}


def clash(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two files have records of different data under one name."""
    before, after = extents(old), extents(new)
    return any(before[name] != after[name] for name in before.keys() & after.keys())


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Records of one protocol: all of both, the new ones where both have one, in the order of the wider.

    The command is that of the wider, too, or both if neither has all that the other has.
    """
    before, after = ({tuple(map(run.get, IDENTITY)): run for run in tree["runs"]} for tree in (old, new))
    wider, other = (after, before) if len(after) >= len(before) else (before, after)
    runs = {key: after.get(key, run) for key, run in (wider | other).items()}
    about = (new if wider is after else old)["about"]
    if not other.keys() <= wider.keys():
        commands = dict.fromkeys([*old["about"]["command"].split("` and `"), new["about"]["command"]])
        about = about | {"command": "` and `".join(commands)}
    if "seeds" in about:
        about = about | {"seeds": sorted({run["seed"] for run in runs.values()})}
    return {"about": about, "runs": list(runs.values())}


def subject(name: str) -> str:
    """The ablation that a file of records is of, whatever its protocol."""
    return re.sub(r"-[0-9a-f]{8}$", "", name)


def names(ablation: str) -> list[str]:
    """The files of records that there are of an ablation, by their names, the one without digits first."""
    found = (path.stem for path in RECORDS.glob(f"{ablation}*.json"))
    return sorted(name for name in found if subject(name) == ablation)


def title(titles: dict[str, str], name: str) -> str:
    """The title of a page, by that of its ablation."""
    digits = name.removeprefix(subject(name)).lstrip("-")
    return titles[subject(name)] + (f", protocol {digits}" if digits else "")


def slug(text: str) -> str:
    """A name of data as part of a file's name that a page can link to."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def write(name: str, lines: list[str]) -> None:
    """Writes a page in Markdown, and its tables in LaTeX (packages booktabs, and adjustbox for those wider than a line)."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.tex").write_text(latex(lines))


def save(figure: "Figure", name: str) -> None:
    """Writes a figure for the screen and for print."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / f"{name}.png", dpi=160, metadata={"Software": None})
    figure.savefig(RESULTS / f"{name}.pdf", metadata=UNDATED)


def latex(lines: list[str]) -> str:
    """The tables among the lines of a page in Markdown, in LaTeX."""
    text, title, before, table = [], "", "", list[list[str]]()
    for line in [*lines, ""]:
        if line.startswith("#"):
            title, before = line.lstrip("# "), ""
        elif line and line[0] not in "|!":
            before = f": {line.partition('. ')[0].rstrip('.:')}"  # a sentence that tells the tables of a section apart
        if line.startswith("|"):
            table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif table:
            head, _, *rows = table
            text += [
                f"% {title}{before}",
                "\\begin{adjustbox}{max width=\\linewidth}",
                f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
                "\\toprule",
                _row(head),
                "\\midrule",
            ]
            text += [*map(_row, rows), "\\bottomrule", "\\end{tabular}", "\\end{adjustbox}", ""]
            table = []
    return "\n".join(text)


SYMBOLS = {
    "\\|": "$|$",
    **{sign: f"\\{sign}" for sign in "&%_#${}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": "$\\pm$",
    "×": "$\\times$",
    "−": "$-$",
    "–": "--",
}
"""What LaTeX would read otherwise, or not at all; a bar of Markdown comes before the backslash that it begins with."""


def _row(cells: list[str]) -> str:
    pattern = "|".join(map(re.escape, SYMBOLS))
    return " & ".join(re.sub(pattern, lambda found: SYMBOLS[found[0]], cell) for cell in cells) + r" \\"


def commits(runs: Any) -> str:
    """The commits that runs were trained at."""
    known = zip(runs["commit"], runs["dirty"], strict=True)
    return ", ".join(sorted({str(c)[:8] + (" with uncommitted changes" if d else "") for c, d in known}))


def devices(runs: Any) -> str:
    """What runs were trained on."""
    return ", ".join(sorted(set(runs["device"])))


def by_epoch(runs: Any) -> Any:
    """The curves of held-out accuracy as a table, one row an epoch, at epoch 0 the probe that a head is from where it is
    known; other columns as they are."""
    table = runs.copy()
    if "probe" in table:
        table["curve"] = [begun(*both) for both in zip(table["curve"], table["probe"], strict=True)]
    table = table.explode("curve", ignore_index=True)
    table["epoch"] = [epoch for epoch, _ in table["curve"]]
    table["held-out top-1, %"] = [100 * value for _, value in table["curve"]]
    return table


def begun(curve: list[list[float]], probe: Any) -> list[list[float]]:
    """A curve of held-out accuracy that begins, at epoch 0, with the probe whose head the network had, if it is known."""
    return [[0, probe["held_out"]["top1"]], *curve] if isinstance(probe, dict) else curve


def pretraining(about: dict[str, Any]) -> str:
    """What a bank says of its pre-training, in words."""
    words = f"{about['steps']} steps of {about.get('batch', '?')} images of {about['data']}"
    if "base_lr" in about:
        words += f" at a base learning rate of {about['base_lr']:g}"
    if "widths" in about:
        apart = "drawn together for rows and columns" if about["coupled"] else "drawn for rows and columns apart"
        words += f", widths of {', '.join(map(str, about['widths']))} heads {apart}"
    return words


def rates(about: dict[str, Any]) -> str:
    """The learning rates of a protocol, in words."""
    words = " or ".join(f"{rate:g}" for rate in about["base_lr"])
    return words + (", whichever is best on the network's held-out images" if len(about["base_lr"]) > 1 else "")


def noise(percent: float, images: int) -> float:
    """How far two accuracies on so many test images are apart by chance, nineteen times in twenty, in points.

    Two standard errors of a difference of binomials.
    """
    return 2 * float(np.sqrt(2 * percent * (100 - percent) / images))


def signed(number: float) -> str:
    """With its sign, as a figure of one decimal; nothing is neither above nor below."""
    return f"{number:+.1f}".replace("-", "−").replace("−0.0", "+0.0")


def spread(values: np.ndarray, sign: bool = False) -> str:
    """Mean, and deviation over seeds where there are several."""
    mean = signed(values.mean()) if sign else f"{values.mean():.1f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.1f}"
