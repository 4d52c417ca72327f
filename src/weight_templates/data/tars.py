"""WebDataset's shards: tar files whose members with one name up to the first dot are one sample.

The image is the member with an image's ending. The label is the member `.cls`, a number or a word, or the entry `label`
of the member `.json`. Shards are indexed once, from their headers; images are then read from their place in any order,
so that a batch is the same function of seed and step as with every other source.
"""

import collections
import concurrent.futures
import contextlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..files import cache_folder, write_json
from .encoded import About, Encoded, beyond, shown, spread, stamp_of
from .folder import EXTENSIONS, hidden
from .labels import Column, numbered
from .limits import LARGEST_FILE, words
from .splits import alike, choose, usual


NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<ending>[^/]+)", re.DOTALL)
"""A member: what its sample is called, and which part of the sample it is."""
LABEL, TREE = "cls", "json"
"""Endings of the members that hold a label, or a JSON object with one."""
LARGEST_LABEL = 1 << 20
"""Bytes that a member with a label may have."""
THREADS = 8
"""Shards indexed at once."""


class Sample(NamedTuple):
    """An image in a shard."""

    key: str
    offset: int
    """Where its bytes begin in the file."""
    size: int
    label: str
    """A number or a word, empty where there is none."""


def files_of(root: Path) -> list[Path]:
    """The tar files in a folder, or in its folders with names of splits; none where other folders are beside them, which
    hold the images then."""
    names = sorted(name for name in os.listdir(root) if not hidden(name))
    folders = [root / name for name in names if (root / name).is_dir()]
    own = [root / name for name in names if name.lower().endswith(".tar") and (root / name).is_file()]
    if own or not all(usual(folder.name) for folder in folders):
        return [] if folders else own
    return [file for folder in folders for file in files_of(folder)]


