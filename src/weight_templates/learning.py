"""The one training call, and what it is for: pre-training, adaptation, fine-tuning and probing.

`learn` trains any model for any task in a run's directory. The functions below make the model, the data and the choice of
what moves, call it, and leave what a person wants in that directory. Commands and notebooks call the same functions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from . import constrained, scaling, training, trees
from .config import Application, BackboneConfig, DataOptions, OptimOptions, ScalingOptions, Widths
from .constraints import family_of
from .data import Source
from .data import ahead as prepared
from .models import layer_scales
from .tasks import AbstractTask, Data


FULL = ScalingOptions(scope="off")
"""No masks: the whole width in every step."""
SPARED = ("gain", "bias", "cls", "table")
"""Ends of the names of leaves that fine-tuning does not decay; pre-training decays tokens, as MAE does."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained, whatever the task."""

    optim: OptimOptions
    precision: str = "auto"
    spared: tuple[str, ...] = training.SPARED
    """Ends of the names of leaves that are not decayed."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the one above it."""
    scaling: ScalingOptions = FULL
    """Random widths of a constrained backbone."""
    application: Application = "expanded"
    every: int | None = None
    """Steps between two looks at the held-out images; None: an epoch."""


class Learned(NamedTuple):
    """What came out of a training."""

    last: PyTree
    """The model after the last step: the moving average where there is one."""
    state: training.TrainState
    steps: int
    scaling: ScalingOptions
    """As it was settled."""


def learn(
    run: training.Run,
    task: AbstractTask,
    model: PyTree,
    data: Data,
    recipe: Recipe,
    *,
    key: PRNGKeyArray,
    moves: Callable[[PyTree], PyTree] = constrained.trainable,
    backbone: Callable[[PyTree], Any] = lambda model: model.backbone,
) -> Learned:
    """Trains a model for a task in a run's directory, which is entered already, from its last checkpoint if there is one.

    **Arguments:**

    - `model`: what `task.loss` takes, its backbone plain or `Constrained`.
    - `key`: chooses widths and what the loss draws at random.
    - `moves`: returns a tree of booleans, True at the leaves to train, given the model.
    - `backbone`: returns the backbone, given the model; only looked at where widths are drawn or factors applied.

    Raises RunError if the loss is not finite, UserError if the run began on other data, SystemExit if interrupted.
    """
    optim, split = recipe.optim, data.split
    steps = optim.total(split.steps_per_epoch)
    mesh = training.data_mesh(run.options.devices, optim.batch, optim.microbatches)
    schedule = training.schedule_of(optim, steps)
    optimizer = training.adamw(optim, schedule, recipe.spared)
    if recipe.layer_decay < 1:
        optimizer = training.scaled(optimizer, layer_scales(model, recipe.layer_decay))
    watch = training.Watch(task.terms, constrained.part_of)
    marks = moves(model)

    def make(prepare: Any) -> Any:
        return training.make_step(
            prepare, task.loss, optimizer, microbatches=optim.microbatches, ema=optim.ema, watch=watch
        )

    def ahead(done: int) -> Any:
        return prepared(data.feed, done, steps)

    def judge(state: training.TrainState) -> tuple[float, dict[str, float]]:
        found = task.evaluate(at_width(state.result, recipe.precision), data.held_out)
        score = found[task.score]
        return score if task.lowest else -score, {f"held_out_{name}": value for name, value in found.items()}

    step, batches, settled = _stepping(task, model, recipe, make, ahead, steps, mesh.size, key, backbone)
    state = training.train(
        run,
        training.Plan(steps, split.steps_per_epoch, optim.batch, recipe.every or split.steps_per_epoch),
        eqx.filter_jit(training.init_state)(model, marks, optimizer, optim.ema is not None, watch),
        step,
        batches,
        judge,
        schedule=schedule,
        identity=data.identity,
        mesh=mesh,
        key=key,
    )
    return Learned(state.result, state, steps, settled)


def opened(
    task: AbstractTask,
    source: Source,
    options: DataOptions,
    config: BackboneConfig,
    optim: OptimOptions,
    run: training.Run,
    seed: int,
    test: Source | None = None,
) -> Data:
    """The data of a task, its batches shared among the devices of a run; raises UserError as `task.open` does, and where a
    batch does not divide among them."""
    sharding = training.share(training.data_mesh(run.options.devices, optim.batch, optim.microbatches))
    return task.open(source, options, config, sharding, batch=optim.batch, seed=seed, test=test)


def best(run: training.Run, learned: Learned) -> tuple[PyTree, int]:
    """The model of the best held-out score, and after how many steps that was."""
    moving, about = run.checkpoints.best(learned.state.moving)
    return learned.state.resumed(moving).result, about["step"]


def at_width(model: PyTree, precision: str = "auto", heads: int | None = None) -> PyTree:
    """The plain model that computes, in `precision`: constrained backbones expanded, at a width in heads or whole."""
    return _expanded(model, None if heads is None else jnp.array(heads), training.precision_of(precision))


@eqx.filter_jit
def _expanded(model: PyTree, heads: Any, precision: str) -> PyTree:
    return trees.cast(constrained.materialize(model, None if heads is None else Widths(heads, heads)), precision)


def _stepping(
    task: AbstractTask,
    model: PyTree,
    recipe: Recipe,
    make: Callable[[Any], Any],
    ahead: Callable[[int], Any],
    steps: int,
    devices: int,
    key: PRNGKeyArray,
    backbone: Callable[[PyTree], Any],
) -> tuple[Any, Any, ScalingOptions]:
    """The step, its batches, and the stochastic scaling as it is settled: widths are masked, or sliced one by one."""
    precision = training.precision_of(recipe.precision)
    inner = backbone(model) if hasattr(model, "backbone") or recipe.scaling != FULL else None
    if not isinstance(inner, constrained.Constrained):
        return make(lambda params, key: trees.cast(constrained.materialize(params), precision)), ahead, FULL
    family = family_of(inner.constraint)
    settled = scaling.settled(recipe.scaling, inner.config, family, steps)
    factored = constrained.factoring(
        recipe.application, inner, recipe.optim.batch // devices * task.tokens(inner.config)
    )
    if settled.execution == "sliced":
        widths = scaling.drawn_widths(settled, inner.config, steps, key=key)
        return *scaling.sliced(make, ahead, widths, precision, factored), settled
    return make(scaling.preparation(settled, inner.config, family, precision, factored)), ahead, settled
