"""Mistakes on command lines, drawn at random, and a process that makes them: see `tests/test_mistakes.py`.

    python -m tests.mistakes FOLDER

reads command lines as JSON, line by line, makes each in this process, and tells what came of it. Nothing is trained: where a
run's directory is entered, the command has gone through.
"""

import contextlib
import io
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Literal, NamedTuple


COMMANDS = ("pretrain", "adapt", "finetune", "baseline", "initialize", "export", "reconstruct", "status")
METHODS = (
    "scratch",
    "mimetic",
    "weight-selection",
    "isomorphic-pruning",
    "front",
    "hydravit",
    "dmae",
    "wave",
    "tleg",
    "fine",
)


MOST = 12 << 30
"""Bytes of addresses that a process may ask for; JAX takes a third of them, and uses few."""


class Mistake(NamedTuple):
    """A command line that is wrong in one way."""

    kind: str
    module: str
    argv: list[str]


def lay(folder: Path) -> None:
    """Makes good files to start from, and bad ones."""
    import equinox as eqx
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np

    import weight_templates as wt
    from weight_templates import bank, convert, trees

    from . import helpers

    rng = np.random.default_rng(0)
    helpers.image_folder(folder / "images", rng, count=16, height=16, width=16)
    for name, family in (("bank", "tucker"), ("ordinary", "none")):
        shapes = eqx.filter_eval_shape(lambda family=family: helpers.mae(helpers.ENHANCED, family, key=jr.key(0)))
        arrays = {
            name: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype)
            for name, leaf in trees.named_arrays(shapes).items()
        }
        model = trees.with_arrays(shapes, arrays)
        about = {"steps": 2, "batch": 8, "scaling": "submodel", "widths": [1, 2, 3, 4]}
        bank.save_bank(folder / f"{name}.safetensors", wt.Bank(model, family, about))
    convert.save_model(folder / "model.safetensors", helpers.model_of(), {})
    (folder / "runs").mkdir()
    bad = folder / "bad"
    bad.mkdir()
    whole = (folder / "bank.safetensors").read_bytes()
    contents = {
        "truncated.safetensors": whole[: len(whole) // 2],
        "flipped.safetensors": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        "empty.safetensors": b"",
        "picture.safetensors": (folder / "images/train/cat/0.jpg").read_bytes(),
        "picture.png": (folder / "images/train/cat/0.jpg").read_bytes(),
        "words.txt": b"hello\n",
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "list.safetensors": (2).to_bytes(8, "little") + b"[]",
        "header.safetensors": (2**62).to_bytes(8, "little") + b"{}",
        "zip.pth": b"PK\x03\x04 and no more",
        "table.parquet": b"PAR1 and no more",
        "model.npz": b"PK\x03\x04",
    }
    for name, content in contents.items():
        (bad / name).write_bytes(content)
    os.mkfifo(bad / "pipe.safetensors")
    for name in ("nothing", "torn/train/cat", "torn/train/dog", "one/train/cat", "few/train/cat", "few/train/dog"):
        (bad / name).mkdir(parents=True)
    for path in ("torn/train/cat/a.jpg", "torn/train/dog/b.jpg"):
        (bad / path).write_bytes(b"no image")
    for n in range(16):
        (bad / f"one/train/cat/{n}.jpg").write_bytes(helpers.jpeg(rng, 16, 16))
    for name in ("cat", "dog"):
        (bad / f"few/train/{name}/0.jpg").write_bytes(helpers.jpeg(rng, 16, 16))


def files(folder: Path) -> list[str]:
    """What is no bank and no model, whatever it is called."""
    there = [str(folder / "bad" / name) for name in os.listdir(folder / "bad")]
    strange = [
        "nowhere.safetensors",
        "~nobody-of-that-name/x",
        "/dev/null",
        "a\udcffb.safetensors",
        "nowhere/",
        "-",
        "hub:",
        "x" * 300,
    ]
    return sorted(there) + strange + [str(folder), str(folder / "images")]


def sources(folder: Path, labelled: bool, few: bool) -> list[str]:
    """What is no set of images, or for a classifier none to learn from; or with fewer of them than a batch."""
    names = [
        "nothing",
        "torn",
        "few",
        "words.txt",
        "table.parquet",
        "picture.png",
        "empty.safetensors",
        "pipe.safetensors",
    ]
    found = [str(folder / "bad" / name) for name in names + ["one"] * labelled + ["few"] * few]
    named = [
        "cifar10:nowhere",
        "flowers102:",
        "cub200:/dev/null",
        "hub:",
        "hub:nobody",
        "~nobody-of-that-name/x",
        "/dev/null",
    ]
    return found + ["nowhere", *named] + ["synthetic"] * labelled


def bases(folder: Path) -> dict[str, list[list[str]]]:
    """Right command lines, by command."""
    bank, ordinary, model = (str(folder / f"{name}.safetensors") for name in ("bank", "ordinary", "model"))
    data, root, out = (
        f"--data={folder / 'images'}",
        f"--run.root={folder / 'runs'}",
        f"--out={folder / 'out.safetensors'}",
    )
    train = [data, "--optim.steps=2", "--optim.batch=8", root]
    network = ["--model.image=16", "--model.patch=4", "--model.depth=2", "--model.heads=4", "--model.head-dim=4"]
    size = ["--depth=2", "--heads=2"]
    baseline = {name: [ordinary, *size, root] for name in METHODS}
    baseline |= {name: [*network, *size, root] for name in ("scratch", "mimetic")}
    baseline["isomorphic-pruning"] = [ordinary, *size, data, "--batches=1", root]
    baseline["dmae"] = [ordinary, *size, *train, "--decoder.depth=1", "--decoder.width=16", "--decoder.heads=2"]
    for name in ("wave", "tleg", "fine"):
        baseline[name] = [*network, *size, *train] + ["--fit.steps=2", "--fit.batch=8"] * (name != "tleg")
    return {
        "pretrain": [[*network, "--decoder.width=16", "--decoder.heads=2", *train]],
        "adapt": [[bank, *size, *train]],
        "finetune": [[bank, *size, *train], [model, *train], ["scratch", *network, *train]],
        "baseline": [[name, *words] for name, words in baseline.items()],
        "initialize": [[bank, *size, out]],
        "export": [[model, out]],
        "reconstruct": [[bank, data]],
        "status": [[f"--root={folder / 'runs'}"]],
    }


ZEROS = ("seed", "gpus", "resident_mb", "every")
"""Whole numbers that may be 0."""
SIZES = (
    "heads",
    "depth",
    "image",
    "head_dim",
    "width",
    "batch",
    "images",
    "threads",
    "rank",
    "ranks",
    "templates",
    "patch",
)
"""Numbers that no machine has the memory for, if they have eight digits."""
COMBINATIONS = {
    "pretrain": [
        "--constraint=svd --tucker.ranks 2 2 2", "--constraint=none --svd.rank=2", "--tucker.ranks 999 2 2", "--svd.rank=2",
        "--constraint=svd --svd.rank=9999", "--constraint=kronecker --kronecker.tile 0 4", "--model.head-dim=3",
        "--model.patch=5", "--model.width=17", "--decoder.heads=3", "--decoder.mask-ratio=1", "--decoder.mask-ratio=0",
        "--decoder.mask-ratio=0.001", "--scaling.heads 9", "--scaling.heads", "--scaling.execution=sliced --scaling.scope=off",
        "--optim.microbatches=3", "--optim.batch=4096", "--optim.warmup=1", "--optim.betas 1 1", "--optim.ema=1",
        "--data.count=1", "--optim.base-lr=0", "--run.devices=99", "--data.split=nonsense", "--data.resident-mb=-1",
        "--constraint=linear --linear.rank=9999",
    ],
    "adapt": ["--heads=99999", "--depth=0", "--heads=0", "--optim.batch=4096", "--optim.microbatches=3", "--layout=components"],
    "finetune": [
        "--mode=probe --recipe.mixup=0.5", "--recipe.drop-path=1", "--recipe.crop=0", "--recipe.layer-decay=0",
        "--recipe.smoothing=2", "--recipe.randaugment=99", "--recipe.layer-decay=2", "--optim.batch=4096", "--test=nonsense",
        "--test=train", "--image=17", "--mode=probe --head=probe",
    ],
    "baseline": ["--depth=0", "--heads=0", "--depth=-1"],
    "initialize": ["--depth=0", "--heads=0", "--format=timm", "--format=huggingface", "--layout=components"],
    "export": ["--heads=3", "--image=17", "--image=0"],
    "reconstruct": ["--heads 9", "--heads 0", "--images=0", "--heads 2 2", "--out=nowhere/x.png", "--out=x.txt"],
    "status": ["--every=0", "--every=-1", "--root=nowhere", "--every=1e9"],
}  # fmt: skip
LAUNCHING = [
    "--nodes=2", "--launch=local --partition=x", "--launch=slurm", "--launch=local --time=soon", "--time=-5", "--gpus=2",
    "--launch=local --nodes=2", "--launch=slurm --gpus=2 --processes=3", "--launch=local --gpus=1 --parallel=2", "--memory=0",
    "--cpus=0 --launch=slurm", "--sbatch a=b", "--launch=local --parallel=0", "--no-follow", "--setup x", "--launch=cloud",
]  # fmt: skip


def mistakes(seed: int, count: int, folder: Path) -> list[Mistake]:
    """So many mistakes, over all commands; the same for the same seed."""
    rng = random.Random(seed)
    lines, found, seen = bases(folder), [], set()
    while len(found) < count:
        command = COMMANDS[len(found) % len(COMMANDS)]
        made = _mistake(rng, command, list(rng.choice(lines[command])), folder)
        if made and (command, *made[1]) not in seen:
            seen.add((command, *made[1]))
            found.append(Mistake(made[0], f"experiments.{command}", made[1]))
    return found


def _mistake(rng: random.Random, command: str, base: list[str], folder: Path) -> tuple[str, list[str]] | None:
    from typing import get_args, get_origin

    options = _options(command, base)
    named = [option for option in options if not option.positional]
    kind = rng.choice((
        "name", "type", "finite", "huge", "empty", "choice", "missing", "stray", "control", "switch", "negative", "zero",
        "size", "file", "file", "data", "data", "combination", "combination", "launch", "out", "spelling",
    ))  # fmt: skip

    def parts(option):
        some = get_args(option.kind) if get_origin(option.kind) else (option.kind,)
        return [t for part in some for t in (get_args(part) if get_origin(part) is tuple else (part,)) if t is not ...]

    def one(*kinds):
        fit = [o for o in named if any(k in kinds for k in parts(o)) and get_origin(o.kind) is not tuple]
        return rng.choice(fit) if fit else None

    def add(*words):
        return kind, [*base, *words]

    if kind == "name":
        return add(f"--{rng.choice(named).flag[2:]}{rng.choice(('s', 'x', '.n', '-size'))}", "3")
    if kind == "spelling":
        word = rng.choice(
            ("--lr", "--batch-size", "--epochs", "--output-dir", "--dataset", "--num-workers", "--wd", "-b", "--device")
        )
        known = {option.flag for option in named}
        return None if word in known else add(word, "1")
    if kind == "type" and (option := one(int, float)):
        return add(option.flag, rng.choice(("abc", "1.5.2", "0x10", "1e3e3", "1,5", "ten", "½", "--", "[1]")))
    if kind == "finite" and (option := one(float)):
        return add(f"{option.flag}={rng.choice(('nan', 'inf', '-inf', 'Infinity', 'NaN', '1e999'))}")
    if kind == "huge" and (option := one(int)):
        return add(f"{option.flag}={rng.choice((2**32, 10**20, 10**100, -(2**40)))}")
    if kind == "empty" and (option := one(str)):
        return add(option.flag, rng.choice(("", " ", "\t")))
    if kind == "control" and (option := one(str)):
        return add(option.flag, rng.choice(("a\nb", "\x1b[31mred", "a\x07")))
    if kind == "choice" and (option := rng.choice([o for o in named if get_origin(o.kind) is Literal] or [None])):
        return add(option.flag, rng.choice(("nonsense", "None", "0", "", "TUCKER")))
    if kind == "missing" and (option := one(int, float, str)):
        return add(option.flag)
    if kind == "stray":
        word = rng.choice(("word", "3", "-", "=", "-3"))
        return (kind, [*base, "second", word]) if command != "reconstruct" else add("--images", "3", word)
    if kind == "switch" and (option := one(bool)):
        return add(f"{option.flag}={rng.choice(('yes', 'True', '1', ''))}")
    if kind == "negative" and (option := one(int, float)):
        return add(f"{option.flag}={rng.choice((-1, -7, -1000))}")
    if kind == "zero" and (option := one(int)):
        return None if option.field in ZEROS else add(f"{option.flag}=0")
    if kind == "size" and (fit := [o for o in named if o.field in SIZES and int in parts(o)]):
        option = rng.choice(fit)
        several = get_origin(option.kind) is not None and any(get_origin(p) is tuple for p in get_args(option.kind))
        words = [str(rng.choice((99999999, 2**31 - 1, 123456780)))] * (3 if option.field == "ranks" else 1)
        return add(option.flag, *words) if several else add(f"{option.flag}={words[0]}")
    if kind == "file" and (
        places := [i for i, word in enumerate(base) if word.endswith(".safetensors") and "=" not in word]
    ):
        base[places[0]] = rng.choice(files(folder))
        return kind, base
    if kind == "data" and any(word.startswith("--data=") for word in base):
        labelled = command == "finetune" or (command == "baseline" and base[0] in ("wave", "tleg", "fine"))
        return add("--data", rng.choice(sources(folder, labelled, "--optim.batch=8" in base)))
    if kind == "combination":
        words = rng.choice(COMBINATIONS[command]).split(" ")
        return add(*words) if all(_known(word, named) for word in words) else None
    if kind == "launch" and any(option.flag == "--launch" for option in named):
        return add(*rng.choice(LAUNCHING).split(" "))
    if kind == "out" and (
        option := rng.choice([o for o in named if o.flag in ("--out", "--run.root", "--run.out", "--root")] or [None])
    ):
        inside = folder / "bad" / "words.txt"
        return add(
            option.flag,
            rng.choice(
                (f"{inside}/x.safetensors", str(inside / "deep" / "x.png"), "/proc/x/y.safetensors", "/dev/null/x.png")
            ),
        )
    return None


def _options(command: str, base: list[str]):
    import importlib

    from weight_templates import launch, options

    module = importlib.import_module(f"experiments.{command}")
    if command == "baseline":
        return options.options_of(launch._with_options(module.METHODS[base[0]], module.__name__))
    if hasattr(module, "PRESETS"):
        return options.options_of(launch._with_options(next(iter(module.PRESETS.values())), module.__name__))
    return options.options_of(module.Config())


def _known(word: str, named) -> bool:
    return not word.startswith("--") or word.partition("=")[0] in {option.flag for option in named}


class Reached(Exception):
    """A command has gone through to its run."""


def made(module: str, argv: list[str]) -> dict[str, object]:
    """Makes a mistake in this process: what is told, the code, the seconds and the most memory in MB meanwhile."""
    import importlib

    from weight_templates import entry, launch

    err, code = io.StringIO(), 0
    Path("/proc/self/clear_refs").write_text("5")  # counts the most memory from here on
    began = time.process_time()  # of this process alone, however busy the machine is
    sys.argv = [module.replace(".", "/") + ".py", *argv]
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            entry.run(lambda: launch.execute(importlib.import_module(module)))
        except SystemExit as stop:
            code = stop.code
    seconds = time.process_time() - began
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"code": code, "err": err.getvalue(), "seconds": seconds, "megabytes": int(peak.split()[1]) / 1024}


def main() -> None:
    """Makes mistakes until there are no more."""
    import importlib
    import pkgutil

    import weight_templates
    from weight_templates.training import Run

    for module in pkgutil.walk_packages(weight_templates.__path__, "weight_templates."):
        importlib.import_module(module.name)

    def enter(run):
        raise Reached

    Run.__enter__ = enter
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))  # what asks for more is refused, and the machine lives on
    os.chdir(sys.argv[1])
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=told, flush=True)
    for line in sys.stdin:
        print(json.dumps(made(*json.loads(line))), file=told, flush=True)


if __name__ == "__main__":
    main()
