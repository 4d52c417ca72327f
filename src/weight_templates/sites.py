"""Where the governed weights of a backbone sit in stacks `W[slice, row, col, *tap]`: a bijection that follows from names.

A governed leaf is annotated `"*slices row col *tap"`. Every slice has internal channels (heads, hidden units) as rows and
residual channels as columns, whatever side of the layer its matrix stands on. So a prefix of the rows is a number of
heads and hidden units, a prefix of the columns is a narrower residual stream, and the two may be chosen independently.

The layout says which leaves share a template: `unified` (SWEET §3.2) all of them that have equal taps, `components` (WAVE,
FINE, TLEG) those of one component. Leaves of one stage and of equal axes share a stack, too, slice after slice in every
layer. Where `config.interleaved` says so, `unified` lays the parts of a gated layer into the rows of one slice in turn:
row j of slice f_i of SwiGLU belongs to hidden unit i·⌊D/3⌋ + ⌊j/3⌋, as its gate, up or down weights for j mod 3 = 0, 1,
2; up to two rows are left over. The paper does not say how SwiGLU is cut; this interleaving is the one whose prefixes
are sub-networks.
"""

import functools
import math
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from . import trees
from .config import BackboneConfig, Layout, depths
from .constraints import Shape
from .models import AbstractBackbone, place_of
from .nn import Factored


LAYOUTS: tuple[Layout, ...] = typing.get_args(Layout)


class Site(NamedTuple):
    """A governed leaf."""

    leaf: str
    """Its name in the backbone."""
    lead: tuple[int, ...]
    """Its axes between the layer and the row."""
    taps: tuple[int, ...]
    parts: int = 0
    """How many of a slice's rows in turn an interleaved leaf has; 0 for a leaf that has slices of its own."""

    @property
    def slices(self) -> int:
        """Slices of a layer that the leaf fills, or takes part in."""
        return self.lead[-1] if self.parts else math.prod(self.lead)


