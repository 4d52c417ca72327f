"""The seven downstream sets of SWEET's Table 3 by name.

`NAME:FOLDER` is a set as its authors distribute it, unpacked, or Parquet or image folders made of it; `NAME` alone is
its copy on the Hugging Face hub. All have the official splits `train` and `test`, and labels that count from 0.
"""

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import DataOptions
from ..errors import UserError
from . import folder as folders
from .encoded import About, Encoded, Source, beyond, shown, spread, stamp_of
from .limits import read_regular
from .splits import NoSplit, alike, usual


class Facts(NamedTuple):
    """What is known of a set beforehand. A folder may well hold less: callers compare, and tell the user.

    `archives` are to be unpacked, `top` is the folder that makes (or that torchvision makes for them), any of `files`
    tells the authors' layout. Copies call the splits and the column of labels `splits` and `label`; `hub` is the
    repository of one, None where none is authoritative.
    """

    classes: int
    train: int
    test: int
    archives: str
    top: str
    files: tuple[str, ...]
    hub: str | None
    splits: tuple[str, str] = ("train", "test")
    label: str = "label"


# fmt: off
SETS = {
    # Nilsback & Zisserman 2008. Train and validation together are trained on, as in DeiT and weight selection.
    "flowers102": Facts(102, 2040, 6149, "102flowers.tgz, imagelabels.mat and setid.mat", "flowers-102",
                        ("setid.mat", "imagelabels.mat"), "dpdl-benchmark/oxford_flowers102",
                        splits=("train+validation", "test")),
    # Wah et al. 2011. All classes are in both splits; metric learning's 100 + 100 classes are another protocol.
    "cub200": Facts(200, 5994, 5794, "CUB_200_2011.tgz", "CUB_200_2011", ("images.txt", "image_class_labels.txt",
                    "train_test_split.txt"), "bentrevett/caltech-ucsd-birds-200-2011"),
    # Krause et al. 2013. The authors' site is gone (pytorch/vision#7545); of the hub's copies none is theirs.
    "cars196": Facts(196, 8144, 8041, "cars_train.tgz, cars_test.tgz, car_devkit.tgz, cars_test_annos_withlabels.mat",
                     "stanford_cars", ("devkit", "cars_test_annos_withlabels.mat", "cars_train", "cars_test"), None),
    # Krizhevsky 2009. The binary version: the python version is a pickle, which can run any code.
    "cifar10": Facts(10, 50000, 10000, "cifar-10-binary.tar.gz", "cifar-10-batches-bin",
                     (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"), "uoft-cs/cifar10"),
    "cifar100": Facts(100, 50000, 10000, "cifar-100-binary.tar.gz", "cifar-100-binary",
                      ("train.bin", "test.bin"), "uoft-cs/cifar100", label="fine_label"),
    # Bossard et al. 2014. Labels of the training images are noisy on purpose, those of the test images are not.
    "food101": Facts(101, 75750, 25250, "food-101.tar.gz", "food-101",
                     ("meta/train.txt", "meta/test.txt", "meta/classes.txt"), "ethz/food101", ("train", "validation")),
    # Van Horn et al., FGVC6 2019. The labels of its test were never published: its validation is the test.
    "inat2019": Facts(1010, 265213, 3030, "train_val2019.tar.gz, train2019.json.tar.gz and val2019.json.tar.gz",
                      "inat2019", ("train2019.json", "val2019.json"), None, ("train", "validation")),
}
# fmt: on


def official(name: str) -> Facts:
    """The facts of a set; raises UserError for any other name."""
    if name not in SETS:
        raise UserError(f"there is no downstream set {name!r}; choose among {', '.join(SETS)}.")
    return SETS[name]


def open_named(name: str, folder: str | None, options: DataOptions) -> Source:
    """A set of Table 3 from a folder or, without one, from the hub.

    In a folder the authors' own files count first, in it or in the folder their archive makes; then Parquet files; then
    folders `train` and `test` with one folder per class.

    Raises UserError where none of them is there, where a listed file is missing, and for labels out of range.
    """
    facts = official(name)
    if options.split not in ("train", "test"):
        raise NoSplit(f"{name} has no split {options.split!r}; choose --data.split train or test.")
    source = _from_hub(name, facts, options) if folder is None else _from_folder(name, facts, folder, options)
    labels = np.full(len(source), -1) if source.labels is None else np.asarray(source.labels)
    for i in np.flatnonzero((labels < 0) | (labels >= facts.classes)):
        what = f"{source.path(int(i))} has the label {labels[i]}, not one of {name}'s 0 to {facts.classes - 1}"
        raise UserError(f"{what}; unpack {facts.archives} again, or give another set by its path alone.")
    if not len(labels):
        raise UserError(f"{folder} lists no image to {options.split}; unpack {facts.archives} there again.")
    unnamed = (str(i) for i in range(len(source.classes), facts.classes))
    return dataclasses.replace(source, name=name, classes=(*source.classes[: facts.classes], *unnamed))


def _from_hub(name: str, facts: Facts, options: DataOptions) -> Encoded:
    remedy = f"unpack {facts.archives} and say --data {name}:FOLDER"
    if facts.hub is None:
        raise UserError(f"no copy of {name} on the hub is authoritative; {remedy}, or trust one as hub:OWNER/NAME.")
    from . import hub  # needs Arrow, which takes a while to import

    try:
        return hub.open_hub(facts.hub, facts.splits[options.split == "test"], options.count, options.label, gaps=False)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}, or {remedy}.") from None


def _from_folder(name: str, facts: Facts, folder: str, options: DataOptions) -> Encoded:
    root = Path(os.path.expanduser(folder))
    if not folder or not root.exists():
        raise UserError(f"there is no file or folder {folder!r}; give an existing one, --data {name}:FOLDER.")
    for top in (root, root / facts.top):
        if any((top / file).exists() for file in facts.files):
            return _from_authors(name, facts, top, options)
    from . import parquet

    files = parquet.files_of(root)
    there = list(parquet.splits_of(root, files)) if files else _split_folders(root)
    if files or any(usual(split) in ("train", "test") for split in there):
        return _from_copy(root, files, there, facts, options)
    stems = [file.removesuffix(".bin") for file in facts.files if file.endswith(".bin")]
    if any(path.is_file() for stem in stems for path in (root / stem, *root.glob(f"*/{stem}"))):
        raise UserError(f"{root} has the python version of {name}, a pickle, and is not read; unpack {facts.archives}.")
    files = ", ".join(facts.files)
    raise UserError(f"{root} has none of {files}, no Parquet, no train or test; unpack {facts.archives} there.")


def _split_folders(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if usual(name) and os.path.isdir(root / name))


def _from_copy(root: Path, files: list[Path], there: list[str], facts: Facts, options: DataOptions) -> Encoded:
    """The split from Parquet files or folders, whatever they call it, with the validation images if they train too."""
    from . import parquet

    official_names = facts.splits[options.split == "test"].split("+")
    found = [name for name in there if alike(name, options.split)]
    others = [name for name in there if name not in found and any(alike(name, other) for other in official_names)]
    splits = [*found, *others] if options.split == "train" and found else found or others
    if not splits or (options.split == "train" and not found):
        raise NoSplit(f"{shown(str(root))} has no split {options.split!r} among {', '.join(there)}; add or name it so.")
    parts = [
        parquet.open_parquet(root, files, split, None, options.label, gaps=False)
        if files
        else folders.open_folder(root, split, None)
        for split in splits
    ]
    rows = spread([(part, i) for part in parts for i in range(len(part))], options.count)
    names = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    if not files:  # numbered over all splits, since those of a subset may not show the same classes
        inside = [entry.name for split in there for entry in os.scandir(root / split) if entry.is_dir()]
        names = tuple(sorted({shown(name) for name in inside if not folders.hidden(name)}))
    number = {name: i for i, name in enumerate(names)}
    labels = [number[p.classes[p.label(i)]] if 0 <= p.label(i) < len(p.classes) else -1 for p, i in rows]
    about = parts[0].about
    left_out = {
        reason: sum(p.about.left_out.get(reason, 0) for p in parts) for p in parts for reason in p.about.left_out
    }
    total = sum(len(part) for part in parts)
    return Encoded(
        root.name,
        [part.path(i) for part, i in rows],
        lambda i: rows[i][0].read(rows[i][1]),
        labels,
        names,
        stamp_of([*(part.stamp for part in parts), str(options.count)]),
        About(shown(str(root)), left_out | beyond(options.count, total), about.notes),
    )


def _from_authors(name: str, facts: Facts, top: Path, options: DataOptions) -> Encoded:
    remedy = f"unpack {facts.archives} in {top}"
    try:
        if name in ("cifar10", "cifar100"):
            return _records(name, facts, top, options)
        listed, names = _listing(name, facts, top, options.split == "train")
        outside = next(
            (f for f, _ in listed if not Path(os.path.normpath(f)).is_relative_to(os.path.normpath(top))), None
        )
        if outside is not None:
            raise ValueError(f"{outside} is outside")
        files, labels = zip(*spread(listed, options.count), strict=True) if listed else ((), ())
        stamp = _stamp(top, files, [*labels, options.count])
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} of {name} is missing; {remedy}.") from None
    except Exception as error:  # scipy, JSON and text raise many kinds, as the damage will have it
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the files in {top} do not read as those of {name} ({reason}); {remedy} again.") from None
    classes = tuple(names.get(i, str(i)) for i in range(facts.classes))
    about = About(shown(str(top)), beyond(options.count, len(listed)))
    return Encoded(
        name, [shown(str(f)) for f in files], lambda i: read_regular(files[i]), labels, classes, stamp, about
    )


