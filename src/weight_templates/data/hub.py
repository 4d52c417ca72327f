"""Data sets of the Hugging Face hub, through the library `datasets`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .encoded import About, Encoded, beyond, spread
from .limits import read_regular
from .rows import Called, Cells, Columns, Shard, columns_of, labels_of_shards, unlabelled
from .splits import NoSplit, choose


UNKNOWN = re.compile(r"Unknown split \"?(?P<asked>[^\".]+)\"?\. Should be one of \[(?P<there>[^\]]*)\]")
"""What `datasets` says of a split that is not there."""


def open_hub(name: str, split: str, count: int | None, label: str | None = None, gaps: bool = True) -> Encoded:
    """A split of a data set, and its labels as `parquet.open_parquet` numbers them.

    Raises NoSplit where there is no such split, UserError where the library, the network or the set is missing.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise UserError("hub:… needs the package datasets; install it with `pip install -e '.[hub]'`.") from None
    loaded = _loaded(datasets, name, split)
    table = loaded.data.table
    if not table.num_rows:
        raise UserError(f"{name} holds no rows; give --data a set with images.")
    columns = columns_of(table.schema, label, name, dict(loaded.features))
    chunks = [] if columns.label is None else table[columns.label].chunks
    shards = [Shard(name, columns, table[columns.image].chunks, chunks)]
    found = labels_of_shards(shards, gaps)
    rows = spread(range(table.num_rows), count)
    cells = Cells(shards, rows, _downloaded(datasets, name), name)
    return Encoded(
        name.split("/")[-1],
        Called(cells),
        cells,
        None if found is None else found.labels[np.asarray(rows)],
        () if found is None else found.classes,
        f"{loaded._fingerprint}-{label}-{count}",
        About(f"hub:{name}", beyond(count, table.num_rows), _notes(columns, found)),
    )


def _notes(columns: Columns, found: Any) -> tuple[str, ...]:
    return (*unlabelled(columns), *(() if found is None else found.notes))


def _loaded(datasets: Any, name: str, split: str) -> Any:
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub's client raises many kinds: no network, no such data set, gated, …
        unknown = UNKNOWN.search(str(error))
        if unknown is None:
            raise UserError(
                f"cannot load {name!r} from the hub ({' '.join(str(error).split())[:300]}); check name and network."
            ) from None
    there = re.findall(r"['\"]([^'\"]+)['\"]", unknown["there"])
    known = choose(split, there, name)
    if known == split:  # a split by this name is listed, and does not load
        raise NoSplit(f"{name} has no split {split!r}; choose --data.split among {', '.join(there)}.")
    return _loaded(datasets, name, known)


def _downloaded(datasets: Any, name: str) -> Callable[[str], bytes]:
    """Reads the files that rows refer to: those of the set's folder if it is one, and what the hub's client fetched."""
    homes = [Path(datasets.config.HF_CACHE_HOME), Path(datasets.config.HF_DATASETS_CACHE)]
    homes += [Path(name)] if Path(name).is_dir() else []
    inside = [home.expanduser().resolve() for home in homes]

    def read(path: str) -> bytes:
        target = Path(path).resolve()
        if not any(target.is_relative_to(home) for home in inside):
            raise OSError("it refers to a file outside the set and the hub's cache")
        return read_regular(target)

    return read
