"""Parquet files in the Hugging Face image layout: which files are a split, and their rows, in memory or mapped."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..files import cache_folder
from .encoded import About, Encoded, beyond, shown, spread, stamp_of
from .folder import hidden
from .limits import POINTER, available, check_memory, free_disk, read_regular, words
from .rows import Called, Cells, Columns, Shard, check_alike, columns_of, labels_of_shards, unlabelled
from .splits import alike, choose, usual


IN_MEMORY = 4 << 30
"""Bytes of rows up to which a set is read into memory; beyond, it is laid out once for random access in the cache."""
TOGETHER = 64
"""Rows read at once, fewer where they could be large."""
AT_ONCE = 1 << 30
"""Bytes that rows read at once may take."""
A_ROW = 100
"""Bytes that a row takes beside its image: its label, its place and its offsets."""


class Part(NamedTuple):
    """A file, as its metadata describe it."""

    path: Path
    columns: Columns
    rows: int
    size: int
    """Bytes of its columns, unpacked."""
    largest: int
    """Bytes of its largest group of rows, unpacked."""
    stamp: str


def files_of(root: Path) -> list[Path]:
    """The Parquet files of a set: of its folder, else of the folder `data`, else of another folder in it, else none.

    Splits may have folders of their own, such as `default/train/0000.parquet`. Raises UserError where several folders
    hold Parquet files, each of which could be the set.
    """
    if root.is_file():
        return [root]
    own = _parquet_in(root)
    if own:
        return own
    inner = [Path(entry) for entry in _folders(root)]
    below = {folder: _parquet_in(folder) for folder in inner if usual(folder.name)}
    if any(below.values()):
        return [file for files in below.values() for file in files]
    found = dict[str, list[Path]]()
    for folder in inner:
        deeper = [Path(entry) for entry in _folders(folder) if usual(os.path.basename(entry).removeprefix("partial-"))]
        found[folder.name] = _parquet_in(folder) or [file for split in deeper for file in _parquet_in(split)]
    found = {name: files for name, files in found.items() if files}
    if "data" in found:
        return found["data"]
    if len(found) > 1:
        raise UserError(
            f"{root} has Parquet files in {', '.join(found)}; choose one of these sets as --data "
            f"{root / min(found)}, for example."
        )
    return next(iter(found.values()), [])


def splits_of(root: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by split. A usual name at the beginning of a file's name counts first, then that of its folder below `root`,
    then whatever precedes the first hyphen or dot; files that are only numbered, without any of these, are `train`."""
    found = dict[str, list[Path]]()
    for file in files:
        begin, folder = file.name.split("-")[0].split(".")[0], file.parent.name
        inner = file.parent != root and usual(folder.removeprefix("partial-")) is not None
        named = usual(begin) is not None or not inner
        found.setdefault(begin if named else folder, []).append(file)
    numbers = [name for name in found if name.isdigit() or name.lower() in ("part", "data", "shard")]
    if len(numbers) == len(found):
        return {"train": list(files)}
    return found


def chosen_files(root: Path, files: Sequence[Path], split: str) -> tuple[list[Path], tuple[str, ...]]:
    """The files of a split, and what there is to say about the choice; a single file is `train` whatever its name.

    Raises NoSplit where no file is of the split.
    """
    if split == "train" and len(files) == 1:
        return list(files), ()
    found = splits_of(root, files)
    name = choose(split, found, shown(str(root)))
    same = [other for other in found if other != name and alike(other, name)]
    return found[name], tuple(f"files {shown(other)} have another name of that split" for other in same)


def open_parquet(
    root: Path, files: Sequence[Path], split: str, count: int | None, label: str | None = None, gaps: bool = True
) -> Encoded:
    """A split of Parquet files.

    **Arguments:**

    - `label`: the column of labels; None for the usual ones.
    - `gaps`: whether integer labels without names are renumbered without gaps, see `labels.numbered`.

    Raises NoSplit where there is no such split, and UserError for files that do not read, do not fit together or would
    take more memory than there is.
    """
    chosen, notes = chosen_files(root, files, split)
    parts = [_part(file, label) for file in chosen]
    check_alike([(str(part.path), part.columns) for part in parts])
    total = sum(part.rows for part in parts)
    if not total:
        raise UserError(f"{shown(str(root))} holds no rows; give --data a set with images.")
    parts = [part for part in parts if part.rows]
    check_memory(total * A_ROW, f"the {total:,} rows of {shown(str(root))}", "give fewer files")
    shards = _read(parts)
    found = labels_of_shards(shards, gaps)
    rows = spread(range(total), count)
    folder = root if root.is_dir() else root.parent
    cells = Cells(shards, rows, _beside(folder), shown(str(root)))
    stamp = stamp_of([*(part.stamp for part in parts), *_stamps(folder, cells.paths()), str(label), str(count)])
    return Encoded(
        shown(root.resolve().name),
        Called(cells),
        cells,
        None if found is None else found.labels[np.asarray(rows)],
        () if found is None else found.classes,
        stamp,
        About(
            shown(str(root)),
            beyond(count, total),
            (*notes, *unlabelled(parts[0].columns), *(() if found is None else found.notes)),
        ),
    )


def _folders(root: Path) -> list[str]:
    """The folders in a folder that are neither hidden nor closed to us, by name."""
    found = sorted(os.path.join(root, name) for name in os.listdir(root) if name[0] != "_" and not hidden(name))
    return [folder for folder in found if os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)]


