"""The page of decompositions, from their records alone.

    python figures/decomposition.py

reads `results/decomposition.json` and writes `docs/results/decomposition.md`.
"""

from typing import Any

from figures import beside, records
from figures.records import commits, devices, read, write


TITLES = {"decomposition": "Templates by decomposition"}


def main(name: str) -> None:
    """Writes the page of a file of records."""
    about, runs = read(name)
    write(name, page(name, about, runs))


def page(name: str, about: dict[str, Any], runs: Any) -> list[str]:
    """The whole page in Markdown."""
    model, source = about["model"], about["source"]
    order = list(dict.fromkeys(runs["arm"]))
    table = beside.table(runs, order, "size", {})
    trained = f"{source['steps']} steps of {source['batch']} on {source['data']}" if "steps" in source else "by others"
    text = [
        f"# {records.title(TITLES, name)}",
        "",
        f"Made by `{about['command']}` (see that file); nothing here is typed by hand.",
        "",
        f"The source is an ordinary network, pre-trained {trained}: {model['depth']} layers, {model['heads']} heads of "
        f"{model['head_dim']} channels, {model['image']} px in patches of {model['patch']} px. Its weights are decomposed "
        f"into factors at the families' default ranks, and sizes cut from these as from a bank; `fitted` banks then learn the "
        f"source's features for {about['steps']} steps at widths of 3, 6, 9 and 12 heads. Scored by a linear probe on frozen "
        f"features: at most {about['count']} images, a tenth of them held out. {runs['seed'].nunique()} seed(s). Made at "
        f"{commits(runs)} on {devices(runs)}.",
        "",
        beside.cells(runs, "top1") + ".",
        "",
        *beside.scores(table),
    ]
    if lost := errors(runs):
        text += ["", "Relative error of the weights, ‖W - Ŵ‖ / ‖W‖, by component, before any fit:", "", *lost]
    return text


def errors(runs: Any) -> list[str]:
    """One row a family."""
    rows = {arm: some["errors"].iloc[0] for arm, some in runs.groupby("arm", sort=False) if some["errors"].iloc[0]}
    rows = {arm: found for arm, found in rows.items() if arm.startswith("decomposed")}
    if not rows:
        return []
    names = list(next(iter(rows.values())))
    return [*beside.header(names), *(beside.line([arm, *(f"{e[n]:.3f}" for n in names)]) for arm, e in rows.items())]


if __name__ == "__main__":
    records.command(main, TITLES)
