"""Sources, augmentation against Pillow, and batches that depend on seed and step alone."""

import json
import sys
import tracemalloc
import types

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from PIL import Image

import weight_templates as wt
from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import augment
from weight_templates.errors import RunError
from weight_templates.files import cache_folder

from .helpers import GOLDEN, image_folder, jpeg, parquet


def quiet(_):
    """Nobody listens."""


def opened(source, size=16, **options):
    options = DataOptions(str(source), **options)
    return data.load(data.open_source(options, size, 0), options, quiet)


def feed(loaded, batch=4, size=16, seed=0, threads=None):
    place = SingleDeviceSharding(jax.devices()[0])
    return data.feed_of(loaded, data.split(loaded.good, batch, seed), size, DataOptions(threads=threads), place)


# Synthetic scenes


@pytest.mark.parametrize("size", [16, 48])
def test_scenes_are_annotated_right(size):
    source = data.Synthetic(size, 60)
    for i in range(len(source)):
        scene = source.scene(i)
        assert scene.image.shape == (size, size, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.classes) == len(scene.boxes) == len(scene.masks) <= 3
        assert scene.masks.sum(axis=0).max() == 1  # visible parts do not overlap
        assert scene.label == scene.classes[scene.masks.sum(axis=(1, 2)).argmax()] == source.label(i)
        for box, mask in zip(scene.boxes.astype(int), scene.masks, strict=True):
            x0, y0, x1, y1 = box
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert mask[y0, x0:x1].any()
            assert mask[y1 - 1, x0:x1].any()
            assert mask[y0:y1, x0].any()
            assert mask[y0:y1, x1 - 1].any()


def test_scenes_are_deterministic_and_different():
    one, two, other = data.Synthetic(24, 20), data.Synthetic(24, 9), data.Synthetic(24, 20, seed=1)
    np.testing.assert_array_equal(one.image(5), two.image(5))
    assert not np.array_equal(one.image(5), one.image(6))
    assert not np.array_equal(one.image(5), other.image(5))
    labels = [one.label(i) for i in range(20)]
    assert len(set(labels)) > 4
    assert len(data.Synthetic(24, 2000).classes) == 10


def test_shapes_stand_out_from_their_background():
    """The mask is where the object is: its colour changes at the mask's edge."""
    scene = data.Synthetic(64, 1, seed=3).scene(0)
    inside, outside = scene.image[scene.masks[0]], scene.image[~scene.masks.any(axis=0)]
    assert abs(inside.mean(axis=0) - outside.mean(axis=0)).max() > 20


# Sources


