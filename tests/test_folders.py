"""Folders and Parquet files as people keep them: what is a split, a class, a label, and what is left out."""

import contextlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import encoded, folder, limits, parquet, splits
from weight_templates.errors import UserError
from weight_templates.files import cache_folder

from .golden.folders import FOLDERS, picture, png, table, write
from .helpers import GOLDEN, image_folder, jpeg


FACTS = json.loads((GOLDEN / "folders.json").read_text())


def opened(root, split="train", **options):
    return data.open_source(DataOptions(str(root), split=split, **options), 16, 0)


def labelled(source):
    """The images by the number of their picture, with the names of their classes."""
    numbers = {picture(n).tobytes(): n for n in range(36)}
    names = [*source.classes, None]
    return {numbers[source.image(i).tobytes()]: names[source.label(i)] for i in range(len(source))}


# As `datasets` reads them


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_read_as_datasets_reads_them(tmp_path, name):
    """The same images with the same classes in the same splits: turned, hidden ones left out."""
    FOLDERS[name](tmp_path / name)
    for split, rows in FACTS[name].items():
        source = opened(tmp_path / name, split)
        found = [[[*source.classes, None][source.label(i)], source.image(i).tolist()] for i in range(len(source))]
        unlabelled = all(label is None for label, _ in rows)  # `datasets` gives no class where there is one only
        expected = [["cat" if unlabelled else str(label), pixels] for label, pixels in rows]
        assert sorted(found, key=str) == sorted(expected, key=str)


# Splits


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "Valid", "validation", "dev", "Evaluation"])
def test_splits_are_no_classes(tmp_path, train, test):
    for number, way in enumerate((f"{train}/cat", f"{train}/dog", f"{test}/dog", f"{test}/cow")):
        write(tmp_path / way / "x.png", png(number))
    assert labelled(opened(tmp_path)) == {0: "cat", 1: "dog"}
    options = DataOptions(str(tmp_path))
    assert labelled(data.test_source(options, None, 16, 0)) == {2: "dog", 3: "cow"}
    assert splits.alike(data.test_split(options, 16, 0), test)
    assert labelled(opened(tmp_path, test)) == {2: "dog", 3: "cow"}
    with pytest.raises(UserError, match=f"--test {train.lower()} is the split that is trained on"):
        data.test_source(options, train.lower(), 16, 0)


def test_a_split_without_train_beside_it(tmp_path):
    write(tmp_path / "Validation/cat/0.png", png(0))
    with pytest.raises(data.NoSplit, match=r"has no split 'train'; choose --data.split among Validation\."):
        opened(tmp_path)
    assert data.test_split(DataOptions(str(tmp_path), split="val"), 16, 0) is None


