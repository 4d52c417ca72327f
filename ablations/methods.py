"""All methods at five sizes, fine-tuned alike: classification.

Counterpart of: SWEET's Table 1, classification, in small; their numbers, for ImageNet at 224 px, stand beside ours.
Command: python ablations/methods.py BANK PATH/TO/cifar10 --source SOURCE --pretraining PATH/TO/tiny-imagenet
Cost: a fine-tuning for each method and size, and what `--steps` of DMAE, of a teacher and of distillation cost: with
`--steps 300 --count 3000 --epochs 4 --batch 32` about four hours on two CPU cores for the small ViT, sources not counted.
Expected: SWEET first at every size. The paper's means over the sizes: weight selection 63.87, DMAE 64.05, isomorphic pruning
65.19, WAVE 67.19, SWEET 68.79.

BANK and SOURCE are banks by `experiments/pretrain.py`, under a constraint and under `none`, of the same network at equal
compute. Backbones are made by `experiments/baseline.py`, and SWEET's zero-shot or by `experiments/adapt.py`;
`experiments/finetune.py` then does the same for all. Runs that are finished are not run again. A seed is that of all that
is random for a size: the baselines' training, adaptation, fine-tuning; BANK and SOURCE are the same. Writes
`results/methods.json`, the records, and from them, through `figures/methods.py`, the page in `docs/results`.
"""