def test_folder_in_imagenet_layout(tmp_path, rng):
    image_folder(tmp_path, rng, count=3)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    source = data.open_source(DataOptions(str(tmp_path)), 16, 0)
    assert len(source) == 6
    assert source.classes == ("cat", "dog")
    assert [source.label(i) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    with Image.open(source.path(4)) as file:
        np.testing.assert_array_equal(source.image(4), file.convert("RGB"))
    one = data.open_source(DataOptions(str(tmp_path), count=1), 16, 0)
    assert one.classes == ("cat", "dog")  # of all images, so that a class keeps its number
    assert ("cat", "dog")[one.label(0)] in one.path(0)


@pytest.mark.parametrize("labels", [np.arange(1000) % 10, np.arange(1000) // 100], ids=["in turns", "sorted"])
def test_some_of_many_images_are_of_all_classes(tmp_path, rng, labels):
    """In both orders that data sets come in; every fifth or so image of a set in turns would be of two classes."""
    content = jpeg(rng)
    path = parquet(tmp_path / "train.parquet", [content] * 1000, labels.tolist())
    some = data.open_source(DataOptions(str(path), count=200), 16, 0)
    seen = np.bincount([some.label(i) for i in range(200)], minlength=10)
    assert len(some) == seen.sum() == 200
    assert seen.min() >= 8
    again = data.open_source(DataOptions(str(path), count=200), 16, 0)
    assert [again.path(i) for i in range(200)] == [some.path(i) for i in range(200)]


def test_flat_folder_has_no_labels(tmp_path, rng):
    for i in range(3):
        (tmp_path / f"{i}.JPEG").write_bytes(jpeg(rng))
    source = data.open_source(DataOptions(str(tmp_path)), 16, 0)
    assert [source.label(i) for i in range(len(source))] == [-1] * 3
    assert source.classes == ()


@pytest.mark.parametrize("column", ["image", "img"])
def test_parquet_in_hugging_face_layout(tmp_path, rng, column):
    contents = [jpeg(rng) for _ in range(7)]
    parquet(tmp_path / "train-00000-of-00002.parquet", contents[:4], [0, 1, 0, 1], ("a", "b"), column)
    parquet(tmp_path / "train-00001-of-00002.parquet", contents[4:], [1, 0, 1], ("a", "b"), column)
    parquet(tmp_path / "train_lossless-00000-of-00001.parquet", contents[:1], [0], ("a", "b"), column)
    parquet(tmp_path / "test-00000-of-00001.parquet", contents[:2], [0, 1], ("a", "b"), column)
    source = data.open_source(DataOptions(str(tmp_path)), 16, 0)
    assert len(source) == 7
    assert source.classes == ("a", "b")
    assert [source.label(i) for i in range(7)] == [0, 1, 0, 1, 1, 0, 1]
    for i, content in enumerate(contents):
        (tmp_path / "x.jpg").write_bytes(content)
        with Image.open(tmp_path / "x.jpg") as file:
            np.testing.assert_array_equal(source.image(i), file)
    assert len(data.open_source(DataOptions(str(tmp_path), split="test"), 16, 0)) == 2
    with pytest.raises(wt.UserError, match="test, train, train_lossless"):
        data.open_source(DataOptions(str(tmp_path), split="val"), 16, 0)


def test_large_parquet_is_laid_out_for_random_access(tmp_path, rng, monkeypatch):
    path = parquet(tmp_path / "train.parquet", [jpeg(rng) for _ in range(5)], range(5))
    small = data.open_source(DataOptions(str(path)), 16, 0)
    monkeypatch.setattr("weight_templates.data.parquet.IN_MEMORY", 0)
    large = data.open_source(DataOptions(str(path)), 16, 0)
    assert list((cache_folder() / "arrow").iterdir())
    for i in range(5):
        np.testing.assert_array_equal(small.image(i), large.image(i))
        assert large.label(i) == i


@pytest.mark.parametrize("kind", ["missing", "empty", "not parquet", "no images", "no rows", "count"])
def test_sources_with_nothing_to_read_are_refused(tmp_path, kind, rng):
    import pyarrow as pa
    import pyarrow.parquet as pq

    target, options = tmp_path, {}
    if kind == "missing":
        target = tmp_path / "nowhere"
    elif kind == "not parquet":
        target = tmp_path / "train.parquet"
        target.write_bytes(b"PAR1 not at all")
    elif kind == "no images":
        target = tmp_path / "train.parquet"
        pq.write_table(pa.table({"text": ["hello"]}), target)
    elif kind == "no rows":
        target = parquet(tmp_path / "train.parquet", [])
    elif kind == "count":
        image_folder(tmp_path, rng)
        options = {"count": 0}
    with pytest.raises(wt.UserError):
        data.open_source(DataOptions(str(target), **options), 16, 0)


def test_hub_without_its_package_or_network_is_one_sentence():
    with pytest.raises(wt.UserError, match="hub"):
        data.open_source(DataOptions("hub:nobody/nothing"), 16, 0)


class Hub:
    """Stands in for the library `datasets`, with two splits; the message is that of its version 5.2.0."""

    def __init__(self, home, tables):
        self.tables, self.asked = tables, []
        self.config = types.SimpleNamespace(HF_CACHE_HOME=home, HF_DATASETS_CACHE=home)

    def load_dataset(self, name, split):
        self.asked.append(split)
        if split not in self.tables:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(self.tables)}.')
        table = types.SimpleNamespace(table=self.tables[split])
        return types.SimpleNamespace(data=table, features={}, _fingerprint=split)


def test_hub_splits_by_their_usual_names(tmp_path, rng, monkeypatch):
    import pyarrow.parquet as pq

    path = parquet(tmp_path / "x.parquet", [jpeg(rng)], [7])
    hub = Hub(tmp_path, {"train": pq.read_table(path), "validation": pq.read_table(path)})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    source = data.open_source(DataOptions("hub:some/set", split="val"), 16, 0)
    assert hub.asked == ["val", "validation"]
    assert source.classes == ("7",)
    assert source.about.where == "hub:some/set"
    assert source.image(0).shape == (20, 24, 3)
    with pytest.raises(
        data.NoSplit, match=r"some/set has no split 'test'; choose --data.split among train, validation"
    ):
        data.open_source(DataOptions("hub:some/set", split="test"), 16, 0)
    assert data.test_split(DataOptions("hub:some/set"), 16, 0) == "validation"


def test_hub_opens_no_file_outside_its_cache(tmp_path, rng, monkeypatch):
    import pyarrow as pa

    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "0.jpg").write_bytes(jpeg(rng))
    (tmp_path / "1.jpg").write_bytes(jpeg(rng))
    rows = [{"bytes": None, "path": str(tmp_path / name)} for name in ("cache/0.jpg", "1.jpg")]
    column = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    monkeypatch.setitem(sys.modules, "datasets", Hub(tmp_path / "cache", {"train": pa.table({"image": column})}))
    source = data.open_source(DataOptions("hub:some/set"), 16, 0)
    assert source.image(0).shape == (20, 24, 3)
    with pytest.raises(data.CorruptImage, match="outside the set and the hub's cache"):
        source.image(1)


# Corrupt images


def corrupt_folder(tmp_path, rng, **size):
    image_folder(tmp_path, rng, **size)
    bad = tmp_path / "train" / "dog" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:-200])
    return bad


