"""Pre-training, adaptation and fine-tuning: what the commands do, for commands and notebooks alike.

Each makes a model and its data, calls `learning.learn`, and leaves files and pictures in the run's directory.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from . import bank, cli, constraints, convert, data, inherit, pictures, scaling, training, trees
from .config import TASKS, Adaptation, BackboneConfig, Finetuning, Pretraining, ScalingOptions, found
from .constrained import constrain
from .data import Source
from .errors import UserError
from .files import expanded
from .learning import FULL, SPARED, Learned, Recipe, at_width, best, learn, opened
from .models import AbstractBackbone, Classifier
from .tasks import AbstractTask, Data
from .tasks.classify import Probe, features, with_probe


def pretraining_task(settings: Pretraining) -> AbstractTask:
    """The task that templates are trained for."""
    if settings.task == "masked":
        return found(TASKS["masked"].task)(settings.decoder, settings.seed)
    return found(TASKS["classify"].task)(settings.recipe, settings.pool)


def initial(settings: Pretraining, task: AbstractTask, classes: tuple[str, ...], *, key: Any) -> PyTree:
    """The model before pre-training; raises UserError where `settings` do not make one."""
    ckey, hkey = jr.split(key)
    constraint = constraints.constraint_of(settings.constraint)
    return task.attach(constrain(settings.model, constraint, settings.layout, key=ckey), classes, key=hkey)


def pretrain(
    settings: Pretraining, run: training.Run, source: Source | None = None
) -> tuple[bank.Bank, dict[str, Any]]:
    """Pre-trains templates, going on from the last checkpoint if there is one.

    **Arguments:**

    - `run`: the directory, not entered.
    - `source`: the images; default those that `settings.data` name.

    **Returns:** the bank, which is left in the directory, too, and the summary: steps, losses, sizes. Raises UserError for
    a mistake in `settings`, RunError if the loss stops being finite.
    """
    task, family = pretraining_task(settings), settings.constraint.family
    key, train_key, _ = jr.split(jr.key(settings.seed), 3)
    # Ranks that do not fit are refused before the images are read, and the key made inside, so that no device is touched.
    eqx.filter_eval_shape(lambda: initial(settings, task, ("a", "b"), key=jr.key(0)))
    source = source or data.open_source(settings.data, settings.model.image, settings.seed)
    images = opened(task, source, settings.data, settings.model, settings.optim, run, settings.seed)
    model = eqx.filter_jit(initial)(settings, task, images.classes, key=key)
    recipe = Recipe(
        settings.optim,
        settings.precision,
        scaling=settings.scaling,
        application=settings.application,
        every=run.options.save_every,
    )
    with run:
        learned = learn(run, task, model, images, recipe, key=train_key)
        about = _about(task, settings, settings.model, learned, images)
        about |= {"scaling": settings.scaling.scope_for(family)}
        if about["scaling"] != "off":
            widths = scaling.widths_of(learned.scaling, settings.model)
            about |= {"widths": list(widths), "coupled": learned.scaling.coupled}
        made = bank.Bank(learned.last, family, about)
        return made, _kept(run, task, made, learned, images, settings.precision)


def check_pretraining(settings: Pretraining) -> None:
    """Raises UserError where the constraint does not fit the network, or there are not the images for a batch."""
    task = pretraining_task(settings)
    eqx.filter_eval_shape(lambda: initial(settings, task, ("a", "b"), key=jr.key(0)))
    check_images(task, settings, settings.model)


def check_images(task: AbstractTask, settings: Any, config: BackboneConfig) -> None:
    """Raises UserError where there are not the images for a batch."""
    source = data.open_source(settings.data, config.image, settings.seed)
    task.split(np.arange(len(source)), settings.optim.batch, settings.seed)


def flops_of_pretraining(settings: Pretraining) -> int | float:
    """FLOPs of a whole pre-training; raises UserError where there are no images."""
    task, optim, steps = pretraining_task(settings), settings.optim, settings.optim.steps
    if steps is None:
        images = len(data.open_source(settings.data, settings.model.image, settings.seed))
        steps = optim.total(task.split(np.arange(images), optim.batch, settings.seed).steps_per_epoch)
    scaled = scaling.settled(settings.scaling, settings.model, settings.constraint.family, steps)
    return flops_of_image(task, settings.model, scaled) * steps * optim.batch


def adapt(
    settings: Adaptation, run: training.Run, from_bank: bank.Bank, source: Source | None = None, cost: Any = None
) -> tuple[bank.Bank, dict[str, Any]]:
    """Learns a bank's scalers at another size, its template frozen (SWEET §3.4, Eq. 9); see `pretrain`.

    **Arguments:**

    - `cost`: FLOPs of the bank's pre-training, if they are known.
    """
    key, train_key, _ = jr.split(jr.key(settings.seed), 3)
    check_adaptable(from_bank, settings.bank or "this bank")
    model = inherit.adaptable(from_bank, settings.depth, settings.heads, settings.layers)
    if settings.scalers == "random":
        model = eqx.tree_at(lambda m: m.backbone, model, inherit.redraw(model.backbone, key=key))
    target = model.backbone.config
    task = bank_task(from_bank, settings)
    source = source or data.open_source(settings.data, target.image, settings.seed)
    images = opened(task, source, settings.data, target, settings.optim, run, settings.seed)
    if images.classes and len(images.classes) != len(model.head.bias):
        raise UserError(
            f"the bank's classifier has {len(model.head.bias)} classes, {images.name} has {len(images.classes)}; give the data "
            "that it was pre-trained on."
        )
    recipe = Recipe(settings.optim, settings.precision, every=run.options.save_every)

    def moves(model: PyTree) -> PyTree:
        return inherit.scalers_of(model, settings.also)

    with run:
        learned = learn(run, task, model, images, recipe, key=train_key, moves=moves)
        about = {"pretraining": from_bank.about, "scalers": settings.scalers, "layers": settings.layers}
        about |= _about(task, settings, target, learned, images) | {"scaling": "off"}
        made = bank.Bank(learned.last, from_bank.family, about, source=from_bank.source or from_bank.config)
        summary = _kept(run, task, made, learned, images, settings.precision)
        if training.leads():
            plain = at_width(made.model.backbone, "float32")
            convert.save_model(run.path / "model.safetensors", plain, made.about)
    trained = trees.count(eqx.filter(made.model, moves(made.model)))
    spent = {"trained": trained, "flops": about["flops"], "of_pretraining": cost and about["flops"] / cost}
    return made, summary | {"cost": spent}


def check_adaptable(from_bank: bank.Bank, name: str) -> None:
    """Raises UserError for a bank whose scalers follow from the depth."""
    if from_bank.model.backbone.constraint.fixed:
        raise UserError(
            f"the mixtures of {name} follow from the depth, so there are no scalers to learn; use experiments/initialize.py."
        )


def bank_task(from_bank: bank.Bank, settings: Any) -> AbstractTask:
    """The task that a bank was trained by, as its model has it; `settings` has a `seed` and a `recipe`."""
    model, kind = from_bank.model, found(TASKS[from_bank.task].task)
    if from_bank.task == "masked":
        return kind(model.config, settings.seed)
    return kind(settings.recipe, model.pool)


def finetune(
    settings: Finetuning,
    run: training.Run,
    backbone: AbstractBackbone,
    origin: str,
    source: Source | None = None,
    test: Source | None = None,
    head: Classifier | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Trains a plain backbone for a task, or a probe on what it makes of images; see `pretrain`.

    **Arguments:**

    - `origin`: one word for where the backbone comes from.
    - `test`: images to report on at the end; default those of the data's test split, if `source` is not given.
    - `head`: a model of the same backbone whose head training begins with; default a new one.

    **Returns:** the model of the best held-out score, and the summary. Raises as `pretrain` does.
    """
    task: AbstractTask = found(TASKS[settings.task].task)(settings.recipe, settings.pool)
    if source is None:
        source = data.open_source(settings.data, backbone.config.image, settings.seed)
        note_count(source, settings)
        test = data.test_source(settings.data, settings.test, backbone.config.image, settings.seed)
    hkey, train_key = jr.split(jr.key(settings.seed))
    images = opened(task, source, settings.data, backbone.config, settings.optim, run, settings.seed, test)
    model = task.attach(backbone, images.classes, key=hkey)
    if head is not None:
        if not isinstance(head, Classifier) or len(head.head.bias) != len(images.classes):
            raise UserError("the probe has other classes than the data have now; say --run.overwrite to do both anew.")
        model = head
    recipe = Recipe(settings.optim, settings.precision, SPARED, settings.recipe.layer_decay)
    steps = settings.optim.total(images.split.steps_per_epoch)
    trained: PyTree = model
    with run:
        if settings.mode == "probe":
            cli.say("computing the features of all images")
            mesh = training.data_mesh(run.options.devices, settings.optim.batch, settings.optim.microbatches)
            frozen = at_width(model, settings.precision)
            made, standard = features(frozen, images, training.share(mesh))
            trained, probing = model.head, dataclasses.replace(recipe, precision="float32", layer_decay=1.0)
            found_, at = best(run, learn(run, Probe(task), trained, made, probing, key=train_key))
            model = with_probe(model, found_, standard)
        else:
            model, at = best(run, learn(run, task, model, images, recipe, key=train_key, moves=every_float))
        scores: dict[str, Any] = {}
        for what, views in (("held_out", images.held_out), ("test", images.test)):
            judged = None if views is None else task.evaluate(at_width(model, settings.precision), views)
            scores[what] = None if judged is None else judged | {"images": len(views.labels)}
        per_epoch = images.split.steps_per_epoch
        summary = {
            "steps": steps,
            "epochs": steps / per_epoch,
            "best_epoch": at / per_epoch,
            **scores,
            "classes": len(images.classes),
            "parameters": trees.count(model),
            "trained": trees.count(trained),
            "flops": flops_of_tuning(settings, task, backbone.config, per_epoch),
            "model": dataclasses.asdict(backbone.config),
            "data": images.read,
        }
        note = {"data": images.name, "classes": list(images.classes), "start": origin, "summary": summary}
        if training.leads():
            convert.save_model(run.path / "model.safetensors", model, note)
            title = run.path.name
            draw(run, task, {title: at_width(model, settings.precision)}, images, title)
    return model, summary


