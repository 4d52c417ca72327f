"""Images in the rows of Arrow tables, as Parquet files and the Hugging Face hub hold them."""

import bisect
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from ..errors import UserError
from .encoded import shown
from .labels import Column, Numbered, numbered


LABELS = ("label", "labels", "fine_label")
"""Columns that labels are looked for in, in this order."""
IMAGES = ("image", "img")
"""Columns that images are looked for in where there are several."""
LISTED = 12
"""Columns that a message names."""


class Columns(NamedTuple):
    """Which columns of a table matter."""

    image: str
    label: str | None
    names: tuple[str, ...]
    """The classes that integer labels count through; empty if the file does not say."""
    others: tuple[str, ...]
    """What else could hold labels."""


class Shard(NamedTuple):
    """The rows of one file, read."""

    file: str
    columns: Columns
    cells: list[pa.Array]
    """Chunks of images: structs of `bytes` and `path`, one of them perhaps missing."""
    labels: list[pa.Array]


def columns_of(schema: pa.Schema, asked: str | None, where: str, features: dict[str, Any] | None = None) -> Columns:
    """Finds the images and the labels among the columns of a file.

    **Arguments:**

    - `asked`: the column of labels; if None one of `LABELS`, else the only one whose metadata name classes.
    - `features`: what is known of the columns, as in Hugging Face's metadata; read from the schema if not given.

    Raises UserError, naming the columns there are, where there is none or no telling which.
    """
    features = _features(schema) if features is None else features
    images = [field.name for field in schema if _holds_images(field.type)]
    listed = _listed([field.name for field in schema])
    if not images:
        raise UserError(
            f"{where} has no column of images {{bytes, path}} among its columns {listed}; give Parquet in the Hugging "
            "Face image layout."
        )
    usual = [name for name in IMAGES if name in images]
    if len(images) > 1 and not usual:
        raise UserError(f"{where} has images in {_listed(images)}; call the column to read {IMAGES[0]}.")
    others = tuple(field.name for field in schema if field.name not in images and _holds_labels(field.type))
    if asked is not None:
        if asked not in others:
            raise UserError(
                f"{where} has no column {asked!r} of numbers or words; choose --data.label among {_listed(others)}."
            )
        label = asked
    else:
        classes = [name for name in others if _names(features, name)]
        counts = [name for name in LABELS if name in others and not pa.types.is_floating(schema.field(name).type)]
        known = counts or (classes if len(classes) == 1 else [])
        label = known[0] if known else None
    return Columns((usual or images)[0], label, _names(features, label), tuple(n for n in others if n != label))


def unlabelled(columns: Columns) -> tuple[str, ...]:
    """What to tell of a file whose labels were not found, though some column may hold them."""
    if columns.label is not None or not columns.others:
        return ()
    return (f"no labels were read; --data.label chooses among {_listed(columns.others)}",)


def check_alike(shards: Sequence[tuple[str, Columns]]) -> None:
    """Raises UserError, naming two files, unless all have their images, and their labels, in a column of one name."""
    first, columns = shards[0]
    for file, other in shards[1:]:
        for what, one, two in (("images", columns.image, other.image), ("labels", columns.label, other.label)):
            if one != two:
                raise UserError(
                    f"{first} has its {what} in {_named(one)} and {file} in {_named(two)}; give files of one kind."
                )


def labels_of_shards(shards: Sequence[Shard], gaps: bool) -> Numbered | None:
    """The labels of all rows, None where the files have none; words are in alphabetical order over all files.

    Raises UserError for labels that do not fit together.
    """
    if shards[0].columns.label is None:
        return None
    if all(_is_text(chunk.type) for shard in shards for chunk in shard.labels):
        file = shards[0].file if len(shards) == 1 else f"{shards[0].file} and others"
        parts = [_in_words(chunk) for shard in shards for chunk in shard.labels]
        words = sorted({word for found, _ in parts for word in found} - {""})
        number = {word: i for i, word in enumerate(words)} | {"": -1}
        places = [np.array([number[word] for word in found] + [-1])[codes] for found, codes in parts]
        return numbered([Column(np.concatenate(places), tuple(words), file)])
    return numbered([_column(shard) for shard in shards], gaps)


