"""What the ablations have in common: a protocol of fine-tuning, its runs and their records, and what is refused beforehand.
This is no command of its own.
"""

import base64
import dataclasses
import functools
import io
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import adapt, finetune, reconstruct
from weight_templates.config import (
    PROBE,
    BackboneConfig,
    DataOptions,
    RecipeOptions,
    RunOptions,
    check_seed,
    to_header,
)
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Fine-tuning, the same for all networks."""

    count: int = 6000
    """Training images of each source, a tenth of which is held out; likewise of its test images."""
    epochs: int = 6
    """Epochs."""
    base_lr: tuple[float, ...] = (1e-3,)
    """Learning rate per 256 images; of several, each network gets the one that is best on its held-out images."""
    batch: int = 64
    """Images per step."""
    head: Literal["new", "probe"] = "probe"
    """Where the head starts; see `experiments/finetune.py`."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation, held-out images, order and augmentation."""

    def check(self) -> None:
        """Raises UserError where a number is out of range, or a seed comes twice: it would count as another run."""
        check_distinct("--seeds", self.seeds)
        check_distinct("--base-lr", self.base_lr)
        for seed in self.seeds:
            check_seed(seed, "--seeds")
        check_positive(self, "count", "epochs", "batch")
        for rate in self.base_lr:
            if not 0 < rate < float("inf"):
                raise UserError(f"--base-lr {rate} is not positive and finite.")

    def flops(self, network: BackboneConfig) -> float:
        """What a fine-tuning costs."""
        import weight_templates as wt

        return 3 * wt.count(network).flops * 0.9 * self.count * self.epochs * len(self.base_lr)


def tuned(
    protocol: Protocol, start: str, mode: str, source: str, network: BackboneConfig, seed: int, root: str
) -> Path:
    """The run of a fine-tuning, made unless it is there; of several learning rates that which is best on the held-out
    images, the first of equals. A probe has its own."""
    rates = protocol.base_lr if mode == "full" else protocol.base_lr[:1]
    runs = [
        finetune.main(configuration(protocol, start, mode, source, network, seed, root, rate)).parent for rate in rates
    ]
    return max(runs, key=lambda run: json.loads((run / "summary.json").read_text())["held_out"]["top1"])


def probed(protocol: Protocol, start: str, source: str, network: BackboneConfig, seed: int, root: str) -> Any:
    """The accuracies of the linear probe whose head a network was fine-tuned from; None where the head was new."""
    if protocol.head != "probe":
        return None
    config = configuration(protocol, start, "full", source, network, seed, root, protocol.base_lr[0])
    summary = json.loads((finetune.main(finetune.probe_of(config)).parent / "summary.json").read_text())
    return {"held_out": summary["held_out"], "test": summary["test"]}


def configuration(
    protocol: Protocol, start: str, mode: str, source: str, network: BackboneConfig, seed: int, root: str, rate: float
) -> finetune.Config:
    """One run of fine-tuning: from the file `start` or, if that is `scratch`, of a random `network`."""
    base = finetune.PRESETS["tiny"]
    from weight_templates.bank import is_bank

    scratch = start == "scratch"
    sized = not scratch and not is_bank(start)
    full = dataclasses.replace(base.optim, base_lr=rate, batch=protocol.batch, epochs=protocol.epochs, warmup=1 / 6)
    return dataclasses.replace(
        base,
        start=start,
        mode=mode,
        head=protocol.head if mode == "full" else "new",
        depth=None if sized else network.depth,
        heads=None if sized else network.heads,
        backbone=to_header(network)["kind"] if scratch else base.backbone,
        model=network if scratch else base.model,
        data=DataOptions(source, count=protocol.count),
        recipe=RecipeOptions(),
        optim=full if mode == "full" else dataclasses.replace(PROBE, batch=protocol.batch),
        seed=seed,
        run=RunOptions(root=root, log_every=10),
    )


def adaptation(bank: str, data: str, depth: int, heads: int, steps: int, root: str, seed: int = 0) -> adapt.Config:
    """The adaptation of a bank to a size; all else as its command has it."""
    base = adapt.Config()
    optim = dataclasses.replace(base.optim, steps=steps)
    images, run = DataOptions(data), RunOptions(root=root)
    return dataclasses.replace(base, bank=bank, depth=depth, heads=heads, data=images, optim=optim, seed=seed, run=run)