def every_float(model: PyTree) -> PyTree:
    """True at all floating-point arrays: fine-tuning moves tables of positions, too, as MAE's does."""
    return jax.tree.map(eqx.is_inexact_array, model)


def flops_of_tuning(settings: Finetuning, task: AbstractTask, config: BackboneConfig, per_epoch: int) -> int | float:
    """FLOPs of a fine-tuning with so many steps an epoch; of a probe, one look at every image."""
    batch = settings.optim.batch
    if settings.mode == "probe":
        return task.flops(config) * per_epoch * batch
    return 3 * task.flops(config) * settings.optim.total(per_epoch) * batch


def flops_of_image(task: AbstractTask, config: BackboneConfig, scaled: ScalingOptions = FULL) -> int | float:
    """FLOPs of one image in one step: of the whole width, or where it is computed sliced, of the mean over the widths."""
    if scaled.execution != "sliced":
        return 3 * task.flops(config)
    drawn = scaling.widths_of(scaled, config)
    pairs = [(n, n) for n in drawn] if scaled.coupled else list(itertools.product(drawn, drawn))
    return 3 * sum(task.flops(config.resized(heads=r, columns=c)) for r, c in pairs) / len(pairs)


def flops_of(from_bank: bank.Bank, path: str | Path) -> int | None:
    """FLOPs of the pre-training of a bank read from `path`, before any adaptation; None if neither it nor the run it lies
    in tells."""
    about, run = from_bank.about, expanded(path).with_name("config.json")
    while "pretraining" in about:
        about = about["pretraining"]
    if "flops" in about or about is not from_bank.about or not {"steps", "batch"} <= about.keys():
        return about.get("flops")
    try:
        scaled: dict[str, Any] = json.loads(run.read_text()).get("scaling", {}) if run.is_file() else {}
        scaled["heads"] = scaled.get("heads") and tuple(scaled["heads"])
        options = ScalingOptions(**scaled)
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # a run of other days, or not one of ours
    task = bank_task(from_bank, Pretraining())
    return round(flops_of_image(task, from_bank.config, options) * about["steps"] * about["batch"])


