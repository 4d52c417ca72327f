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

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from weight_templates import cli, launch
from weight_templates.config import (
    DataOptions,
    OptimOptions,
    RecipeOptions,
    RunOptions,
    ViTConfig,
    check_seed,
    to_json,
)
from weight_templates.errors import UserError
from weight_templates.files import digest_of_file, expanded


FINE = OptimOptions(base_lr=1e-3, batch=128, epochs=10, betas=(0.9, 0.999))


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a classifier from a bank, an exported model or scratch."""

    start: tyro.conf.Positional[str] = "scratch"
    """A bank.safetensors; a model, ours or of timm or Hugging Face, .safetensors or .pth; or `scratch`."""
    preset: Literal["tiny", "small", "deit", "mae"] = "tiny"
    """Where all other values start from. tiny: minutes on a laptop. small: 30 epochs for networks up to ViT-B in small.
    deit: 30 epochs after initialisation on ImageNet (SWEET §4), with DeiT's recipe. mae: MAE's recipe for ViT-B."""
    mode: Literal["full", "probe"] = "full"
    """full: all weights are trained. probe: a linear head on frozen features; takes no recipe."""
    depth: int | None = None
    """Layers to initialise from a bank, or of a new network; default the bank's, or --model.depth."""
    heads: int | None = None
    """Heads likewise, and with them the width. For a model without that note: its number of heads."""
    rows: Literal["first", "uniform", "interpolate"] = "first"
    """Which layers of a bank the layers are made of."""
    image: int | None = None
    """Side of the input, pixels; default what the bank or model was trained for."""
    model: ViTConfig = ViTConfig(depth=6, head_dim=8)
    """The network, from scratch."""
    data: DataOptions = DataOptions()
    test: str | None = None
    """Split to report on at the end; default the first of test, val, validation that the data have."""
    pool: Literal["mean", "cls"] = "mean"
    """What the head sees: the mean over patches, as in MAE, or the class token, as in DeiT."""
    head: Literal["new", "probe"] = "new"
    """Where full fine-tuning has its head from. new: next to zero. probe: from a linear probe, trained first on the same
    images, so that the features are not spoilt before the head knows what to ask of them (Kumar et al., 2022)."""
    recipe: RecipeOptions = RecipeOptions()
    optim: OptimOptions = FINE
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always float32."""
    seed: int = 0
    """Of initialisation, held-out images, order and augmentation."""
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
PROBE = OptimOptions(base_lr=4e-3, batch=256, epochs=50, weight_decay=0.0, betas=(0.9, 0.999))
"""A probe's optimiser where none is given: the problem is convex and its steps are cheap."""


class Images(NamedTuple):
    """What is learned from and judged by."""

    train: Any
    """`data.Loaded`."""
    split: Any
    """`data.Split`: which of them are held out."""
    labels: Any
    """Of the training images but the held-out ones."""
    held_out: Any
    """`data.Views`."""
    held_out_labels: Any
    test: Any
    """`data.Views`, or None."""
    test_labels: Any
    classes: tuple[str, ...]


def every_float(tree: Any) -> Any:
    """True at all floating-point arrays."""
    import equinox as eqx
    import jax

    return jax.tree.map(eqx.is_inexact_array, tree)


class Arm(NamedTuple):
    """What full fine-tuning and probing do each in their own way."""

    trained: Any
    loss: Callable[..., Any]
    feed: Any
    held_out: Callable[[Any], Any]
    """From what is trained to the logits of the held-out images."""
    model: Callable[[Any], Any]
    """From what is trained to the classifier."""
    precision: str
    """Of a step."""
    trainable: Callable[[Any], Any] = every_float
    """From what is trained to a tree of booleans, True at the leaves that are; the others stay as they are."""


