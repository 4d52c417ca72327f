"""Trains a classifier from a bank, an exported model or scratch: full fine-tuning, or a linear probe.

    python experiments/finetune.py BANK --depth 6 --heads 6 --data cifar10:FOLDER
    python experiments/finetune.py vit.safetensors --data PATH --mode probe
    python experiments/finetune.py scratch --depth 6 --heads 6 --data PATH

`--data` is a folder of images, one folder a class, or whatever `experiments/pretrain.py` takes, or one of the seven sets
of SWEET's Table 3 by name: flowers102, cub200, cars196, cifar10, cifar100, food101, inat2019. A tenth of the training
images is held out and chooses the best epoch; the test split is looked at once, at the end, and chooses
nothing. The same command goes on where it was stopped or killed.

Two choices are ours. The probe's features are computed once, on images as they are evaluated, and standardised by their
statistics over the training images; MAE's probe crops and flips, and learns with LARS, which is made for batches of
16 thousand. The learning rate ends at 0, not at 1e-6.
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
    command("experiments.finetune")

import dataclasses
from pathlib import Path
from typing import Any, Literal

from weight_templates import cli
from weight_templates.config import FINE, PROBE, Finetuning, RecipeOptions, RunOptions, ViTConfig, to_json
from weight_templates.errors import UserError
from weight_templates.files import identity


@dataclasses.dataclass(frozen=True)
class Config(Finetuning):
    """Train a plain model for a task, from a bank, an exported model or scratch."""

    preset: Literal["tiny", "small", "deit", "mae"] = "tiny"
    """Where all other values start from. tiny: minutes on a laptop. small: 30 epochs for networks up to ViT-B in small.
    deit: 30 epochs after initialisation on ImageNet (SWEET §4), with DeiT's recipe. mae: MAE's recipe for ViT-B."""
    run: RunOptions = RunOptions()


PRESETS = {
    "tiny": Config(),
    "small": Config(
        preset="small",
        model=ViTConfig(depth=12, head_dim=16),
        recipe=RecipeOptions(drop_path=0.05, mixup=0.2, randaugment=5.0),
        optim=dataclasses.replace(FINE, base_lr=5e-4, batch=256, epochs=30, warmup=1 / 6),
    ),
    "deit": Config(
        preset="deit",
        model=ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64),
        recipe=RecipeOptions(
            drop_path=0.05, crop=0.08, randaugment=9.0, erasing=0.25, mixup=0.8, cutmix=1.0, smoothing=0.1
        ),
        optim=dataclasses.replace(FINE, base_lr=2.5e-4, batch=1024, epochs=30, warmup=1 / 6),
        run=RunOptions(log_every=100, save_every=1000),
    ),
    "mae": Config(
        preset="mae",
        model=ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64, dress="plain"),
        recipe=RecipeOptions(
            layer_decay=0.65, drop_path=0.1, crop=0.08, randaugment=9.0, erasing=0.25, mixup=0.8, cutmix=1.0
        ),
        optim=dataclasses.replace(FINE, base_lr=5e-4, batch=1024, epochs=100, warmup=0.05),
        run=RunOptions(log_every=100, save_every=1000),
    ),
}


def main(config: Config) -> Path:
    """Trains as `config` says, going on from the last checkpoint if there is one.

    **Returns:** the path of the classifier, of the best epoch. Raises UserError for a mistake in `config`, RunError if
    the loss stops being finite.
    """
    if config.mode == "probe":
        if config.head == "probe":
            raise UserError(
                "--head probe is for --mode full, whose head begins as a probe's; leave one of the two out."
            )
        if config.recipe != PRESETS[config.preset].recipe:
            raise UserError("--recipe.* was given, but a probe takes no recipe; drop it, or say --mode full.")
        if config.optim == PRESETS[config.preset].optim:
            config = dataclasses.replace(config, optim=PROBE)
        config = dataclasses.replace(config, recipe=RecipeOptions())
    check_options(config)
    about = to_json(config) | {"start": "scratch" if config.start == "scratch" else identity(config.start)}

    from weight_templates import convert, programs, training

    backbone, origin = backbone_of(config)
    size = backbone.config
    name = f"{config.mode}-{origin}-L{size.depth}H{size.heads}-{Path(config.data.source).name}"
    run = training.Run("finetune", name.replace(":", "-"), about, config.run, ("model.safetensors",))
    made = run.path / "model.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made
    head = convert.load_model(main(probe_of(config))).model if config.head == "probe" else None
    _, summary = programs.finetune(config, run, backbone, origin, head=head)
    run.finish(**summary)
    report(summary)
    cli.say(f"model            {made}")
    return made


def check_options(config: Config) -> None:
    """Raises UserError where a number is out of range."""
    config.check()
    config.run.check()


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there are not the images for a batch."""
    check_options(config)
    from weight_templates import programs, tasks

    task = tasks.task_of(config.task, recipe=config.recipe, pool=config.pool)
    programs.check_images(task, config, backbone_of(config)[0].config)


def cost(config: Config) -> float:
    """FLOPs of the run, a probe's head left out; raises UserError where there are no images, or no network."""
    from weight_templates import data, programs, tasks

    network = backbone_of(config)[0].config
    images = len(data.open_source(config.data, network.image, config.seed))
    task = tasks.task_of(config.task, recipe=config.recipe, pool=config.pool)
    return programs.flops_of_tuning(config, task, network, int(0.9 * images) // config.optim.batch)


def probe_of(config: Config) -> Config:
    """The linear probe that full fine-tuning has its head from."""
    probe = config.probing(PRESETS[config.preset])
    return dataclasses.replace(probe, run=dataclasses.replace(config.run, out=None))  # pyright: ignore[reportReturnType]


def report(summary: dict[str, Any]) -> None:
    """Prints what a finished run came to."""
    for what in ("held_out", "test"):
        if summary[what] is None:
            cli.say("test             the data have no test split; nothing was tested")
        else:
            s = summary[what]
            print(f"{what:9s}  top-1 {100 * s['top1']:.2f} %  top-5 {100 * s['top5']:.2f} %  of {s['images']} images")


def backbone_of(config: Config) -> tuple[Any, str]:
    """The plain backbone to start from, at the size and resolution asked for, and one word for where it comes from.

    Raises UserError where `start` is nothing that can be read, or does not go with the other options.
    """
    import jax.random as jr

    import weight_templates as wt
    from weight_templates import convert, inherit
    from weight_templates.models import AbstractBackbone

    if config.start == "scratch":
        shape = inherit.target_size(config.model, config.depth, config.heads)
        shape = shape if config.image is None else dataclasses.replace(shape, image=config.image)
        return shape.create(key=jr.fold_in(jr.key(config.seed), 0x766974)), "scratch"
    if config.model != PRESETS[config.preset].model:
        raise UserError("--model.* describes a network from scratch, but a start was given; use --depth and --heads.")
    if wt.is_bank(config.start):
        vit = wt.initialize(wt.load_bank(config.start), config.depth, config.heads, config.layers)
        origin = "bank"
    else:
        if config.depth is not None:
            raise UserError("--depth is for banks; a model has the depth it has.")
        loaded = wt.load_model(config.start, heads=config.heads).model
        vit = loaded if isinstance(loaded, AbstractBackbone) else loaded.backbone
        origin = "model"
    if config.image is not None:
        vit = convert.at_resolution(vit, config.image)
    return vit, origin