def note_count(source: Source, settings: Finetuning) -> None:
    """Says so where a set of SWEET's Table 3 has not as many training images as it officially has."""
    from .data import downstream

    official = downstream.SETS[source.name].train if source.name in downstream.SETS else len(source)
    if settings.data.count is None and len(source) != official:
        cli.say(f"note: {len(source)} training images; officially {source.name} has {official}.")


def _about(task: AbstractTask, settings: Any, config: BackboneConfig, learned: Learned, images: Data) -> dict[str, Any]:
    """What a bank tells of its training."""
    optim = settings.optim
    flops = flops_of_image(task, config, learned.scaling) * learned.steps * optim.batch
    return {
        "data": images.name,
        "read": {name: images.read[name] for name in ("images", "labels", "left_out")},
        "images": len(images.split.train),
        "steps": learned.steps,
        "batch": optim.batch,
        "base_lr": optim.base_lr,
        "flops": round(flops),
    } | ({"classes": list(images.classes)} if images.classes else {})


def _kept(
    run: training.Run, task: AbstractTask, made: bank.Bank, learned: Learned, images: Data, precision: str
) -> dict[str, Any]:
    """Leaves a bank and its pictures in the directory; the summary: steps, last losses, scores at several widths, sizes."""
    metrics = training.read_metrics(run.path)
    shown = pictures.widths_to_show(made.config.heads)
    models = {n: at_width(made.model, precision, n) for n in shown}
    if training.leads():
        bank.save_bank(run.path / "bank.safetensors", made)
        titles = {pictures.title_of(n): at_width(made.model, "float32", n) for n in shown}
        draw(run, task, titles, images, f"{made.family} on {images.name}")
    cli.say(f"{'bank':<16} {run.path / 'bank.safetensors'}")
    scores = {n: task.evaluate(model, images.held_out) for n, model in models.items()}
    return {
        "steps": learned.steps,
        "loss": [line["loss"] for line in metrics if "loss" in line][-1],
        **{f"held_out_{name}": {n: found[name] for n, found in scores.items()} for name in scores[shown[0]]},
        "sizes": made.sizes,
        "data": images.read,
    }


def draw(run: training.Run, task: AbstractTask, models: dict[str, PyTree], images: Data, title: str) -> None:
    """Draws the curves of a run, and what its models make of held-out images."""
    c = task.curves
    figure = pictures.curves(training.read_metrics(run.path), c.lines, c.time, c.unit, title, c.share)
    pictures.save(figure, run.path / c.file)
    task.picture(models, images.held_out, run.path / task.shown)
    cli.say(f"{'curves':<16} {run.path / c.file}\n{'pictures':<16} {run.path / task.shown}")
