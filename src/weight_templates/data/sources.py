"""Where images come from. Every source is a sequence: how many images, image `i`, its label, and what to call it.

Sources are found by one string, see `open_source`. They decode on demand and keep nothing.
"""

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from ..config import DataOptions
from ..errors import UserError
from ..files import cache_folder
from .synthetic import Synthetic


EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
IN_MEMORY = 4 << 30
"""Bytes of Parquet up to which a set is read into memory; beyond, it is laid out once for random access in the cache."""


class CorruptImage(Exception):
    """An image that does not decode; the message names its path and what is wrong."""


@runtime_checkable
class Source(Protocol):
    """A sequence of images."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str: ...

    def path(self, index: int) -> str: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...

    def label(self, index: int) -> int: ...


def open_source(options: DataOptions, size: int, seed: int) -> Source:
    """The source that the options name; the sets of `downstream` by their names, anything unknown as a path.

    **Arguments:**

    - `size`: side of synthetic images, pixels.
    - `seed`: of synthetic images.

    Raises UserError if there is nothing, or nothing to read, under that name.
    """
    from . import downstream  # builds on this module

    options.check()
    name, colon, folder = options.source.partition(":")
    if name in downstream.SETS:
        return downstream.open_named(name, folder if colon else None, options)
    if options.source == "synthetic":
        # Another split is of other scenes: the seeds of all train splits are below 2³².
        return Synthetic(size, options.count or 4096, seed if options.split == "train" else seed + 2**32)
    if options.source.startswith("hub:"):
        return _hub(options.source.removeprefix("hub:"), options.split, options.count)
    root = Path(os.path.expanduser(options.source))
    if not os.path.exists(root):
        raise UserError(
            f"there is no file or folder {root}; give --data an existing path, `synthetic`, `hub:NAME` or one of "
            f"{', '.join(downstream.SETS)}."
        )
    files = [root] if root.is_file() else sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if files:
        return _parquet(root, files, options.split, options.count)
    return _folder(root, options.split, options.count)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Images as the bytes of their files, wherever those lie."""

    name: str
    paths: Sequence[str]
    read: Callable[[int], bytes | None]
    labels: Sequence[int] | Int[np.ndarray, " all"] | None
    classes: tuple[str, ...]
    stamp: str

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """A string that changes when the images do."""
        return self.stamp

    def path(self, index: int) -> str:
        """What to call an image."""
        return self.paths[index]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of an image; raises CorruptImage where it does not decode."""
        try:
            content = self.read(index)
            if content is None:
                raise OSError("no image bytes")
            with Image.open(io.BytesIO(content)) as file:
                return np.asarray(file.convert("RGB"))
        except (
            Exception
        ) as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib's, … as the damage will have it
            raise CorruptImage(f"{self.path(index)} ({error})") from None

    def label(self, index: int) -> int:
        """The class of an image; -1 where there is none."""
        return -1 if self.labels is None else int(self.labels[index])


def _folder(root: Path, split: str, count: int | None) -> Encoded:
    top = root / split if (root / split).is_dir() else root
    if top == root and (split != "train" or any((root / other).is_dir() for other in ("val", "test"))):
        raise UserError(
            f"{root} has no folder {split!r}; choose --data.split among its folders, or name one as --data."
        )
    files = sorted(
        Path(folder) / file
        for folder, _, names in os.walk(top, followlinks=True)
        for file in names
        if file.lower().endswith(EXTENSIONS) and not file.startswith(".") and os.path.isfile(os.path.join(folder, file))
    )
    if not files:
        raise UserError(f"{top} holds no images and no Parquet files; give --data a folder that does.")
    classes = tuple(sorted({f.relative_to(top).parts[0] for f in files if len(f.relative_to(top).parts) > 1}))
    files = _spread(files, count)
    number = {name: i for i, name in enumerate(classes)}
    labels = [number.get(f.relative_to(top).parts[0], -1) for f in files] if classes else None
    stats = (f"{f.relative_to(top)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    return Encoded(root.name, [str(f) for f in files], lambda i: files[i].read_bytes(), labels, classes, _stamp(stats))


def _parquet(root: Path, files: list[Path], split: str, count: int | None) -> Encoded:
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen = [f for f in files if f.name.split("-")[0].split(".")[0] == split]
    if split == "train" and len(files) == 1:
        chosen = files  # whatever it is called
    if not chosen:
        splits = sorted({f.name.split("-")[0].split(".")[0] for f in files})
        raise UserError(f"{root} has no split {split!r}; choose --data.split among {', '.join(splits)}.")
    stats = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in chosen]
    try:
        schema = pq.read_schema(chosen[0])
        image, label = _columns(root, schema)
        columns = [image] if label is None else [image, label]
        if sum(f.stat().st_size for f in chosen) <= IN_MEMORY:
            table = pa.concat_tables([pq.read_table(f, columns=columns) for f in chosen])
        else:
            table = _laid_out(chosen, columns, _stamp(stats))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{root} does not read as Parquet ({error}); copy it again.") from None
    return _rows(root.name, table, image, label, _class_names(schema, label), count, _stamp(stats), str(root))


def _laid_out(files: list[Path], columns: list[str], stamp: str) -> Any:
    """Parquet's columns as an Arrow file in the cache, mapped into memory: any row at once, whatever the size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = cache_folder() / "arrow" / f"{stamp}.arrow"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        schema = pq.read_table(files[0], columns=columns).schema
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=256, columns=columns):
                    writer.write_batch(batch)
        os.replace(temporary, target)
    return pa.ipc.open_file(pa.memory_map(str(target))).read_all()


