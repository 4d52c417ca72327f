"""Templates without pre-training: a bank of any model there is, by a decomposition of its weights.

`decompose` has the decompositions. What a constraint leaves free is the model's own. With full ranks the source comes
back to 1e-5; with less, what is lost is told by component. Rows that interleaving leaves over count as zeros. `fit` then trains the bank for some hundred steps to compute the
source's features, with masks on, so that prefixes of the width become models.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from . import bank, decompose, training, trees
from .config import DataOptions, Layout, OptimOptions, ScalingOptions
from .constrained import Constrained, constrain, expand, trainable
from .constraints import AbstractConstraint, family_of
from .data import Source, open_source
from .learning import Learned, Recipe, learn, opened
from .models import AbstractBackbone, AbstractHead, Bare
from .sites import governed, stacks, without_governed
from .tasks.features import Features, Pair


def decomposed(
    backbone: AbstractBackbone, constraint: AbstractConstraint, layout: Layout, *, sweeps: int = decompose.SWEEPS
) -> Constrained:
    """Returns the constrained backbone whose expansion is closest to a plain one.

    **Arguments:**

    - `sweeps`: most sweeps of an alternating fit.

    Raises UserError where the constraint does not fit the backbone, or weights are not finite.
    """
    config = backbone.config
    like = eqx.filter_eval_shape(constrain, config, constraint, layout, key=jr.key(0))
    leaves = governed(backbone)
    templates, scalers = {}, {}
    for group, template in like.templates.items():
        own = [stack for stack in like.stacks if stack.group == group]
        weights = {stack.name: np.asarray(stack.fold(leaves)) for stack in own}
        shapes = {stack.name: stack.shape(config) for stack in own}
        templates[group], found = decompose.decompose_shared(constraint, template, weights, shapes, sweeps=sweeps)
        scalers |= found
    return Constrained(templates, scalers, without_governed(backbone), constraint, layout)


def errors(backbone: AbstractBackbone, made: Constrained) -> dict[str, float]:
    """Returns the relative error, ‖W - Ŵ‖ / ‖W‖, of every component that the backbone names, and of `all`."""
    ours, theirs = governed(eqx.filter_jit(expand)(made)), governed(backbone)
    components: dict[str, list[str]] = {}
    for leaf, component in backbone.governed().items():
        components.setdefault(component, []).append(leaf)

    def error(leaves: list[str]) -> float:
        one, other = (
            np.concatenate([np.asarray(t[leaf]).reshape(1, -1, 1) for leaf in leaves], 1) for t in (theirs, ours)
        )
        return decompose.relative_error(one, other)

    return {component: error(leaves) for component, leaves in components.items()} | {"all": error(list(theirs))}


def errors_by_rank(
    backbone: AbstractBackbone, constraint: AbstractConstraint, layout: Layout
) -> dict[str, dict[tuple[int, ...], float]]:
    """Returns the relative error at a quarter, half, three quarters and all of the ranks, by stack; nothing for families
    without ranks. The factors are those that an alternating fit starts from."""
    leaves, config = governed(backbone), backbone.config
    return {
        stack.name: decompose.errors_by_rank(constraint, np.asarray(stack.fold(leaves)), stack.shape(config))
        for stack in stacks(config, layout)
    }


def bank_of(
    model: Any, constraint: AbstractConstraint, layout: Layout, about: dict[str, Any], **words: Any
) -> bank.Bank:
    """Returns the bank of a model, a plain backbone or one with a head, by a decomposition."""
    head = model if isinstance(model, AbstractHead) else Bare(model)
    made = decomposed(head.backbone, constraint, layout, **words)
    about = {"decomposed": about, "flops": 0, "steps": 0, "errors": errors(head.backbone, made)}
    return bank.Bank(trees.put(head, {"backbone": made}), family_of(constraint), about)


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a decomposed bank is fitted to its source's function."""

    steps: int
    data: DataOptions
    scaling: ScalingOptions
    optim: OptimOptions
    precision: str = "auto"
    seed: int = 0


def fit(
    made: bank.Bank, teacher: AbstractBackbone, settings: Fit, run: training.Run, source: Source | None = None
) -> tuple[bank.Bank, Learned, Any]:
    """Trains a decomposed bank, in a run's directory that is entered already, to compute its teacher's features.

    **Returns:** the bank, what `learn` returned, and the data. Raises as `learn` does.
    """
    key, train_key = jr.split(jr.key(settings.seed))
    task, config = Features(), made.config
    optim = dataclasses.replace(settings.optim, steps=settings.steps)
    source = source or open_source(settings.data, config.image, settings.seed)  # pyright: ignore[reportAttributeAccessIssue]
    images = opened(task, source, settings.data, config, optim, run, settings.seed)

    def moves(pair: Pair) -> Any:
        marks = trainable(pair)
        return trees.put(marks, {"teacher": jax.tree.map(lambda _: False, marks.teacher)})

    pair = Pair(made.model.backbone, teacher, key=key)
    recipe = Recipe(optim, settings.precision, scaling=settings.scaling, every=run.options.save_every)
    learned = learn(run, task, pair, images, recipe, key=train_key, moves=moves)
    about = made.about | {"fitted": {"data": images.name, "steps": learned.steps, "batch": optim.batch}}
    model = trees.put(made.model, {"backbone": learned.last.backbone})
    return dataclasses.replace(made, model=model, about=about), learned, images
