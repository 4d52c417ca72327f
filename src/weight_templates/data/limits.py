"""What may be read, and how much of it: regular files only, and no more than there is memory or disk for."""

import contextlib
import os
import shutil
import stat
from pathlib import Path

from ..errors import UserError


LARGEST_FILE = 1 << 30
"""Bytes of an encoded image beyond which its file is not read."""
POINTER = b"version https://git-lfs"
"""How the file begins that Git leaves in the place of one that Git LFS holds."""


def available() -> int:
    """Bytes of memory that this process may still take: what the machine has free, or what its control group leaves."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError, IndexError):  # no Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, min(found))


def words(size: int) -> str:
    """A number of bytes for a person: 1.5 GB."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raises UserError, with both numbers, if `what` needs more bytes than there are; `what` begins the sentence."""
    there = available()
    if needed > there:
        raise UserError(f"{what} would take {words(needed)} of memory, and there are {words(there)}; {remedy}.")


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is, or would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def read_regular(path: str | os.PathLike[str], most: int = LARGEST_FILE) -> bytes:
    """The content of a file. Raises OSError for a pipe, a device or a folder, none of which is opened, and beyond `most`
    bytes."""
    found = os.stat(path)  # before it is opened: opening a pipe waits for a writer
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    if found.st_size > most:
        raise OSError(f"its file has {words(found.st_size)}, and {words(most)} is the most")
    with open(path, "rb") as file:
        return file.read(most)
