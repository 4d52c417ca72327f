"""Any size from one bank: a grid of sizes, initialised against scratch at an equal budget, and zero-shot linear probes.

Counterpart of: SWEET's claims of faster convergence, and its Figure 4, in small; the paper's networks are for ImageNet at
224 px, so no number of theirs compares directly.
Command: python ablations/sizes.py BANK PATH/TO/cifar10 PATH/TO/tiny-imagenet
Cost: about two hours on two CPU cores with the defaults and a bank of `--preset small`, 12 x 12 of 16 channels.
Expected: initialised above scratch at every size, and from the first epoch on; adapted above zero-shot where a size is far
from the bank's.

A probe and full fine-tuning by `experiments/finetune.py` for each size, data set and start: a random network, one
initialised zero-shot, and with `--adapt PATH` one whose scalers `experiments/adapt.py` has learned on those images (one
adaptation a size, for all data). All have the same images, order, recipe and learning rate, and by default a head that a
probe found first: within a budget of some hundred steps a new head learns less than a probe knows, and spoils the
features meanwhile. Runs that are finished are not run again.

Writes `results/sizes.json`, the records, and from them, through `figures/sizes.py`, the tables and figures in
`docs/results`.
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
    command("ablations.sizes")

import dataclasses
import itertools
from typing import Annotated, Any

import tyro
from figures import sizes as figures
from figures.records import keep

from ablations.protocol import (
    Protocol,
    adaptation,
    called,
    check_distinct,
    check_images,
    check_positive,
    check_sources_distinct,
    check_tuning,
    drawn,
    flags,
    record,
    size_of,
    tuned,
)
from experiments import adapt
from weight_templates import cli
from weight_templates.errors import UserError
from weight_templates.files import identity
from weight_templates.jobs import Job


ARMS = {
    "probe of a random network": ("scratch", "probe"),
    "zero-shot probe": ("bank", "probe"),
    "adapted probe": ("adapted", "probe"),
    "scratch": ("scratch", "full"),
    "initialised": ("bank", "full"),
    "adapted": ("adapted", "full"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Fine-tune a grid of sizes from one bank, and from scratch, at an equal budget."""

    bank: tyro.conf.Positional[str] = ""
    """A bank.safetensors that pre-training wrote."""
    data: tyro.conf.Positional[tuple[str, ...]] = ()
    """Labelled data sources."""
    adapt: str = ""
    """Images for `experiments/adapt.py` to learn every size's scalers on; default no adaptation."""
    adapt_steps: int = 200
    """Steps of adaptation."""
    depths: tuple[int, ...] = (3, 6, 12)
    """Layers."""
    heads: tuple[int, ...] = (3, 6, 12)
    """Heads."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = Protocol()
    root: str = "runs"
    """Folder of all runs."""


PRESETS = {"default": Config()}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One size: all arms, data and seeds, since they share its adaptation."""

    bank: str
    data: tuple[str, ...]
    adapt: str
    adapt_steps: int
    depth: int
    heads: int
    protocol: Protocol
    root: str


def jobs(config: Config) -> list[Job]:
    """The grid, a job for each size, the smallest first."""
    if not config.bank or not config.data:
        raise UserError(
            "give a bank and data; say `python ablations/sizes.py PATH/TO/bank.safetensors PATH/TO/cifar10`."
        )
    identity(config.bank)
    config.protocol.check()
    check_positive(config, "adapt_steps")
    check_sources_distinct("--data", config.data)
    for flag in ("depths", "heads"):
        check_distinct(f"--{flag}", getattr(config, flag))
    for depth, heads in itertools.product(config.depths, config.heads):
        size_of(f"L{depth}H{heads}")
    grid = sorted(itertools.product(sorted(config.depths), sorted(config.heads)), key=lambda s: s[0] * s[1] ** 2)
    shared = (config.bank, config.data, config.adapt, config.adapt_steps)
    return [
        Job(
            "ablations.sizes:cell", Cell(*shared, depth, heads, config.protocol, config.root), f"sizes-L{depth}H{heads}"
        )
        for depth, heads in grid
    ]


def cell(cell: Cell) -> list[dict[str, Any]]:
    """Runs what has not been run of a size; its records."""
    import weight_templates as wt

    network = wt.load_bank(cell.bank).config.resized(cell.depth, cell.heads)
    adapted = {}
    for seed in cell.protocol.seeds if cell.adapt else ():
        cli.say(f"adapting to {cell.depth} layers, {cell.heads} heads, seed {seed}")
        asked = adaptation(cell.bank, cell.adapt, cell.depth, cell.heads, cell.adapt_steps, cell.root, seed)
        adapted[seed] = str(adapt.main(asked))
    records = []
    for source, (arm, (start, mode)), seed in itertools.product(cell.data, ARMS.items(), cell.protocol.seeds):
        starts = {"scratch": "scratch", "bank": cell.bank} | ({"adapted": adapted[seed]} if cell.adapt else {})
        if start in starts:
            cli.say(f"{called(source)}: {arm}, {cell.depth} layers, {cell.heads} heads, seed {seed}")
            run = tuned(cell.protocol, starts[start], mode, source, network, seed, cell.root)
            records.append(record(run, source, arm, cell.depth, cell.heads, seed))
            if (arm, source, seed) == (
                "adapted",
                cell.data[0],
                cell.protocol.seeds[0],
            ):  # one figure, whatever the runs
                records[-1]["pictures"] = drawn(starts[start], cell.adapt, cell.heads)
    return records


def check(cell: Cell) -> None:
    """Raises UserError where there are not the images for a batch, or none with labels to fine-tune on."""
    for source in cell.data:
        check_tuning(cell.protocol, source)
    if cell.adapt:
        check_images(cell.adapt, adapt.Config().optim.batch)


def cost(cell: Cell) -> float:
    """FLOPs of the fine-tuning; probes and adaptation cost little beside it."""
    import weight_templates as wt

    network = wt.load_bank(cell.bank).config.resized(cell.depth, cell.heads)
    arms = sum(mode == "full" and (start != "adapted" or bool(cell.adapt)) for start, mode in ARMS.values())
    return arms * len(cell.data) * len(cell.protocol.seeds) * cell.protocol.flops(network)


def collect(config: Config, jobs: list[Job]) -> None:
    """Writes records, tables and figures of the sizes that are done."""
    import weight_templates as wt

    bank = wt.load_bank(config.bank)
    words = f"BANK {' '.join(map(called, config.data))}"
    if config.adapt:
        words += f" --adapt {called(config.adapt)}"
    words += flags(config, Config(), ("adapt_steps", "depths", "heads"))
    words += flags(config.protocol, Protocol(), (field.name for field in dataclasses.fields(Protocol)))
    about = {
        "command": f"python ablations/sizes.py {words}",
        "bank": {"family": bank.family, "model": dataclasses.asdict(bank.config), **bank.about},
        "digests": {"bank": identity(config.bank)},
        "adaptation": config.adapt
        and {"data": called(config.adapt), "steps": config.adapt_steps, "batch": adapt.Config().optim.batch},
        **dataclasses.asdict(config.protocol),
    }
    figures.main(keep("sizes", about, [record for job in jobs for record in job.result]))
