"""Templates by decomposition: what an ordinary network's factors know of its own sizes, against weight selection.

Counterpart of: nothing in the paper. It is the strongest simple competitor of pre-training under a constraint, and costs no
pre-training beyond the source's.
Command: python ablations/decomposition.py SOURCE PATH/TO/cifar10 --fit PATH/TO/cifar10
Cost: a probe for each row, size and seed, and `--steps` of fitting for each seed; with the defaults about half an hour on two
CPU cores for a source of 6 layers.
Expected: at the source's own size `decomposed` loses little at high ranks; at cut sizes it is weight selection's equal at best,
since a prefix of an ordinary network was never trained; `fitted` is above both.

SOURCE is a bank of `experiments/pretrain.py --constraint none`, or any model. A row is scored by a linear probe on frozen
features (`experiments/finetune.py --mode probe`), so that what is measured is what initialisation gives. Writes
`results/decomposition.json`, the records, and from them, through `figures/decomposition.py`, the page in `docs/results`.
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
    command("ablations.decomposition")

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro
from figures import decomposition as figures
from figures.records import keep

from ablations.protocol import (
    Protocol,
    called,
    check_distinct,
    check_images,
    check_positive,
    check_tuning,
    configuration,
    flags,
    record,
    size_of,
)
from experiments import baseline, decompose, finetune
from weight_templates import cli
from weight_templates.config import ConstraintOptions, DataOptions, Family, OptimOptions, RunOptions, ScalingOptions
from weight_templates.errors import UserError
from weight_templates.files import identity
from weight_templates.jobs import Job


@dataclasses.dataclass(frozen=True)
class Config:
    """Probe sizes that a model's weights are decomposed, selected and fitted to."""

    source: tyro.conf.Positional[str] = ""
    """A bank pre-trained under `none`, or any model."""
    data: tyro.conf.Positional[str] = ""
    """Labelled data to probe on."""
    fit: str = ""
    """Images to fit decomposed banks on; default no such rows."""
    steps: int = 300
    """Steps of a fit, in batches of 128."""
    families: tuple[Family, ...] = ("tucker", "kronecker")
    """Families to decompose by, at their default ranks."""
    sizes: tuple[str, ...] = ("L6H12", "L6H6", "L3H12", "L3H6", "L6H3")
    """Layers and heads; at the source's own size nothing is cut."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = Protocol()
    root: str = "runs"
    """Folder of all runs."""


PRESETS = {"default": Config()}
BATCH = 128
"""Images of a step of a fit."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row, at all sizes and seeds."""

    config: Config
    arm: str
    family: Family | None

    @property
    def root(self) -> str:
        """Where its folder is."""
        return self.config.root


def jobs(config: Config) -> list[Job]:
    """The grid, a job for each row."""
    if not (config.source and config.data):
        raise UserError("give a source and data; say `python ablations/decomposition.py SOURCE PATH/TO/cifar10`.")
    identity(config.source, "give the path of a bank or model")
    config.protocol.check()
    check_positive(config, "steps")
    for flag in ("families", "sizes"):
        check_distinct(f"--{flag}", getattr(config, flag))
    for size in config.sizes:
        size_of(size)
    rows: list[tuple[str, Family | None]] = [("scratch", None), ("weight-selection", None)]
    for family in config.families:
        rows += [(f"decomposed, {family}", family)] + ([(f"fitted, {family}", family)] if config.fit else [])
    return [
        Job("ablations.decomposition:cell", Cell(config, arm, family), f"decomposition-{arm}".replace(", ", "-"))
        for arm, family in rows
    ]


def bank_of(cell: Cell, seed: int) -> Path:
    """The bank that the source is decomposed to, fitted if the row says so; made unless it is there."""
    config, fitted = cell.config, cell.arm.startswith("fitted")
    assert cell.family
    base = decompose.Config(model=config.source, constraint=ConstraintOptions(cell.family))
    base = dataclasses.replace(base, run=RunOptions(root=config.root))
    if not fitted:
        return decompose.main(base)
    optim = OptimOptions(base_lr=2e-3, batch=BATCH, steps=config.steps)
    scaling = ScalingOptions(heads=(3, 6, 9, 12), coupled=True)
    return decompose.main(
        dataclasses.replace(
            base, steps=config.steps, data=DataOptions(config.fit), optim=optim, scaling=scaling, seed=seed
        )
    )


def cell(cell: Cell) -> list[dict[str, Any]]:
    """Runs what has not been run of a row; its records."""
    config, records = cell.config, []
    source = network_of(config.source)
    for seed in config.protocol.seeds:
        bank = None if cell.family is None else bank_of(cell, seed)
        told = json.loads((bank.parent / "summary.json").read_text()) if bank else {"errors": None, "flops": 0}
        for size in config.sizes:
            depth, heads = size_of(size)
            cli.say(f"{cell.arm}, seed {seed}: {depth} layers, {heads} heads")
            start = str(bank) if bank else cell.arm
            if cell.arm == "weight-selection":
                options = {"source": config.source, "depth": depth, "heads": heads, "run": RunOptions(root=config.root)}
                start = str(baseline.main(baseline.method(cell.arm, **options)))
            network = source.resized(depth, heads)
            asked = configuration(config.protocol, start, "probe", config.data, network, seed, config.root, 1e-3)
            run = finetune.main(asked).parent
            more = {"errors": told["errors"], "fit_flops": told["flops"]}
            records.append(record(run, config.data, cell.arm, depth, heads, seed) | more)
    return records


def network_of(source: str) -> Any:
    """The configuration of the source."""
    import weight_templates as wt

    if wt.is_bank(source):
        return wt.load_bank(source).config
    model = wt.load_model(source).model
    return getattr(model, "backbone", model).config


def check(cell: Cell) -> None:
    """Raises UserError where there are not the images for a batch, or none with labels to probe on."""
    check_tuning(cell.config.protocol, cell.config.data)
    if cell.arm.startswith("fitted"):
        check_images(cell.config.fit, BATCH)


def collect(config: Config, jobs: list[Job]) -> None:
    """Writes records and page of what is done."""
    words = f"SOURCE {called(config.data)}" + (f" --fit {called(config.fit)}" if config.fit else "")
    words += flags(config, Config(), ("steps", "families", "sizes"))
    words += flags(config.protocol, Protocol(), (field.name for field in dataclasses.fields(Protocol)))
    about = {
        "command": f"python ablations/decomposition.py {words}",
        "source": source_about(config.source),
        "digests": {"source": identity(config.source)},
        "model": dataclasses.asdict(network_of(config.source)),
        "steps": config.steps if config.fit else 0,
        **dataclasses.asdict(config.protocol),
    }
    figures.main(keep("decomposition", about, [one for job in jobs for one in job.result]))


def source_about(source: str) -> dict[str, Any]:
    """What the source says of itself."""
    import weight_templates as wt

    return wt.load_bank(source).about if wt.is_bank(source) else wt.load_model(source).about