def main(config: Config) -> Path:
    """Trains as `config` says, going on from the last checkpoint if there is one.

    **Returns:** the path of the classifier, of the best epoch. Raises UserError for a mistake in `config`, RunError if
    the loss stops being finite.
    """
    if config.mode == "probe":
        if config.recipe != PRESETS[config.preset].recipe:
            raise UserError("--recipe.* was given, but a probe takes no recipe; drop it, or say --mode full.")
        if config.optim == PRESETS[config.preset].optim:
            config = dataclasses.replace(config, optim=PROBE)
        config = dataclasses.replace(config, recipe=RecipeOptions(), head="new")
    check_options(config)
    about = to_json(config) | {"start": "scratch" if config.start == "scratch" else identity(config.start)}

    import jax.random as jr

    from weight_templates import convert, pictures, training, trees
    from weight_templates.models import Classifier
    from weight_templates.tasks import classify

    vit, origin = backbone_of(config)
    name = f"{config.mode}-{origin}-L{vit.config.depth}H{vit.config.heads}-{Path(config.data.source).name}"
    run = training.Run("finetune", name.replace(":", "-"), about, config.run)
    made = run.path / "model.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made

    head = convert.load_model(main(probe_of(config))).model if config.head == "probe" else None
    images = images_of(config, vit.config.image)
    mesh = training.data_mesh(config.run.devices, config.optim.batch, config.optim.microbatches)
    model = Classifier(vit, len(images.classes), config.pool, key=jr.split(jr.key(config.seed))[0])
    if head is not None:
        if not isinstance(head, Classifier) or len(head.head.bias) != len(images.classes):
            raise UserError("the probe has other classes than the data have now; say --run.overwrite to do both anew.")
        model = head
    arm = (probe if config.mode == "probe" else full)(config, model, images, training.share(mesh))
    with run:
        best, at = learn(config, run, images, arm)
        model = arm.model(best)
        scores = {}
        for what, views, labels in (
            ("held_out", images.held_out, images.held_out_labels),
            ("test", images.test, images.test_labels),
        ):
            found = None if views is None else classify.accuracy(logits_of(config, model, views), labels)
            scores[what] = None if found is None else found._asdict() | {"images": len(labels)}
        per_epoch = images.split.steps_per_epoch
        steps = config.optim.total(per_epoch)
        summary = {
            "steps": steps,
            "epochs": steps / per_epoch,
            "best_epoch": at["step"] / per_epoch,
            **scores,
            "classes": len(images.classes),
            "parameters": trees.count(model),
            "trained": trees.count(arm.trained),
            "flops": cost_of(config, vit.config, per_epoch),
            "model": dataclasses.asdict(vit.config),
        }
        note = {
            "data": images.train.source.name,
            "classes": list(images.classes),
            "start": origin,
            "summary": summary,
        }
        if training.leads():
            convert.save_model(made, model, note)
            pictures.accuracy_curve(training.read_metrics(run.path), run.path / "accuracy.png", name)
        run.finish(**summary)
    report(summary)
    cli.say(f"model            {made}\ncurves           {run.path / 'accuracy.png'}")
    return made


