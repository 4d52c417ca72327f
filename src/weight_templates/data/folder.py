"""Folders of image files: what is a split, what is a class, and what is left out."""

import collections
import os
import stat
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .encoded import About, Encoded, beyond, shown, spread, stamp_of
from .limits import read_regular
from .splits import alike, choose, usual


EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
SYSTEM = ("$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle", "#snapshot")
"""Folders that systems and network drives make, in lower case."""


class Found(NamedTuple):
    """An image file: its path below the folder that was searched, its size in bytes, its time in nanoseconds."""

    path: str
    size: int
    time: int


def hidden(name: str) -> bool:
    """Whether a file or folder is hidden or a system's own: its images are nobody's classes. As in `datasets`, names that
    begin with a dot or with two underscores are."""
    return name.startswith((".", "__")) or name.lower() in SYSTEM


def open_folder(root: Path, split: str, count: int | None) -> Encoded:
    """The images below a folder: of one of its splits if it has folders of their usual names, else of all of it.

    The first folder on the way to an image is its class; images directly in a folder have none. Raises NoSplit where
    there is no such split, and UserError where there is no image.
    """
    top, notes = _top(root, split)
    found, left_out = search(top)
    if not found:
        raise UserError(f"{shown(str(top))} holds no images and no Parquet files; give --data a folder that does.")
    parts = [file.path.split(os.sep) for file in found]
    names = sorted({way[0] for way in parts if len(way) > 1})
    number = {name: i for i, name in enumerate(names)}
    chosen = spread(range(len(found)), count)
    files = [os.path.join(top, found[i].path) for i in chosen]
    labels = [number.get(parts[i][0], -1) if len(parts[i]) > 1 else -1 for i in chosen] if names else None
    stamp = stamp_of(" ".join(map(str, found[i])) for i in chosen)
    return Encoded(
        shown(root.resolve().name),
        [shown(file) for file in files],
        lambda i: read_regular(files[i]),
        labels,
        tuple(shown(name) for name in names),
        stamp,
        About(shown(str(top)), left_out | beyond(count, len(found)), notes),
    )


def _top(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The folder of a split, and what there is to say about the choice."""
    folders = sorted(name for name in os.listdir(root) if not hidden(name) and os.path.isdir(root / name))
    splits = [name for name in folders if usual(name)]
    if len(splits) == 1 and len(folders) > 1 and _directly(root / splits[0]):
        others = [name for name in folders if name not in splits and _directly(root / name)]
        if others:
            raise UserError(
                f"{shown(str(root))} has a folder {splits[0]!r} beside {shown(others[0])!r}, both with images: it could be a "
                f"split or a class; give --data {shown(str(root / splits[0]))}, or put all classes into one folder 'train'."
            )
    if not splits and split == "train":
        return root, ()
    chosen = choose(split, folders, shown(str(root)))
    same = [name for name in splits if name != chosen and alike(name, chosen)]
    return root / chosen, tuple(f"the folder {shown(name)} has another name of that split" for name in same)


def _directly(folder: Path) -> bool:
    """Whether there are images in a folder itself; not in one that is closed to us."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return False
    return any(name.lower().endswith(EXTENSIONS) and not hidden(name) for name in os.listdir(folder))


def search(top: Path) -> tuple[list[Found], dict[str, int]]:
    """The image files below a folder, ordered by folder and name, and how many others were left out, by reason.

    Folders that hang on symbolic links are entered after all others, and every folder once, so that links neither
    multiply images nor take their class. A link to a folder that it lies in is left out.
    """
    found, left_out = list[Found](), collections.Counter[str]()
    seen, links = {_identity(os.stat(top))}, list[str]()
    waiting = [""]
    while waiting or links:
        if not waiting:
            inside = links.pop(0)
            target, around = (os.path.realpath(os.path.join(top, p)) for p in (inside, os.path.dirname(inside)))
            identity = _identity(os.stat(target))
            if identity in seen or os.path.commonpath([target, around]) == target:
                left_out["links to folders that are read already, or that they lie in"] += 1
                continue
            seen.add(identity)
            waiting.append(inside)
        inside = waiting.pop()
        before = len(found) + len(waiting) + len(links)
        for entry in sorted(_entries(os.path.join(top, inside), left_out), key=lambda entry: entry.name):
            path = os.path.join(inside, entry.name)
            if hidden(entry.name):
                left_out["hidden or a system's own"] += 1
            elif entry.is_dir(follow_symlinks=False):
                seen.add(_identity(entry.stat()))
                waiting.append(path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(path)
            elif not entry.name.lower().endswith(EXTENSIONS):
                left_out[f"not images ({os.path.splitext(shown(entry.name).lower())[1] or 'no ending'})"] += 1
            else:
                _take(entry, path, found, left_out)
        if inside and len(found) + len(waiting) + len(links) == before:
            left_out["folders without images"] += 1
    return sorted(found, key=lambda file: file.path.split(os.sep)), dict(left_out)


def _entries(folder: str, left_out: collections.Counter[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        left_out["folders that may not be read"] += 1
        return []


def _take(entry: os.DirEntry[str], path: str, found: list[Found], left_out: collections.Counter[str]) -> None:
    try:
        about = entry.stat()
    except OSError:
        left_out["broken links"] += 1
        return
    if stat.S_ISREG(about.st_mode):
        found.append(Found(path, about.st_size, about.st_mtime_ns))
    else:
        left_out["pipes or devices"] += 1


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino
