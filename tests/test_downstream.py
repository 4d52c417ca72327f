"""The sets of Table 3: tiny copies of what their authors distribute, and known answers for CIFAR's bytes."""

import dataclasses
import json
import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

import weight_templates as wt
from weight_templates import data
from weight_templates.config import DataOptions
from weight_templates.data import downstream, encoded

from .helpers import image_folder, jpeg, parquet


def opened(source, split="train", **options):
    return data.open_source(DataOptions(str(source), split=split, **options), 16, 0)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def labels_of(source):
    return [source.label(i) for i in range(len(source))]


# One small folder per layout. Each maker returns, per split, (file, label) in the official order, and some class names.


def flowers(root, rng):
    """Nine images of three classes; the splits are not in the order of the numbers."""
    classes = np.array([1, 1, 1, 102, 102, 102, 7, 7, 7])
    for i in range(1, 10):
        write(root / f"jpg/image_{i:05}.jpg", jpeg(rng))
    scipy.io.savemat(root / "imagelabels.mat", {"labels": classes[None].astype(np.uint8)})
    ids = {"trnid": [4, 1, 7], "valid": [2, 5, 8], "tstid": [9, 6, 3]}
    scipy.io.savemat(root / "setid.mat", {k: np.array([v], np.uint16) for k, v in ids.items()})
    rows = {"train": [4, 1, 7, 2, 5, 8], "test": [9, 6, 3]}
    return {s: [(f"jpg/image_{i:05}.jpg", classes[i - 1] - 1) for i in ids] for s, ids in rows.items()}, {}


def birds(root, rng):
    names = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross", 200: "200.Common_Yellowthroat"}
    rows = [
        (i, f"{names[c]}/bird {i}.jpg", c, t) for i, c, t in [(1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 2, 0), (5, 200, 1)]
    ]
    for _, file, _, _ in rows:
        write(root / "images" / file, jpeg(rng))
    write(root / "images.txt", "".join(f"{i} {file}\n" for i, file, _, _ in rows))
    write(root / "image_class_labels.txt", "".join(f"{i} {c}\n" for i, _, c, _ in rows))
    write(root / "train_test_split.txt", "".join(f"{i} {t}\n" for i, _, _, t in rows))
    write(root / "classes.txt", "".join(f"{c} {name}\n" for c, name in names.items()))
    expected = {s: [(f"images/{f}", c - 1) for _, f, c, t in rows if t == n] for n, s in enumerate(("test", "train"))}
    return expected, {0: names[1], 199: names[200], 17: "17"}


def annotations(files, labels):
    dtype = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    return {"annotations": np.array([[(1, c, f) for f, c in zip(files, labels, strict=True)]], dtype)}


def cars(root, rng, labels_beside=True):
    rows = {"train": [("00001.jpg", 14), ("00002.jpg", 3), ("00003.jpg", 196)], "test": [("00001.jpg", 3)]}
    for split, images in rows.items():
        for file, _ in images:
            write(root / f"cars_{split}" / file, jpeg(rng))
    (root / "devkit").mkdir()
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": np.array([["AM General", "Acura RL"]], object)})
    scipy.io.savemat(root / "devkit/cars_train_annos.mat", annotations(*zip(*rows["train"], strict=True)))
    place = root if labels_beside else root / "devkit"
    scipy.io.savemat(place / "cars_test_annos_withlabels.mat", annotations(*zip(*rows["test"], strict=True)))
    expected = {s: [(f"cars_{s}/{f}", c - 1) for f, c in images] for s, images in rows.items()}
    return expected, {0: "AM General", 1: "Acura RL", 2: "2"}


def food(root, rng):
    names = ["apple_pie", "baby_back_ribs", "waffles"]
    rows = {"train": ["waffles/9", "apple_pie/11", "apple_pie/2"], "test": ["baby_back_ribs/5", "waffles/1"]}
    write(root / "meta/classes.txt", "\n".join(names))
    for split, images in rows.items():
        write(root / f"meta/{split}.txt", "\n".join(images) + "\n")
        for image in images:
            write(root / f"images/{image}.jpg", jpeg(rng))
    expected = {s: [(f"images/{i}.jpg", names.index(i.split("/")[0])) for i in images] for s, images in rows.items()}
    return expected, {0: "apple_pie", 2: "waffles", 3: "3"}


def species(root, rng):
    rows = {"train": [(7, "Birds/3/a.jpg", 3), (5, "Plants/1009/b.jpg", 1009), (6, "Birds/3/c.jpg", 3)]}
    rows["val"] = [(2, "Plants/1009/d.jpg", 1009)]
    for split, images in rows.items():
        tree = {
            "images": [{"id": i, "file_name": f"train_val2019/{file}"} for i, file, _ in images],
            "annotations": [{"id": i, "image_id": i, "category_id": c} for i, _, c in reversed(images)],
            "categories": [{"id": 1009, "name": "Quercus"}, {"id": 3, "name": "Larus"}],
        }
        write(root / f"{split}2019.json", json.dumps(tree))
        for _, file, _ in images:
            write(root / "train_val2019" / file, jpeg(rng))
    named = {"train": rows["train"], "test": rows["val"]}
    expected = {s: [(f"train_val2019/{file}", c) for _, file, c in images] for s, images in named.items()}
    return expected, {3: "Larus", 1009: "Quercus", 4: "4"}


MAKERS = {"flowers102": flowers, "cub200": birds, "cars196": cars, "food101": food, "inat2019": species}


def cifar10(root, rng, per_file=2):
    records = {}
    for file in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records[file] = rng.integers(0, 256, (per_file, 3073), dtype=np.uint8)
        records[file][:, 0] %= 10
        write(root / f"{file}.bin", records[file].tobytes())
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    write(root / "batches.meta.txt", names.replace(" ", "\n") + "\n\n")
    return records


def cifar100(root, rng):
    records = {}
    for file in ("train", "test"):
        records[file] = rng.integers(0, 256, (4, 3074), dtype=np.uint8)
        records[file][:, 0], records[file][:, 1] = 19, [99, 0, 1, 57]
        write(root / f"{file}.bin", records[file].tobytes())
    write(root / "fine_label_names.txt", "\n".join(f"fine {i}" for i in range(100)))
    return records


# Layouts


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("level", ["itself", "above"])
@pytest.mark.parametrize("name", MAKERS)
def test_official_layouts(tmp_path, rng, name, level, split):
    top = tmp_path if level == "itself" else tmp_path / downstream.SETS[name].top
    top.mkdir(exist_ok=True)
    expected, names = MAKERS[name](top, rng)
    source = opened(f"{name}:{tmp_path}", split)
    assert isinstance(source, data.Source)
    assert source.name == name
    assert [source.path(i) for i in range(len(source))] == [str(top / file) for file, _ in expected[split]]
    assert labels_of(source) == [label for _, label in expected[split]]
    assert len(source.classes) == downstream.official(name).classes
    assert {i: source.classes[i] for i in names} == names
    for i, (file, _) in enumerate(expected[split]):
        with Image.open(top / file) as image:
            np.testing.assert_array_equal(source.image(i), image)


def test_labels_of_the_cars_may_lie_in_the_devkit(tmp_path, rng):
    expected, _ = cars(tmp_path, rng, labels_beside=False)
    assert labels_of(opened(f"cars196:{tmp_path}", "test")) == [label for _, label in expected["test"]]


def test_planes_of_cifar_are_red_green_blue_in_rows(tmp_path, rng):
    """The red of row 0, column 1 is byte 2 of a record, the green of row 1, column 0 byte 1 + 1024 + 32."""
    cifar10(tmp_path, rng)
    record = np.zeros((2, 3073), np.uint8)
    record[1, 0] = 9
    record[1, [1 + 1, 1 + 1024 + 32, 1 + 2048 + 1023]] = 11, 22, 33
    write(tmp_path / "test_batch.bin", record.tobytes())
    image = np.zeros((32, 32, 3), np.uint8)
    image[0, 1, 0], image[1, 0, 1], image[31, 31, 2] = 11, 22, 33
    source = opened(f"cifar10:{tmp_path}", "test")
    np.testing.assert_array_equal(source.image(1), image)
    assert source.classes[source.label(1)] == "truck"
    assert source.path(1) == f"{tmp_path / 'test_batch.bin'}[1]"


@pytest.mark.parametrize("level", ["itself", "above"])
@pytest.mark.parametrize(("name", "maker"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_cifar_reads_all_batches_in_order(tmp_path, rng, name, maker, level):
    top = tmp_path if level == "itself" else tmp_path / downstream.SETS[name].top
    records = maker(top, rng)
    test = {k: v for k, v in records.items() if k.startswith("test")}
    for split, files in (("test", test), ("train", {k: v for k, v in records.items() if k not in test})):
        rows = np.concatenate(list(files.values()))
        source = opened(f"{name}:{tmp_path}", split)
        assert isinstance(source, data.Source)
        assert labels_of(source) == rows[:, -3073].tolist()
        assert len(source.classes) == downstream.official(name).classes
        for i, row in enumerate(rows):
            by_hand = np.stack([row[-3072 + 1024 * c :][:1024].reshape(32, 32) for c in range(3)], axis=-1)
            np.testing.assert_array_equal(source.image(i), by_hand)
    assert source.classes[57] == "fine 57" if name == "cifar100" else source.classes[3] == "cat"


def test_cifar_reaches_the_device(tmp_path, rng):
    cifar10(tmp_path, rng)
    options = DataOptions(f"cifar10:{tmp_path}")
    loaded = data.load(data.open_source(options, 16, 0), options, lambda _: None)
    assert loaded.pixels is not None
    np.testing.assert_array_equal(loaded.pixels[7], loaded.source.image(7))


@pytest.mark.parametrize("name", [*MAKERS, "cifar10", "cifar100"])
def test_count_and_fingerprint(tmp_path, rng, name):
    {**MAKERS, "cifar10": cifar10, "cifar100": cifar100}[name](tmp_path, rng)
    source, again, few = (opened(f"{name}:{tmp_path}", count=count) for count in (None, None, 2))
    assert len(few) == 2
    spread = encoded.spread(range(len(source)), 2)
    assert [few.path(i) for i in range(2)] == [source.path(i) for i in spread]
    assert labels_of(few) == [source.label(i) for i in spread]
    np.testing.assert_array_equal(few.image(1), source.image(spread[1]))
    assert few.classes == source.classes
    assert source.fingerprint() == again.fingerprint() != few.fingerprint()
    file = source.path(1).split("[")[0]
    with open(file, "rb+") as content:
        content.seek(0, 2)
        content.write(bytes(3074 if name == "cifar100" else 3073))
    assert opened(f"{name}:{tmp_path}").fingerprint() != source.fingerprint()


def test_fingerprint_sees_times_and_labels(tmp_path, rng):
    birds(tmp_path, rng)
    before = opened(f"cub200:{tmp_path}")
    write(tmp_path / "image_class_labels.txt", "1 1\n2 2\n3 2\n4 2\n5 200\n")
    relabelled = opened(f"cub200:{tmp_path}")
    os.utime(before.path(0), ns=(1, 1))
    assert len({s.fingerprint() for s in (before, relabelled, opened(f"cub200:{tmp_path}"))}) == 3


# What copies look like


def test_parquet_and_folders_stand_in(tmp_path, rng):
    parquet(tmp_path / "train-00000-of-00001.parquet", [jpeg(rng) for _ in range(3)], [9, 0, 4])
    parquet(tmp_path / "train_more-00000-of-00001.parquet", [jpeg(rng)], [1])
    parquet(tmp_path / "test-00000-of-00001.parquet", [jpeg(rng)], [2])
    source = opened(f"cifar10:{tmp_path}")
    assert labels_of(source) == [9, 0, 4]
    assert len(source.classes) == 10
    assert labels_of(opened(f"cifar10:{tmp_path}", "test")) == [2]
    assert labels_of(opened(f"cifar10:{tmp_path / 'test-00000-of-00001.parquet'}", "test")) == [2]
    with pytest.raises(wt.UserError, match="no split 'train' among test"):
        opened(f"cifar10:{tmp_path / 'test-00000-of-00001.parquet'}")


def test_splits_of_a_copy_are_joined_by_the_names_of_their_classes(tmp_path, rng):
    """Flowers train on two splits, which may number the classes differently."""
    names = [str(i) for i in range(102)]
    parquet(tmp_path / "train-0.parquet", [jpeg(rng), jpeg(rng)], [0, 101], names)
    parquet(tmp_path / "valid-0.parquet", [jpeg(rng), jpeg(rng)], [0, 101], names[::-1])
    source = opened(f"flowers102:{tmp_path}")
    assert [source.classes[label] for label in labels_of(source)] == ["0", "101", "101", "0"]


def test_folders_number_their_classes_over_both_splits(tmp_path, rng):
    image_folder(tmp_path, rng, ("a", "c"), count=2)
    (tmp_path / "train").rename(tmp_path / "test")
    image_folder(tmp_path, rng, ("a", "b", "c"), count=2)
    assert labels_of(opened(f"cub200:{tmp_path}", "test")) == [0, 0, 2, 2]
    few = opened(f"cub200:{tmp_path}", count=2)
    assert len(few) == 2
    for i in range(2):  # whatever classes were chosen
        assert few.path(i).startswith(f"{tmp_path}/train/{few.classes[few.label(i)]}/")
    assert len(few.classes) == 200


@pytest.mark.parametrize("kind", ["parquet", "folders"])
def test_copies_split_as_the_set_does(tmp_path, rng, kind):
    """Flowers train on the validation images too; the test of food and of iNaturalist is called validation."""
    for i, split in enumerate(("train", "validation")):
        if kind == "parquet":
            parquet(tmp_path / f"{split}-00000-of-00001.parquet", [jpeg(rng), jpeg(rng)], [0, 1])
        else:
            image_folder(tmp_path / "new", rng, ("a", "b"), count=1)
            (tmp_path / "new/train").rename(tmp_path / ("val" if i else "train"))
    joined, food = opened(f"flowers102:{tmp_path}"), opened(f"food101:{tmp_path}", "test")
    assert labels_of(joined) == [0, 1, 0, 1]
    assert labels_of(food) == labels_of(opened(f"inat2019:{tmp_path}", "test")) == [0, 1]
    np.testing.assert_array_equal(joined.image(3), food.image(1))
    assert len(opened(f"food101:{tmp_path}")) == 2
    few = opened(f"flowers102:{tmp_path}", count=2)
    assert labels_of(few) == [joined.label(i) for i in encoded.spread(range(4), 2)]
    for name in ("flowers102", "cub200"):
        with pytest.raises(wt.UserError, match="no split 'test' among"):
            opened(f"{name}:{tmp_path}", "test")


# Mistakes


LISTS = {
    "flowers102": ["setid.mat", "imagelabels.mat"],
    "cub200": ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"],
    "cars196": ["devkit/cars_train_annos.mat", "devkit/cars_meta.mat"],
    "food101": ["meta/train.txt", "meta/classes.txt"],
    "inat2019": ["train2019.json"],
    "cifar10": ["data_batch_3.bin", "batches.meta.txt"],
    "cifar100": ["train.bin"],
}
EVERY = [(name, file) for name, files in LISTS.items() for file in files]


@pytest.mark.parametrize(("name", "file"), EVERY)
def test_missing_and_damaged_lists_are_named(tmp_path, rng, name, file):
    {**MAKERS, "cifar10": cifar10, "cifar100": cifar100}[name](tmp_path, rng)
    (tmp_path / file).unlink()
    archive = downstream.official(name).archives
    with pytest.raises(wt.UserError, match=f"{tmp_path / file} of {name} is missing; unpack {archive} in {tmp_path}"):
        opened(f"{name}:{tmp_path}")
    if not file.endswith(("classes.txt", "meta.txt")):
        write(tmp_path / file, b"\xffnot at all")
        with pytest.raises(wt.UserError, match=f"in {tmp_path} do not read as those of {name} .*; unpack"):
            opened(f"{name}:{tmp_path}")


def test_the_devkit_alone_has_no_labels_of_the_test_cars(tmp_path, rng):
    cars(tmp_path, rng)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(wt.UserError, match=r"cars_test_annos_withlabels.mat of cars196 is missing"):
        opened(f"cars196:{tmp_path}", "test")


@pytest.mark.parametrize("name", MAKERS)
def test_a_listed_image_that_is_missing_is_named(tmp_path, rng, name):
    expected, _ = MAKERS[name](tmp_path, rng)
    gone = tmp_path / expected["train"][1][0]
    gone.unlink()
    with pytest.raises(wt.UserError, match=f"{gone} of {name} is missing; unpack"):
        opened(f"{name}:{tmp_path}")


@pytest.mark.parametrize("path", ["../../secret.jpg", "/etc/passwd"])
def test_lists_name_no_file_outside_the_set(tmp_path, rng, path):
    birds(tmp_path / "set", rng)
    write(tmp_path / "secret.jpg", jpeg(rng))
    lines = (tmp_path / "set/images.txt").read_text().replace("001.Black_footed_Albatross/bird 2.jpg", path)
    write(tmp_path / "set/images.txt", lines)
    with pytest.raises(wt.UserError, match=r"do not read as those of cub200 \(.* is outside\); unpack"):
        opened(f"cub200:{tmp_path / 'set'}")


def test_labels_out_of_range_are_named(tmp_path, rng):
    birds(tmp_path / "birds", rng)
    write(tmp_path / "birds/image_class_labels.txt", "1 1\n2 1\n3 201\n4 2\n5 0\n")
    with pytest.raises(wt.UserError, match=r"002.Laysan_Albatross/bird 3.jpg has the label 200, .* 0 to 199; unpack"):
        opened(f"cub200:{tmp_path / 'birds'}")
    food(tmp_path / "food", rng)
    write(tmp_path / "food/meta/classes.txt", "apple_pie\n")
    with pytest.raises(wt.UserError, match=r"waffles/9.jpg has the label -1"):
        opened(f"food101:{tmp_path / 'food'}")
    records = cifar10(tmp_path / "cifar", rng)["data_batch_2"]
    records[1, 0] = 10
    write(tmp_path / "cifar/data_batch_2.bin", records.tobytes())
    with pytest.raises(wt.UserError, match=r"data_batch_2.bin\[1\] has the label 10"):
        opened(f"cifar10:{tmp_path / 'cifar'}")
    parquet(tmp_path / "train.parquet", [jpeg(rng), jpeg(rng)], [3, 11])
    with pytest.raises(wt.UserError, match=r"\[1\] 1.jpg has the label 11"):
        opened(f"cifar10:{tmp_path}")


def test_images_without_labels_are_refused(tmp_path, rng):
    write(tmp_path / "train/1.jpg", jpeg(rng))
    with pytest.raises(wt.UserError, match=r"1.jpg has the label -1"):
        opened(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(("name", "files"), [("cifar10", ["data_batch_1"]), ("cifar100", ["train", "test", "meta"])])
@pytest.mark.parametrize("folder", [".", "cifar-python"])
def test_pickles_are_not_read(tmp_path, name, files, folder):
    for file in files:
        write(tmp_path / folder / file, b"\x80\x04.")
    archive = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}[name]
    with pytest.raises(wt.UserError, match=f"a pickle, and is not read; unpack {archive}"):
        opened(f"{name}:{tmp_path}")


@pytest.mark.parametrize("name", downstream.SETS)
def test_folders_with_nothing_of_the_set(tmp_path, name):
    with pytest.raises(wt.UserError, match=f"has none of .*; unpack {downstream.official(name).archives} there"):
        opened(f"{name}:{tmp_path}")
    with pytest.raises(wt.UserError, match="no file or folder"):
        opened(f"{name}:{tmp_path / 'nowhere'}")
    with pytest.raises(wt.UserError, match=f"existing one, --data {name}:FOLDER"):
        opened(f"{name}:")
    with pytest.raises(data.NoSplit, match=r"no split 'val'; choose --data.split train or test"):
        opened(f"{name}:{tmp_path}", "val")


@pytest.mark.parametrize("name", ["cub200", "food101", "inat2019", "cifar10"])
def test_lists_of_nothing(tmp_path, rng, name):
    {**MAKERS, "cifar10": cifar10}[name](tmp_path, rng)
    empty = json.dumps({"images": [], "annotations": [], "categories": []})
    for file in [f for f in downstream.official(name).files if not f.endswith("classes.txt")]:
        write(tmp_path / file, empty if name == "inat2019" else "")
    with pytest.raises(wt.UserError, match="lists no image to train"):
        opened(f"{name}:{tmp_path}")


# Names


def test_other_names_are_paths(tmp_path, rng, monkeypatch):
    image_folder(tmp_path / "cifar11", rng, count=1)
    image_folder(tmp_path / "cifar10", rng, ("dog",), count=1)
    monkeypatch.chdir(tmp_path)
    assert opened("cifar11").classes == ("cat", "dog")
    assert opened("./cifar10").classes == ("dog",)
    with pytest.raises(wt.UserError, match=r"no file or folder cifar12:.*; give --data .* or one of flowers102"):
        opened("cifar12:somewhere")
    with pytest.raises(wt.UserError, match="choose among flowers102"):
        downstream.official("cifar11")


def test_facts_are_those_of_the_papers():
    facts = {name: downstream.official(name)[:3] for name in downstream.SETS}
    assert facts == {
        "flowers102": (102, 2040, 6149),
        "cub200": (200, 5994, 5794),
        "cars196": (196, 8144, 8041),
        "cifar10": (10, 50000, 10000),
        "cifar100": (100, 50000, 10000),
        "food101": (101, 101 * 750, 101 * 250),
        "inat2019": (1010, 268243 - 3030, 3030),
    }


# The hub


HUB = {
    "flowers102": ("dpdl-benchmark/oxford_flowers102", "train+validation", "test"),
    "cub200": ("bentrevett/caltech-ucsd-birds-200-2011", "train", "test"),
    "cifar10": ("uoft-cs/cifar10", "train", "test"),
    "cifar100": ("uoft-cs/cifar100", "train", "test"),
    "food101": ("ethz/food101", "train", "validation"),
}


@pytest.mark.parametrize("name", HUB)
def test_the_hub_is_asked_for_the_right_split(tmp_path, rng, monkeypatch, name):
    datasets = pytest.importorskip("datasets", reason="needs the extra hub")
    asked, column = [], downstream.official(name).label
    features = {"img": datasets.Image(), "coarse_label": datasets.Value("int64"), column: datasets.Value("int64")}
    rows = {"img": [{"bytes": jpeg(rng), "path": None}] * 2, "coarse_label": [88, 88], column: [1, 5]}
    made = datasets.Dataset.from_dict(rows, datasets.Features(features))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((*a, k["split"])) or made)
    repository, train, test = HUB[name]
    source = opened(name)
    assert labels_of(source) == [1, 5]
    assert len(source.classes) == downstream.official(name).classes
    assert len(opened(name, "test", count=1)) == 1
    assert asked == [(repository, train), (repository, test)]


@pytest.mark.parametrize("name", sorted(set(downstream.SETS) - set(HUB)))
def test_sets_without_an_authoritative_copy_need_a_folder(name):
    with pytest.raises(
        wt.UserError, match=f"no copy of {name} .* is authoritative; unpack .* say --data {name}:FOLDER"
    ):
        opened(name)


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch):
    def fail(*_, **__):
        raise wt.UserError("cannot load it; check name and network.")

    monkeypatch.setattr("weight_templates.data.hub.open_hub", fail)
    with pytest.raises(wt.UserError, match=r"check name and network, or unpack food-101.tar.gz and say .*FOLDER\.$"):
        opened("food101")


def test_a_hub_copy_without_labels_is_refused(rng, monkeypatch):
    made = data.Encoded("x", ["one"], lambda _: jpeg(rng), None, (), "stamp", data.About("x"))
    monkeypatch.setattr("weight_templates.data.hub.open_hub", lambda *_, **__: dataclasses.replace(made))
    with pytest.raises(wt.UserError, match="one has the label -1"):
        opened("cifar10")
