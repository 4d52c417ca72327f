"""WebDataset's shards, against what `webdataset` reads in one and what was written."""

import io
import json
import os
import tarfile

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import tars
from weight_templates.errors import UserError
from weight_templates.files import cache_folder

from .golden.folders import picture, png
from .golden.tars import shard
from .helpers import GOLDEN


FACTS = json.loads((GOLDEN / "tars.json").read_text())["samples"]


def opened(root, split="train", **options):
    return data.open_source(DataOptions(str(root), split=split, **options), 16, 0)


def numbers_of(source):
    known = {picture(n).tobytes(): n for n in range(36)}
    return [known[source.image(i).tobytes()] for i in range(len(source))]


def labels_of(source):
    return [[*source.classes, None][source.label(i)] for i in range(len(source))]


def samples(first, count, **more):
    """Members of some samples of a picture and a label each."""
    made = {}
    for number in range(first, first + count):
        made |= {f"{number:04}.png": png(number), f"{number:04}.cls": str(number % 3).encode()}
    return made | more


def test_samples_are_those_of_webdataset(tmp_path):
    """Its keys in its order, where there is an image; the bytes of the image, and the label in `cls` or `json`."""
    path = shard(tmp_path / "shard.tar")
    expected = [(key, parts) for key, parts in FACTS if "png" in parts]
    for _ in range(2):  # from the index the second time
        source = opened(path)
        assert [source.path(i) for i in range(len(source))] == [f"{path}[{key}]" for key, _ in expected]
        assert [source.read(i).hex() for i in range(len(source))] == [parts["png"] for _, parts in expected]
        assert numbers_of(source) == [0, 1, 2, 3, 4]
        assert labels_of(source) == ["3", "5", "7", "3", None]
        assert dict(source.about.left_out) == {"without an ending, or hidden": 1, "samples without an image": 1}
        assert len(list((cache_folder() / "tars").iterdir())) == 1


def test_splits_are_in_names_of_shards_or_folders(tmp_path):
    for name, first in (("in-train-000000", 0), ("in-train-000001", 2), ("in-validation-000000", 4)):
        shard(tmp_path / "one" / f"{name}.tar", samples(first, 2))
    for name, first in (("train/000000", 0), ("train/000001", 2), ("Val/000000", 4)):
        shard(tmp_path / "two" / f"{name}.tar", samples(first, 2))
    for name, first in (("shard-0", 0), ("shard-1", 2)):
        shard(tmp_path / "three" / f"{name}.tar", samples(first, 2))
    for root in ("one", "two", "three"):
        assert numbers_of(opened(tmp_path / root)) == [0, 1, 2, 3]
        assert labels_of(opened(tmp_path / root)) == ["0", "1", "2", "0"]
        if root != "three":
            assert numbers_of(data.test_source(DataOptions(str(tmp_path / root)), None, 16, 0)) == [4, 5]
    with pytest.raises(data.NoSplit, match="no split 'test'"):
        opened(tmp_path / "three", "test")


def test_archives_beside_folders_of_images_are_not_shards(tmp_path):
    shard(tmp_path / "set.tar")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(png(5))
    assert numbers_of(opened(tmp_path)) == [5]


@pytest.mark.parametrize(
    ("members", "asked", "labels", "notes"),
    [
        ({"0.cls": b"cat", "1.cls": b"ape", "2.cls": b""}, None, ["cat", "ape", None], ()),
        ({"0.cls": b"12", "1.cls": b"48978"}, None, ["12", "48978", None], ("labels 12 … 48978 are numbered 0 … 1",)),
        (
            {"0.index": b"4", "1.index": b"2", "2.index": b"4"},
            "index",
            ["4", "2", "4"],
            ("labels 2 … 4 are numbered 0 … 1",),
        ),
        (
            {"0.json": b'{"breed": "pug"}', "1.json": b'{"breed": "lab"}', "2.json": b"[]"},
            "breed",
            ["pug", "lab", None],
            (),
        ),
        ({"0.json": b'{"label": 1.5}', "1.json": b"\xff", "2.json": b'{"label": null}'}, None, [None] * 3, ()),
    ],
)
def test_labels(tmp_path, members, asked, labels, notes):
    made = {f"{n}.png": png(n) for n in range(3)} | members
    path = shard(tmp_path / "x.tar", dict(sorted(made.items())))
    source = opened(path, label=asked)
    assert labels_of(source) == labels
    assert source.about.notes == notes


