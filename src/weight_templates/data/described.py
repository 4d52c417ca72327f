"""What a run read, for people and for its records."""

import dataclasses
from typing import Any

import numpy as np

from .feed import Loaded


FIRST = 3
"""Classes that the sentence names."""


@dataclasses.dataclass(frozen=True)
class Described:
    """The images of a source that are used."""

    where: str
    """The folder, file or address that was read."""
    images: int
    classes: tuple[str, ...]
    labels: dict[str, int]
    """How many images each class has; empty where there are no labels."""
    unlabelled: int
    """How many images have no label, or one outside the classes, though others have one."""
    left_out: dict[str, int]
    """How many files or rows are not used, by reason."""
    notes: tuple[str, ...]
    """What else the user may not expect."""

    def record(self) -> dict[str, Any]:
        """The same as JSON."""
        return dataclasses.asdict(self) | {"classes": list(self.classes), "notes": list(self.notes)}

    def sentence(self) -> str:
        """N images of C classes (the first of them) from a place; M left out, with reasons."""
        text = f"{self.images:,} images"
        if self.classes:
            named = ", ".join([*self.classes[:FIRST], *(["…"] if len(self.classes) > FIRST else [])])
            text += f" of {len(self.classes):,} class{'es' * (len(self.classes) > 1)} ({named})"
        text += f" from {self.where}"
        clauses = []
        if self.left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            clauses.append(f"{sum(self.left_out.values()):,} left out: {reasons}")
        if self.unlabelled:
            clauses.append(f"{self.unlabelled:,} without a label")
        return "; ".join([text, *clauses, *self.notes])


def described(loaded: Loaded) -> Described:
    """What was read, given a source that `load` has checked."""
    source, about = loaded.source, loaded.source.about
    left_out = dict(about.left_out) | ({"do not decode": len(loaded.bad)} if loaded.bad else {})
    labels, unlabelled = dict[str, int](), 0
    if source.classes:
        found = np.array([source.label(int(i)) for i in loaded.good], np.int64)
        inside = found[(found >= 0) & (found < len(source.classes))]
        counts = np.bincount(inside, minlength=len(source.classes)).tolist()
        labels, unlabelled = dict(zip(source.classes, counts, strict=True)), len(found) - len(inside)
    return Described(about.where, len(loaded.good), source.classes, labels, unlabelled, left_out, about.notes)
