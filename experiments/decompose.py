"""Makes a bank of any model by a decomposition of its weights: templates without pre-training.

    python experiments/decompose.py MODEL --constraint tucker --tucker.ranks 24 384 384
    python experiments/decompose.py MODEL --constraint kronecker --steps 300 --data PATH

MODEL is any model that `experiments/finetune.py` takes: ours, timm's, MAE's, Hugging Face's; or a bank, whose weights are
multiplied out first. Leaves `bank.safetensors` in `runs/decompose/…`, and prints the relative error of every component and
how it falls with the ranks. `--steps` then fits the bank to the model's features, with width masks on, so that prefixes of
the width become models, too. Nobody's pre-training is repeated: all is done in seconds, and a fit in minutes.
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
    command("experiments.decompose")

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from weight_templates import cli
from weight_templates.config import (
    ConstraintOptions,
    DataOptions,
    Layout,
    OptimOptions,
    Precision,
    RunOptions,
    ScalingOptions,
    check_seed,
    to_json,
)
from weight_templates.errors import UserError
from weight_templates.files import identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Make a bank of any model by a decomposition of its weights."""

    model: tyro.conf.Positional[str] = ""
    """A model or a bank; see `experiments/finetune.py`."""
    heads: int | None = None
    """Heads of a model whose file does not record them."""
    constraint: ConstraintOptions = ConstraintOptions()
    layout: Layout = "unified"
    """unified: one template for all matrices. components: one for each kind of matrix."""
    discard: float | None = None
    """For tucker: choose the smallest ranks beyond which at most this share of the energy lies along each axis, in [0, 1)."""
    sweeps: int = 10
    """Most sweeps of an alternating fit of the factors; 0 keeps what it starts from (tucker: HOSVD)."""
    steps: int = 0
    """Steps of a fit to the model's features afterwards; 0: none."""
    data: DataOptions = DataOptions()
    scaling: ScalingOptions = ScalingOptions()
    optim: OptimOptions = OptimOptions(base_lr=1e-3, batch=128, steps=300)
    precision: Precision = "auto"
    """Precision of the forward and backward passes of the fit. auto: bfloat16 on a GPU, float32 on a CPU."""
    seed: int = 0
    """Seed of the fit."""
    run: RunOptions = RunOptions()


PRESETS = {"default": Config()}


def main(config: Config) -> Path:
    """Decomposes as `config` says, and fits if it says so, going on from the last checkpoint if there is one.

    **Returns:** the path of the bank. Raises UserError for a mistake in `config`, RunError if a loss stops being finite.
    """
    check_options(config)
    about = to_json(config) | {"model": identity(config.model, "give the path of one")}

    from weight_templates import bank, from_model, learning, pictures, programs, training
    from weight_templates.tasks.features import Features

    model, origin = read(config)
    backbone = getattr(model, "backbone", model)
    constraint = constraint_of(config, backbone)
    run = training.Run(
        "decompose", f"{config.constraint.family}-{Path(config.model).stem}", about, config.run, ("bank.safetensors",)
    )
    made = run.path / "bank.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made
    result = from_model.bank_of(model, constraint, config.layout, origin, sweeps=config.sweeps)
    report(result)
    by_rank = from_model.errors_by_rank(backbone, constraint, config.layout)
    for stack, found in by_rank.items():
        if found:
            told = ", ".join(f"{' '.join(map(str, ranks))}: {error:.4f}" for ranks, error in found.items())
            print(f"error by rank    {stack}: {told}")
    summary: dict[str, Any] = {"errors": result.about["errors"], "sizes": result.sizes, "flops": 0}
    summary["errors_by_rank"] = {
        stack: [[list(ranks), error] for ranks, error in found.items()] for stack, found in by_rank.items()
    }
    with run:
        if config.steps:
            settings = from_model.Fit(
                config.steps, config.data, config.scaling, config.optim, config.precision, config.seed
            )
            result, learned, images = from_model.fit(result, backbone, settings, run)
            task = Features()
            flops = programs.flops_of_image(task, backbone.config, learned.scaling) + task.flops(backbone.config)
            flops = round(flops * learned.steps * config.optim.batch)
            result = dataclasses.replace(result, about=result.about | {"flops": flops})
            shown = {
                n: learning.at_width(learned.last, "float32", n) for n in pictures.widths_to_show(backbone.config.heads)
            }
            distances = {n: task.evaluate(pair, images.held_out)["distance"] for n, pair in shown.items()}
            summary |= {"steps": learned.steps, "flops": flops, "held_out_distance": distances}
            if training.leads():
                columns = {pictures.title_of(n): pair for n, pair in shown.items()} | {"the model": backbone}
                programs.draw(
                    run, task, columns, images, f"{config.constraint.family} fitted to {Path(config.model).stem}"
                )
            print("distance of features at " + ", ".join(f"{n} heads {d:.3f}" for n, d in distances.items()))
        if training.leads():
            bank.save_bank(made, result)
        run.finish(**summary)
    cli.say(
        f"bank             {made}\nnext             python experiments/initialize.py {made} --depth 6 --heads 6 --out vit.safetensors"
    )
    return made