def test_batches_follow_the_law_of_seed_and_step(tmp_path):
    """Those of the same images in a folder, whatever the order of asking; nothing is unpacked."""
    shards, files = tmp_path / "shards", tmp_path / "files"
    shard(shards / "train-0.tar", samples(0, 5))
    shard(shards / "train-1.tar", samples(5, 7))
    for number in range(12):
        (files / str(number % 3)).mkdir(parents=True, exist_ok=True)
        (files / str(number % 3) / f"{number:04}.png").write_bytes(png(number))
    place, feeds = SingleDeviceSharding(jax.devices()[0]), []
    by_class = np.array([number for rest in range(3) for number in range(rest, 12, 3)])  # the order of the folder
    for root, order in ((shards, by_class), (files, np.arange(12))):
        options = DataOptions(str(root), resident_mb=0)
        found = data.load(data.open_source(options, 16, 0), options, print)
        assert found.pixels is None
        feeds.append(data.feed_of(found, data.Split(order, order[:0], 4, 0), 4, options, place))
    for step in (5, 0, 2):
        one, other = (feed.batch(step) for feed in feeds)
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_shard_that_was_cut_is_refused(tmp_path, part):
    path = shard(tmp_path / "x.tar", samples(0, 30))
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    path.write_bytes(content[: int(part * end)])
    with pytest.raises(UserError, match=r"x.tar does not read as an uncompressed tar \(.*\); copy or make it again"):
        opened(path)


def test_a_damaged_header_is_no_end(tmp_path):
    """The library would stop there in silence, with the images so far."""
    path = shard(tmp_path / "x.tar", samples(0, 4))
    with tarfile.open(path) as archive:
        place = archive.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[place + 150] ^= 0xFF
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 4
    with pytest.raises(UserError, match=f"no header at byte {place}"):
        opened(path)


def test_shards_that_will_not_do(tmp_path):
    with pytest.raises(UserError, match="hold no images"):
        opened(shard(tmp_path / "1.tar", {"a.txt": b"x"}))
    two = tmp_path / "2.tar"
    with tarfile.open(two, "w") as archive:
        for _ in range(2):
            entry = tarfile.TarInfo("a.png")
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"xyz"))
    with pytest.raises(UserError, match=r"2.tar has a.png twice"):
        opened(two)
    with tarfile.open(tmp_path / "3.tar", "w:gz") as archive:
        archive.add(two, "a.png")
    with pytest.raises(UserError, match=r"3.tar does not read as an uncompressed tar"):
        opened(tmp_path / "3.tar")
    (tmp_path / "4.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"4.tar does not read as an uncompressed tar"):
        opened(tmp_path / "4.tar")


def test_links_in_shards_are_left_out(tmp_path):
    """A link to a file of this machine is not followed, and no sample."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        entry = tarfile.TarInfo("d.png")
        entry.size = len(png(3))
        archive.addfile(entry, io.BytesIO(png(3)))
    source = opened(path)
    assert numbers_of(source) == [3]
    assert dict(source.about.left_out) == {"links or devices": 3}


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"samples": [["a", 0, 999999999, ""]], "left_out": {}}'])
def test_a_damaged_index_is_made_anew(tmp_path, damage):
    path = shard(tmp_path / "x.tar", samples(0, 3))
    opened(path)
    [memory] = (cache_folder() / "tars").iterdir()
    memory.write_bytes(damage)
    assert numbers_of(opened(path)) == [0, 1, 2]
    os.utime(path, ns=(1, 1))
    shard(path, samples(4, 2))  # of another time: another index
    assert numbers_of(opened(path)) == [4, 5]


def test_an_index_without_a_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert numbers_of(opened(shard(tmp_path / "x.tar", samples(0, 3)))) == [0, 1, 2]


def test_a_member_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    source = opened(shard(tmp_path / "x.tar", samples(0, 2)))
    monkeypatch.setattr(tars, "LARGEST_FILE", 10)
    with pytest.raises(data.CorruptImage, match=r"x.tar\[0001\] \(it has .* bytes, and 10 bytes is the most\)"):
        source.image(1)