def _listing(name: str, facts: Facts, top: Path, train: bool) -> tuple[list[tuple[Path, int]], dict[int, str]]:
    """What the authors' lists say: images with their labels, and names of classes; one arm per layout."""
    match name:
        case "flowers102":
            sets, classes = _mat(top / "setid.mat"), _mat(top / "imagelabels.mat")["labels"]
            ids = np.hstack([sets[key] for key in (("trnid", "valid") if train else ("tstid",))]).astype(int)
            return [(top / "jpg" / f"image_{i:05}.jpg", int(classes[i - 1]) - 1) for i in ids], {}
        case "cub200":
            files, classes, trains = (_numbered(top / file) for file in facts.files)
            names = {int(i) - 1: n for i, n in _numbered(top / "classes.txt").items()}
            chosen = [i for i in files if trains[i] == str(int(train))]
            return [(top / "images" / files[i], int(classes[i]) - 1) for i in chosen], names
        case "cars196":
            devkit, folder = top / "devkit", top / ("cars_train" if train else "cars_test")
            lists = devkit / "cars_train_annos.mat" if train else top / "cars_test_annos_withlabels.mat"
            cars = _mat(lists if lists.exists() else devkit / lists.name)["annotations"]
            names = dict(enumerate(map(str, np.atleast_1d(_mat(devkit / "cars_meta.mat")["class_names"]))))
            return [(folder / str(car["fname"]), int(car["class"]) - 1) for car in np.atleast_1d(cars)], names
        case "food101":
            images, names = (_lines(top / "meta" / f"{n}.txt") for n in ("train" if train else "test", "classes"))
            number = {name: i for i, name in enumerate(names)}
            return [(top / f"images/{i}.jpg", number.get(i.split("/")[0], -1)) for i in images], dict(enumerate(names))
        case _:  # inat2019
            tree = json.loads(read_regular(top / f"{'train' if train else 'val'}2019.json"))
            label = {a["image_id"]: a["category_id"] for a in tree["annotations"]}
            names = {c["id"]: str(c["name"]) for c in tree["categories"]}
            return [(top / i["file_name"], label.get(i["id"], -1)) for i in tree["images"]], names