def read(config: Config) -> tuple[Any, dict[str, Any]]:
    """The plain model, and where it is from; raises UserError where it cannot be read."""
    import weight_templates as wt
    from weight_templates import learning

    if wt.is_bank(config.model):
        found = wt.load_bank(config.model)
        return learning.at_width(found.model, "float32"), {"bank": found.about}
    loaded = wt.load_model(config.model, heads=config.heads)
    return loaded.model, loaded.about


def constraint_of(config: Config, backbone: Any) -> Any:
    """The constraint that is asked for; raises UserError where its options do not go together."""
    from weight_templates import constraints, decompose, sites

    if config.discard is None:
        return constraints.constraint_of(config.constraint)
    if config.constraint.family != "tucker" or config.constraint.tucker.ranks is not None:
        raise UserError(
            "--discard chooses the ranks of tucker; leave it out, or --tucker.ranks, or say --constraint tucker."
        )
    where = sites.stacks(backbone.config, config.layout)
    if len(where) > 1:
        raise UserError("--discard is for a single stack; say --layout unified, or give --tucker.ranks.")
    ranks = decompose.ranks_by_energy(where[0].fold(sites.governed(backbone)), config.discard)
    cli.say(f"ranks            {' '.join(map(str, ranks))}")
    return constraints.Tucker(ranks)


def report(made: Any) -> None:
    """Prints the errors by component, and the numbers that stand for the weights."""
    sizes, errors = made.sizes, made.about["errors"]
    print("relative error   " + ", ".join(f"{name} {error:.4f}" for name, error in errors.items()))
    print(f"template {sizes['template']:,} numbers, scalers {sizes['scalers']:,}, free {sizes['free']:,}")


def check_options(config: Config) -> None:
    """Raises UserError for what can be refused without JAX."""
    if not config.model:
        raise UserError("no model was given; say `python experiments/decompose.py PATH/TO/model.safetensors`.")
    config.constraint.check()
    config.optim.check()
    config.run.check()
    check_seed(config.seed)
    if config.steps < 0 or config.sweeps < 0:
        raise UserError(f"--steps {config.steps} or --sweeps {config.sweeps} is negative.")
    if config.discard is not None and not 0 <= config.discard < 1:
        raise UserError(f"--discard {config.discard} is not in [0, 1).")
    if not config.steps and config.data != DataOptions():
        raise UserError(
            "--data was given, but without --steps no image is looked at; leave it out, or say --steps 300."
        )


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there is no model, or there are not the images for a batch."""
    check_options(config)
    from weight_templates import programs
    from weight_templates.tasks.features import Features

    model, _ = read(config)
    if config.steps:
        programs.check_images(Features(), config, getattr(model, "backbone", model).config)
