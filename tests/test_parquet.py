"""Parquet files as people make them: labels of every kind, shards that differ, images beside them, sizes."""

import contextlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import encoded, limits, parquet
from weight_templates.errors import UserError
from weight_templates.files import cache_folder

from .golden.folders import picture, png, table, write
from .test_folders import labelled, opened


# Labels of Parquet


def shards(root, *tables):
    root.mkdir(exist_ok=True)
    for i, made in enumerate(tables):
        pq.write_table(made, root / f"train-{i:05}-of-{len(tables):05}.parquet")
    return root


def test_shards_that_number_classes_differently_are_joined_by_name(tmp_path):
    root = shards(
        tmp_path,
        table([0, 1], [0, 1], pa.int64(), names=["cat", "dog"]),
        table([2, 3, 4], [0, 1, 2], pa.int32(), names=["dog", "cow", "cat"], turn=True),
        table([5], ["cow"], pa.string()),
    )
    source = opened(root)
    assert labelled(source) == {0: "cat", 1: "dog", 2: "dog", 3: "cow", 4: "cat", 5: "cow"}
    assert source.classes == ("cat", "dog", "cow")
    assert source.about.notes == ("files number the classes differently; they are joined by name",)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"names": ["a", "b"]}, {}, "00000-.* names its classes and .*00001-.* does not"),
        ({"names": ["a", "a"]}, {"names": ["a", "b"]}, "00000-.* has two classes of the name 'a'"),
        ({"drop": "label"}, {}, "00000-.* has its labels in no column and .*00001-.* in 'label'"),
        ({}, {"rename": "picture"}, "00000-.* has its images in 'image' and .*00001-.* in 'picture'"),
        ({"names": ["a"]}, {"names": ["b"]}, "00000-.* has the label 1, and names for 1 classes"),
    ],
)
def test_shards_that_do_not_fit_together_are_named(tmp_path, one, other, why):
    tables = []
    for number, change in enumerate((one, other)):
        made = table([2 * number, 2 * number + 1], [0, 1], pa.int64(), names=change.get("names"))
        made = made.drop_columns(change["drop"]) if "drop" in change else made
        tables.append(made.rename_columns({"image": change["rename"]}) if "rename" in change else made)
    with pytest.raises(UserError, match=why):
        opened(shards(tmp_path, *tables))


@pytest.mark.parametrize(
    ("labels", "kind", "classes", "notes"),
    [
        ([12, 48978, 12], pa.int64(), ("12", "48978"), ("labels 12 … 48978 are numbered 0 … 1",)),
        ([1, 2, 3], pa.uint8(), ("1", "2", "3"), ("labels 1 … 3 are numbered 0 … 2",)),
        ([0, 1, None], pa.uint64(), ("0", "1"), ()),
        ([9, 10, 2], pa.int64(), ("2", "9", "10"), ("labels 2 … 10 are numbered 0 … 2",)),
        (["dog", "cat", None], pa.string(), ("cat", "dog"), ()),
        (["dog", "cat", ""], pa.large_string(), ("cat", "dog"), ()),
        (["dog", "cat", "dog"], pa.dictionary(pa.int8(), pa.string()), ("cat", "dog"), ()),
        ([True, False, None], pa.bool_(), ("False", "True"), ()),
        ([True, False, True], pa.bool_(), ("False", "True"), ()),
        ([-1, 0, 1], pa.int8(), ("0", "1"), ()),
    ],
)
def test_labels_of_every_kind(tmp_path, labels, kind, classes, notes):
    source = opened(shards(tmp_path, table([0, 1, 2], labels, kind)))
    assert source.classes == classes
    assert source.about.notes == notes
    named = [None if label in (None, "", -1) else str(label) for label in labels]
    assert labelled(source) == dict(enumerate(named))
    some = opened(tmp_path, count=2)
    assert some.classes == classes
    assert labelled(some).items() <= labelled(source).items()