def check_options(config: Config) -> None:
    """Raises UserError where a number is out of range."""
    config.recipe.check()
    config.optim.check()
    config.run.check()
    check_seed(config.seed)


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there are not the images for a batch."""
    import numpy as np

    from weight_templates import data

    check_options(config)
    size = backbone_of(config)[0].config.image
    images = len(data.open_source(config.data, size, config.seed))
    data.split(np.arange(images), config.optim.batch, config.seed, part=1 / 10, most=float("inf"))


def cost(config: Config) -> float:
    """FLOPs of the run, a probe's head left out; raises UserError where there are no images, or no network."""
    from weight_templates import data

    vit = backbone_of(config)[0].config
    images = len(data.open_source(config.data, vit.image, config.seed))
    return cost_of(config, vit, int(0.9 * images) // config.optim.batch)


def cost_of(config: Config, network: ViTConfig, per_epoch: int) -> float:
    """FLOPs of a training of `network` in so many steps an epoch; of a probe, one look at every image."""
    from weight_templates.counting import count

    if config.mode == "probe":
        return count(network).flops * per_epoch * config.optim.batch
    return 3 * count(network).flops * config.optim.total(per_epoch) * config.optim.batch


def probe_of(config: Config) -> Config:
    """The linear probe that full fine-tuning has its head from."""
    return dataclasses.replace(
        config,
        mode="probe",
        recipe=PRESETS[config.preset].recipe,
        optim=dataclasses.replace(PROBE, batch=config.optim.batch),
        run=dataclasses.replace(config.run, out=None),
    )


def learn(config: Any, run: Any, images: Images, arm: Arm) -> tuple[Any, dict[str, Any]]:
    """Trains on labelled images in a run's directory, which is entered already.

    **Arguments:**

    - `config`: has `optim`, `recipe`, `precision`, `seed` and `run`, as `Config` has.

    **Returns:** what was trained, as it was after the epoch that was best on the held-out images, and a note on that
    epoch. Raises what `training.train` raises.
    """
    import equinox as eqx
    import jax.random as jr

    from weight_templates import data, training, trees
    from weight_templates.constrained import materialize
    from weight_templates.tasks import classify

    optim, per_epoch = config.optim, images.split.steps_per_epoch
    steps = optim.total(per_epoch)
    schedule = training.cosine(optim, steps)
    optimizer = training.adamw(optim, schedule, spared=("gain", "bias", "cls", "table"))
    if config.recipe.layer_decay < 1:
        optimizer = classify.scaled(optimizer, classify.layer_scales(arm.trained, config.recipe.layer_decay))

    def judge(state):
        score = classify.accuracy(arm.held_out(state.result), images.held_out_labels)
        return -score.top1, {"held_out_top1": score.top1, "held_out_top5": score.top5}

    state = training.train(
        run,
        training.Plan(steps, per_epoch, optim.batch, evaluate_every=per_epoch),
        eqx.filter_jit(training.init_state)(arm.trained, arm.trainable(arm.trained), optimizer, optim.ema is not None),
        training.make_step(
            lambda params, key: trees.cast(materialize(params), arm.precision),
            arm.loss,
            optimizer,
            microbatches=optim.microbatches,
            ema=optim.ema,
        ),
        lambda done: data.ahead(arm.feed, done, steps),
        judge,
        schedule=schedule,
        identity=f"{len(images.train.good)} images of {images.train.source.name}",
        mesh=training.data_mesh(config.run.devices, optim.batch, optim.microbatches),
        key=jr.split(jr.key(config.seed))[1],
    )
    best, at = run.checkpoints.best(state.moving)
    return state.resumed(best).result, at


def images_of(config: Any, size: int, tested: bool = True) -> Images:
    """Opens and checks the images, those to test on only if they are; raises UserError where they, or their labels, will
    not do."""
    import numpy as np

    from weight_templates import data
    from weight_templates.data import downstream

    loaded = data.load(data.open_source(config.data, size, config.seed), config.data, cli.say)
    classes, name = loaded.source.classes, loaded.source.name
    check_classes(name, classes)
    official = downstream.SETS[name].train if name in downstream.SETS else len(loaded.source)
    if config.data.count is None and len(loaded.source) != official:
        cli.say(f"note: {len(loaded.source)} training images; officially {name} has {official}.")
    labels = np.full(len(loaded.source), -1, np.int32)
    labels[loaded.good] = data.labels_of(loaded, loaded.good, classes)
    chosen = data.split(loaded.good, config.optim.batch, config.seed, part=1 / 10, most=float("inf"))
    source = data.test_source(config.data, config.test, size, config.seed) if tested else None
    test, test_labels = None, np.zeros(0, np.int32)
    if source is not None:
        others = data.load(source, config.data, cli.say)
        test, test_labels = (
            data.views_of(others, others.good, size, config.data),
            data.labels_of(others, others.good, classes),
        )
    return Images(
        loaded,
        chosen,
        labels[chosen.train],
        data.views_of(loaded, chosen.held_out, size, config.data),
        labels[chosen.held_out],
        test,
        test_labels,
        classes,
    )


def check_classes(name: str, classes: Sequence[str]) -> None:
    """Raises UserError where the images of that name have no labels to tell apart."""
    if len(classes) < 2:
        raise UserError(
            f"{name} has {len(classes)} class(es); give --data a folder with one folder a class, or labelled Parquet."
        )


def logits_of(config: Any, model: Any, views: Any) -> Any:
    """The logits of a classifier on all views, in the configuration's precision."""
    from weight_templates import training, trees
    from weight_templates.tasks import classify

    model = trees.cast(model, training.precision_of(config.precision))
    return classify.over(classify.logits_of, model, views, len(views))


def full(config: Any, model: Any, images: Images, sharding: Any) -> Arm:
    """All weights are trained, on augmented images."""
    from weight_templates import data, training
    from weight_templates.tasks import classify

    size = model.backbone.config.image
    return Arm(
        trained=model,
        loss=classify.loss_of(config.recipe),
        feed=data.feed_of(images.train, images.split, size, config.data, sharding, config.recipe.crop),
        held_out=lambda trained: logits_of(config, trained, images.held_out),
        model=lambda trained: trained,
        precision=training.precision_of(config.precision),
    )


def probe(config: Config, model: Any, images: Images, sharding: Any) -> Arm:
    """The head is trained, on features that the frozen backbone makes once."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from weight_templates import data, training, trees
    from weight_templates.tasks import classify

    cli.say("computing the features of all images")
    frozen = trees.cast(model, training.precision_of(config.precision))
    views = data.views_of(images.train, images.split.train, model.backbone.config.image, config.data)
    raw, raw_held = (classify.over(classify.features_of, frozen, v, len(v)) for v in (views, images.held_out))
    standard = classify.standard_of(raw)
    features, held = (jnp.asarray((x - standard.mean) / standard.deviation) for x in (raw, raw_held))
    return Arm(
        trained=model.head,
        loss=classify.probe_loss,
        feed=data.Features(features, jnp.asarray(images.labels), images.split, sharding),
        held_out=lambda head: np.asarray(jax.vmap(head)(held)),
        model=lambda head: classify.with_probe(model, head, standard),
        precision="float32",
    )


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
    from weight_templates.models import ViT

    if config.start == "scratch":
        shape = inherit.target_size(config.model, config.depth, config.heads)
        shape = shape if config.image is None else dataclasses.replace(shape, image=config.image)
        return ViT(shape, key=jr.fold_in(jr.key(config.seed), 0x766974)), "scratch"
    if config.model != PRESETS[config.preset].model:
        raise UserError("--model.* describes a network from scratch, but a start was given; use --depth and --heads.")
    if wt.is_bank(config.start):
        vit = wt.initialize(wt.load_bank(config.start), config.depth, config.heads, config.rows)
        origin = "bank"
    else:
        if config.depth is not None:
            raise UserError("--depth is for banks; a model has the depth it has.")
        loaded = wt.load_model(config.start, heads=config.heads).model
        vit = loaded if isinstance(loaded, ViT) else loaded.backbone
        origin = "model"
    if config.image is not None:
        vit = convert.at_resolution(vit, config.image)
    return vit, origin


def identity(start: str, remedy: str = "give the path of one, or say `scratch`") -> str:
    """The digest of the file or folder that a network is read from; raises UserError with the remedy if there is none."""
    path = expanded(start)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise UserError(f"there is no bank or model at {start}; {remedy}.")
    return digest_of_file(path)


if __name__ == "__main__":
    launch.command("experiments.finetune")
