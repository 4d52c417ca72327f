"""Batches as a pure function of seed and step, from the device's memory or from decoding threads.

Small sets of equal-sized images are decoded once and live on the device, augmented there; others are decoded and
augmented by threads, a few batches ahead. Either way `feed.batch(step)` depends on nothing but the seed, the step and
the images: not on threads, devices or what was asked before.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ..config import DataOptions
from ..errors import RunError, UserError
from ..files import cache_folder, write_json
from .arrays import Arrays
from .augment import LEAST, augment_on_device, augment_on_host, evaluation_view
from .encoded import CorruptImage, Source
from .limits import check_memory


AHEAD = 2
"""Batches prepared in advance."""
DECODER = 2
"""Version of the rules by which images decode: what an earlier one found corrupt is checked again."""
TOGETHER = 20000
"""Images checked between two words about the progress."""
CROPS = 0x63726F70
"""Tells the keys of augmentation from all others that follow from the same seed."""
Batch = dict[str, Array]
"""`image`: uint8 (batch, size, size, 3); `label`: int32 (batch,), -1 where there is none."""


@runtime_checkable
class Feed(Protocol):
    """Augmented training batches."""

    def batch(self, step: int) -> Batch: ...


@dataclasses.dataclass(frozen=True)
class Split:
    """Which images train and which are held out, and the order of every epoch."""

    train: Int[np.ndarray, " train"]
    held_out: Int[np.ndarray, " held_out"]
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the rest of a shuffle is dropped."""
        return len(self.train) // self.batch

    def indices(self, step: int) -> Int[np.ndarray, " batch"]:
        """The images of a step: every epoch is another permutation."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = _permutation(self.seed, epoch, len(self.train))
        return self.train[order[within * self.batch : (within + 1) * self.batch]]


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    return _rng(seed, 1, epoch).permutation(count)


def _rng(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[(seed << 2) + stream, index]))


def split(
    good: Int[np.ndarray, " good"],
    batch: int,
    seed: int,
    part: float = 1 / 20,
    most: float = 512,
    flag: str | None = "--optim.batch",
) -> Split:
    """Holds out a part of the images, at most so many, chosen by the seed; raises UserError if no batch is left, and names
    the option `flag` that the batch is from, if there is one."""
    if len(good) < 2:
        raise UserError(f"the data has {len(good)} usable image(s); give at least two.")
    order = _rng(seed, 0, 0).permutation(len(good))
    held = int(max(1, min(most, len(good) * part)))
    train = np.sort(good[order[held:]])
    if batch > len(train):
        raise UserError(
            f"a batch of {batch} is larger than the data: {len(train)} training images ({held} more are held out); "
            + (f"choose {flag} {len(train)} or less." if flag else "give more images.")
        )
    return Split(train, np.sort(good[order[:held]]), batch, seed)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A source, checked: which of its images decode, and their pixels if they fit in memory."""

    source: Source
    good: Int[np.ndarray, " good"]
    pixels: UInt8[np.ndarray, "all h w 3"] | None
    """All images, rows of corrupt ones undefined; None if the set streams."""
    bad: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """What is wrong with the images that do not decode."""

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of an image; raises CorruptImage if it streams and has gone bad."""
        return self.source.image(index) if self.pixels is None else self.pixels[index]


def load(source: Source, options: DataOptions, say: Callable[[str], None]) -> Loaded:
    """Decodes every image once, before anything else is spent on them.

    Images of one size that fit in `options.resident_mb` are kept. What was found corrupt in a larger set is remembered
    in the cache, if that can be written. Raises UserError for corrupt images if `options.on_corrupt` is `refuse`, where
    no image is sound, and where images to keep need more memory than there is.

    **Arguments:**

    - `say`: told about the progress, and about every image that is left out.
    """
    threads = options.threads or os.cpu_count() or 1
    count, pixels, shape, bad = len(source), None, None, dict[int, str]()
    for index in range(count):  # the first sound image tells the size
        try:
            shape = source.image(index).shape
            break
        except CorruptImage:
            continue
    size = count * int(np.prod(shape or 0))
    if shape is not None and size <= options.resident_mb * 2**20:
        check_memory(size, f"{count:,} images of {source.name}", "lower --data.resident-mb, or give fewer images")
        if isinstance(source, Arrays):
            return Loaded(source, np.arange(count), source.stacked())
        pixels = np.zeros((count, *shape), np.uint8)
    elif isinstance(source, Arrays):
        return Loaded(source, np.arange(count), None)
    memory = _memory_of(source, options)
    remembered = _remembered(memory)
    if remembered is not None:  # written for sets that stream only
        bad, pixels = remembered, None
    elif not _decode(source, pixels, bad, threads, say) or pixels is None:
        pixels = None
        _remember(memory, bad, say)
    if bad:
        first = next(iter(bad.values()))
        if options.on_corrupt == "refuse":
            raise UserError(
                f"{len(bad)} of {count} images do not decode, the first one {first}; "
                "mend or remove them, or say --data.on-corrupt skip."
            )
        if len(bad) == count:
            raise UserError(f"none of {count} images of {source.name} decodes, the first one {first}; give others.")
        for message in bad.values():
            say(f"left out, does not decode: {message}")
    return Loaded(source, np.array([i for i in range(count) if i not in bad], dtype=np.int64), pixels, bad)


def _memory_of(source: Source, options: DataOptions) -> Path | None:
    """The file of the cache that tells which images of a set do not decode; None if there is no cache."""
    try:
        folder = cache_folder()
    except UserError:  # no home
        return None
    return folder / "checked" / f"{source.fingerprint()}-{options.resident_mb}-{DECODER}.json"


def _remembered(memory: Path | None) -> dict[int, str] | None:
    """What was written there; None where nothing, or nothing sound, was."""
    if memory is None:
        return None
    try:
        found = json.loads(memory.read_text("utf-8"))
        return {int(index): str(message) for index, message in found.items()}
    except (OSError, ValueError, AttributeError):
        return None


def _remember(memory: Path | None, bad: dict[int, str], say: Callable[[str], None]) -> None:
    """Saves checking the next time; a cache that cannot be written costs that time and nothing else."""
    if memory is None:
        return
    try:
        write_json(memory, bad)
    except OSError as error:
        say(f"note: the cache {memory.parent} cannot be written ({error.strerror}); images are checked at every start.")


def _decode(
    source: Source, pixels: np.ndarray | None, bad: dict[int, str], threads: int, say: Callable[[str], None]
) -> bool:
    """Fills `pixels` and `bad`; False if the images are not all of one size."""
    uniform = True

    def one(index: int) -> None:
        nonlocal uniform
        try:
            image = source.image(index)
        except CorruptImage as error:
            bad[index] = str(error)
            return
        if pixels is not None:
            if image.shape == pixels.shape[1:]:
                pixels[index] = image
            else:
                uniform = False

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source), TOGETHER):
            if start:
                say(f"checked {start} of {len(source)} images")
            list(pool.map(one, range(start, min(start + TOGETHER, len(source)))))
    for index in sorted(bad):  # by index, whatever thread came first
        bad[index] = bad.pop(index)
    return uniform


@dataclasses.dataclass(frozen=True)
class Resident:
    """Batches from images on the device, augmented there."""

    pixels: UInt8[Array, "all h w 3"]
    labels: Int[Array, " all"]
    split: Split
    size: int
    least: float
    """Smallest share of an image that a crop shows."""
    sharding: jax.sharding.Sharding

    def batch(self, step: int) -> Batch:
        """The augmented batch of a step."""
        key = jr.fold_in(jr.fold_in(jr.key(self.split.seed), CROPS), step)
        indices, mine = self.split.indices(step), _own(self.sharding, self.split.batch)
        keys = jr.split(key, len(indices))[mine]
        made = _gather(self.pixels, self.labels, indices[mine], keys, self.size, self.least)
        return _shared(made, self.sharding, len(indices))


def _own(sharding: jax.sharding.Sharding, batch: int) -> slice:
    """The part of a batch that lies on this process's devices."""
    places = sharding.addressable_devices_indices_map((batch,)).values()
    parts = [place[0].indices(batch) for place in places if place is not None]
    return slice(min(start for start, _, _ in parts), max(stop for _, stop, _ in parts))