def test_labels_of_two_splits_meet_by_value(tmp_path):
    """The test split lacks a number: its classes are still those of the training split."""
    pq.write_table(table([0, 1, 2], [3, 5, 7], pa.int64()), tmp_path / "train.parquet")
    pq.write_table(table([3, 4], [7, 3], pa.int64()), tmp_path / "test.parquet")
    train = opened(tmp_path)
    options = DataOptions(str(tmp_path), split="test")
    test = data.load(data.open_source(options, 16, 0), options, print)
    assert data.labels_of(test, test.good, train.classes).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("columns", "asked", "why"),
    [
        ({"label": pa.array([2**64 - 1], pa.uint64())}, None, "has labels beyond 64 bits"),
        ({"label": pa.array([0.5])}, "label", "labels that are no whole numbers"),
        (
            {"breed": pa.array([1]), "age": pa.array([2]), "notes": pa.array([[1]])},
            "race",
            "has no column 'race' .* among breed, age",
        ),
    ],
)
def test_labels_that_will_not_do(tmp_path, columns, asked, why):
    made = table([0], [0], pa.int64()).drop_columns("label")
    for name, values in columns.items():
        made = made.append_column(name, values)
    with pytest.raises(UserError, match=why):
        opened(shards(tmp_path, made), label=asked)


def test_columns_of_labels_with_other_names(tmp_path):
    made = table([0, 1], [0, 1], pa.int64()).rename_columns({"label": "breed"})
    made = made.append_column("good", pa.array([True, False])).append_column("weight", pa.array([1.0, 2.0]))
    root = shards(tmp_path, made)
    source = opened(root)
    assert labelled(source) == {0: None, 1: None}
    assert source.about.notes == ("no labels were read; --data.label chooses among breed, good, weight",)
    with pytest.raises(
        UserError, match=r"has 0 class\(es\); no labels were read; --data.label chooses among breed, good"
    ):
        data.check_classes(source)
    data.check_classes(opened(root, label="breed"))
    assert labelled(opened(root, label="breed")) == {0: "0", 1: "1"}
    assert labelled(opened(root, label="good")) == {0: "True", 1: "False"}
    assert labelled(opened(root, label="weight")) == {0: "1", 1: "2"}
    assert len({opened(root, label=name).fingerprint() for name in (None, "breed", "good")}) == 3


def test_the_only_column_whose_classes_are_named_is_the_label(tmp_path):
    features = {"breed": {"names": ["pug", "lab"], "_type": "ClassLabel"}, "age": {"dtype": "int64", "_type": "Value"}}
    made = table([0, 1], [0, 1], pa.int64()).rename_columns({"label": "breed"}).append_column("age", pa.array([3, 4]))
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    assert labelled(opened(shards(tmp_path, made))) == {0: "pug", 1: "lab"}


def test_several_columns_of_images_are_named(tmp_path):
    made = table([0], [0], pa.int64())
    both = made.append_column("mask", made["image"])
    assert labelled(opened(shards(tmp_path, both))) == {0: "0"}
    with pytest.raises(UserError, match="has images in left, mask; call the column to read image"):
        opened(shards(tmp_path, both.rename_columns({"image": "left"})))


# Images beside Parquet


def referring(path, cells):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": cell} for cell in cells], kind)}), path)


def test_images_beside_parquet_are_found_from_anywhere(tmp_path, monkeypatch):
    root = tmp_path / "set"
    write(root / "images/0.png", png(0))
    referring(root / "train.parquet", ["images/0.png", f"{root}/images/0.png", "./images/../images/0.png"])
    monkeypatch.chdir(tmp_path)
    for path in (root, root / "train.parquet", "set"):
        source = opened(path)
        for i in range(3):
            np.testing.assert_array_equal(source.image(i), picture(0))
    before = opened(root).fingerprint()
    os.utime(root / "images/0.png", ns=(1, 1))
    assert opened(root).fingerprint() != before


def test_only_the_sets_own_files_are_read(tmp_path):
    root = tmp_path / "set"
    write(tmp_path / "secret.png", png(1))
    write(root / "big.png", b"")
    os.truncate(root / "big.png", limits.LARGEST_FILE + 1)
    os.mkfifo(root / "pipe.png")
    os.symlink("/dev/zero", root / "zero.png")
    os.symlink(tmp_path / "secret.png", root / "link.png")
    outside, irregular = "outside", "no regular file"
    cells = {
        "/etc/passwd": outside,
        "../secret.png": outside,
        "/dev/zero": outside,
        "zero.png": outside,
        "link.png": outside,
        "pipe.png": irregular,
        ".": irregular,
        "big.png": "1.07 GB is the most",
        "missing.png": "No such file",
        "\0": "null",
    }
    referring(root / "train.parquet", list(cells))
    source = opened(root)
    for i, (cell, why) in enumerate(cells.items()):
        with pytest.raises(data.CorruptImage, match=why) as error:
            source.image(i)
        assert str(error.value).startswith(f"{root}[{i}] {encoded.shown(cell)} (")


# Layouts of the hub