@pytest.mark.parametrize("resident", [0, 100])
def test_corrupt_images_are_refused_by_path(tmp_path, rng, resident):
    bad = corrupt_folder(tmp_path, rng)
    for _ in range(2):  # the second time from memory, where the set streams
        with pytest.raises(wt.UserError, match=rf"1 of 12 images do not decode, the first one {bad}"):
            opened(tmp_path, resident_mb=resident)


@pytest.mark.parametrize("resident", [0, 100])
def test_corrupt_images_are_left_out_if_so_chosen(tmp_path, rng, resident):
    bad = corrupt_folder(tmp_path, rng)
    said = []
    options = DataOptions(str(tmp_path), on_corrupt="skip", resident_mb=resident)
    loaded = data.load(data.open_source(options, 16, 0), options, said.append)
    assert [str(bad) in line for line in said] == [True]
    assert str(bad) not in [loaded.source.path(int(i)) for i in loaded.good]
    assert len(loaded.good) == 11
    feed(loaded).batch(0)


def test_an_image_that_goes_bad_fails_the_run_by_path(tmp_path, rng):
    image_folder(tmp_path, rng)
    loaded = opened(tmp_path, resident_mb=0)
    for path in (tmp_path / "train").rglob("*.jpg"):
        path.write_bytes(b"gone")
    with pytest.raises(RunError, match=str(tmp_path)):
        feed(loaded).batch(0)


def test_an_image_that_goes_bad_is_replaced_if_so_chosen(tmp_path, rng):
    """The next sound image stands in, the same one every time, and all other images stay where they were."""
    image_folder(tmp_path, rng)
    loaded = opened(tmp_path, resident_mb=0, on_corrupt="skip")
    options = DataOptions(str(tmp_path), on_corrupt="skip")
    chosen = data.split(loaded.good, 8, 0)
    stream = data.feed_of(loaded, chosen, 16, options, SingleDeviceSharding(jax.devices()[0]))
    before = stream.batch(0)["image"]
    bad = 3
    (tmp_path / loaded.source.path(int(chosen.indices(0)[bad]))).write_bytes(b"gone")
    after, again = (stream.batch(0)["image"] for _ in range(2))
    np.testing.assert_array_equal(after, again)
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [i == bad for i in range(8)]


def test_a_split_that_is_not_there_is_refused(tmp_path, rng):
    image_folder(tmp_path, rng)
    with pytest.raises(wt.UserError, match="no split 'valid'"):
        data.open_source(DataOptions(str(tmp_path), split="valid"), 16, 0)
    one = parquet(tmp_path / "test-0.parquet", [jpeg(rng)])
    assert len(data.open_source(DataOptions(str(one)), 16, 0)) == 1
    with pytest.raises(wt.UserError, match="no split 'val'"):
        data.open_source(DataOptions(str(one), split="val"), 16, 0)