def _parquet_in(folder: Path) -> list[Path]:
    """The Parquet files in a folder, by name; those that begin with a dot or `_` are other programs' notes."""
    return sorted(folder / n for n in os.listdir(folder) if n.lower().endswith(".parquet") and n[0] not in "._")


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns errors into UserErrors that name the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # the last for names that are not UTF-8
        with contextlib.suppress(OSError), open(file, "rb") as content:
            if content.read(len(POINTER)) == POINTER:
                raise UserError(f"{file} is a pointer of Git LFS, not the file; run git lfs pull there.") from None
        reason = shown(" ".join(str(error).split()))
        raise UserError(f"{shown(str(file))} does not read as Parquet ({reason}); copy it again.") from None


def _opened(file: Path) -> pq.ParquetFile:
    """Arrow opens by name only what is UTF-8."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return pq.ParquetFile(open(file, "rb"))
    return pq.ParquetFile(file)


def _part(file: Path, label: str | None) -> Part:
    if not file.is_file():
        raise UserError(f"{shown(str(file))} is no regular file; give --data the path of one.")
    with _reading(file), _opened(file) as content:
        metadata, about = content.metadata, file.stat()
        columns = columns_of(metadata.schema.to_arrow_schema(), label, shown(str(file)))
        # Sizes by column would tell more, but looking a damaged one up ends the process (pyarrow 26).
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    stamp = f"{file.name} {about.st_size} {about.st_mtime_ns}"
    return Part(file, columns, metadata.num_rows, sum(sizes), max(sizes, default=0), stamp)


def _read(parts: Sequence[Part]) -> list[Shard]:
    """The rows of files: in memory, or mapped from the cache where they are many or memory is short.

    Raises UserError, with the sizes, where neither memory nor the cache has the room.
    """
    room = min(IN_MEMORY, available() // 2)
    if sum(part.size for part in parts) <= room:
        with contextlib.suppress(_TooLarge):
            return _in_memory(parts, room)
    for part in parts:
        check_memory(min(part.largest, AT_ONCE) * 2, f"reading {shown(str(part.path))}", "give smaller groups of rows")
    return [_mapped(part) for part in parts]


class _TooLarge(Exception):
    """Rows unpack to more than their file's metadata told, and than may be held."""


def _in_memory(parts: Sequence[Part], room: int) -> list[Shard]:
    shards, held = [], 0
    for part in parts:
        cells, labels = [], []
        for batch in _batches(part):
            held += batch.nbytes
            if held > room:  # a few images repeated by reference take no room in the file
                raise _TooLarge
            cells.append(batch.column(part.columns.image))
            if part.columns.label is not None:
                labels.append(batch.column(part.columns.label))
        shards.append(Shard(str(part.path), part.columns, cells, labels))
    return shards


def _batches(part: Part) -> Iterator[pa.RecordBatch]:
    together = max(1, min(TOGETHER, AT_ONCE // max(1, part.largest)))
    columns = [name for name in part.columns[:2] if name is not None]
    with _reading(part.path), _opened(part.path) as file:
        rows = 0
        for batch in file.iter_batches(batch_size=together, columns=columns):
            rows += len(batch)
            yield batch
        if rows != part.rows:
            raise OSError(f"{rows} rows where it says {part.rows}")


def _mapped(part: Part) -> Shard:
    """The rows of a file as an Arrow file in the cache, mapped into memory: any row at once, whatever the size."""
    folder = cache_folder() / "arrow"
    target = folder / f"{stamp_of([str(part.path.resolve()), part.stamp, *map(str, part.columns[:2])])}.arrow"
    if not target.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _lay_out(part, target)
        except OSError as error:
            raise UserError(
                f"{shown(str(part.path))} unpacks to {words(part.size)}, too much for {words(available())} of free memory, and "
                f"cannot be laid out in {folder} ({error.strerror or error}); set XDG_CACHE_HOME to a folder that can hold it."
            ) from None
    table = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
    labels = [] if part.columns.label is None else table[part.columns.label].chunks
    return Shard(str(part.path), part.columns, table[part.columns.image].chunks, labels)


def _lay_out(part: Part, target: Path) -> None:
    """Raises OSError where the disk cannot hold it; leaves nothing half-written."""
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    room = free_disk(target.parent)
    if part.size > room:
        raise OSError(f"{words(room)} are free there")
    try:
        batches, written = _batches(part), 0
        first = next(batches)
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
            for batch in itertools.chain([first], batches):
                written += batch.nbytes
                if written > room:
                    raise OSError(f"it takes more than the {words(room)} free there")
                writer.write_batch(batch)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(folder: Path) -> Callable[[str], bytes]:
    """Reads the files that rows refer to: regular ones below the set's own folder, and no others."""
    inside = folder.resolve()

    def read(path: str) -> bytes:
        target = (inside / path).resolve()
        if not target.is_relative_to(inside):
            raise OSError(f"it refers to a file outside {shown(str(folder))}")
        return read_regular(target)

    return read


def _stamps(folder: Path, paths: Sequence[str]) -> Iterator[str]:
    """What tells whether files that rows refer to have changed."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            about = (folder / path).stat()
            yield f"{path} {about.st_size} {about.st_mtime_ns}"
