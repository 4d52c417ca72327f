"""Images as NumPy arrays: in memory, or in `.npz` files, which hold arrays and nothing that could be run."""

import dataclasses
import functools
import hashlib
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from numpy.lib import format as npy

from ..errors import UserError
from .encoded import About, beyond, shown, spread, stamp_of
from .labels import Column, numbered
from .limits import check_memory
from .splits import choose


class Arrays:
    """Images in one array.

    **Arguments:**

    - `images`: uint8, (images, height, width, 3) or grey (images, height, width); a trailing axis of 1 is grey, too.
    - `labels`: (images,) or (images, 1): places in `classes`, or without these numbers or words, which name the classes;
      None if there are none.
    - `classes`: their names, if labels are places.
    - `name`: what to call the set.

    Raises UserError where these do not fit together.
    """

    images: UInt8[np.ndarray, "images h w *channel"]
    labels: Int[np.ndarray, " images"] | None
    classes: tuple[str, ...]
    name: str
    about: About
    stamp: str | None

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        classes: Sequence[str] = (),
        name: str = "arrays",
        about: About | None = None,
        stamp: str | None = None,
    ):
        self.images = _checked(np.asarray(images), name)
        self.name, self.stamp = name, stamp
        found = None if labels is None else numbered([_column(np.asarray(labels), tuple(map(str, classes)), name)])
        if found is not None and len(found.labels) != len(self.images):
            raise UserError(f"{name} has {len(self.images)} images and {len(found.labels)} labels; give one for each.")
        self.labels = None if found is None else found.labels
        self.classes = () if found is None else found.classes
        self.about = about or About(name, notes=() if found is None else found.notes)

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """A string that changes when the content does."""
        return self.stamp or self._digest

    @functools.cached_property
    def _digest(self) -> str:
        total = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        for image in self.images:
            total.update(np.ascontiguousarray(image).data)
        total.update(b"" if self.labels is None else np.ascontiguousarray(self.labels).data)
        return total.hexdigest()[:16]

    def path(self, index: int) -> str:
        """What to call an image."""
        return f"{self.name}[{range(len(self))[index]}]"

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of an image; grey in all three channels."""
        return self.stacked(slice(index, index + 1))[0]

    def stacked(self, which: slice = slice(None)) -> UInt8[np.ndarray, "some h w 3"]:
        """Several images at once, without a copy where they are in colour and in memory."""
        some = self.images[which]
        return some if some.ndim == 4 else np.repeat(some[..., None], 3, axis=3)

    def label(self, index: int) -> int:
        """The class of an image; -1 where there is none."""
        return -1 if self.labels is None else int(self.labels[index])


def _checked(images: np.ndarray, name: str) -> np.ndarray:
    if images.dtype != np.uint8:
        raise UserError(f"the images of {name} are {images.dtype}; give uint8, 0 to 255.")
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        shape = " × ".join(map(str, images.shape)) or "one number"
        raise UserError(
            f"the images of {name} are {shape}; give them as images × height × width × 3, or without the 3."
        )
    if not images.size:
        raise UserError(f"{name} holds no images; give some.")
    return images


def _column(labels: np.ndarray, classes: tuple[str, ...], name: str) -> Column:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        shape = " × ".join(map(str, labels.shape)) or "one number"
        raise UserError(f"the labels of {name} are {shape}; give one number or word an image.")
    return Column(labels, classes, name)


def files_of(root: Path) -> list[Path]:
    """The `.npz` files in a folder, by name."""
    return sorted(f for f in root.iterdir() if f.suffix.lower() == ".npz" and not f.name.startswith("."))


def open_npz(root: Path, files: Sequence[Path], split: str, count: int | None) -> Arrays:
    """The `images`, `labels` and `classes` of an `.npz` file; of several beside each other, the one named as the split.

    Arrays that `numpy.savez` wrote are mapped, those of `numpy.savez_compressed` read whole. Pickled objects are never
    read. Raises NoSplit where no file is of the split, and UserError for a file that is damaged, has other arrays, or
    would take more memory than there is.
    """
    file = files[0]
    if split != "train" or len(files) > 1:
        stems = {f.stem: f for f in files}
        file = stems[choose(split, stems, shown(str(root)))]
    where, name = shown(str(file)), shown(root.resolve().name)
    found, stat = _read(file), file.stat()
    classes = tuple(np.atleast_1d(found["classes"]).tolist()) if "classes" in found else ()
    whole = Arrays(found["images"], found.get("labels"), classes, name)
    total = len(whole)
    about = dataclasses.replace(whole.about, where=where, left_out=beyond(count, total))
    images, labels, rows = whole.images, whole.labels, spread(range(total), count)
    if len(rows) < total:
        check_memory(images[0].nbytes * len(rows), f"{len(rows):,} images of {where}", "lower --data.count")
        images, labels = images[list(rows)], None if labels is None else labels[list(rows)]
    stamp = stamp_of([f"{file.name} {stat.st_size} {stat.st_mtime_ns}", str(count)])
    return Arrays(images, labels, whole.classes, name, about, stamp)


def _read(file: Path) -> dict[str, np.ndarray]:
    where = shown(str(file))
    if not file.is_file():
        raise UserError(f"{where} is no regular file; give --data the path of one.")
    try:
        with zipfile.ZipFile(file) as archive:
            there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if "images" not in there:
                raise UserError(
                    f"{where} has no array 'images' among {', '.join(map(shown, sorted(there))) or 'none'}; save the "
                    "images as 'images' and their labels as 'labels'."
                )
            return {k: _array(file, archive, there[k]) for k in ("images", "labels", "classes") if k in there}
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds, as the damage will have it
        reason = shown(" ".join(str(error).split()))
        raise UserError(f"{where} does not read as .npz ({reason}); save it again with numpy.savez.") from None


def _array(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Shaped[np.ndarray, "..."]:
    where = f"{info.filename} of {shown(str(file))}"
    with archive.open(info) as content:
        version = npy.read_magic(content)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(content)
        if dtype.hasobject:
            raise UserError(f"{where} holds pickled objects, which are not read; save numbers, or text of type str.")
        header = content.tell()
        size = math.prod(shape) * dtype.itemsize
        if header + size != info.file_size:
            raise ValueError(f"{info.filename} has {info.file_size - header} bytes where its header says {size}")
        if info.compress_type != zipfile.ZIP_STORED or not size:
            check_memory(2 * size, f"unpacking {where}", "save it with numpy.savez, which maps files into memory")
            flat = np.frombuffer(content.read(), dtype)
            return flat.reshape(shape, order="F" if fortran else "C")
    with open(file, "rb") as raw:  # the local header, whose extra field may differ from the directory's
        raw.seek(info.header_offset + 26)
        lengths = np.frombuffer(raw.read(4), "<u2")
    start = info.header_offset + 30 + int(lengths.sum()) + header
    return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")