def _hub(name: str, split: str, count: int | None) -> Encoded:
    try:
        import datasets  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise UserError("hub:… needs the package datasets; install it with `pip install -e '.[hub]'`.") from None
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub's client raises many kinds: no network, no such data set, gated, …
        raise UserError(
            f"cannot load {name!r} from the hub ({' '.join(str(error).split())[:300]}); check name and network."
        ) from None
    table, schema = loaded.data.table, loaded.data.table.schema
    image, label = _columns(Path(name), schema)
    feature = loaded.features.get(label) if label else None
    return _rows(
        name.split("/")[-1],
        table,
        image,
        label,
        tuple(getattr(feature, "names", ())),
        count,
        loaded._fingerprint,
        name,
    )


def _columns(root: Path, schema: Any) -> tuple[str, str | None]:
    import pyarrow as pa

    images = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    if not images:
        raise UserError(
            f"{root} has no column of images {{bytes, path}}; give Parquet in the Hugging Face image layout."
        )
    labels = [
        n for n in ("label", "labels", "fine_label") if n in schema.names and pa.types.is_integer(schema.field(n).type)
    ]
    return ("image" if "image" in images else images[0]), (labels[0] if labels else None)


def _class_names(schema: Any, label: str | None) -> tuple[str, ...]:
    import json

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _rows(
    name: str,
    table: Any,
    image: str,
    label: str | None,
    names: tuple[str, ...],
    count: int | None,
    stamp: str,
    where: str,
) -> Encoded:
    if not table.num_rows:
        raise UserError(f"{where} holds no rows; give --data a set with images.")
    rows = _spread(range(table.num_rows), count)
    content = table[image].chunks
    starts = np.cumsum([0] + [len(c) for c in content])
    paths = _paths(table[image], where)

    def read(index: int) -> bytes | None:
        row = rows[index]
        chunk = int(np.searchsorted(starts, row, side="right")) - 1
        cell = content[chunk][row - int(starts[chunk])].as_py()
        if cell is None or cell["bytes"] is not None or not cell.get("path"):
            return cell and cell["bytes"]
        return Path(cell["path"]).read_bytes()  # `datasets` keeps the paths of local files

    labels = None if label is None else table[label].fill_null(-1).to_numpy()
    if labels is not None:
        names = names or tuple(str(i) for i in range(int(labels.max()) + 1))
        labels = labels[np.asarray(rows)]
    return Encoded(name, [paths[r] for r in rows], read, labels, names, f"{stamp}-{count}")


def _paths(column: Any, where: str) -> list[str]:
    import pyarrow as pa

    if column.type.get_field_index("path") < 0:
        return [f"{where}[{i}]" for i in range(len(column))]
    paths = pa.chunked_array([c.field("path") for c in column.chunks], column.type.field("path").type).to_pylist()
    return [f"{where}[{i}]" + (f" {p}" if p else "") for i, p in enumerate(paths)]


def _spread(items: Sequence[Any], count: int | None) -> Sequence[Any]:
    """At most `count` items, in their order: always the same random choice, whether classes are sorted or take turns."""
    if count is None or count >= len(items):
        return items
    chosen = np.random.Generator(np.random.Philox(key=[0, len(items)])).permutation(len(items))[:count]
    return [items[i] for i in np.sort(chosen)]


def _stamp(lines: Any) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