class Cells:
    """The images of all shards, by row: their bytes where these are in the table, else what `elsewhere` reads."""

    def __init__(self, shards: Sequence[Shard], rows: Sequence[int], elsewhere: Callable[[str], bytes], where: str):
        self.chunks = [chunk for shard in shards for chunk in shard.cells]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in self.chunks)]).tolist()
        self.rows, self.elsewhere, self.where = rows, elsewhere, where

    def __call__(self, index: int) -> bytes | None:
        """The bytes of an image, None where there are none; raises OSError where its file cannot be read."""
        cell = self._cell(index, ("bytes", "path"))
        if cell["bytes"] is not None or not cell["path"]:
            return cell["bytes"]
        return self.elsewhere(cell["path"])

    def called(self, index: int) -> str:
        """The place of a row, and the name that its image has there."""
        path = self._cell(index, ("path",))["path"]
        return f"{self.where}[{self.rows[index]}]" + (f" {shown(path)}" if path else "")

    def paths(self) -> list[str]:
        """The files that some rows refer to because their images are not in the table."""
        found = []
        for chunk in self.chunks:
            held, path = (_field(chunk, name) for name in ("bytes", "path"))
            if path is not None and len(chunk) and (held is None or held.null_count):
                absent = held.is_null() if held is not None else pa.array(np.ones(len(chunk), bool))
                found += [_text(name) for name in path.filter(absent).cast(pa.large_binary()).to_pylist() if name]
        return found

    def _cell(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        row = self.rows[index]
        place = bisect.bisect_right(self.starts, row) - 1
        chunk, within = self.chunks[place], row - self.starts[place]
        fields = {name: _field(chunk, name) for name in names}
        if not chunk[within].is_valid:
            return dict.fromkeys(names)
        found = {name: None if field is None else field[within] for name, field in fields.items()}
        values = {n: v.as_buffer().to_pybytes() if v is not None and v.is_valid else None for n, v in found.items()}
        return {n: _text(v) if n == "path" and v is not None else v for n, v in values.items()}


class Called(Sequence[str]):
    """The names of rows, made when asked for: there may be millions."""

    def __init__(self, cells: Cells):
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells.rows)

    def __getitem__(self, index: int) -> str:
        return self.cells.called(range(len(self))[index])


def _text(content: bytes) -> str:
    """Text that a damaged file may hold in another encoding than it says: as the names of files are read."""
    return content.decode("utf-8", "surrogateescape")


def _field(chunk: pa.StructArray, name: str) -> pa.Array | None:
    return None if chunk.type.get_field_index(name) < 0 else chunk.field(name)


def _holds_images(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    place = kind.get_field_index("bytes")
    return place >= 0 and (pa.types.is_binary(kind[place].type) or pa.types.is_large_binary(kind[place].type))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _holds_labels(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind) or _is_text(kind)


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return found if isinstance(found, dict) else {}
    except (KeyError, TypeError, ValueError):
        return {}


def _names(features: dict[str, Any], label: str | None) -> tuple[str, ...]:
    feature = None if label is None else features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else getattr(feature, "names", None)
    if isinstance(names, dict):  # some write {"0": "cat", …}
        names = [names[key] for key in sorted(names, key=int)] if all(str(key).isdigit() for key in names) else None
    return tuple(shown(str(name)) for name in names) if isinstance(names, list | tuple) else ()


def _in_words(chunk: pa.Array) -> tuple[list[str], Int[np.ndarray, " rows"]]:
    """The different words of a column, and which one a row has; -1 for none."""
    coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
    words = coded.dictionary.cast(pa.large_binary()).to_pylist()
    return [shown(_text(word)) if word else "" for word in words], coded.indices.cast(pa.int64()).fill_null(
        -1
    ).to_numpy(zero_copy_only=False)


def _column(shard: Shard) -> Column:
    kinds, parts = {chunk.type for chunk in shard.labels}, []
    for chunk in shard.labels:
        if _is_text(chunk.type):
            words, codes = _in_words(chunk)
            parts.append(np.array([*words, ""])[codes])
        elif pa.types.is_boolean(chunk.type):
            if chunk.null_count:
                words = chunk.cast(pa.string()).fill_null("").to_pylist()
                parts.append(np.array([word.capitalize() for word in words]))
            else:
                parts.append(chunk.to_numpy(zero_copy_only=False))
        elif pa.types.is_integer(chunk.type):
            try:
                parts.append(chunk.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False))
            except pa.ArrowInvalid:
                raise UserError(f"{shard.file} has labels beyond 64 bits; give smaller numbers.") from None
        else:
            parts.append(chunk.cast(pa.float64()).fill_null(-1).to_numpy(zero_copy_only=False))
    empty = np.zeros(0, np.int64) if not any(map(_is_text, kinds)) else np.zeros(0, str)
    return Column(np.concatenate(parts) if parts else empty, shard.columns.names, shard.file)


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(shown, names[:LISTED]), *(["…"] if len(names) > LISTED else [])]) or "none"


def _named(column: str | None) -> str:
    return "no column" if column is None else repr(column)