def test_augmentation_shares_no_key_with_training():
    """The keys of the first steps' crops are not those that initialisation, training and masks start from."""
    from weight_templates.data.feed import CROPS

    crops = [jr.key_data(jr.fold_in(jr.fold_in(jr.key(0), CROPS), step)).tolist() for step in range(3)]
    assert not any(jr.key_data(k).tolist() in crops for k in [*jr.split(jr.key(0), 3), jr.key(0)])


# Augmentation


def test_resampling_equals_pillow(rng):
    """Antialiased bicubic from a box: shrinking, enlarging, one way each; to one grey level of rounding."""
    image = np.asarray(Image.fromarray(rng.integers(80, 176, (9, 11, 3), dtype=np.uint8)).resize((44, 36), 3))
    for box in ((0, 0, 44, 36), (3, 5, 40, 33), (10, 10, 20, 22), (5, 20, 41, 28)):
        crop = Image.fromarray(image).crop(box)
        expected = np.asarray(crop.resize((16, 16), Image.Resampling.BICUBIC), int)
        found = np.asarray(augment.resample(jnp.asarray(image), jnp.array(box, jnp.float32), 16), int)
        assert abs(found - expected).max() <= 1


def test_crops_have_the_area_and_ratio_of_mae(rng):
    boxes = np.array([augment.crop_box(rng, 250, 300) for _ in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, ratio = width * height / 75000, width / height
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 300
    assert boxes[:, 3].max() <= 250
    assert 0.19 < share.min() < 0.25
    assert share.max() > 0.9
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 0.03


def test_device_and_host_draw_the_same_crops(rng):
    """Statistics of what is cut out of a ramp, whose pixels tell where they come from."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64) * 4
    on_device = jax.jit(jax.vmap(lambda k: augment.augment_on_device(jnp.asarray(ramp), 16, key=k)))
    device = np.asarray(on_device(jr.split(jr.key(0), 1500)), float)
    host = np.array([augment.augment_on_host(ramp, 16, rng) for _ in range(1500)], float)
    for made in (device, host):
        flipped = made[:, 0, 0, 1] > made[:, 0, -1, 1]
        assert 0.45 < flipped.mean() < 0.55
    for channel, axis in ((0, 1), (1, 2)):
        spans = [
            made.mean(axis=3 - axis)[..., channel].max(1) - made.mean(axis=3 - axis)[..., channel].min(1)
            for made in (device, host)
        ]
        for q in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert abs(np.quantile(spans[0], q) - np.quantile(spans[1], q)) < 9
        means = [made.mean(axis=(1, 2))[:, channel] for made in (device, host)]
        assert abs(means[0].mean() - means[1].mean()) < 4
        assert abs(means[0].std() - means[1].std()) < 4


def test_narrow_images_fall_back_to_the_centre(rng):
    box = augment.crop_box(rng, 400, 10)
    assert box[2] - box[0] == 10
    assert 0.74 < 10 / (box[3] - box[1]) < 1.34
    made = augment.augment_on_device(jnp.asarray(rng.integers(0, 255, (400, 10, 3), dtype=np.uint8)), 8, key=jr.key(0))
    assert made.shape == (8, 8, 3)


VIEWS = json.loads((GOLDEN / "views.json").read_text())["views"]


@pytest.mark.parametrize("fact", VIEWS, ids=lambda fact: "-".join(map(str, fact[:3])))
def test_evaluation_views_are_torchvisions(rng, fact):
    """The size after resizing is truncated and halves of the crop's place are rounded to even, as recorded there."""
    height, width, size, rows, columns, top, left = fact
    image = rng.integers(80, 176, (height, width, 3), dtype=np.uint8)  # no clipping, in whatever order Pillow resizes
    resized = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))
    expected = resized[top : top + size, left : left + size]
    found = augment.evaluation_view(image, size, whole=False)
    if max(height, width) > augment.LONG * min(height, width):  # not resized outside the crop: places in 32 bits
        assert abs(found.astype(int) - expected).max() <= 1
    else:
        np.testing.assert_array_equal(found, expected)
    if min(height, width) > size:
        np.testing.assert_array_equal(augment.evaluation_view(image, size), found)


