"""Width-wise stochastic scaling (SWEET §3.3): every step of pre-training sees a random prefix of the width."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from . import trees
from .config import BackboneConfig, ScalingOptions, Widths, depths
from .constrained import Constrained, expand, materialize, select, with_backbone
from .training.step import step_keys


Prepare = Callable[[PyTree, PRNGKeyArray], PyTree]
Step = Callable[[Any, Any, PRNGKeyArray], Any]
Factoring = Callable[[Constrained], bool]


USES = 200
"""Steps for each program from which sliced execution is taken to pay for compiling it: twice and more what
`docs/results/pretrain-step.md` finds on a CPU for widths that rows and columns share. Apart, they have as many programs as
there are pairs, and pay later. Not measured on a GPU."""


def settled(options: ScalingOptions, config: BackboneConfig, family: str, steps: int) -> ScalingOptions:
    """The options with the scope of that family, and with `auto` decided, for a run of so many steps."""
    scope = options.scope_for(family)
    programs = len(widths_of(options, config)) ** (1 if options.coupled else 2)
    sliced = scope == "submodel" and options.execution != "masked"
    if options.execution == "auto":
        sliced = sliced and steps >= USES * programs
    return dataclasses.replace(options, scope=scope, execution="sliced" if sliced else "masked")


def widths_of(options: ScalingOptions, config: BackboneConfig) -> tuple[int, ...]:
    """The widths that are drawn from, in heads; the paper's grid starts at a quarter (3 of 12)."""
    return options.heads or tuple(range(max(1, config.heads // 4), config.heads + 1))


def sample_widths(options: ScalingOptions, config: BackboneConfig, *, key: PRNGKeyArray) -> Widths:
    """Draws the widths of a step (Eq. 7): prefixes, uniform over `widths_of`, rows and columns independent.

    The paper names neither the distribution nor the shape of the masks; prefixes follow WeiT, and `coupled` gives rows
    and columns one draw.
    """
    widths = jnp.array(widths_of(options, config))
    rows, cols = widths[jr.randint(key, (2,), 0, len(widths))]
    return Widths(rows, rows if options.coupled else cols)


def expanded(constrained: Constrained) -> bool:
    """Weights are multiplied out, whatever that costs."""
    return False


def preparation(
    options: ScalingOptions, config: BackboneConfig, family: str, precision: str, factored: Factoring = expanded
) -> Prepare:
    """What a step does before anything is computed: expand the parameters under random widths, and cast them.

    **Arguments:**

    - `factored`: of a backbone, whether its weights are applied factor by factor instead.

    **Returns:** a function from the parameters, in float32, and the step's key to the model in `precision`.
    """
    scope = options.scope_for(family)

    def prepare(params: PyTree, key: PRNGKeyArray) -> PyTree:
        widths = None if scope == "off" else sample_widths(options, config, key=key)
        return trees.cast(materialize(params, widths, scope, factored), precision)

    return prepare


def narrowed(model: PyTree, rows: int, cols: int, factored: Factoring = expanded) -> PyTree:
    """A model around a constrained backbone, expanded at a width: what the masks of `Widths(rows, cols)` make of it, but
    small.

    Differentiable: what lies beyond the width has gradient zero.
    """
    config = model.backbone.config
    layers = [range(depth) for depth in depths(config)]
    narrow = select(model.backbone, config.resized(heads=rows, columns=cols), layers)
    return with_backbone(model, expand(narrow, factored=factored(narrow)))


def drawn_widths(
    options: ScalingOptions, config: BackboneConfig, steps: int, *, key: PRNGKeyArray
) -> Int[np.ndarray, "steps 2"]:
    """The rows and columns that each step draws, known to the host beforehand; `key` is the training loop's."""

    def draw(step: Int[Array, ""]) -> Int[Array, "2"]:
        return jnp.stack(sample_widths(options, config, key=step_keys(key, step)[0]))

    return np.asarray(eqx.filter_jit(jax.vmap(draw))(jnp.arange(steps)))


def sliced(
    make: Callable[[Prepare], Step],
    batches: Callable[[int], Iterable[Any]],
    widths: Int[np.ndarray, "steps 2"],
    precision: str,
    factored: Factoring = expanded,
) -> tuple[Step, Callable[[int], Iterable[Any]]]:
    """Training at reduced cost: every width is a program of its own, compiled when it is first drawn.

    **Arguments:**

    - `make`: from a step's preparation to the step.
    - `batches`: from the number of steps done to the batches that are left.
    - `widths`: `drawn_widths`.
    - `factored`: see `preparation`.

    **Returns:** the step and its batches, each with its width. The states are, to rounding, those of masked execution.
    """

    @functools.cache
    def at(rows: int, cols: int) -> Step:
        return make(lambda params, key: trees.cast(narrowed(params, rows, cols, factored), precision))

    def step(state: Any, item: Any, key: PRNGKeyArray) -> Any:
        batch, (rows, cols) = item
        return at(int(rows), int(cols))(state, batch, key)

    return step, lambda done: zip(batches(done), widths[done:], strict=True)
