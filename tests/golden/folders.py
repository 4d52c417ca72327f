"""Folders of images as people keep them, and what Hugging Face's `datasets` reads in them, for `tests/test_folders.py`.

The tests make the folders anew and need no `datasets`; the facts are in `folders.json`. They were recorded by

    python3 -m venv gold && gold/bin/pip install datasets==5.2.0 pillow==13.0.0
    gold/bin/python tests/golden/folders.py
"""

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


HERE = Path(__file__).parent


def picture(number: int) -> np.ndarray:
    """A picture (5, 7, 3) without symmetries, different for every number below 36."""
    y, x, c = np.meshgrid(np.arange(5), np.arange(7), np.arange(3), indexing="ij")
    return (7 * number + 40 * y + 9 * x + 3 * c).astype(np.uint8)


def png(number: int, orientation: int | None = None) -> bytes:
    """The picture as a file, with an EXIF entry on how it is to be turned."""
    out, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(picture(number)).save(out, "PNG", exif=exif)
    return out.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def usual_names(root: Path) -> None:
    """Splits by other names than train, val, test."""
    for number, (split, name) in enumerate(
        (s, n) for s in ("training", "valid", "testing") for n in ("cat", "dog", "cat")
    ):
        write(root / split / name / f"{number}.png", png(number))


def development(root: Path) -> None:
    """Splits by yet other names."""
    for number, split in enumerate(("train", "dev", "eval")):
        write(root / split / "cat" / f"{number}.png", png(number))
        write(root / split / "dog" / f"{number}.png", png(number + 10))


def hidden(root: Path) -> None:
    """Folders and files that programs leave behind."""
    for number, folder in enumerate(("cat", "dog", ".ipynb_checkpoints", "__MACOSX", ".git/x", "cat/.thumbs")):
        write(root / "train" / folder / f"{number}.png", png(number))
    write(root / "train/cat/._0.png", b"not an image")


def turned(root: Path) -> None:
    """One picture under each of the eight orientations, and without an entry."""
    for orientation in (None, *range(1, 9)):
        write(root / "train/cat" / f"{orientation or 0}.png", png(orientation or 0, orientation))


def table(numbers: list[int], labels: list, kind: pa.DataType, turn: bool = False, names: list[str] | None = None):
    """Rows in the Hugging Face layout; `turn` exchanges the columns and the fields of the images."""
    cells = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
    fields = [("bytes", pa.binary()), ("path", pa.string())]
    columns = {"image": pa.array(cells, pa.struct(fields[::-1] if turn else fields)), "label": pa.array(labels, kind)}
    made = pa.table(dict(reversed(columns.items())) if turn else columns)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return made


def widths(root: Path) -> None:
    """Shards whose integers differ in width and sign, and whose columns differ in order."""
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table([0, 1], [0, 1], pa.int64()), root / "train-00000-of-00003.parquet")
    pq.write_table(table([2, 3], [1, 0], pa.uint8(), turn=True), root / "train-00001-of-00003.parquet")
    pq.write_table(table([4, 5], [2, 0], pa.int16()), root / "train-00002-of-00003.parquet")


def plain_text(root: Path) -> None:
    """The layout of CIFAR's copy on the hub."""
    names = ["cat", "dog"]
    (root / "plain_text").mkdir(parents=True)
    pq.write_table(table([0, 1], [0, 1], pa.int64(), names=names), root / "plain_text/train-00000-of-00001.parquet")
    pq.write_table(table([2], [1], pa.int64(), names=names), root / "plain_text/test-00000-of-00001.parquet")


def converted(root: Path) -> None:
    """The layout of the hub's own conversion to Parquet."""
    for split, numbers in (("train", [0, 1]), ("validation", [2])):
        (root / "default" / split).mkdir(parents=True)
        pq.write_table(table(numbers, [0] * len(numbers), pa.int64()), root / f"default/{split}/0000.parquet")


FOLDERS = {make.__name__: make for make in (usual_names, development, hidden, turned, widths, plain_text, converted)}


def _fact(features, row) -> list:
    label = features.get("label")
    named = label.int2str(row["label"]) if hasattr(label, "int2str") else row.get("label")
    cell = row["image"]  # without metadata not decoded
    image = Image.open(io.BytesIO(cell["bytes"])) if isinstance(cell, dict) else cell
    return [named, np.asarray(image).tolist()]


def main() -> None:
    """Records, by folder and split, the class or label and the pixels of every image, in the order of their numbers."""
    import datasets

    facts = {"versions": {"datasets": datasets.__version__}}
    for name, make in FOLDERS.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / name)
            loaded = datasets.load_dataset(f"{folder}/{name}", cache_dir=f"{folder}/cache")
            facts[name] = {split: [_fact(rows.features, row) for row in rows] for split, rows in loaded.items()}
    (HERE / "folders.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
