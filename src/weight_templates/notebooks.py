"""The library from a notebook: images as NumPy arrays in, a bank or a model out, by the same calls as the commands.

    bank = wt.pretrain(images, constraint="tucker")
    bank = wt.adapt(bank, images, depth=3, heads=3)
    model = wt.finetune(wt.initialize(bank, depth=3, heads=3), images, labels)

Runs are kept where `out` says, and go on from there; without it they live in a temporary folder.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import programs, training
from .bank import Bank
from .config import Adaptation, ConstraintOptions, Finetuning, Pretraining, RunOptions, to_json
from .convert import at_resolution
from .data import Arrays, Source, open_source
from .errors import UserError
from .models import AbstractBackbone, Classifier


def pretrain(
    images: Any, labels: Any = None, *, constraint: str = "tucker", out: str | None = None, **changes: Any
) -> Bank:
    """Pre-trains weight templates.

    **Arguments:**

    - `images`: uint8 (images, height, width, 3), or grey without the last axis; any `data.Source`; or what `--data` takes.
    - `labels`: (images,), for `task="classify"`.
    - `constraint`: the family.
    - `out`: the run's directory.
    - `changes`: fields of `config.Pretraining`, such as `model=wt.ViTConfig(…)` or `optim=wt.OptimOptions(…)`.

    **Returns:** the bank. Raises UserError for a mistake, RunError if the loss stops being finite.
    """
    settings = Pretraining(constraint=ConstraintOptions(constraint), **changes)  # pyright: ignore[reportArgumentType]
    settings.check()
    source = source_of(images, labels, settings)
    with running("pretrain", settings, source, out) as run:
        return programs.pretrain(settings, run, source)[0]


def adapt(
    bank: Bank,
    images: Any,
    labels: Any = None,
    *,
    depth: int | None = None,
    heads: int | None = None,
    out: str | None = None,
    **changes: Any,
) -> Bank:
    """Learns a bank's scalers at another size, the template frozen (SWEET §3.4, Eq. 9).

    **Arguments:**

    - `depth`, `heads`: the size; default the bank's.
    - `changes`: fields of `config.Adaptation`. For the others see `pretrain`.

    **Returns:** the bank of that size. Raises as `pretrain` does.
    """
    settings = Adaptation(depth=depth, heads=heads, **changes)
    settings.check()
    source = source_of(images, labels, settings)
    with running("adapt", settings, source, out) as run:
        return programs.adapt(settings, run, bank, source)[0]


def finetune(
    model: AbstractBackbone | Classifier | Bank,
    images: Any,
    labels: Any = None,
    *,
    test: tuple[Any, Any] | None = None,
    out: str | None = None,
    **changes: Any,
) -> Classifier:
    """Fine-tunes a plain model to classify images; its backbone is resampled to their size if that is another.

    **Arguments:**

    - `model`: a backbone, a classifier whose backbone is taken, or a bank, which is then initialised at its own size.
    - `test`: images and labels to report on at the end.
    - `changes`: fields of `config.Finetuning`. For the others see `pretrain`.

    **Returns:** the classifier of the best epoch. Raises as `pretrain` does.
    """
    from .inherit import initialize

    settings = Finetuning(**changes)
    settings.check()
    backbone = initialize(model) if isinstance(model, Bank) else getattr(model, "backbone", model)
    if settings.image is not None:
        backbone = at_resolution(backbone, settings.image)
    source = source_of(images, labels, settings)
    tested = None if test is None else source_of(*test, settings)
    with running("finetune", settings, source, out) as run:
        return programs.finetune(settings, run, backbone, "model", source, tested)[0]


def source_of(images: Any, labels: Any, settings: Any) -> Source:
    """Images as a source: arrays, a source as it is, or what `--data` takes."""
    if isinstance(images, str | Path):
        if labels is not None:
            raise UserError("labels were given beside a path; leave them out: the path has its own.")
        options = dataclasses.replace(settings.data, source=str(images))
        size = settings.model.image if hasattr(settings, "model") else 32
        return open_source(options, size, settings.seed)
    if hasattr(images, "fingerprint"):
        return images
    return Arrays(images, labels)


@contextlib.contextmanager
def running(experiment: str, settings: Any, source: Source, out: str | None) -> Iterator[training.Run]:
    """A run's directory: `out`, or a temporary one that is gone afterwards."""
    about: dict[str, Any] = to_json(settings) | {"images": source.fingerprint()}
    leaves: Sequence[str] = ("model.safetensors",) if experiment == "finetune" else ("bank.safetensors",)
    with tempfile.TemporaryDirectory() as folder:
        place = out or str(Path(folder) / "run")
        yield training.Run(experiment, "notebook", about, RunOptions(out=place), leaves)
