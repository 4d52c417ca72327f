"""What the ablations of pre-training have in common: variants of one recipe, each pre-trained, brought to several sizes,
and fine-tuned alike. Each ablation is a file that names its variants; this is no command of its own.

Pre-training is `experiments/pretrain.py --preset small` with widths 3, 6, 9, 12 computed sliced; a size is initialised by
`experiments/adapt.py` (or, where a variant says so, zero-shot or by weight selection), and `experiments/finetune.py` does
the rest, with the protocol of `ablations/protocol.py`. One job a seed and pre-training.
"""

import dataclasses
import itertools
import json
from typing import Annotated, Any, Literal

import tyro
from figures import variants as figures
from figures.records import keep

from ablations.protocol import (
    Protocol,
    adaptation,
    called,
    check_distinct,
    check_images,
    check_positive,
    check_tuning,
    flags,
    probed,
    record,
    size_of,
    tuned,
)
from experiments import adapt, baseline, pretrain
from weight_templates import cli
from weight_templates.config import DataOptions, OptimOptions, RunOptions, ScalingOptions, ViTConfig
from weight_templates.errors import UserError
from weight_templates.jobs import Job


Method = Literal["adapted", "zero-shot", "weight-selection"]
IMAGE = 32
"""Side of the images, pixels."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a table."""

    name: str
    pretraining: tuple[tuple[str, Any], ...] = ()
    """What is changed in `experiments.pretrain.Config`, by dotted names."""
    method: Method = "adapted"
    """How a size is initialised."""
    adaptation: tuple[tuple[str, Any], ...] = ()
    """What is changed in `experiments.adapt.Config`."""
    steps: float = 1
    """Steps of pre-training, in units of the other rows'."""
    rate: float = 1
    """Learning rate of pre-training, in units of the other rows'."""
    ranks: float | None = None
    """Tucker's ranks, in units of its defaults, as far as there are so many; None for the defaults."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Pre-train variants, and fine-tune models of several sizes from each."""

    data: tyro.conf.Positional[str] = "synthetic"
    """Images to pre-train on and, labelled, to fine-tune on: made-up scenes, or the PATH of a real set."""
    sizes: tuple[str, ...] = ()
    """Layers and heads, such as L3H5."""
    variants: tuple[str, ...] = ()
    """Rows to run, by name; default all."""
    depth: int = 12
    """Layers that are pre-trained; 12 heads of 16 channels."""
    patch: int = 4
    """Side of a patch of the 32 px images."""
    pretraining_steps: int = 2000
    """Steps of pre-training."""
    pretraining_batch: int = 128
    """Images of a step of pre-training and of adaptation."""
    pretraining_lr: float = 2e-3
    """Learning rate of pre-training per 256 images."""
    adapt_steps: int = 200
    """Steps of adaptation."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = Protocol()
    root: str = "runs"
    """Folder of all runs."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """Variants that share their pre-training, with one seed, at all sizes."""

    config: Config
    variants: tuple[Variant, ...]
    seed: int

    @property
    def root(self) -> str:
        """Where its folder is."""
        return self.config.root


def changed(config: Any, changes: tuple[tuple[str, Any], ...]) -> Any:
    """A configuration with other values at dotted names."""
    for name, value in changes:
        first, _, rest = name.partition(".")
        inner = changed(getattr(config, first), ((rest, value),)) if rest else value
        config = dataclasses.replace(config, **{first: inner})
    return config


def jobs(ablation: str, variants: tuple[Variant, ...], config: Config) -> list[Job]:
    """The grid of an ablation; raises UserError where something is missing or unknown."""
    config.protocol.check()
    check_distinct("--sizes", config.sizes)
    check_positive(config, "depth", "patch", "pretraining_steps", "pretraining_batch", "pretraining_lr", "adapt_steps")
    for size in config.sizes:
        size_of(size)
    names = [variant.name for variant in variants]
    for name in config.variants:
        if name not in names:
            raise UserError(f"there is no variant {name!r}; choose among {', '.join(map(repr, names))}.")
    if config.variants:
        check_distinct("--variants", config.variants)
    if IMAGE % config.patch:
        raise UserError(f"--patch {config.patch} does not tile the images of {IMAGE} px; give a divisor of that.")
    groups: dict[Any, list[Variant]] = {}
    for variant in variants:
        if variant.name in (config.variants or names):
            if round(variant.steps * config.pretraining_steps) < 1:
                raise UserError(
                    f"--pretraining-steps {config.pretraining_steps} leaves none for {variant.name!r}; give more of them."
                )
            groups.setdefault((variant.pretraining, variant.steps, variant.rate, variant.ranks), []).append(variant)
    common = dataclasses.replace(config, variants=(), protocol=dataclasses.replace(config.protocol, seeds=()))
    return [
        Job("ablations.variants:cell", Cell(common, tuple(group), seed), f"{ablation}-{name_of(group)}-{seed}")
        for group in groups.values()
        for seed in config.protocol.seeds
    ]


def name_of(group: list[Variant]) -> str:
    """A name for a folder."""
    return group[0].name.replace(" ", "-") + (f"-and-{len(group) - 1}-more" if len(group) > 1 else "")


def pretraining(cell: Cell) -> pretrain.Config:
    """How the variants are pre-trained."""
    config, base, first = cell.config, pretrain.PRESETS["small"], cell.variants[0]
    base = dataclasses.replace(
        base,
        data=DataOptions(config.data),
        model=ViTConfig(image=IMAGE, patch=config.patch, depth=config.depth, heads=12, head_dim=16),
        scaling=ScalingOptions(heads=(3, 6, 9, 12), coupled=True, execution="sliced"),
        optim=OptimOptions(
            base_lr=first.rate * config.pretraining_lr,
            batch=config.pretraining_batch,
            steps=round(first.steps * config.pretraining_steps),
        ),
        seed=cell.seed,
        run=RunOptions(root=config.root),
    )
    if first.ranks is not None:
        sizes = 12 * base.model.depth, base.model.inner, base.model.channels
        defaults = zip(sizes, (6, 2, 2), strict=True)  # see constraints.Tucker
        ranks = tuple(max(1, min(n, round(first.ranks * n / d))) for n, d in defaults)
        base = changed(base, (("constraint.tucker.ranks", ranks),))
    return changed(base, first.pretraining)


def start(cell: Cell, variant: Variant, bank: str, depth: int, heads: int) -> str:
    """The file that fine-tuning of a size starts from."""
    run = RunOptions(root=cell.config.root)
    if variant.method == "zero-shot":
        return bank
    if variant.method == "weight-selection":
        selected = baseline.method(
            "weight-selection", depth=depth, heads=heads, run=run, source=bank, select_heads="whole"
        )
        return str(baseline.main(selected))
    config = cell.config
    base = adaptation(bank, config.data, depth, heads, config.adapt_steps, config.root)
    own = (("seed", cell.seed), ("optim.batch", config.pretraining_batch), *variant.adaptation)
    return str(adapt.main(changed(base, own)))


def cell(cell: Cell) -> list[dict[str, Any]]:
    """Runs what has not been run; the records of all variants and sizes."""
    config, asked = cell.config, pretraining(cell)
    cli.say(f"{name_of([*cell.variants])}, seed {cell.seed}: pre-training")
    bank = pretrain.main(asked)
    summary = json.loads((bank.parent / "summary.json").read_text())
    told = {"held_out_loss": summary["held_out_loss"], "sizes": summary["sizes"], "flops": pretrain.cost(asked)}
    records = []
    for variant, (depth, heads) in itertools.product(cell.variants, map(size_of, config.sizes)):
        cli.say(f"{variant.name}, seed {cell.seed}: {depth} layers, {heads} heads")
        network = asked.model.resized(depth, heads)
        made = start(cell, variant, str(bank), depth, heads)
        run = tuned(config.protocol, made, "full", config.data, network, cell.seed, config.root)
        told["probe"] = probed(config.protocol, made, config.data, network, cell.seed, config.root)
        records.append(record(run, config.data, variant.name, depth, heads, cell.seed) | told)
    return records


def check(cell: Cell) -> None:
    """Raises UserError for a mistake in what is pre-trained, and where there are no images with labels, or less than a batch."""
    asked = pretraining(cell)
    pretrain.check_options(asked)
    check_tuning(cell.config.protocol, cell.config.data)
    check_images(cell.config.data, cell.config.pretraining_batch, flag="--pretraining-batch")
    from weight_templates import programs

    programs.check_pretraining(asked)


def cost(cell: Cell) -> float:
    """FLOPs of pre-training, as the mean over the widths that are computed, and of fine-tuning; adaptation is left out."""
    network = pretraining(cell).model
    tuning = sum(cell.config.protocol.flops(network.resized(*size_of(size))) for size in cell.config.sizes)
    return pretrain.cost(pretraining(cell)) + len(cell.variants) * tuning


def collect(ablation: str, variants: tuple[Variant, ...], default: Config, config: Config, jobs: list[Job]) -> None:
    """Writes records and page of what is done."""
    words = called(config.data) + flags(
        config, default, (f.name for f in dataclasses.fields(config) if f.name not in ("data", "protocol", "root"))
    )
    words += flags(config.protocol, default.protocol, (field.name for field in dataclasses.fields(Protocol)))
    about = {
        "command": f"python ablations/{ablation}.py {words}",
        "data": called(config.data),
        "rows": [variant.name for variant in variants],
        "model": dataclasses.asdict(pretraining(Cell(config, (Variant("base"),), 0)).model),
        "pretraining": {
            "steps": config.pretraining_steps,
            "batch": config.pretraining_batch,
            "base_lr": config.pretraining_lr,
        },
        "adapt_steps": config.adapt_steps,
        **dataclasses.asdict(config.protocol),
    }
    runs = [record for job in jobs for record in job.result]
    figures.main(keep(ablation, about, runs))
