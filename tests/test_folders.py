"""Folders as people keep them: what is a split and a class, what is left out, and what is said of it."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import folder, limits, splits
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


# Caches and memory


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
