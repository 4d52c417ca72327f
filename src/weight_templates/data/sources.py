"""Where images come from, by one string. Sources decode on demand and keep nothing."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ..config import DataOptions
from ..errors import UserError
from . import arrays, downstream, folder, tars
from .encoded import Source, shown
from .limits import check_memory
from .synthetic import Synthetic


A_SCENE = 64
"""Bytes that the number and the label of a synthetic image may take while the set is split and shuffled."""
READERS = "a folder of images, or Parquet, .npz or WebDataset's .tar files"
"""What files and folders are read as."""
UNPACK = (".zip", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def open_source(options: DataOptions, size: int, seed: int) -> Source:
    """The source that the options name; the sets of `downstream` by their names, anything unknown as a path.

    **Arguments:**

    - `size`: side of synthetic images, pixels.
    - `seed`: of synthetic images.

    Raises UserError if there is nothing, or nothing to read, under that name; its kind NoSplit if the source is there
    and the split is not.
    """
    options.check()
    name, colon, folder_name = options.source.partition(":")
    if not options.source.strip():
        raise UserError("--data is empty; give it a folder, a file, `synthetic` or the name of a set.")
    if name in downstream.SETS:
        return downstream.open_named(name, folder_name if colon else None, options)
    if options.source == "synthetic":
        count = options.count or 4096
        check_memory(count * A_SCENE, f"{count:,} synthetic images", "lower --data.count")
        # Another split is of other scenes: the seeds of all train splits are below 2³².
        return Synthetic(size, count, seed if options.split == "train" else seed + 2**32)
    if options.source.startswith("hub:"):
        from . import hub  # as Parquet below, needs Arrow, which takes a while to import

        return hub.open_hub(options.source.removeprefix("hub:"), options.split, options.count, options.label)
    root = Path(os.path.expanduser(options.source))
    try:
        found = os.stat(root)
    except (OSError, ValueError):
        raise UserError(
            f"there is no file or folder {shown(str(root))}; give --data an existing path, `synthetic`, `hub:NAME` or one "
            f"of {', '.join(downstream.SETS)}."
        ) from None
    try:
        return _reader(root, found.st_mode, options)()
    except OSError as error:
        what = shown(str(error.filename or root))
        raise UserError(f"cannot read {what} ({error.strerror or error}); mend it, or give another --data.") from None


def one_file(options: DataOptions) -> bool:
    """Whether the images are all in one file: it is the split that is asked for, whatever its name, and there is no
    other."""
    root = Path(os.path.expanduser(options.source))
    if options.source.partition(":")[0] in downstream.SETS or not root.exists():
        return False
    return root.is_file() or len(_files(root)[1]) == 1


def _files(root: Path) -> tuple[str, list[Path]]:
    """The kind of a folder, and its files of that kind; none of a folder of images."""
    from . import parquet

    for kind, module in (("parquet", parquet), ("npz", arrays), ("tar", tars)):
        files = module.files_of(root)
        if files:
            return kind, files
    return "images", []


def _reader(root: Path, mode: int, options: DataOptions) -> Callable[[], Source]:
    """How to open a file or folder, by what it is."""
    if stat.S_ISDIR(mode):
        kind, files = _files(root)
    elif stat.S_ISREG(mode):
        kind, files = _kind(root), [root]
    else:
        raise UserError(f"{shown(str(root))} is neither a folder nor a regular file; give --data {READERS}.")
    split, count, label = options.split, options.count, options.label
    if kind == "npz":
        return lambda: arrays.open_npz(root, files, split, count)
    if kind == "tar":
        return lambda: tars.open_tars(root, files, split, count, label)
    if kind == "images":
        return lambda: folder.open_folder(root, split, count)
    from . import parquet

    return lambda: parquet.open_parquet(root, files, split, count, label)


def _kind(root: Path) -> str:
    """What a file is; raises UserError, with what to do, if it is nothing that is read."""
    ending = root.suffix.lower()
    if ending in (".npz", ".tar"):
        return ending[1:]
    if ending in folder.EXTENSIONS:
        raise UserError(f"{shown(str(root))} is a single image; give --data the folder that holds it.")
    if ending in UNPACK:
        raise UserError(f"{shown(str(root))} is packed; unpack it and give --data the folder.")
    with open(root, "rb") as file:
        begin = file.read(6)
    if ending == ".npy" or begin == b"\x93NUMPY":
        raise UserError(f"{shown(str(root))} is one array; save it as `images` with numpy.savez, in a .npz file.")
    if ending != ".parquet" and begin[:4] != b"PAR1":
        raise UserError(f"{shown(str(root))} is of no kind that is read; give --data {READERS}.")
    return "parquet"