class Stack(NamedTuple):
    """Governed leaves as one array `W[slice, row, col, *tap]`, of one stage."""

    name: str
    group: str
    """The template that it is made from; other stacks may be, too."""
    stage: int
    row: str
    col: str
    taps: tuple[int, ...]
    whole: tuple[Site, ...]
    """The leaves that have slices of their own, in the order of the slices."""
    woven: tuple[Site, ...] = ()
    """The leaves that share slices, which come last, row by row in turn."""

    @property
    def per_layer(self) -> int:
        """Slices of a layer."""
        return sum(site.slices for site in self.whole) + (self.woven[0].slices if self.woven else 0)

    def shape(self, config: BackboneConfig) -> Shape:
        """The shape of the stack in a network."""
        sizes, layers = config.axes(), depths(config)[self.stage]
        return Shape(layers * self.per_layer, sizes[self.row], sizes[self.col], layers, self.taps)

    def slices_of(self, layers: Any) -> np.ndarray:
        """The indices of the slices of given layers of the stage."""
        count = self.per_layer
        return (np.asarray(layers)[:, None] * count + np.arange(count)).reshape(-1)

    def slices_by_leaf(self, layers: int) -> dict[str, np.ndarray]:
        """The indices of the slices that each leaf has, alone or with others, in all layers."""
        found, start = {}, 0
        for site in self.whole:
            found[site.leaf] = np.arange(start, start + site.slices)
            start += site.slices
        found |= {site.leaf: np.arange(start, start + site.slices) for site in self.woven}
        return {leaf: (np.arange(layers)[:, None] * self.per_layer + own).reshape(-1) for leaf, own in found.items()}

    def fold(self, leaves: Mapping[str, Float[Array, "..."]]) -> Float[Array, "slice row col *tap"]:
        """The stack of the leaves of these names."""
        flat = [_flat(leaves[site.leaf], len(site.lead)) for site in self.whole]
        if self.woven:
            parts = jnp.concatenate(
                [leaves[s.leaf].reshape(-1, s.parts, *leaves[s.leaf].shape[len(s.lead) :]) for s in self.woven], axis=1
            )  # layer, part, slice, unit, col
            rows = jnp.moveaxis(parts, 1, 3)
            rows = rows.reshape(*rows.shape[:2], -1, *rows.shape[4:])
            inner = flat[0].shape[2] if flat else rows.shape[2]
            flat.append(jnp.pad(rows, [(0, inner - n if axis == 2 else 0) for axis, n in enumerate(rows.shape)]))
        stack = jnp.concatenate(flat, axis=1)
        return stack.reshape(-1, *stack.shape[2:])

    def unfold(self, stack: Float[Array, "slice row col *tap"]) -> dict[str, Float[Array, "..."]]:
        """The leaves of a stack, by name; the converse of `fold`."""
        layered = stack.reshape(-1, self.per_layer, *stack.shape[1:])
        # Split, not sliced: the gradients are then put together once, and not padded part by part and added.
        pieces = _split(layered, [site.slices for site in self.whole] + [s.slices for s in self.woven[:1]])
        leaves = {
            site.leaf: piece.reshape(-1, *site.lead, *stack.shape[1:])
            for site, piece in zip(self.whole, pieces, strict=False)
        }
        if self.woven:
            parts = sum(site.parts for site in self.woven)
            piece, units = pieces[-1], stack.shape[1] // parts
            rows = piece[:, :, : parts * units].reshape(*piece.shape[:2], units, parts, *piece.shape[3:])
            for site, part in zip(
                self.woven, _split(jnp.moveaxis(rows, 3, 1), [s.parts for s in self.woven]), strict=True
            ):
                leaves[site.leaf] = part.reshape(-1, *site.lead, units, *stack.shape[2:])
        return leaves

    def unfold_factored(
        self, core: Float[Array, "slice r2 r3"], row: Float[Array, "row r2"], col: Float[Array, "col r3"]
    ) -> dict[str, Factored]:
        """The leaves, to be applied factor by factor: what `unfold` makes of `row core[slice] colᵀ`."""
        layered, leaves, start = core.reshape(-1, self.per_layer, *core.shape[1:]), {}, 0
        for site in self.whole:
            leaves[site.leaf] = _factored(layered[:, start : start + site.slices], row[None], col)
            start += site.slices
        if self.woven:
            parts = sum(site.parts for site in self.woven)
            rows, first = jnp.moveaxis(row[: len(row) // parts * parts].reshape(-1, parts, row.shape[1]), 1, 0), 0
            for site in self.woven:
                leaves[site.leaf] = _factored(layered[:, start:], rows[first : first + site.parts], col)
                first += site.parts
        return leaves


@functools.cache
def skeleton(config: BackboneConfig) -> AbstractBackbone:
    """A backbone's structure, with shapes for arrays."""
    return eqx.filter_eval_shape(config.create, key=jr.key(0))


@functools.cache
def stacks(config: BackboneConfig, layout: Layout) -> tuple[Stack, ...]:
    """The stacks of a backbone, in the order in which it names their leaves."""
    backbone = skeleton(config)
    names, sizes, arrays = trees.axes(backbone), config.axes(), trees.named_arrays(backbone)
    found: dict[tuple, dict[str, list[Site]]] = {}
    for leaf, component in backbone.governed().items():
        axes, shape, stage = names[leaf], arrays[leaf].shape, place_of(backbone, leaf)
        row, col = (axis for axis in axes if axis in sizes)
        at = axes.index(row)
        if axes[at + 1] != col or axes[0] != "layer" or stage is None:
            raise TypeError(f"{leaf} of {type(backbone).__name__} is not annotated `*slices row col *tap` in a stage")
        lead, taps = shape[1:at], shape[at + 2 :]
        site, woven = Site(leaf, lead, taps), layout == "unified" and row in config.interleaved
        if woven:
            site, row = site._replace(parts=math.prod(lead[:-1])), config.interleaved[row]
        key = ("all" if layout == "unified" else component, stage, row, col, taps)
        found.setdefault(key, {"whole": [], "woven": []})["woven" if woven else "whole"].append(site)
    made = [
        Stack(
            "",
            group + ("x".join(map(str, taps)) if layout == "unified" else ""),
            stage,
            row,
            col,
            taps,
            *map(tuple, sites.values()),
        )
        for (group, stage, row, col, taps), sites in found.items()
    ]
    return tuple(stack._replace(name=_name(stack, made, backbone.stages)) for stack in made)


def _name(stack: Stack, stacks: list[Stack], stages: tuple[str, ...]) -> str:
    """A stack's name: its group's, with the stage and the axes in front and behind where there are others of that name."""
    name = f"{stages[stack.stage]}.{stack.group}" if len(stages) > 1 else stack.group
    alike = [other for other in stacks if (other.group, other.stage) == (stack.group, stack.stage)]
    return name if len(alike) == 1 else ".".join((name, stack.row, stack.col, *map(str, stack.taps)))


def governed(backbone: AbstractBackbone) -> dict[str, Any]:
    """The governed leaves of a backbone by name, in its order."""
    return {leaf: trees.at(backbone, leaf) for leaf in backbone.governed()}


def without_governed(backbone: AbstractBackbone) -> AbstractBackbone:
    """The backbone with None at its governed leaves: what a constraint leaves free."""
    return trees.put(backbone, dict.fromkeys(backbone.governed()))


def _flat(leaf: Array, lead: int) -> Array:
    return leaf.reshape(leaf.shape[0], -1, *leaf.shape[1 + lead :])


def _split(array: Array, counts: list[int]) -> list[Array]:
    if len(counts) == 1:
        return [array]
    return jnp.split(array, np.cumsum(counts[:-1]).tolist(), axis=1)


def _factored(core: Array, row: Array, col: Array) -> Factored:
    """A leaf of stacked blocks that is applied factor by factor; all layers have the same `row` and `col`."""
    return Factored(core, *(jnp.broadcast_to(factor, (len(core), *factor.shape)) for factor in (row, col)))
