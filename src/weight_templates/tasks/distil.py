"""Distillation: a student is trained for a task beside a teacher, by a loss that looks at both."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from ..config import BackboneConfig, DataOptions
from ..constrained import trainable
from ..data import Batch, Source, Split
from .base import AbstractTask, Curves, Data, Terms


Objective = Callable[[Any, Batch, Key[Array, " batch"]], tuple[Float[Array, ""], Terms]]


class Distil(AbstractTask):
    """A task whose model is a pair with a `student`, which is judged as the `inner` task judges it, and a `teacher`."""

    inner: AbstractTask
    objective: Objective = eqx.field(static=True)
    """The mean loss of a batch and its terms, given the pair."""
    score: str = eqx.field(static=True)
    lowest: bool = eqx.field(static=True)
    curves: Curves = eqx.field(static=True)
    shown: str = eqx.field(static=True)
    terms: ClassVar[tuple[str, ...]] = ("task", "distance")

    def __init__(self, inner: AbstractTask, objective: Objective):
        self.inner, self.objective = inner, objective
        self.score, self.lowest, self.curves, self.shown = inner.score, inner.lowest, inner.curves, inner.shown

    def tokens(self, config: BackboneConfig) -> int:
        return self.inner.tokens(config)

    def flops(self, config: BackboneConfig) -> int | float:
        return self.inner.flops(config)

    def split(self, good: Int[np.ndarray, " good"], batch: int, seed: int, flag: str | None = "--optim.batch") -> Split:
        return self.inner.split(good, batch, seed, flag)

    def open(self, source: Source, options: DataOptions, config: BackboneConfig, sharding: Any, **words: Any) -> Data:
        return self.inner.open(source, options, config, sharding, **words)

    def attach(self, backbone: Any, classes: tuple[str, ...], *, key: PRNGKeyArray) -> PyTree:
        return self.inner.attach(backbone, classes, key=key)

    def loss(self, model: PyTree, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        return self.objective(model, batch, keys)

    def evaluate(self, model: PyTree, views: Any) -> dict[str, float]:
        return self.inner.evaluate(model.student, views)

    def picture(self, models: Mapping[str, PyTree], views: Any, path: Path) -> None:
        self.inner.picture({title: model.student for title, model in models.items()}, views, path)


def student_mask(pair: PyTree) -> PyTree:
    """True at what learns in a distillation: all but the `teacher`."""
    everything = trainable(pair)
    return eqx.tree_at(lambda t: t.teacher, everything, jax.tree.map(lambda _: False, everything.teacher))
