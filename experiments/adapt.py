"""Adapts a bank to another size: its scalers learn, its template stays as it is (SWEET §3.4, Eq. 9).

    python experiments/adapt.py BANK --depth 3 --heads 3 --data PATH

trains the scalers of a network of 3 layers and 3 heads for 200 steps on the masked auto-encoder's loss, without width
masks, and leaves in `runs/adapt/…` the bank of that size, the plain model, and what it cost next to pre-training.
Zero-shot initialisation (`experiments/initialize.py`) needs no such thing; the paper adapts for sizes far from the
source's. The decoder is the bank's. The same command goes on where it was stopped or killed.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments import pretrain
from weight_templates import cli, launch
from weight_templates.config import (
    DataOptions,
    OptimOptions,
    RunOptions,
    ScalingOptions,
    ViTConfig,
    check_seed,
    to_json,
)
from weight_templates.errors import UserError
from weight_templates.files import digest_of_file


@dataclasses.dataclass(frozen=True)
class Config:
    """Adapt a bank to another size: train its scalers, with the template frozen."""

    bank: tyro.conf.Positional[str] = ""
    """A bank.safetensors that pre-training wrote."""
    depth: int | None = None
    """Layers; default the bank's."""
    heads: int | None = None
    """Heads, and with them the width; default the bank's."""
    rows: Literal["first", "uniform", "interpolate"] = "first"
    """Which layers of the bank the inherited scalers are those of."""
    scalers: Literal["inherited", "random"] = "inherited"
    """Where the scalers start."""
    also: tuple[Literal["free", "decoder"], ...] = ()
    """What else is trained: the backbone's free leaves (norms, biases, embeddings), the decoder."""
    layout: Literal["unified", "components"] | None = None
    """Refuse a bank of another layout."""
    data: DataOptions = DataOptions()
    optim: OptimOptions = OptimOptions(base_lr=2e-3, batch=128, steps=200)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always float32."""
    seed: int = 0
    """Of random scalers, order, augmentation and masks."""
    run: RunOptions = RunOptions()


PRESETS = {"default": Config()}


def main(config: Config) -> Path:
    """Adapts as `config` says, going on from the last checkpoint if there is one.

    **Returns:** the path of the adapted bank. Raises UserError for a mistake in `config`, RunError if the loss stops
    being finite.
    """
    bank, target = sized(config)
    import equinox as eqx

    import weight_templates as wt
    from weight_templates import convert, inherit, training, trees

    about = to_json(config) | {"bank": digest_of_file(Path(config.bank))}
    name = f"{bank.family}-L{target.depth}H{target.heads}-{Path(config.data.source).name}".replace(":", "-")
    run = training.Run("adapt", name, about, config.run)
    made = run.path / "bank.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made

    def initial(key):
        model = inherit.adaptable(bank, config.depth, config.heads, config.rows)
        if config.scalers == "random":
            model = eqx.tree_at(lambda m: m.encoder, model, inherit.redraw(model.encoder, key=key))
        return model

    def adapted(model, about):
        about = {"pretraining": bank.about, "scalers": config.scalers, "rows": config.rows} | about
        return wt.Bank(model, bank.family, about, source=bank.source or bank.config)

    result, learned = pretrain.learn(
        config, run, initial, adapted, ScalingOptions(scope="off"), lambda m: inherit.scalers_of(m, config.also)
    )
    if training.leads():
        vit = eqx.filter_jit(wt.expand)(result.model.encoder)
        convert.save_model(run.path / "model.safetensors", vit, result.about)
    trained = eqx.filter(result.model, inherit.scalers_of(result.model, config.also))
    flops, before = result.about["flops"], pretrain.flops_of(bank, config.bank)
    cost = {"trained": trees.count(trained), "flops": flops, "of_pretraining": before and flops / before}
    run.finish(**learned, cost=cost)
    share = "unknown" if cost["of_pretraining"] is None else f"{100 * cost['of_pretraining']:.2g} %"
    print(
        f"trained {cost['trained']:,} numbers of {trees.count(result.model.encoder):,} in {learned['steps']} steps, "
        f"{flops:.3g} FLOPs; of the cost of pre-training: {share}"
    )
    cli.say(
        f"model            {run.path / 'model.safetensors'}\nnext             python experiments/finetune.py {made}"
    )
    return made


def check_options(config: Config) -> None:
    """Raises UserError for what can be refused without JAX."""
    if not config.bank:
        raise UserError("no bank was given; say `python experiments/adapt.py PATH/TO/bank.safetensors --depth 3`.")
    config.optim.check()
    config.run.check()
    check_seed(config.seed)


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there is no bank or there are no images."""
    from weight_templates import data

    check_options(config)
    digest_of_file(Path(config.bank))
    data.open_source(config.data, 32, config.seed)


def sized(config: Config) -> tuple[Any, ViTConfig]:
    """The bank, and the network that it is adapted to; raises UserError for a mistake in `config`."""
    check_options(config)

    import weight_templates as wt
    from weight_templates import inherit

    bank = wt.load_bank(config.bank, config.layout)
    if bank.model.encoder.constraint.fixed:
        raise UserError(
            f"the mixtures of {config.bank} follow from the depth, so there are no scalers to learn; use "
            "experiments/initialize.py."
        )
    return bank, inherit.target_size(bank.config, config.depth, config.heads)


def cost(config: Config) -> float:
    """FLOPs of the run, if it says its steps; raises UserError for a mistake in `config`."""
    from weight_templates.counting import count_mae

    bank, target = sized(config)
    return 3 * count_mae(target, bank.model.config) * (config.optim.steps or float("nan")) * config.optim.batch


if __name__ == "__main__":
    launch.command("experiments.adapt")