@pytest.mark.parametrize("alone", ["file", "folder"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_one_file_is_not_its_own_test(tmp_path, split, alone):
    """A single file is `train` whatever it is called: it is not reported on as `test` as well."""
    path = tmp_path / "set" / "test-0.parquet"
    path.parent.mkdir()
    pq.write_table(table([0, 1], [0, 1], pa.int64()), path)
    options = DataOptions(str(path if alone == "file" else path.parent), split=split)
    assert len(data.open_source(options, 16, 0)) == 2
    assert data.test_source(options, None, 16, 0) is None
    for name in ("test", "train"):
        with pytest.raises(UserError, match=f"--test {name} is the split that is trained on"):
            data.test_source(options, name, 16, 0)


def test_synthetic_images_are_not_their_own_test():
    options = DataOptions("synthetic", count=3)
    train, test = data.open_source(options, 16, 0), data.test_source(options, None, 16, 0)
    assert not np.array_equal(train.image(0), test.image(0))
    with pytest.raises(UserError, match="--test train is the split that is trained on"):
        data.test_source(options, "train", 16, 0)


def test_two_names_of_one_split(tmp_path):
    write(tmp_path / "train/cat/0.png", png(0))
    write(tmp_path / "Training/cat/1.png", png(1))
    source = opened(tmp_path)
    assert labelled(source) == {0: "cat"}
    assert source.about.notes == ("the folder Training has another name of that split",)
    (tmp_path / "train").rename(tmp_path / "TRAIN")
    with pytest.raises(UserError, match="has TRAIN and Training for one split"):
        opened(tmp_path)


def test_a_class_called_train_is_asked_about(tmp_path):
    """Vehicles: bus, car, train."""
    for number, name in enumerate(("bus", "car", "train")):
        write(tmp_path / name / "0.png", png(number))
    with pytest.raises(
        UserError, match="a folder 'train' beside 'bus', both with images: it could be a split or a class"
    ):
        opened(tmp_path)
    (tmp_path / "all").mkdir()
    for name in ("bus", "car", "train"):
        (tmp_path / name).rename(tmp_path / "all" / name)
    (tmp_path / "all").rename(tmp_path / "train")  # as the message says
    assert labelled(opened(tmp_path)) == {0: "bus", 1: "car", 2: "train"}


def test_a_damaged_test_split_is_not_passed_over(tmp_path):
    """Only a split that is not there is looked for under the next name."""
    pq.write_table(table([0], [0], pa.int64()), tmp_path / "train.parquet")
    (tmp_path / "test.parquet").write_bytes(b"PAR1 not at all")
    pq.write_table(table([1], [0], pa.int64()), tmp_path / "validation.parquet")
    with pytest.raises(UserError, match=r"test.parquet does not read as Parquet"):
        data.test_source(DataOptions(str(tmp_path)), None, 16, 0)
    (tmp_path / "test.parquet").unlink()
    assert labelled(data.test_source(DataOptions(str(tmp_path)), None, 16, 0)) == {1: "0"}


# Classes and files


def test_what_is_left_out_is_counted(tmp_path):
    root = tmp_path / "set"
    write(root / "cat/0.png", png(0))
    write(root / "dog/1.PNG", png(1))
    write(root / "dog/notes.txt", b"")
    write(root / "dog/2.heic", b"")
    for name in (".git/x.png", "@eaDir/x.png", "$RECYCLE.BIN/x.png", "__pycache__/x.png", "cat/.x.png"):
        write(root / name, png(9))
    (root / "empty").mkdir()
    os.symlink(tmp_path / "nowhere.png", root / "cat" / "3.png")
    os.mkfifo(root / "cat" / "4.png")
    source = opened(root)
    assert labelled(source) == {0: "cat", 1: "dog"}
    assert dict(source.about.left_out) == {
        "hidden or a system's own": 5,
        "not images (.txt)": 1,
        "not images (.heic)": 1,
        "folders without images": 1,
        "broken links": 1,
        "pipes or devices": 1,
    }
    assert dict(opened(root, count=1).about.left_out)["beyond --data.count"] == 1


def test_links_neither_multiply_images_nor_take_their_class(tmp_path):
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    write(root / "cat/0.png", png(0))
    write(root / "dog/inner/1.png", png(1))
    write(elsewhere / "2.png", png(2))
    for link, target in {
        "a cat": root / "cat",  # comes first by name
        "dog/inner/loop": root,
        "parent": tmp_path,
        "self": root / "self",
        "far": elsewhere,
        "farther": elsewhere,
        "dog/inner/here": root / "dog",
    }.items():
        os.symlink(target, root / link)
    os.symlink(root / "cat/0.png", root / "dog/3.png")  # a file: an image that is of two classes is two images
    source = opened(root)
    assert source.classes == ("cat", "dog", "far")
    assert sorted(source.path(i).removeprefix(f"{root}/") for i in range(len(source))) == [
        *("cat/0.png", "dog/3.png", "dog/inner/1.png", "far/2.png"),
    ]
    assert source.about.left_out["links to folders that are read already, or that they lie in"] == 5
    os.symlink(root, tmp_path / "alias")
    assert labelled(opened(tmp_path / "alias")) == labelled(source)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_not_utf_8(tmp_path):
    root = os.fsencode(tmp_path) + b"/caf\xe9"
    for name, file, number in ((b"gar\xe7on", b"\xff.png", 0), (b"fille", b"line\nand \x1b[31mred.png", 1)):
        os.makedirs(root + b"/" + name)
        with open(root + b"/" + name + b"/" + file, "wb") as out:
            out.write(png(number))
    options = DataOptions(os.fsdecode(root), resident_mb=0, on_corrupt="skip")
    said = []
    loaded = data.load(data.open_source(options, 16, 0), options, said.append)
    source = loaded.source
    assert source.classes == ("fille", r"gar\xe7on")
    assert labelled(source) == {0: r"gar\xe7on", 1: "fille"}
    told = [*(source.path(i) for i in range(2)), source.name, data.described(loaded).sentence()]
    for text in told:
        assert text.encode().decode().isprintable()
    assert told[0].endswith(r"/caf\xe9/fille/line\nand \x1b[31mred.png")
    with open(root + b"/fille/bad.png", "wb") as out:
        out.write(b"bad")
    data.load(data.open_source(options, 16, 0), options, said.append)
    assert said == [
        rf"left out, does not decode: {tmp_path}/caf\xe9/fille/bad.png (it is no image of a known format)",
    ]


def test_order_and_fingerprint_of_folders(tmp_path, rng):
    """Folder by folder, so that `a/…` comes before `a b/…`; the stamp changes with size, time and name."""
    for number, way in enumerate(("a b/0.png", "a/1.png", "a/b/2.png", "a-b/3.png")):
        write(tmp_path / way, png(number))
    source = opened(tmp_path)
    assert [source.path(i).removeprefix(f"{tmp_path}/") for i in range(4)] == [
        *("a/1.png", "a/b/2.png", "a b/0.png", "a-b/3.png"),
    ]
    stamps = {source.fingerprint(), opened(tmp_path).fingerprint()}
    assert len(stamps) == 1
    os.utime(tmp_path / "a/1.png", ns=(1, 1))
    stamps.add(opened(tmp_path).fingerprint())
    (tmp_path / "a/1.png").rename(tmp_path / "a/2.png")
    stamps.add(opened(tmp_path).fingerprint())
    assert len(stamps) == 3


# What --data may be


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("", None, "--data is empty"),
        ("  ", None, "--data is empty"),
        ("cat.jpg", b"x", "is a single image; give --data the folder that holds it"),
        ("set.zip", b"x", "is packed; unpack it"),
        ("set.tar.gz", b"x", "is packed; unpack it"),
        ("x.npy", b"x", "is one array; save it as `images` with numpy.savez"),
        ("set.csv", b"a,b", "is of no kind that is read; give --data a folder of images"),
        ("set.pkl", b"\x80\x04.", "is of no kind that is read"),
        ("train.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("train.parquet", b"", "does not read as Parquet"),
    ],
)
def test_files_that_are_no_set(tmp_path, name, content, why):
    path = name
    if content is not None:
        path = tmp_path / name
        path.write_bytes(content)
    with pytest.raises(UserError, match=why):
        opened(path)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    for path in (tmp_path / "pipe.parquet", "/dev/zero"):
        with pytest.raises(UserError, match="neither a folder nor a regular file"):
            opened(path)
    with pytest.raises(UserError, match="is no regular file"):
        opened(tmp_path)


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
    image_folder(tmp_path, np.random.default_rng(0))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UserError, match=rf"cannot read {tmp_path} \(Permission denied\); mend it"):
        opened(tmp_path)