def test_several_sets_in_one_folder_are_named(tmp_path):
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        pq.write_table(table([0], [0], pa.int64()), tmp_path / name / "train-0.parquet")
    with pytest.raises(UserError, match=f"Parquet files in large, small; choose .* --data {tmp_path}/large"):
        opened(tmp_path)
    assert labelled(opened(tmp_path / "small")) == {0: "0"}
    (tmp_path / "large").rename(tmp_path / "data")  # what `datasets` takes without being asked
    assert labelled(opened(tmp_path)) == {0: "0"}


def test_splits_in_folders_and_numbered_files(tmp_path):
    for split, numbers in (("train", (0, 1)), ("Test", (2,))):
        for number in numbers:
            (tmp_path / split).mkdir(exist_ok=True)
            made = table([number], [0], pa.int64())
            pq.write_table(made, tmp_path / split / f"part-{number:05}-c0ffee.snappy.parquet")
    assert sorted(labelled(opened(tmp_path))) == [0, 1]
    assert sorted(labelled(opened(tmp_path, "test"))) == [2]
    assert sorted(labelled(opened(tmp_path / "train"))) == [0, 1]
    (tmp_path / "train" / "_metadata.parquet").write_bytes(b"another program's")
    (tmp_path / "train" / "._part-00000.parquet").write_bytes(b"a Macintosh's")
    assert sorted(labelled(opened(tmp_path / "train"))) == [0, 1]


# Sizes


def test_images_repeated_by_reference_do_not_fill_memory(tmp_path, monkeypatch):
    """A file of some kilobytes whose rows unpack to 20 MB: they are laid out on the disk, not held."""
    content = png(0) + bytes(10**5)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": content, "path": None}] * 200, kind)
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": rows}), path, compression="zstd")
    del rows
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(parquet, "IN_MEMORY", 5 << 20)
    before = pa.total_allocated_bytes()
    source = opened(path)
    assert pa.total_allocated_bytes() - before < 10 << 20
    np.testing.assert_array_equal(source.image(199), picture(0))
    [laid_out] = (cache_folder() / "arrow").iterdir()
    assert laid_out.stat().st_size > 200 * 10**5


@pytest.mark.parametrize("why", ["memory", "disk", "unwritable"])
def test_parquet_that_fits_nowhere_is_refused_with_its_size(tmp_path, rng, monkeypatch, why):
    path = shards(tmp_path / "set", table(list(range(30)), [0] * 30, pa.int64())) / "train-00000-of-00001.parquet"
    unpacked = limits.words(pq.read_metadata(path).row_group(0).total_byte_size)
    if why == "memory":
        monkeypatch.setattr(limits, "available", lambda: 10)
        monkeypatch.setattr(parquet, "available", lambda: 10)
        with pytest.raises(UserError, match=r"the 30 rows of .* would take 3 kB of memory, and there are 10 bytes"):
            opened(tmp_path / "set")
        return
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    if why == "disk":
        monkeypatch.setattr(parquet, "free_disk", lambda _: 10)
        message = rf"unpacks to {unpacked}, too much for .* and cannot be laid out in .* \(10 bytes are free there\)"
    else:
        (tmp_path / "file").write_bytes(b"")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        message = rf"unpacks to {unpacked}, .* \(Not a directory\); set XDG_CACHE_HOME"
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "set")


def test_damaged_parquet_is_one_sentence(tmp_path):
    """Bytes changed anywhere, most of them in the metadata: read as they are, or refused in one line, image by image."""
    rng, path = np.random.default_rng(0), tmp_path / "train.parquet"
    pq.write_table(table(list(range(9)), list("abcabcabc"), pa.string()), path)
    whole, refused = path.read_bytes(), []
    for attempt in range(60):
        content = bytearray(whole)
        for place in rng.integers(0 if attempt % 3 == 0 else len(whole) - 1200, len(whole), 2):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            source = opened(path)
            for i in range(len(source)):
                assert source.path(i).isprintable()
                with contextlib.suppress(data.CorruptImage):
                    source.image(i)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(text.isprintable() for text in refused)


def test_rows_read_at_once_are_few_where_they_could_be_large(tmp_path, monkeypatch):
    path = shards(tmp_path, table(list(range(30)), [0] * 30, pa.int64())) / "train-00000-of-00001.parquet"
    [part] = [parquet._part(path, None)]
    assert [len(batch) for batch in parquet._batches(part)] == [30]
    monkeypatch.setattr(parquet, "AT_ONCE", 4 * part.largest)
    assert [len(batch) for batch in parquet._batches(part)] == [4] * 7 + [2]
