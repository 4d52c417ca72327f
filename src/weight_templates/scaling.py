"""Width-wise stochastic scaling (SWEET §3.3): every step of pre-training sees a random prefix of the width."""

from collections.abc import Callable

import jax.random as jr
from jaxtyping import PRNGKeyArray, PyTree

from . import trees
from .config import ScalingOptions, Scope, ViTConfig
from .constrained import Widths, materialize


def scope_of(options: ScalingOptions, family: str) -> Scope:
    """The scope in force: as given, else `submodel` under a constraint and `off` without one."""
    return options.scope or ("off" if family == "none" else "submodel")


def narrowest(options: ScalingOptions, config: ViTConfig) -> int:
    """The narrowest width drawn, in heads; the paper's grid starts at a quarter (3 of 12)."""
    return max(1, config.heads // 4) if options.min_heads is None else options.min_heads


def sample_widths(options: ScalingOptions, config: ViTConfig, *, key: PRNGKeyArray) -> Widths:
    """Draws the widths of a step (Eq. 7): prefixes, uniform over {min_heads … heads}, rows and columns independent.

    The paper names neither the distribution nor the shape of the masks; prefixes follow WeiT, and `coupled` gives rows
    and columns one draw.
    """
    low = narrowest(options, config)
    rows, cols = jr.randint(key, (2,), low, config.heads + 1)
    return Widths(rows, rows if options.coupled else cols)


def preparation(
    options: ScalingOptions, config: ViTConfig, family: str, precision: str
) -> Callable[[PyTree, PRNGKeyArray], PyTree]:
    """What a step does before anything is computed: expand the parameters under random widths, and cast them.

    **Returns:** a function from the parameters, in float32, and the step's key to the model in `precision`.
    """
    scope = scope_of(options, family)

    def prepare(params: PyTree, key: PRNGKeyArray) -> PyTree:
        widths = None if scope == "off" else sample_widths(options, config, key=key)
        return trees.cast(materialize(params, widths, scope), precision)

    return prepare
