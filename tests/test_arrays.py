"""Images in NumPy arrays and `.npz` files: against the arrays that were written."""

import io
import os
import zipfile

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import limits
from weight_templates.errors import UserError


SAVE = {"mapped": np.savez, "compressed": np.savez_compressed}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)


def opened(path, split="train", **options):
    return data.open_source(DataOptions(str(path), split=split, **options), 16, 0)


def loaded(path, **options):
    options = DataOptions(str(path), **options)
    return data.load(data.open_source(options, 16, 0), options, lambda _: None)


def labels_of(source):
    return [source.label(i) for i in range(len(source))]


# Files


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_come_back(tmp_path, images, save, order):
    labels = np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)
    SAVE[save](tmp_path / "set.npz", images=np.asarray(images, order=order), labels=labels, classes=["a", "b", "c"])
    source = opened(tmp_path / "set.npz")
    assert isinstance(source, data.Source)
    assert isinstance(source.images.base, np.memmap) == (save == "mapped")
    assert len(source) == 7
    assert source.name == "set.npz"
    assert source.classes == ("a", "b", "c")
    assert labels_of(source) == labels.tolist()
    assert source.path(3) == "set.npz[3]"
    for i in range(7):
        np.testing.assert_array_equal(source.image(i), images[i])
    whole = loaded(tmp_path / "set.npz")
    np.testing.assert_array_equal(whole.pixels, images)
    assert data.described(whole).sentence() == f"7 images of 3 classes (a, b, c) from {tmp_path}/set.npz"


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("shape", [(7, 5, 6), (7, 5, 6, 1)])
def test_grey_images_are_grey_in_three_channels(tmp_path, images, save, shape):
    grey = images[..., 0].reshape(shape)
    SAVE[save](tmp_path / "x.npz", images=grey)
    source = opened(tmp_path / "x.npz")
    np.testing.assert_array_equal(source.image(4), np.stack([images[4, ..., 0]] * 3, axis=-1))
    assert labels_of(source) == [-1] * 7
    assert source.classes == ()
    np.testing.assert_array_equal(loaded(tmp_path / "x.npz").pixels, np.stack([images[..., 0]] * 3, axis=-1))


def test_files_beside_each_other_are_splits(tmp_path, images):
    np.savez(tmp_path / "train.npz", images=images, labels=[5, 9] * 3 + [5])
    np.savez(tmp_path / "Test.npz", images=images[:2], labels=[9, 5])
    options = DataOptions(str(tmp_path))
    train, test = opened(tmp_path), data.test_source(options, None, 16, 0)
    assert (len(train), len(test)) == (7, 2)
    views = data.load(test, options, print)
    assert data.labels_of(views, views.good, train.classes).tolist() == [1, 0]
    assert train.about.notes == ("labels 5 … 9 are numbered 0 … 1",)
    with pytest.raises(data.NoSplit, match=r"no split 'extra'; choose --data.split among Test, train"):
        opened(tmp_path, "extra")
    assert data.test_source(DataOptions(str(tmp_path / "train.npz")), None, 16, 0) is None


def test_some_of_the_images_are_those_that_other_sources_choose(tmp_path, images):
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(7))
    some = opened(tmp_path / "x.npz", count=3)
    rows = data.encoded.spread(range(7), 3)
    np.testing.assert_array_equal([some.image(i) for i in range(3)], images[rows])
    assert labels_of(some) == rows
    assert len(some.classes) == 7
    assert dict(some.about.left_out) == {"beyond --data.count": 4}
    assert some.fingerprint() != opened(tmp_path / "x.npz").fingerprint()
    before = opened(tmp_path / "x.npz").fingerprint()
    os.utime(tmp_path / "x.npz", ns=(1, 1))
    assert opened(tmp_path / "x.npz").fingerprint() != before


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["dog", "cat", "dog", "", "dog", "cat", "dog"], ("cat", "dog")),
        ([True, False, True, True, False, True, True], ("False", "True")),
        ([3.0, 1.0, np.nan, 3.0, 1.0, 1.0, 1.0], ("1", "3")),
        (np.array([[4], [-1], [4], [4], [4], [2], [2]]), ("2", "4")),
    ],
)
def test_labels_of_other_kinds(tmp_path, images, labels, classes):
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    source = opened(tmp_path / "x.npz")
    assert source.classes == classes
    for found, given in zip(labels_of(source), np.ravel(labels).tolist(), strict=True):
        missing = given in ("", -1) or given != given
        assert found == (-1 if missing else classes.index(str(int(given) if type(given) is float else given)))


class Bomb:
    """What a pickle would run if it was read."""

    def __reduce__(self):
        return os.mkdir, ("it ran",)


