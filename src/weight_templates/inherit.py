"""Models of any size from a bank (SWEET §3.4): scalers are sliced, mixed or repeated, the template stays as it is."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from . import trees
from .bank import Bank
from .config import BackboneConfig, depths
from .constrained import Constrained, blend, expand, resized, select, trainable, with_backbone
from .errors import UserError
from .models import AbstractBackbone
from .sites import skeleton


Rule = Literal["first", "uniform", "interpolate"]
"""Which layers of the source a target's layers are made of, stage by stage. The paper is silent. first: the first ones,
over and over where the target is deeper. uniform: evenly spaced ones, the ends among them. interpolate: as uniform, but
between two layers their mixture."""

Depth = int | tuple[int, ...]


class Mixture(NamedTuple):
    """Which two layers of a source each layer of a target's stage is made of, and the share of the second, in [0, 1)."""

    low: Int[np.ndarray, " target"]
    high: Int[np.ndarray, " target"]
    share: Float[np.ndarray, " target"]


def target_size(source: BackboneConfig, depth: Depth | None = None, heads: int | None = None) -> BackboneConfig:
    """The configuration of another size, width following the heads; default: the source's own depth and heads.

    Raises UserError for a size that is no network.
    """
    asked = depth if isinstance(depth, tuple) else () if depth is None else (depth,)
    for what, numbers in (("depth", asked), ("heads", () if heads is None else (heads,))):
        if any(number < 1 for number in numbers):
            raise UserError(f"--{what} {' '.join(map(str, numbers))} makes no network; give a positive number.")
    if asked and len(asked) != len(depths(source)):
        raise UserError(
            f"--depth {' '.join(map(str, asked))} is for {len(asked)} stage(s), but the network has {len(depths(source))}; give a "
            "number for each."
        )
    depth = None if not asked else asked if isinstance(source.depth, tuple) else asked[0]
    return source.resized(depth, None if heads == source.heads else heads)


def chosen_layers(source: int, target: int, rule: Rule = "first") -> Mixture:
    """Which layers of a stage of `source` layers one of `target` layers is made of."""
    if rule == "first":
        low = np.arange(target) % source
        return Mixture(low, low, np.zeros(target))
    place = np.linspace(0, source - 1, target)
    if rule == "uniform":
        low = np.floor(place + 0.5).astype(int)
        return Mixture(low, low, np.zeros(target))
    return neighbours(source, place)


def neighbours(source: int, place: Float[np.ndarray, " target"]) -> Mixture:
    """The layers of a stage next to fractional places in its depth."""
    low = np.floor(place).astype(int)
    return Mixture(low, np.minimum(low + 1, source - 1), place - low)


def resize(
    constrained: Constrained, depth: Depth | None = None, heads: int | None = None, layers: Rule = "first"
) -> Constrained:
    """A constrained backbone at another size, its scalers inherited; default: the source's own.

    Where interleaved rows do not come out even (SwiGLU: heads x head_dim no multiple of 3, layout `unified`), the repeated
    rows of a wider one trade places between gate, up and down: a start for adaptation only.

    Raises UserError for a size that is no network.
    """
    target = target_size(constrained.config, depth, heads)
    pairs = zip(depths(constrained.config), depths(target), strict=True)
    return mixed(constrained, target, [chosen_layers(own, new, layers) for own, new in pairs])


def mixed(constrained: Constrained, target: BackboneConfig, mixtures: Sequence[Mixture]) -> Constrained:
    """A constrained backbone at another size, its layers mixed of pairs of the source's, a mixture for each stage."""
    made = select(constrained, target, [mixture.low for mixture in mixtures])
    if not any(mixture.share.any() for mixture in mixtures):
        return made
    other = select(constrained, target, [mixture.high for mixture in mixtures])
    return blend(made, other, [mixture.share for mixture in mixtures])


def initialize(
    bank: Bank, depth: Depth | None = None, heads: int | None = None, layers: Rule = "first"
) -> AbstractBackbone:
    """A plain backbone of any size, initialised from a bank without any training (SWEET §3.4).

    **Arguments:**

    - `depth`: number of layers, or a tuple of them by stage; default the source's.
    - `heads`: number of heads, and with them the width: the first ones of the source; beyond its number, heads, hidden
        units and residual channels are repeated. Default the source's.
    - `layers`: see `Rule`.

    **Returns:** a plain backbone. Raises UserError for a size that is no network.
    """
    return _initialize(bank.model.backbone, target_size(bank.config, depth, heads), layers)


def adaptable(bank: Bank, depth: Depth | None = None, heads: int | None = None, layers: Rule = "first") -> PyTree:
    """The bank's model around a backbone of another size, still constrained, whose scalers can be learned (Eq. 9).

    The head is the bank's, and reads as many channels as the backbone has. Raises UserError for a size that is no
    network.
    """
    return with_backbone(bank.model, resize(bank.model.backbone, depth, heads, layers))


def inherited(constrained: Constrained, target: BackboneConfig) -> int:
    """Numbers that a backbone of another size is made from: the template, and its part of the scalers and of what is free.

    Scalers that follow from the depth are not counted.
    """
    made = eqx.filter_eval_shape(resize, constrained, target.depth, target.heads)
    count = trees.shared(constrained, made)
    return count - (trees.shared(constrained.scalers, made.scalers) if constrained.constraint.fixed else 0)


def redraw(constrained: Constrained, *, key: PRNGKeyArray) -> Constrained:
    """The same template with random scalers (SWEET §3.4: for sizes far from the source's)."""
    keys = jr.split(key, len(constrained.stacks))
    scalers = {
        stack.name: constrained.constraint.scalers(
            constrained.templates[stack.group], stack.shape(constrained.config), key=k
        )
        for stack, k in zip(constrained.stacks, keys, strict=True)
    }
    return eqx.tree_at(lambda c: c.scalers, constrained, scalers)


def scalers_of(model: PyTree, also: Sequence[str] = ()) -> PyTree:
    """True at the leaves that adaptation trains: the scalers, and also the `free` leaves or the `head` if named."""

    def wanted(name: str) -> bool:
        if not name.startswith("backbone."):
            return "head" in also
        return name.startswith("backbone.scalers.") or ("free" in also and name.startswith("backbone.free."))

    return jax.tree_util.tree_map_with_path(lambda path, moves: moves and wanted(trees.name_of(path)), trainable(model))


@eqx.filter_jit  # as one program: op by op, compilation would take several times as long
def _initialize(source: Constrained, target: Any, layers: Rule) -> AbstractBackbone:
    within = min(target.heads, source.config.heads)
    made = expand(resize(source, target.depth, within, layers))
    if within == target.heads:
        return made
    return trees.with_arrays(skeleton(target), resized(made, target))
