"""What a task is, and how to add one.

A task says which images it reads, what it puts around a backbone, its loss, how a model is judged and what a person wants
to see of it. It knows no trainer and no constraint: `learning.learn` trains any task, in pre-training, adaptation,
fine-tuning and distillation alike.

To add one: a file here with a subclass of `AbstractTask`, its name in `tasks.TASKS`, what it puts around a backbone in
`models.HEADS`, and its options beside those of the commands. `tests/helpers.py` then runs the laws on it.
"""

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from .. import cli
from ..config import BackboneConfig, DataOptions
from ..data import Batch, Feed, Loaded, Source, Split, described, load


Terms = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Data:
    """What a task learns from and is judged by."""

    feed: Feed
    """Training batches, a function of the step."""
    held_out: Any
    """What `evaluate` takes: images that are not trained on, which choose the best state."""
    test: Any | None
    """Likewise, to report on at the end; None where there are none."""
    training: Any | None
    """Likewise, the training images; None where no task asks for them."""
    split: Split
    """Which images are trained on, and in what order."""
    classes: tuple[str, ...]
    """Names of the classes; none where there are no labels."""
    name: str
    """What the data are called."""
    identity: str
    """What a run writes down of its data: it goes on with no others."""
    read: dict[str, Any]
    """What was read: see `data.Described`."""


@dataclasses.dataclass(frozen=True)
class Curves:
    """A figure of metrics against time."""

    file: str
    lines: dict[str, str]
    """Metrics, and what they are called in the legend."""
    time: str
    """`step` or `epoch`."""
    unit: str
    """What the vertical axis is called."""
    share: bool = False
    """Whether the numbers are shares, in [0, 1]."""


def read(source: Source, options: DataOptions) -> Loaded:
    """Reads and checks a source, and says what that was; raises as `data.load` does."""
    loaded = load(source, options, cli.say)
    cli.say(described(loaded).sentence())
    return loaded


class AbstractTask(eqx.Module):
    """What a model is trained for; static options only. See this module's docstring."""

    score: eqx.AbstractClassVar[str]
    """The metric of `evaluate` that chooses the best state."""
    lowest: eqx.AbstractClassVar[bool]
    """Whether the lowest score is the best, or the highest."""
    terms: eqx.AbstractClassVar[tuple[str, ...]]
    """What else the loss reports, by name."""
    curves: eqx.AbstractClassVar[Curves]
    shown: eqx.AbstractClassVar[str]
    """The file that `picture` is drawn to."""

    @abc.abstractmethod
    def tokens(self, config: BackboneConfig) -> int:
        """Positions of one sample that the backbone works on in a step."""

    @abc.abstractmethod
    def flops(self, config: BackboneConfig) -> int | float:
        """Floating-point operations of one sample's forward pass, as `counting` counts them."""

    @abc.abstractmethod
    def split(self, good: Int[np.ndarray, " good"], batch: int, seed: int, flag: str | None = "--optim.batch") -> Split:
        """Divides images into those to train on and held-out ones; raises UserError if no batch of `flag` is left.

        **Arguments:**

        - `good`: indices of the images that can be used.
        """

    @abc.abstractmethod
    def open(
        self,
        source: Source,
        options: DataOptions,
        config: BackboneConfig,
        sharding: Any,
        *,
        batch: int,
        seed: int,
        test: Source | None = None,
    ) -> Data:
        """Reads and checks the images, and divides them.

        **Arguments:**

        - `source`: images to train on, a part of which is held out.
        - `options`: how they are read.
        - `config`: the backbone that is to look at them.
        - `sharding`: how a batch lies on the devices.
        - `batch`: images of a step.
        - `seed`: chooses the held-out images, and the order.
        - `test`: images to report on at the end.

        Raises UserError where they, or their labels, will not do.
        """

    @abc.abstractmethod
    def attach(self, backbone: Any, classes: tuple[str, ...], *, key: PRNGKeyArray) -> PyTree:
        """A random model around a backbone, which stays at `.backbone`; raises UserError where they do not fit."""

    @abc.abstractmethod
    def loss(self, model: PyTree, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        """The mean loss of a batch, and what else is worth recording; `keys` is one for each sample."""

    @abc.abstractmethod
    def evaluate(self, model: PyTree, views: Any) -> dict[str, float]:
        """Metrics of a plain model on held-out or test images."""

    @abc.abstractmethod
    def picture(self, models: Mapping[str, PyTree], views: Any, path: Path) -> None:
        """Draws what plain models make of some images, side by side under their titles."""