def _shared(own: Any, sharding: jax.sharding.Sharding, batch: int) -> Batch:
    """A batch, from the part of it that lies on this process's devices."""
    if sharding.is_fully_addressable:
        return jax.device_put(own, sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array), (batch, *array.shape[1:]))
        for name, array in own.items()
    }


@functools.partial(jax.jit, static_argnames=("size", "least"))
def _gather(pixels: Array, labels: Array, indices: Array, keys: Array, size: int, least: float) -> Batch:
    images = jax.vmap(lambda i, k: augment_on_device(pixels[i], size, least, key=k))(indices, keys)
    return {"image": images, "label": labels[indices]}


@dataclasses.dataclass(frozen=True)
class Features:
    """Batches of what a frozen backbone made of the training images, in the order of `split.train`."""

    features: Float[Array, "train width"]
    labels: Int[Array, " train"]
    split: Split
    sharding: jax.sharding.Sharding

    def batch(self, step: int) -> Batch:
        """The batch of a step: `feature` (batch, width), `label` (batch,)."""
        indices = self.split.indices(step)
        rows = np.searchsorted(self.split.train, indices[_own(self.sharding, self.split.batch)])
        return _shared({"feature": self.features[rows], "label": self.labels[rows]}, self.sharding, len(indices))


@dataclasses.dataclass(frozen=True)
class Streamed:
    """Batches decoded and augmented by threads."""

    source: Source
    split: Split
    size: int
    least: float
    threads: int
    skip: bool
    """What to do with an image that has gone bad since it was checked: take the next one instead, or fail."""
    sharding: jax.sharding.Sharding

    def batch(self, step: int) -> Batch:
        """The augmented batch of a step; raises RunError for a bad image that is not to be skipped."""

        def one(position: int) -> np.ndarray:
            rng = _rng(self.split.seed, 2, step * self.split.batch + position)
            return augment_on_host(self._image(int(indices[position])), self.size, rng, self.least)

        indices, mine = self.split.indices(step), _own(self.sharding, self.split.batch)
        try:
            with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
                images = np.stack(list(pool.map(one, range(len(indices))[mine])))
        except CorruptImage as error:
            raise RunError(
                f"an image went bad while training: {error}; mend it and run the same command again."
            ) from None
        labels = np.array([self.source.label(int(i)) for i in indices[mine]], np.int32)
        return _shared({"image": images, "label": labels}, self.sharding, len(indices))

    def _image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        try:
            return self.source.image(index)
        except CorruptImage:
            if not self.skip:
                raise
        after = np.roll(self.split.train, -1 - int(np.searchsorted(self.split.train, index)))
        for other in after[:100]:
            with contextlib.suppress(CorruptImage):
                return self.source.image(int(other))
        raise CorruptImage(f"{self.source.path(index)} and 100 after it")