if __name__ == "__main__":  # before the imports, which take a second: Ctrl-C is heard meanwhile
    try:
        from weight_templates.entry import command
    except ModuleNotFoundError:
        raise SystemExit(
            "failed: this Python has no weight_templates; install it as README.md says, or call one that has it."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command("ablations.methods")

import dataclasses
import functools
import itertools
import json
from typing import Annotated, Any

import tyro
from figures import methods as figures
from figures.records import keep

from ablations.protocol import (
    Protocol,
    adaptation,
    called,
    check_distinct,
    check_images,
    check_sources_distinct,
    check_tuning,
    drawn,
    flags,
    probed,
    record,
    size_of,
    tuned,
)
from experiments import adapt, baseline
from weight_templates import cli
from weight_templates.config import DataOptions, OptimOptions, RunOptions, ViTConfig
from weight_templates.errors import UserError
from weight_templates.files import identity
from weight_templates.jobs import Job


@dataclasses.dataclass(frozen=True)
class Config:
    """Make backbones of five sizes by all methods, and fine-tune them alike."""

    bank: tyro.conf.Positional[str] = ""
    """A bank pre-trained under a constraint: SWEET's."""
    data: tyro.conf.Positional[tuple[str, ...]] = ()
    """Labelled data to fine-tune on."""
    source: str = ""
    """A bank pre-trained under `none` at equal compute: what the others take from."""
    nested: str = ""
    """A bank pre-trained under `none` with random widths at equal compute, for HydraViT; without it, there is no such row."""
    pretraining: str = ""
    """The data of pre-training, for DMAE, pruning, distillation and adaptation; with labels, for the distillations."""
    methods: tuple[str, ...] = tuple(figures.METHODS)
    """What to compare."""
    sizes: tuple[str, ...] = ("L3H12", "L6H12", "L6H6", "L12H6", "L12H3")
    """Layers and heads."""
    steps: int = 1000
    """Steps of DMAE's student, of the teacher, and of each distillation, in batches of 128."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = Protocol()
    root: str = "runs"
    """Folder of all runs."""

    def check(self) -> None:
        """Raises UserError where something is missing or unknown."""
        if not (self.bank and self.data and self.source and self.pretraining):
            raise UserError("give a bank, data, --source and --pretraining; see --help.")
        for method in self.methods:
            if method not in figures.METHODS:
                raise UserError(f"there is no method {method!r}; choose among {', '.join(figures.METHODS)}.")
        for size in self.sizes:
            size_of(size)
        if self.steps < 1:
            raise UserError(f"--steps {self.steps} is not positive.")
        check_sources_distinct("--data", self.data)
        for flag in ("methods", "sizes"):
            check_distinct(f"--{flag}", getattr(self, flag))
        self.protocol.check()


PRESETS = {"default": Config()}
BATCH = 128
"""Images of a step of what the baselines train."""
STRIDED = "weight-selection-strided"
DISTILLED = ("wave", "tleg", "fine")
"""These share a teacher, and each its templates among the sizes: one job."""


def backbone(config: Config, method: str, big: ViTConfig, network: ViTConfig, seed: int) -> tuple[str, dict[str, Any]]:
    """The file that fine-tuning of `network` starts from, and what it cost; made from `big` unless it is there."""
    import weight_templates as wt

    depth, heads, run = network.depth, network.heads, RunOptions(root=config.root)
    if method == "sweet":
        return config.bank, {"size_flops": 0}
    if method == "sweet-adapted":
        made = adapt.main(adaptation(config.bank, config.pretraining, depth, heads, 200, config.root, seed))
        return str(made), {"size_flops": json.loads((made.parent / "summary.json").read_text())["cost"]["flops"]}
    images, optim = DataOptions(config.pretraining), OptimOptions(batch=BATCH, steps=config.steps, warmup=0.1)
    more: dict[str, Any] = {"mimetic": {"model": network}, "isomorphic-pruning": {"data": images}}.get(method, {})
    if method == "dmae":
        rate = wt.load_bank(config.source).about.get("base_lr", optim.base_lr)  # an auto-encoder's, as the source's
        more = {"data": images, "optim": dataclasses.replace(optim, base_lr=rate)}
    if method == "scratch":
        return method, {"size_flops": 0, "source_flops": 0, "transferred": 0}
    if method == STRIDED:  # as published; under rotary positions our default is another
        method, more = "weight-selection", {"select_heads": "strided"}
    base = baseline.method(method)
    if hasattr(base, "source"):
        more = more | {"source": config.nested if method == "hydravit" else config.source}
    if hasattr(base, "teacher"):
        supervised = dataclasses.replace(optim, base_lr=1e-3, betas=(0.9, 0.999))
        more = {"model": big, "data": images, "optim": supervised}
    made = baseline.main(dataclasses.replace(base, depth=depth, heads=heads, seed=seed, run=run, **more))
    return str(made), json.loads((made.parent / "summary.json").read_text())["cost"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method at one size; or methods whose sizes share what is trained once."""

    config: Config
    methods: tuple[str, ...]
    sizes: tuple[str, ...]

    @property
    def root(self) -> str:
        """Where its folder is."""
        return self.config.root


def jobs(config: Config, name: str = "methods") -> list[Job]:
    """The grid."""
    config.check()
    for path in (config.bank, config.source, *([config.nested] if config.nested else [])):
        identity(path, "give the path of a bank")
    methods = tuple(method for method in config.methods if config.nested or method != "hydravit")
    if methods != config.methods:
        cli.say("note: no row of HydraViT, which needs a bank of its own; see --nested.")
    shared = tuple(method for method in methods if method in DISTILLED)
    common = dataclasses.replace(config, methods=(), sizes=())
    cells = [Cell(common, (method,), (size,)) for size in config.sizes for method in methods if method not in shared]
    cells += [Cell(common, shared, config.sizes)] if shared else []
    return [
        Job("ablations.methods:cell", cell, "-".join((name, *cell.methods, *cell.sizes[: len(cell.sizes) == 1])))
        for cell in cells
    ]


def cell(cell: Cell) -> list[dict[str, Any]]:
    """Runs what has not been run; the records."""
    import weight_templates as wt
    from weight_templates import inherit, programs

    config = cell.config
    bank = wt.load_bank(config.bank)
    spent = check_banks(config.bank, config.source, config.nested)
    records = []
    if cell.methods == (STRIDED,) and bank.config.dress == "plain":
        cli.say("note: without rotary positions weight-selection takes strided channels already; no row of its own.")
        return []
    nested = {}
    if cell.methods == ("hydravit",):  # the records of the others are of one protocol with and without this bank
        nested["nested"] = wt.load_bank(config.nested).about | {"digest": identity(config.nested)}
    for size, method, seed in itertools.product(cell.sizes, cell.methods, config.protocol.seeds):
        depth, heads = size_of(size)
        network = bank.config.resized(depth, heads)
        start, cost = backbone(config, method, bank.config, network, seed)
        if method in DISTILLED and size == cell.sizes[0]:
            note_compute(f"teacher and templates of {method}", cost["source_flops"], spent, config.bank)
        if method.startswith("sweet"):
            cost |= {"source_flops": programs.flops_of(bank, config.bank)}
            cost |= {"transferred": inherit.inherited(bank.model.backbone, network)}
        for data in config.data:
            cli.say(f"{called(data)}: {method}, {depth} layers, {heads} heads, seed {seed}")
            run = tuned(config.protocol, start, "full", data, network, seed, config.root)
            told = {"cost": cost, "probe": probed(config.protocol, start, data, network, seed, config.root)}
            records.append(record(run, data, method, depth, heads, seed) | told | nested)
            if (method, data, seed) == ("sweet-adapted", config.data[0], config.protocol.seeds[0]):
                records[-1]["pictures"] = drawn(start, config.pretraining, heads)
    return records


@functools.cache
def check_banks(path: str, *others: str) -> float | None:
    """What pre-training a bank cost, in FLOPs, unless it is not known; raises UserError where another is no ordinary bank of the
    same network, and says so where that cost more than a tenth more or less."""
    import weight_templates as wt
    from weight_templates import programs

    for known in filter(None, (path, *others)):
        if not wt.is_bank(known):
            raise UserError(
                f"{known} is no bank; networks of others go through experiments/baseline.py and experiments/finetune.py, "
                "a size at a time."
            )
    bank = wt.load_bank(path)
    spent = programs.flops_of(bank, path)
    for other in filter(None, others):
        source = wt.load_bank(other)
        if bank.config != source.config:
            raise UserError(f"{path} and {other} are of different networks; pre-train both with the same --model.")
        if source.family != "none":
            raise UserError(f"{other} is a {source.family} bank; pre-train one with --constraint none.")
        note_compute(other, programs.flops_of(source, other), spent, path)
    return spent


def note_compute(what: str, own: float | None, spent: float | None, bank: str) -> None:
    """Says so where something cost more than a tenth more or less than the bank, or it is not known."""
    if not own or not spent:
        cli.say(f"note: whether {what} cost as much as {bank} is not known.")
    elif not 0.9 < own / spent < 1.1:
        cli.say(f"note: {what} cost {own / spent:.2f} of what {bank} cost; compute is not equal.")


def check(cell: Cell) -> None:
    """Raises UserError where there are not the images for a batch, or none with labels to fine-tune on, or to train a teacher
    on."""
    for source in cell.config.data:
        check_tuning(cell.config.protocol, source)
    check_banks(cell.config.bank, cell.config.source, cell.config.nested)
    distilled = bool({*cell.methods} & {*DISTILLED})
    batches = {"sweet-adapted": adapt.Config().optim.batch, "dmae": BATCH}
    batch = max(BATCH if method in DISTILLED else batches.get(method, 1) for method in cell.methods)
    check_images(cell.config.pretraining, batch, labelled=distilled)


def cost(cell: Cell) -> float:
    """FLOPs of the fine-tuning, and roughly of what `--steps` trains."""
    import weight_templates as wt

    config, seeds = wt.load_bank(cell.config.bank).config, len(cell.config.protocol.seeds)
    networks = [config.resized(*size_of(size)) for size in cell.sizes]
    tuning = len(cell.config.data) * sum(cell.config.protocol.flops(network) for network in networks)
    shown = 3 * BATCH * cell.config.steps
    steps = sum(shown * wt.count(network).flops for network in networks) if "dmae" in cell.methods else 0
    if cell.methods[0] in DISTILLED:  # a teacher, and each method's templates
        steps = (1 + len(cell.methods)) * shown * wt.count(config).flops
    return seeds * (len(cell.methods) * tuning + steps)


def collect(config: Config, jobs: list[Job], name: str = "methods", default: Config | None = None) -> None:
    """Writes records and page of what is done."""
    import weight_templates as wt

    bank, source = wt.load_bank(config.bank), wt.load_bank(config.source)
    words = f"BANK {' '.join(map(called, config.data))} --source SOURCE --pretraining {called(config.pretraining)}"
    words += " --nested NESTED" if config.nested else ""
    words += flags(config, default or Config(), ("methods", "sizes", "steps")) + flags(
        config.protocol, Protocol(), (field.name for field in dataclasses.fields(Protocol))
    )
    about = {
        "command": f"python ablations/{name}.py {words}",
        "bank": {"family": bank.family, **bank.about},
        "source": source.about,
        "digests": {name: identity(getattr(config, name)) for name in ("bank", "source")},
        "model": dataclasses.asdict(bank.config),
        "steps": config.steps,
        **dataclasses.asdict(config.protocol),
    }
    figures.main(keep(name, about, [record for job in jobs for record in job.result]))