def _records(name: str, facts: Facts, top: Path, options: DataOptions) -> Encoded:
    """CIFAR's records: label bytes, the finest last, then a red, a green and a blue plane in rows of 32 pixels."""
    names, first = ("batches.meta.txt", 1) if name == "cifar10" else ("fine_label_names.txt", 2)
    files = [top / file for file in facts.files if file.startswith("test") == (options.split == "test")]
    parts = [np.frombuffer(read_regular(file), np.uint8).reshape(-1, first + 3072) for file in files]
    paths = [f"{file}[{i}]" for file, part in zip(files, parts, strict=True) for i in range(len(part))]
    keep = spread(range(len(paths)), options.count)
    rows = np.concatenate(parts)[np.asarray(keep, int)]
    pixels = rows[:, first:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    def read(index: int) -> bytes:
        return b"P6 32 32 255\n" + pixels[index].tobytes()  # a portable pixmap, decoded like any other file

    labels, classes, stamp = rows[:, first - 1].astype(int), _lines(top / names), _stamp(top, files, [options.count])
    about = About(shown(str(top)), beyond(options.count, len(paths)))
    return Encoded(name, [paths[i] for i in keep], read, labels, tuple(classes), stamp, about)


def _stamp(top: Path, files: Sequence[Path], rest: Sequence[Any]) -> str:
    stats = ((f.relative_to(top), f.stat()) for f in files)
    return stamp_of([*(f"{f} {s.st_size} {s.st_mtime_ns}" for f, s in stats), *map(str, rest)])


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_regular(path).decode("utf-8").splitlines() if line.strip()]


def _numbered(path: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in _lines(path))


def _mat(path: Path) -> dict[str, Any]:
    import scipy.io  # slow to import

    return scipy.io.loadmat(io.BytesIO(read_regular(path)), squeeze_me=True)
