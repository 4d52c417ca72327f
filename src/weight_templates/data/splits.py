"""Which split a name means. The usual names are those of Hugging Face's `datasets`, in any case."""

from collections.abc import Collection

from ..errors import UserError


USUAL = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What the three splits are called."""
MOST = 10
"""Names that a message lists."""


class NoSplit(UserError):
    """A source does not have the split that was asked for."""


def usual(name: str) -> str | None:
    """Which of the three splits a name means: `train`, `validation` or `test`; None for any other name."""
    return next((split for split, names in USUAL.items() if name.lower() in names), None)


def alike(one: str, other: str) -> bool:
    """Whether two names mean the same split."""
    return one.lower() == other.lower() or (usual(one) is not None and usual(one) == usual(other))


def choose(asked: str, found: Collection[str], where: str) -> str:
    """The name among `found` that means the split `asked`.

    Raises NoSplit where there is none, and UserError where several do.
    """
    same = sorted(name for name in found if alike(asked, name))
    if len(same) > 1 and asked not in same:
        raise UserError(f"{where} has {' and '.join(same)} for one split; choose --data.split among them.")
    if not same:
        there = sorted(found, key=lambda name: (usual(name) is None, name))
        listed = ", ".join([*there[:MOST], *(["…"] if len(there) > MOST else [])])
        raise NoSplit(
            f"{where} has no split {asked!r}; "
            + (f"choose --data.split among {listed}." if there else "give --data a folder that has it.")
        )
    return asked if asked in same else same[0]