def record(run: Path, source: str, arm: str, depth: int, heads: int, seed: int) -> dict[str, Any]:
    """What the tables and figures need of a finished run."""
    from weight_templates.training import read_metrics

    summary = json.loads((run / "summary.json").read_text())
    start = json.loads((run / "environment.json").read_text())[0]
    asked = json.loads((run / "config.json").read_text())
    return {
        "data": called(source),
        "extent": extent(source),
        "arm": arm,
        "depth": depth,
        "heads": heads,
        "seed": seed,
        "parameters": summary["parameters"],
        "held_out": summary["held_out"],
        "test": summary["test"],
        "base_lr": asked["optim"]["base_lr"],
        "curve": [[line["epoch"], line["held_out_top1"]] for line in read_metrics(run) if "held_out_top1" in line],
        "commit": start["commit"],
        "dirty": start["dirty"],
        "device": start["device"],
    }


def drawn(bank: str, data: str, heads: int) -> dict[str, Any] | None:
    """What an adapted auto-encoder makes of images that it was not trained on, where `data` has a split of such, for a record:
    that split, the loss over 64 images, and of four of them, side by side in a PNG, the image, what is visible of it, and the
    reconstruction. None for a bank of another task."""
    from PIL import Image

    from weight_templates.bank import load_bank
    from weight_templates.data import test_split

    if load_bank(bank).task != "masked":
        return None
    options = DataOptions(data, count=64)
    split = test_split(options, 32, 0) or options.split
    asked = reconstruct.Config((bank,), dataclasses.replace(options, split=split), (heads,), images=64)
    columns, losses = reconstruct.made(asked)
    file = io.BytesIO()
    Image.fromarray(np.hstack([np.vstack([*pictures][:4]) for pictures in columns.values()])).save(file, "png")
    return {"split": split, "loss": next(iter(losses.values())), "png": base64.b64encode(file.getvalue()).decode()}


def called(data: str) -> str:
    """The name of a data source: that of a downstream set, `cars196:FOLDER`, else of its file or folder."""
    from weight_templates.data import downstream

    name, colon, _ = data.partition(":")
    return name if colon and name in downstream.SETS else Path(data).name


@functools.cache
def extent(data: str) -> tuple[int, int]:
    """How many images and classes a source has, by which records know it from another of the same name; looks once."""
    from weight_templates.data import open_source

    source = open_source(DataOptions(data), 32, 0)
    return len(source), len(source.classes)


def size_of(text: str) -> tuple[int, int]:
    """Layers and heads of `L3H5`; raises UserError."""
    if not re.fullmatch(r"L[1-9]\d*H[1-9]\d*", text):
        raise UserError(f"{text} is no size; give layers and heads as in L6H12.")
    depth, heads = map(int, text[1:].split("H"))
    return depth, heads


def flags(config: Any, default: Any, names: Iterable[str]) -> str:
    """What to add to a command line to get a configuration from the default one."""
    words = ""
    for name in names:
        if (value := getattr(config, name)) != getattr(default, name):
            values = " ".join(shlex.quote(str(v)) for v in (value if isinstance(value, tuple) else (value,)))
            words += f" --{name.replace('_', '-')} {values}"
    return words


def check_positive(config: Any, *names: str) -> None:
    """Raises UserError where one of the numbers of these names in a configuration is zero or less, or without end."""
    for name in names:
        if not 0 < (value := getattr(config, name)) < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value} is not positive and finite.")


def check_distinct(flag: str, values: Sequence[Any]) -> None:
    """Raises UserError where there is no value, or one comes twice."""
    if not values:
        raise UserError(f"{flag} needs at least one value.")
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{flag} has {value} twice; say it once.")


def check_sources_distinct(flag: str, sources: Sequence[str]) -> None:
    """Raises UserError where there is no source, or two would have one name in the records."""
    check_distinct(flag, sources)
    names = [called(source) for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{flag} has two sources called {name}; rename a folder, since tables go by these names.")


def check_tuning(protocol: Protocol, source: str) -> None:
    """Raises UserError where a source cannot be fine-tuned on as the protocol asks for."""
    check_images(source, protocol.batch, labelled=True, count=protocol.count, flag="--batch")


def check_images(
    source: str, batch: int = 1, *, labelled: bool = False, count: int | None = None, flag: str | None = None
) -> None:
    """Raises UserError where there are no images, none with labels if these are asked for, or less than a batch.

    **Arguments:**

    - `labelled`: whether they are to be learned by their labels, for which more of them are held out.
    - `count`: how many of them are used at most.
    - `flag`: the option that the batch is from, if there is one.
    """
    from weight_templates import data

    images, classes = extent(source)
    if labelled and not classes:
        raise UserError(f"the images of {source} have no labels; give a labelled set, such as one folder a class.")
    held: dict[str, Any] = {"part": 1 / 10, "most": float("inf")} if labelled else {}
    data.split(np.arange(images if count is None else min(images, count)), batch, 0, flag=flag, **held)