def feed_of(
    loaded: Loaded,
    chosen: Split,
    size: int,
    options: DataOptions,
    sharding: jax.sharding.Sharding,
    least: float = LEAST,
) -> Feed:
    """Training batches of `size` pixels, placed by `sharding`; crops show at least a share `least` of an image."""
    if loaded.pixels is None:
        threads, skip = options.threads or os.cpu_count() or 1, options.on_corrupt == "skip"
        return Streamed(loaded.source, chosen, size, least, threads, skip, sharding)
    labels = jnp.array([loaded.source.label(i) for i in range(len(loaded.source))], jnp.int32)
    return Resident(jnp.asarray(loaded.pixels), labels, chosen, size, least, sharding)


def evaluation_views(
    loaded: Loaded, indices: Int[np.ndarray, " images"], size: int
) -> UInt8[np.ndarray, "images size size 3"]:
    """Images under the evaluation transform; raises UserError where one has gone bad."""
    try:
        images = [loaded.image(int(i)) for i in indices]
    except CorruptImage as error:
        raise UserError(f"an image went bad since it was checked: {error}; mend or remove it.") from None
    return np.stack([evaluation_view(image, size) for image in images])


def ahead(feed: Feed, start: int, stop: int) -> Iterator[Batch]:
    """The batches of steps `start` … `stop - 1`, prepared by a thread while the device is busy."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(feed.batch, step) for step in range(start, min(start + AHEAD, stop))]
        try:
            for step in range(start, stop):
                ready = waiting.pop(0)
                if step + AHEAD < stop:
                    waiting.append(pool.submit(feed.batch, step + AHEAD))
                yield ready.result()
        finally:
            for future in waiting:
                future.cancel()