def test_folders_of_the_system_are_not_looked_into(tmp_path, monkeypatch):
    """Only root may read lost+found, at the top of many disks."""
    image_folder(tmp_path, np.random.default_rng(0))
    for name in ("lost+found", "private"):
        (tmp_path / name).mkdir()
    access, listdir = os.access, os.listdir

    def closed(path):
        return os.path.basename(path) in ("lost+found", "private")

    def refuse(path):
        if closed(path):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "access", lambda path, mode: not closed(path) and access(path, mode))
    monkeypatch.setattr(os, "listdir", refuse)
    assert len(opened(tmp_path)) == 12


def test_too_many_synthetic_images_are_refused():
    with pytest.raises(
        UserError, match=r"1,000,000,000,000 synthetic images would take 64 TB of memory, and there are"
    ):
        data.open_source(DataOptions("synthetic", count=10**12), 16, 0)


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


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path, rng, monkeypatch):
    image_folder(tmp_path / "set", rng)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    options, said = DataOptions(str(tmp_path / "set"), resident_mb=0), []
    for _ in range(2):
        assert len(data.load(data.open_source(options, 16, 0), options, said.append).good) == 12
    assert all("cannot be written (Not a directory); images are checked at every start" in line for line in said)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(data.load(data.open_source(options, 16, 0), options, said.append).good) == 12


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"x": 1}', b"\xff"])
def test_a_damaged_cache_is_made_anew(tmp_path, rng, damage):
    image_folder(tmp_path, rng)
    bad = tmp_path / "train/dog/2.jpg"
    bad.write_bytes(b"bad")
    options = DataOptions(str(tmp_path), resident_mb=0, on_corrupt="skip")
    for _ in range(2):
        loaded = data.load(data.open_source(options, 16, 0), options, lambda _: None)
        assert list(loaded.bad.values()) == [f"{bad} (it is no image of a known format)"]
        [memory] = (cache_folder() / "checked").iterdir()
        memory.write_bytes(damage)


