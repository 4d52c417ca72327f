"""What a source of images is, and the commonest kind: images as the bytes of their files, wherever those lie."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from .decode import Undecodable, decode


class CorruptImage(Exception):
    """An image that does not decode; the message names its path and what is wrong."""


@runtime_checkable
class Source(Protocol):
    """A sequence of images."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def about(self) -> "About": ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str: ...

    def path(self, index: int) -> str: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...

    def label(self, index: int) -> int: ...


@dataclasses.dataclass(frozen=True)
class About:
    """How a source came to be."""

    where: str
    """The folder, file or address that was read."""
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many files or rows were not taken, by reason."""
    notes: tuple[str, ...] = ()
    """What else the user may not expect, each a clause."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Images as the bytes of their files."""

    name: str
    paths: Sequence[str]
    read: Callable[[int], bytes | None]
    """The bytes of an image; None where there are none, OSError where they cannot be read."""
    labels: Sequence[int] | Int[np.ndarray, " all"] | None
    classes: tuple[str, ...]
    stamp: str
    about: About

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """A string that changes when the images do."""
        return self.stamp

    def path(self, index: int) -> str:
        """What to call an image."""
        return self.paths[index]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of an image, by the rules of `decode`; raises CorruptImage where it does not decode."""
        try:
            content = self.read(index)
            if content is None:
                raise Undecodable("it has no bytes")
            return decode(content)
        except (OSError, ValueError, RuntimeError) as error:  # the last two for names that are no paths, and for loops
            raise CorruptImage(f"{self.path(index)} ({getattr(error, 'strerror', None) or error})") from None
        except Undecodable as error:
            raise CorruptImage(f"{self.path(index)} ({error})") from None

    def label(self, index: int) -> int:
        """The class of an image; -1 where there is none."""
        return -1 if self.labels is None else int(self.labels[index])


def spread(items: Sequence[Any], count: int | None) -> Sequence[Any]:
    """At most `count` items, in their order: always the same random choice, whether classes are sorted or take turns."""
    if count is None or count >= len(items):
        return items
    chosen = np.random.Generator(np.random.Philox(key=[0, len(items)])).permutation(len(items))[:count]
    return [items[i] for i in np.sort(chosen)]


def beyond(count: int | None, total: int) -> dict[str, int]:
    """The reason, and the number, of what `spread` leaves out."""
    return {"beyond --data.count": total - count} if count is not None and count < total else {}


def stamp_of(lines: Iterable[str]) -> str:
    """A short digest of lines, some of which may be names that are not UTF-8."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def shown(name: str) -> str:
    """A name as a terminal can show it: bytes that are not UTF-8 and control characters are escaped."""
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