def splits_of(root: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Shards by split: by the first usual name among the parts of a file's name, such as `imagenet-train-000001.tar`, else
    by that of its folder; without any, all are `train`."""
    found = dict[str, list[Path]]()
    for file in files:
        parts = [part for part in re.split(r"[-_. ]", file.stem) if usual(part)]
        folder = [file.parent.name] if file.parent != root and usual(file.parent.name) else []
        found.setdefault((parts or folder or ["train"])[0], []).append(file)
    return found


def open_tars(root: Path, files: Sequence[Path], split: str, count: int | None, label: str | None = None) -> Encoded:
    """The samples of a split's shards, in the order of the shards' names.

    **Arguments:**

    - `label`: the ending of the members that hold labels, or the entry of JSON members; None for `cls` and `label`.

    Raises NoSplit where there is no such split, and UserError for shards that are damaged or hold no image.
    """
    found = {"train": list(files)} if split == "train" and len(files) == 1 else splits_of(root, files)
    name = choose(split, found, shown(str(root)))
    chosen = found[name]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        indices = list(pool.map(lambda file: _index(file, label), chosen))
    samples = [(file, sample) for file, (own, _) in zip(chosen, indices, strict=True) for sample in own]
    left_out = collections.Counter[str]()
    for _, reasons in indices:
        left_out.update(reasons)
    if not samples:
        raise UserError(f"the tar files of {shown(str(root))} hold no images; give --data the folder of other shards.")
    labels = numbered([Column(_values([sample.label for _, sample in samples]), (), shown(str(root)))])
    rows = list(spread(range(len(samples)), count))
    kept = [samples[i] for i in rows]

    def read(index: int) -> bytes:
        file, sample = kept[index]
        if sample.size > LARGEST_FILE:
            raise OSError(f"it has {words(sample.size)}, and {words(LARGEST_FILE)} is the most")
        with open(file, "rb") as content:
            content.seek(sample.offset)
            return content.read(sample.size)

    stats = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in chosen]
    same = tuple(f"shards of {shown(n)} have another name of that split" for n in found if n != name and alike(n, name))
    return Encoded(
        shown(root.resolve().name),
        [f"{shown(str(file))}[{shown(sample.key)}]" for file, sample in kept],
        read,
        labels.labels[rows] if labels.classes else None,
        labels.classes,
        stamp_of([*stats, str(label), str(count)]),
        About(shown(str(root)), dict(left_out) | beyond(count, len(samples)), (*same, *labels.notes)),
    )


def _values(labels: Sequence[str]) -> np.ndarray:
    """Labels as numbers if all are, else as words."""
    try:
        return np.array([int(label) if label else -1 for label in labels], np.int64)
    except (ValueError, OverflowError):
        return np.array(labels)


def _index(file: Path, label: str | None) -> tuple[list[Sample], dict[str, int]]:
    """The samples of a shard, and what is left out, by reason; kept in the cache, if that can be written."""
    about = file.stat()
    memory = None
    with contextlib.suppress(UserError):  # no home
        stamp = stamp_of([str(file.resolve()), str(about.st_size), str(about.st_mtime_ns), str(label)])
        memory = cache_folder() / "tars" / f"{stamp}.json"
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            tree = json.loads(memory.read_text("utf-8"))
            samples = [Sample(str(key), int(at), int(size), str(text)) for key, at, size, text in tree["samples"]]
            if all(s.offset >= 0 and s.size >= 0 and s.offset + s.size <= about.st_size for s in samples):
                return samples, {str(reason): int(number) for reason, number in tree["left_out"].items()}
    left_out = collections.Counter[str]()
    samples = list(_samples(file, label, left_out))
    if memory is not None:
        with contextlib.suppress(OSError):
            write_json(memory, {"samples": samples, "left_out": +left_out})
    return samples, {reason: number for reason, number in left_out.items() if number}


def _samples(file: Path, label: str | None, left_out: collections.Counter[str]) -> Iterator[Sample]:
    key, parts = None, dict[str, tuple[int, int, bytes]]()
    for member, content in _members(file, {LABEL, TREE, label}):
        named = NAME.fullmatch(member.name)
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            left_out["links or devices"] += 1
        elif named is None or hidden(os.path.basename(member.name)):
            left_out["without an ending, or hidden"] += 1
        else:
            if named["key"] != key:
                yield from _sample(key, parts, label, left_out)
                key, parts = named["key"], {}
            ending = named["ending"].lower()
            if ending in parts:
                raise UserError(f"{shown(str(file))} has {shown(member.name)} twice; make it again with one of each.")
            parts[ending] = member.offset_data, member.size, content
    yield from _sample(key, parts, label, left_out)


def _sample(
    key: str | None, parts: dict[str, tuple[int, int, bytes]], label: str | None, left_out: collections.Counter[str]
) -> Iterator[Sample]:
    images = [ending for ending in parts if f".{ending}" in EXTENSIONS]
    if images:
        left_out["further images of a sample"] += len(images) - 1
        yield Sample(key or "", *parts[images[0]][:2], _label(parts, label))
    elif parts:
        left_out["samples without an image"] += 1


def _label(parts: dict[str, tuple[int, int, bytes]], label: str | None) -> str:
    ending = LABEL if label is None else label.lower()
    if ending in parts:
        return parts[ending][2].decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        found = json.loads(parts[TREE][2])["label" if label is None else label]
        return str(found) if isinstance(found, str | int) else ""
    return ""


def _members(file: Path, read: set[str | None]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The members of a tar file, with the content of small ones of the endings in `read`."""
    where = shown(str(file))
    try:
        with tarfile.open(file, "r:") as archive, open(file, "rb") as raw:
            for member in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - all of them would fill memory
                ending, content = os.path.basename(member.name).partition(".")[2].lower(), b""
                if ending in read and member.isreg() and member.size <= LARGEST_LABEL:
                    raw.seek(member.offset_data)
                    content = raw.read(member.size)
                yield member, content
            raw.seek(archive.offset)
            if raw.read(tarfile.BLOCKSIZE).strip(b"\0"):  # the library takes a damaged header for the end
                raise tarfile.ReadError(f"no header at byte {archive.offset}")
    except tarfile.TarError as error:
        raise UserError(f"{where} does not read as an uncompressed tar ({error}); copy or make it again.") from None
