"""Images to be judged by: under the evaluation transform, in order, with their classes."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from ..config import DataOptions
from ..errors import RunError, UserError
from .augment import evaluation_view
from .encoded import CorruptImage, Source
from .feed import Loaded
from .sources import one_file, open_source
from .splits import NoSplit, alike


TEST_SPLITS = ("test", "validation")
"""Where the images to report on are looked for, in this order, under any of their usual names."""


@dataclasses.dataclass(frozen=True)
class Views:
    """Some images of a source under the evaluation transform: made once where they fit in memory, else every time."""

    loaded: Loaded
    indices: Int[np.ndarray, " views"]
    size: int
    chunk: int
    threads: int
    kept: list[UInt8[np.ndarray, "chunk size size 3"]] = dataclasses.field(default_factory=list)
    keep: bool = True

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "chunk size size 3"]]:
        """Chunks of images, the last one filled up with zeros; raises RunError for an image that has gone bad."""
        if self.kept:
            yield from self.kept
            return
        made = []
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(self), self.chunk):
                try:
                    images = np.stack(list(pool.map(self._view, self.indices[start : start + self.chunk].tolist())))
                except CorruptImage as error:
                    raise RunError(
                        f"an image went bad since it was checked: {error}; mend it and run the same command again."
                    ) from None
                images = np.pad(images, ((0, self.chunk - len(images)), (0, 0), (0, 0), (0, 0)))
                if self.keep:
                    made.append(images)
                yield images
        self.kept.extend(made)

    def _view(self, index: int) -> UInt8[np.ndarray, "size size 3"]:
        return evaluation_view(self.loaded.image(index), self.size)


def views_of(
    loaded: Loaded, indices: Int[np.ndarray, " views"], size: int, options: DataOptions, chunk: int = 256
) -> Views:
    """The evaluation views of some images, `chunk` at a time; raises UserError if there are none."""
    if not len(indices):
        raise UserError(f"{loaded.source.name} has no images left to look at; give more.")
    keep = len(indices) * size * size * 3 <= options.resident_mb * 2**20
    return Views(loaded, indices, size, min(chunk, len(indices)), options.threads or os.cpu_count() or 1, keep=keep)


def check_classes(source: Source) -> None:
    """Raises UserError where a source has not the two classes that a classifier needs, and tells where labels may be."""
    if len(source.classes) >= 2:
        return
    hints = [note for note in source.about.notes if "--data.label" in note]
    remedy = hints[0] if hints else "give --data a folder with one folder a class, or labelled Parquet"
    raise UserError(f"{source.name} has {len(source.classes)} class(es); {remedy}.")


def labels_of(loaded: Loaded, indices: Int[np.ndarray, " some"], classes: Sequence[str]) -> Int[np.ndarray, " some"]:
    """The classes of some images as places in `classes`, by name: another split may number its own otherwise.

    Raises UserError, naming the image, where one has no label, or one outside the source's classes or these.
    """
    own, place = loaded.source.classes, {name: i for i, name in enumerate(classes)}
    number = np.array([*(place.get(name, -2) for name in own), -1, -2], np.int32)  # the last two: no label, outside
    found = np.array([loaded.source.label(int(i)) for i in indices], np.int32)
    labels = number[np.where((found < -1) | (found >= len(own)), -1, np.where(found == -1, -2, found))]
    wrong = np.flatnonzero(labels < 0)
    if len(wrong):
        label, where = found[wrong[0]], loaded.source.path(int(indices[wrong[0]]))
        fault = "has no label" if label == -1 else f"has label {label}"
        if 0 <= label < len(own):
            fault += f", {own[label]!r}, which no training image can have"
        raise UserError(
            f"{where} {fault}, but there are {len(classes)} classes, 0 to {len(classes) - 1} ({len(wrong)} such "
            "image(s)); mend the labels, or give --data labelled images."
        )
    return labels


def test_source(options: DataOptions, split: str | None, size: int, seed: int) -> Source | None:
    """The images to report on at the end.

    **Arguments:**

    - `options`: of the training images; their source is looked at.
    - `split`: its name; if None the first of `TEST_SPLITS` that there is, other than the one trained on.

    **Returns:** None if the source has no such split. Raises UserError if `split` is given and there is none, or it is
    the one trained on, and where a split that there is does not read.
    """
    if split is not None:
        if alike(split, options.split) or one_file(options):
            raise UserError(
                f"--test {split} is the split that is trained on; name another split of {options.source}, or drop it."
            )
        return open_source(dataclasses.replace(options, split=split), size, seed)
    return _tested(options, size, seed)[1]


def test_split(options: DataOptions, size: int, seed: int) -> str | None:
    """The first of `TEST_SPLITS` that a source has, other than the one of `options`; None if it has none."""
    return _tested(options, size, seed)[0]


def _tested(options: DataOptions, size: int, seed: int) -> tuple[str, Source] | tuple[None, None]:
    if one_file(options):
        return None, None
    for name in TEST_SPLITS:
        if not alike(name, options.split):
            with contextlib.suppress(NoSplit):
                return name, open_source(dataclasses.replace(options, split=name), size, seed)
    return None, None
