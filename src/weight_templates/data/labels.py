"""Labels as places in a list of class names, whatever they were: places already, numbers with gaps, words or truths."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from ..errors import UserError


class Column(NamedTuple):
    """The labels of one file."""

    values: Shaped[np.ndarray, " rows"]
    """Integers, booleans, whole floating-point numbers or strings; -1, NaN and the empty string stand for none."""
    names: tuple[str, ...]
    """The classes that integers count through; empty where the file does not name them."""
    file: str
    """What messages call the file."""


class Numbered(NamedTuple):
    """Labels as places in `classes`, -1 where there is none."""

    labels: Int[np.ndarray, " rows"]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def numbered(columns: Sequence[Column], gaps: bool = True) -> Numbered:
    """The labels of several files, numbered alike.

    Files that name their classes in another order are joined by name, and the classes are numbered in the order of the
    first file. Integers without names are classes of these names: their k-th smallest becomes class k. Words are numbered
    in alphabetical order.

    **Arguments:**

    - `gaps`: if False, integers without names keep their value, and there are classes for the gaps.

    Raises UserError, naming the files, where labels of one file cannot be told from those of another.
    """
    columns = [_plain(column) for column in columns]
    named = [bool(column.names) or column.values.dtype.kind == "U" for column in columns]
    if any(named) and not all(named):
        one, other = columns[named.index(True)].file, columns[named.index(False)].file
        raise UserError(f"{one} names its classes and {other} does not; give both the names, or neither.")
    if any(named):
        return _by_name(columns)
    values = np.concatenate([column.values for column in columns]) if columns else np.zeros(0, np.int64)
    found = np.unique(values[values >= 0])
    if not gaps:
        return Numbered(values, tuple(str(i) for i in range(int(values.max(initial=-1)) + 1)), ())
    labels = np.where(values < 0, values, np.searchsorted(found, values))
    whole = len(found) == 0 or found[-1] == len(found) - 1
    note = "" if whole else f"labels {found[0]} … {found[-1]} are numbered 0 … {len(found) - 1}"
    return Numbered(labels, tuple(map(str, found.tolist())), (note,) if note else ())


def _plain(column: Column) -> Column:
    """The same column with 64-bit integers or strings."""
    values = column.values
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)
        if not np.array_equal(values, np.round(values)) or np.abs(values).max(initial=0) >= 2**53:
            raise UserError(f"{column.file} has labels that are no whole numbers; give numbers or names of classes.")
    if values.dtype.kind == "b":
        values = np.where(values, "True", "False")
    elif values.dtype.kind in "iuf":
        if values.dtype.kind == "u" and values.max(initial=0) > np.iinfo(np.int64).max:
            raise UserError(f"{column.file} has the label {values.max()}, beyond 64 bits; give smaller numbers.")
        values = values.astype(np.int64)
    elif values.dtype.kind != "U":
        raise UserError(f"{column.file} has labels of type {values.dtype}; give numbers or names of classes.")
    if len(set(column.names)) < len(column.names):
        twice = next(name for name in column.names if column.names.count(name) > 1)
        raise UserError(f"{column.file} has two classes of the name {twice!r}; name each class once.")
    return column._replace(values=values)


def _by_name(columns: Sequence[Column]) -> Numbered:
    classes = list(dict.fromkeys(name for column in columns for name in column.names))
    words = {
        word for column in columns if column.values.dtype.kind == "U" for word in np.unique(column.values).tolist()
    }
    classes += sorted(words - {""} - set(classes))
    number, labels = {name: i for i, name in enumerate(classes)}, []
    for column in columns:
        if column.values.dtype.kind == "U":
            own, places = np.unique(column.values, return_inverse=True)
            labels.append(np.array([number.get(word, -1) for word in own.tolist()], np.int64)[places])
            continue
        place = np.array([number[name] for name in column.names], np.int64)
        inside = (column.values >= 0) & (column.values < len(place))
        if (column.values >= len(place)).any() and len(columns) > 1 and len(place) < len(classes):
            raise UserError(
                f"{column.file} has the label {column.values.max()}, and names for {len(place)} classes; name them all."
            )
        labels.append(np.where(inside, place[np.where(inside, column.values, 0)], column.values))
    moved = any(column.names and list(column.names) != classes[: len(column.names)] for column in columns)
    note = ("files number the classes differently; they are joined by name",) if moved else ()
    return Numbered(np.concatenate(labels), tuple(classes), note)