def test_small_images_are_seen_whole(rng):
    image = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment.evaluation_view(image, 60), image[:, 15:75])
    small = np.asarray(Image.fromarray(image).resize((135, 90), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(augment.evaluation_view(image, 90), small[:, 22:112])
    np.testing.assert_array_equal(augment.evaluation_view(image, 30, share=1.0), _half(image)[:, 8:38])


def _half(image):
    return np.asarray(Image.fromarray(image).resize((45, 30), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(1, 40_000), (40_000, 1), (3, 100_000), (2, 17)])
def test_long_images_are_cut_before_they_are_resized(rng, shape):
    """In megabytes: as a whole, 1 × 40,000 at 256 × 10,240,000 pixels takes 8 GB. The middle is what is seen."""
    image = np.zeros((*shape, 3), np.uint8)
    across = int(shape[1] > shape[0])
    middle = shape[across] // 2
    around = [slice(None), slice(None)]
    around[across] = slice(middle - 3, middle + 3)
    image[tuple(around)] = 200
    tracemalloc.start()
    found = augment.evaluation_view(image, 224)
    host = augment.augment_on_host(image, 224, rng)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert found.shape == host.shape == (224, 224, 3)
    assert (found[112, 112] == 200).all()


def test_normalization_round_trip(rng):
    image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    normal = augment.normalize(jnp.asarray(image))
    np.testing.assert_allclose(
        normal[0, 0], (image[0, 0] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    np.testing.assert_allclose(augment.denormalize(normal), image / 255, atol=1e-5)


# Batches


@pytest.mark.parametrize("resident", [0, 100])
def test_batches_depend_on_seed_and_step_alone(tmp_path, rng, resident):
    image_folder(tmp_path, rng, count=20)
    loaded = opened(tmp_path, resident_mb=resident)
    assert (loaded.pixels is None) == (resident == 0)
    one, two, other = feed(loaded, threads=1), feed(loaded, threads=3), feed(loaded, seed=1)
    straight = [one.batch(step) for step in range(12)]
    for step in (11, 3, 7):  # out of order, by another number of threads
        for name in ("image", "label"):
            np.testing.assert_array_equal(two.batch(step)[name], straight[step][name])
    assert straight[0]["image"].shape == (4, 16, 16, 3)
    assert straight[0]["image"].dtype == jnp.uint8
    assert not np.array_equal(other.batch(0)["image"], straight[0]["image"])
    prepared = list(data.ahead(feed(loaded), 2, 7))
    assert len(prepared) == 5
    for step, batch in enumerate(prepared, start=2):
        np.testing.assert_array_equal(batch["image"], straight[step]["image"])


def test_epochs_are_permutations_of_what_is_not_held_out():
    chosen = data.split(np.arange(100), 16, 0)
    assert len(chosen.held_out) == 5
    assert chosen.steps_per_epoch == 5
    epochs = [np.concatenate([chosen.indices(5 * e + s) for s in range(5)]) for e in range(2)]
    for epoch in epochs:
        assert len(set(epoch)) == 80
        assert not set(epoch) & set(chosen.held_out)
    assert not np.array_equal(*epochs)
    assert set(chosen.train) | set(chosen.held_out) == set(range(100))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(wt.UserError, match="larger than the data: 38 training images"):
        data.split(np.arange(40), 39, 0)
    assert data.split(np.arange(40), 38, 0).steps_per_epoch == 1
    with pytest.raises(wt.UserError, match="at least two"):
        data.split(np.arange(1), 1, 0)


def test_images_of_several_sizes_stream(tmp_path, rng):
    image_folder(tmp_path, rng, count=3)
    (tmp_path / "train" / "cat" / "big.jpg").write_bytes(jpeg(rng, 40, 50))
    loaded = opened(tmp_path)
    assert loaded.pixels is None
    assert feed(loaded, batch=2).batch(0)["image"].shape == (2, 16, 16, 3)
    assert data.evaluation_views(loaded, data.split(loaded.good, 2, 0).held_out, 16).shape == (1, 16, 16, 3)


def test_hub_reads_what_datasets_loads(tmp_path, rng):
    """Through the real loader, on a local data set: the hub itself is not asked."""
    pytest.importorskip("datasets", reason="needs the extra hub")
    contents = [jpeg(rng) for _ in range(5)]
    parquet(tmp_path / "train-00000-of-00001.parquet", contents, [0, 1, 2, 1, 0])
    source = data.open_source(DataOptions(f"hub:{tmp_path}"), 16, 0)
    assert [source.label(i) for i in range(len(source))] == [0, 1, 2, 1, 0]
    assert source.image(3).shape == (20, 24, 3)
