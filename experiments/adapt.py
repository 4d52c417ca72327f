"""Adapts a bank to another size: its scalers learn, its template stays as it is (SWEET §3.4, Eq. 9).

    python experiments/adapt.py BANK --depth 3 --heads 3 --data PATH

trains the scalers of a network of 3 layers and 3 heads for 200 steps on the task of the bank's pre-training, without
width masks, and leaves in `runs/adapt/…` the bank of that size, the plain model, and what it cost next to pre-training.
Zero-shot initialisation (`experiments/initialize.py`) needs no such thing; the paper adapts for sizes far from the
source's. The head, such as the decoder, is the bank's. The same command goes on where it was stopped or killed.
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
    command("experiments.adapt")

import dataclasses
from pathlib import Path
from typing import Any

from weight_templates import cli
from weight_templates.config import Adaptation, RunOptions, to_json
from weight_templates.errors import UserError
from weight_templates.files import digest_of_file


@dataclasses.dataclass(frozen=True)
class Config(Adaptation):
    """Adapt a bank to another size: train its scalers, with the template frozen."""

    run: RunOptions = RunOptions()


PRESETS = {"default": Config()}


def main(config: Config) -> Path:
    """Adapts as `config` says, going on from the last checkpoint if there is one.

    **Returns:** the path of the adapted bank. Raises UserError for a mistake in `config`, RunError if the loss stops
    being finite.
    """
    bank, target = sized(config)
    from weight_templates import programs, training, trees

    about = to_json(config) | {"bank": digest_of_file(Path(config.bank))}
    name = f"{bank.family}-L{target.depth}H{target.heads}-{Path(config.data.source).name}".replace(":", "-")
    run = training.Run("adapt", name, about, config.run, ("bank.safetensors", "model.safetensors"))
    made = run.path / "bank.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made
    result, summary = programs.adapt(config, run, bank, cost=programs.flops_of(bank, config.bank))
    run.finish(**summary)
    cost = summary["cost"]
    share = "unknown" if cost["of_pretraining"] is None else f"{100 * cost['of_pretraining']:.2g} %"
    print(
        f"trained {cost['trained']:,} numbers of {trees.count(result.model):,} in {summary['steps']} steps, "
        f"{cost['flops']:.3g} FLOPs; of the cost of pre-training: {share}"
    )
    cli.say(
        f"model            {run.path / 'model.safetensors'}\n"
        f"next             python experiments/finetune.py {made} --data {config.data.source}"
    )
    return made


def check_options(config: Config) -> None:
    """Raises UserError for what can be refused without JAX."""
    if not config.bank:
        raise UserError("no bank was given; say `python experiments/adapt.py PATH/TO/bank.safetensors --depth 3`.")
    config.check()
    config.run.check()


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there is no bank or there are not the images for a batch."""
    bank, target = sized(config)
    from weight_templates import programs

    programs.check_images(programs.bank_task(bank, config), config, target)


def sized(config: Config) -> tuple[Any, Any]:
    """The bank, and the network that it is adapted to; raises UserError for a mistake in `config`."""
    check_options(config)

    import weight_templates as wt
    from weight_templates import inherit, programs

    bank = wt.load_bank(config.bank, config.layout)
    programs.check_adaptable(bank, config.bank)
    return bank, inherit.target_size(bank.config, config.depth, config.heads)


def cost(config: Config) -> float:
    """FLOPs of the run, if it says its steps; raises UserError for a mistake in `config`."""
    bank, target = sized(config)
    from weight_templates import programs

    image = programs.flops_of_image(programs.bank_task(bank, config), target)
    return image * (config.optim.steps or float("nan")) * config.optim.batch