@pytest.mark.parametrize("name", ["images", "labels", "classes"])
def test_pickles_are_not_read(tmp_path, images, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arrays = {"images": images, "labels": np.arange(7), "classes": np.array(list("abcdefg"))}
    arrays[name] = np.array([Bomb()] * 7, object)
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(
        UserError, match=f"{name}.npy of .*x.npz holds pickled objects, which are not read; save numbers"
    ):
        opened(tmp_path / "x.npz")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x_train": "images", "y": [1]}, r"no array 'images' among x_train, y; save the images as 'images'"),
        ({"images": "float"}, "the images of x.npz are float64; give uint8"),
        ({"images": "first"}, r"are 7 × 3 × 5 × 6; give them as images × height × width × 3"),
        ({"images": "one"}, "are 5 × 6; give"),
        ({"images": "none"}, "holds no images"),
        ({"images": "scalar"}, "the images of x.npz are one number"),
        ({"images": "images", "labels": [1, 2]}, "has 7 images and 2 labels"),
        ({"images": "images", "labels": np.zeros((7, 2), int)}, r"labels of x.npz are 7 × 2; give one number or word"),
        ({"images": "images", "labels": np.full(7, 0.5)}, "labels that are no whole numbers"),
        ({"images": "images", "labels": np.zeros(7, complex)}, "labels of type complex128"),
        ({"images": "images", "labels": np.zeros(7, int), "classes": ["a", "a"]}, "two classes of the name 'a'"),
    ],
)
def test_arrays_that_will_not_do(tmp_path, images, arrays, why):
    made = {
        "images": images,
        "float": images / 255,
        "first": images.transpose(0, 3, 1, 2),
        "one": images[0, ..., 0],
        "none": images[:0],
        "scalar": np.uint8(3),
    }
    np.savez(tmp_path / "x.npz", **{k: made[v] if isinstance(v, str) else v for k, v in arrays.items()})
    with pytest.raises(UserError, match=why):
        opened(tmp_path / "x.npz")


@pytest.mark.parametrize("save", SAVE)
def test_damaged_files_are_one_sentence(tmp_path, images, rng, save):
    """Cut anywhere, or with bytes changed: read as they were, or refused by name."""
    SAVE[save](tmp_path / "x.npz", images=images, labels=np.arange(7))
    whole = (tmp_path / "x.npz").read_bytes()
    for cut in rng.integers(0, len(whole), 30):
        (tmp_path / "x.npz").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"x.npz does not read as .npz \(.*\); save it again"):
            opened(tmp_path / "x.npz")
    refused = 0
    for place in rng.integers(0, len(whole), 100):
        (tmp_path / "x.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            opened(tmp_path / "x.npz").image(0)
        except UserError:
            refused += 1
    assert refused > 10


def test_a_header_that_says_more_than_there_is_fills_no_memory(tmp_path):
    """A bomb in a compressed file, and a header that lies: both are refused before anything is unpacked."""
    header = io.BytesIO()
    shape = (2**20, 1024, 1024, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header.getvalue() + b"few")
    with pytest.raises(UserError, match=r"images.npy has 3 bytes where its header says 3298534883328"):
        opened(tmp_path / "lie.npz")


def test_unpacking_more_than_memory_is_refused_with_both_numbers(tmp_path, images, monkeypatch):
    monkeypatch.setattr(limits, "available", lambda: 1000)
    np.savez_compressed(tmp_path / "x.npz", images=images)
    with pytest.raises(
        UserError, match=r"unpacking images.npy of .* would take 1.26 kB of memory, and there are 1 kB; save"
    ):
        opened(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=images)
    assert len(opened(tmp_path / "x.npz")) == 7


# Arrays


def test_arrays_are_a_source(images):
    source = data.Arrays(images, [3, 3, 8, 8, 3, 3, 8], name="mine")
    options = DataOptions("arrays")
    found = data.load(source, options, print)
    assert np.shares_memory(found.pixels, images)
    assert source.classes == ("3", "8")
    assert data.described(found).sentence() == (
        "7 images of 2 classes (3, 8) from mine; labels 3 … 8 are numbered 0 … 1"
    )
    assert labels_of(data.Arrays(images, np.arange(7) % 2, ["no", "yes"])) == [0, 1] * 3 + [0]
    assert data.Arrays(jax.numpy.asarray(images)).image(2).tolist() == images[2].tolist()
    for wrong in ({"images": images / 255}, {"images": images, "labels": [1]}):
        with pytest.raises(UserError, match="arrays"):
            data.Arrays(**wrong)


def test_a_fingerprint_is_of_the_content(images):
    labels = np.arange(7)
    one = data.Arrays(images, labels).fingerprint()
    assert data.Arrays(images.copy(), labels.astype(np.uint8), name="other").fingerprint() == one
    changed = images.copy()
    changed[6, 4, 5, 2] ^= 1
    turned = np.ascontiguousarray(images.transpose(0, 2, 1, 3))
    others = [(changed, labels), (images, labels[::-1]), (images, None), (turned, labels), (images[:6], labels[:6])]
    assert len({one, *(data.Arrays(*other).fingerprint() for other in others)}) == 6
    named = data.Arrays(images, labels, list("abcdefg")).fingerprint()
    assert named != one


def test_batches_of_arrays_are_those_of_the_same_images_in_files(tmp_path, images):
    """In memory or streamed from a mapped file, by the same law of seed and step."""
    from PIL import Image

    for i, image in enumerate(images):
        (tmp_path / "files" / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "files" / "abc"[i % 3] / f"{i}.png")
    files = opened(tmp_path / "files")
    order = [int(files.path(i).split("/")[-1].removesuffix(".png")) for i in range(7)]
    labels = ["abc"[i % 3] for i in order]
    np.savez(tmp_path / "x.npz", images=images[order], labels=labels)
    place = SingleDeviceSharding(jax.devices()[0])
    for resident in (0, 100):
        options = DataOptions(resident_mb=resident)
        sources = files, opened(tmp_path / "x.npz"), data.Arrays(images[order], labels)
        feeds = []
        for source in sources:
            found = data.load(source, options, print)
            assert (found.pixels is None) == (resident == 0)
            feeds.append(data.feed_of(found, data.split(found.good, 3, 1), 4, options, place))
        first, *others = (feed.batch(2) for feed in feeds)
        for other in others:
            for name in ("image", "label"):
                np.testing.assert_array_equal(first[name], other[name])