def test_more_images_to_keep_than_memory_are_refused(tmp_path, rng, monkeypatch):
    image_folder(tmp_path, rng)
    monkeypatch.setattr(limits, "available", lambda: 1000)
    options = DataOptions(str(tmp_path))
    with pytest.raises(UserError, match=r"12 images of .* would take 17.3 kB of memory, and there are 1 kB; lower"):
        data.load(data.open_source(options, 16, 0), options, print)


def test_a_set_without_a_sound_image_is_refused(tmp_path):
    for i in range(3):
        write(tmp_path / "train/cat" / f"{i}.jpg", b"bad")
    options = DataOptions(str(tmp_path), on_corrupt="skip")
    with pytest.raises(UserError, match=r"none of 3 images of .* decodes, the first one .*0.jpg"):
        data.load(data.open_source(options, 16, 0), options, print)


# What was read


def test_what_a_run_read_is_described(tmp_path, rng):
    root = image_folder(tmp_path, rng, ("cat", "dog", "cow", "ape"), count=3)
    write(root / "train/dog/notes.txt", b"")
    write(root / "train/dog/1.jpg", b"bad")
    write(root / "train/stray.jpg", jpeg(rng))
    options = DataOptions(str(root), on_corrupt="skip", resident_mb=0)
    found = data.described(data.load(data.open_source(options, 16, 0), options, lambda _: None))
    assert found.sentence() == (
        f"12 images of 4 classes (ape, cat, cow, …) from {root}/train; "
        "2 left out: 1 not images (.txt), 1 do not decode; 1 without a label"
    )
    assert json.loads(json.dumps(found.record())) == {
        "where": f"{root}/train",
        "images": 12,
        "classes": ["ape", "cat", "cow", "dog"],
        "labels": {"ape": 3, "cat": 3, "cow": 3, "dog": 2},
        "unlabelled": 1,
        "left_out": {"not images (.txt)": 1, "do not decode": 1},
        "notes": [],
    }
    options = DataOptions("synthetic", count=20)
    found = data.described(data.load(data.open_source(options, 16, 5), options, lambda _: None))
    assert found.sentence() == "20 images of 10 classes (disk, ring, square, …) from a formula, seed 5"
    assert sum(found.labels.values()) == 20


def test_described_flat_folders_have_no_classes(tmp_path, rng):
    write(tmp_path / "1.jpg", jpeg(rng))
    write(tmp_path / "2.jpg", jpeg(rng))
    options = DataOptions(str(tmp_path))
    found = data.described(data.load(data.open_source(options, 16, 0), options, lambda _: None))
    assert found.sentence() == f"2 images from {tmp_path}"
    assert found.labels == {}


def test_extensions_are_those_that_decode():
    """Every ending that is looked for is of a format that is decoded."""
    from PIL import Image

    from weight_templates.data import decode

    Image.init()
    assert {Image.EXTENSION[ending] for ending in folder.EXTENSIONS} <= set(decode.FORMATS)
