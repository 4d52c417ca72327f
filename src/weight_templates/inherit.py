"""Models of any size from a bank (SWEET §3.4): scalers are sliced, mixed or repeated, the template stays as it is."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from . import trees
from .bank import Bank
from .config import ViTConfig
from .constrained import Constrained, blend, expand, resized, select
from .constraints import Factors
from .errors import UserError
from .layouts import shapes
from .models import MAE, ViT
from .models.mae import with_encoder
from .tasks import masked


Rows = Literal["first", "uniform", "interpolate"]
"""Which layers of the source a target's layers are made of. The paper is silent. first: the first ones, over and over
where the target is deeper. uniform: evenly spaced ones, the ends among them. interpolate: as uniform, but between two
layers their mixture."""


def target_size(source: ViTConfig, depth: int | None = None, heads: int | None = None) -> ViTConfig:
    """The configuration of another size, width following the heads; default: the source's own depth and heads.

    Raises UserError for a size that is no network.
    """
    for what, asked in (("depth", depth), ("heads", heads)):
        if asked is not None and asked < 1:
            raise UserError(f"--{what} {asked} makes no network; give a positive number.")
    if heads in (None, source.heads):
        return source if depth is None else dataclasses.replace(source, depth=depth)
    if source.channels % source.heads:
        raise UserError(
            f"a width of {source.channels} channels is no multiple of {source.heads} heads, so {heads} heads have no width "
            "of their own; leave --heads out, or begin with a --model.width that is a multiple."
        )
    return source.resized(depth, heads)


def chosen_layers(
    source: int, target: int, rows: Rows = "first"
) -> tuple[Int[np.ndarray, " target"], Int[np.ndarray, " target"], Float[np.ndarray, " target"]]:
    """Which layers of a source a target's layers are made of.

    **Returns:** for every layer of the target two layers of the source, and the share of the second, in [0, 1).
    """
    if rows == "first":
        low = np.arange(target) % source
        return low, low, np.zeros(target)
    place = np.linspace(0, source - 1, target)
    if rows == "uniform":
        low = np.floor(place + 0.5).astype(int)
        return low, low, np.zeros(target)
    return neighbours(source, place)


def neighbours(
    source: int, place: Float[np.ndarray, " target"]
) -> tuple[Int[np.ndarray, " target"], Int[np.ndarray, " target"], Float[np.ndarray, " target"]]:
    """The layers of a source next to fractional places in its depth, and the share of the second, as `chosen_layers`."""
    low = np.floor(place).astype(int)
    return low, np.minimum(low + 1, source - 1), place - low


def resize(
    constrained: Constrained, depth: int | None = None, heads: int | None = None, rows: Rows = "first"
) -> Constrained:
    """A constrained backbone at another size, its scalers inherited; default: the source's own.

    Where SwiGLU's rows do not come in threes (heads x head_dim no multiple of 3, layout `unified`), the repeated rows of
    a wider one trade places between gate, up and down: a start for adaptation only.

    Raises UserError for a size that is no network.
    """
    target = target_size(constrained.config, depth, heads)
    return mixed(constrained, target, *chosen_layers(constrained.config.depth, target.depth, rows))


def mixed(
    constrained: Constrained,
    target: ViTConfig,
    low: Int[np.ndarray, " target"],
    high: Int[np.ndarray, " target"],
    share: Float[np.ndarray, " target"],
) -> Constrained:
    """A constrained backbone at another size, its layers mixed of pairs of the source's; see `chosen_layers`."""
    made = select(constrained, target, low.tolist())
    return blend(made, select(constrained, target, high.tolist()), share) if share.any() else made


def initialize(bank: Bank, depth: int | None = None, heads: int | None = None, rows: Rows = "first") -> ViT:
    """A plain backbone of any size, initialised from a bank without any training (SWEET §3.4).

    **Arguments:**

    - `depth`: number of layers; default the source's.
    - `heads`: number of heads, and with them the width: the first ones of the source; beyond its number, heads, hidden
        units and residual channels are repeated. Default the source's.
    - `rows`: see `Rows`.

    **Returns:** a plain `ViT`. Raises UserError for a size that is no network.
    """
    return _initialize(bank.model.encoder, target_size(bank.config, depth, heads), rows)


def adaptable(bank: Bank, depth: int | None = None, heads: int | None = None, rows: Rows = "first") -> MAE:
    """The auto-encoder around a backbone of another size, still constrained, whose scalers can be learned (Eq. 9).

    The decoder is the bank's, and reads as many channels as the backbone has. Raises UserError for a size that is no
    network.
    """
    return with_encoder(bank.model, resize(bank.model.encoder, depth, heads, rows))


def inherited(constrained: Constrained, target: ViTConfig) -> int:
    """Numbers that a backbone of another size is made from: the template, and its part of the scalers and of what is free.

    Scalers that follow from the depth are not counted.
    """
    made = eqx.filter_eval_shape(resize, constrained, target.depth, target.heads)
    count = trees.shared(constrained, made)
    if constrained.constraint.fixed:
        pairs = [(constrained.factors[g].scalers, factors.scalers) for g, factors in made.factors.items()]
        count -= sum(trees.shared(source, scalers) for source, scalers in pairs)
    return count


def redraw(constrained: Constrained, *, key: PRNGKeyArray) -> Constrained:
    """The same template with random scalers (SWEET §3.4: for sizes far from the source's)."""
    stacks = shapes(constrained.layout, constrained.config)
    keys = jr.split(key, len(stacks))
    factors = {}
    for (group, shape), k in zip(stacks.items(), keys, strict=True):
        template = constrained.factors[group].template
        factors[group] = Factors(template, constrained.constraint.scalers(template, shape, key=k))
    return eqx.tree_at(lambda c: c.factors, constrained, factors)


def scalers_of(model: MAE, also: Sequence[str] = ()) -> PyTree:
    """True at the leaves that adaptation trains: the scalers, and also the `free` leaves or the `decoder` if named."""
    wanted = [f"encoder.factors.{group}.scalers." for group in model.encoder.factors]
    wanted += [{"free": "encoder.free.", "decoder": "decoder."}[what] for what in also]
    pretrained = masked.trainable(model)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, trained: trained and trees.name_of(path).startswith(tuple(wanted)), model, pretrained
    )


@eqx.filter_jit  # as one program: op by op, compilation would take several times as long
def _initialize(source: Constrained, target: ViTConfig, rows: Rows) -> ViT:
    within = min(target.heads, source.config.heads)
    vit = expand(resize(source, target.depth, within, rows))
    if within == target.heads:
        return vit
    return trees.with_arrays(eqx.filter_eval_shape(ViT, target, key=jr.key(0)), resized(vit, target))
