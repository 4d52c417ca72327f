"""Where the governed weights of a ViT sit in stacks of slices: bijections between blocks and `W[slice, row, col]`.

Every slice has internal channels (heads, hidden units) as rows and residual channels as columns, whatever side of the
layer its matrix stands on. So a prefix of the rows is a number of heads and hidden units, a prefix of the columns is a
narrower residual stream, and the two may be chosen independently.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .config import Dress, ViTConfig
from .constraints import Shape
from .models import Block
from .nn import Factored


Stacks = dict[str, Float[Array, "slice row col"]]
Cores = dict[str, tuple[Float[Array, "slice r2 r3"], Float[Array, "row r2"], Float[Array, "col r3"]]]


def governed(blocks: Block) -> tuple[Any, Any, Any, Any]:
    """The leaves of stacked blocks that a constraint governs: q, k, v; attention out; FFN in; FFN out."""
    return blocks.attention.qkv, blocks.attention.out, blocks.mlp.enter, blocks.mlp.leave


class AbstractLayout(eqx.Module):
    """A bijection between the governed leaves of stacked blocks and stacks of slices, by group."""

    @abc.abstractmethod
    def per_layer(self, dress: Dress) -> dict[str, int]:
        """Slices that a layer has in each group."""

    @abc.abstractmethod
    def rows(self, dress: Dress, inner: Any) -> dict[str, Any]:
        """Rows of a slice in each group, at an inner width of `inner` channels, which may be traced."""

    @abc.abstractmethod
    def fold(self, leaves: tuple[Float[Array, "..."], ...]) -> Stacks:
        """The stacks of the governed leaves, in the order of `governed`."""

    @abc.abstractmethod
    def unfold(self, stacks: Stacks, dress: Dress) -> tuple[Float[Array, "..."], ...]:
        """The governed leaves; the converse of `fold`."""

    @abc.abstractmethod
    def unfold_factored(self, groups: Cores, dress: Dress) -> tuple[Factored, ...]:
        """The governed leaves, to be applied factor by factor: what `unfold` makes of `row core[slice] colᵀ`."""


def _factored(core: Array, row: Array, col: Array) -> Factored:
    """A leaf of stacked blocks that is applied factor by factor; all layers have the same `row` and `col`."""
    return Factored(core, *(jnp.broadcast_to(factor, (len(core), *factor.shape)) for factor in (row, col)))


def shapes(layout: AbstractLayout, config: ViTConfig) -> dict[str, Shape]:
    """The shapes of a network's stacks."""
    rows = layout.rows(config.dress, config.inner)
    return {
        group: Shape(config.depth * count, rows[group], config.channels, config.depth)
        for group, count in layout.per_layer(config.dress).items()
    }


def slices_of(layout: AbstractLayout, dress: Dress, layers: list[int]) -> dict[str, np.ndarray]:
    """The indices of the slices of given layers, in each group."""
    return {
        group: (np.array(layers)[:, None] * count + np.arange(count)).reshape(-1)
        for group, count in layout.per_layer(dress).items()
    }


class Unified(AbstractLayout):
    """All matrices in one stack of 12 slices of D x D a layer, q, k, v, o, f0 … f7, so that all share one template.

    This is SWEET's unified matrix (§3.2) as a 3-tensor. GELU: f_i is block i of the way in, f_{4+i} block i of the way
    out. SwiGLU: row j of f_i belongs to hidden unit i·⌊D/3⌋ + ⌊j/3⌋, as its gate, up or down weights for j mod 3 = 0, 1,
    2; up to two rows are left over. The paper does not say how SwiGLU is cut; this interleaving is the one whose
    prefixes are sub-networks.
    """

    def per_layer(self, dress: Dress) -> dict[str, int]:
        return {"all": 12}

    def rows(self, dress: Dress, inner: Any) -> dict[str, Any]:
        return {"all": inner}

    def fold(self, leaves: tuple[Float[Array, "..."], ...]) -> Stacks:
        qkv, out, enter, leave = leaves
        depth, _, inner, width = qkv.shape
        if enter.ndim == 5:
            parts = jnp.concatenate([enter, leave[:, None]], axis=1)  # layer, component, block, unit, width
            ffn = jnp.moveaxis(parts, 1, 3).reshape(depth, 8, -1, width)
            ffn = jnp.pad(ffn, ((0, 0), (0, 0), (0, inner - ffn.shape[2]), (0, 0)))
        else:
            ffn = jnp.concatenate([enter, leave], axis=1)
        stack = jnp.concatenate([qkv, out[:, None], ffn], axis=1)
        return {"all": stack.reshape(depth * 12, inner, width)}

    def unfold(self, stacks: Stacks, dress: Dress) -> tuple[Float[Array, "..."], ...]:
        _, inner, width = stacks["all"].shape
        stack = stacks["all"].reshape(-1, 12, inner, width)
        # Split, not sliced: the gradients are then put together once, and not padded part by part and added.
        if dress == "plain":
            qkv, out, enter, leave = jnp.split(stack, (3, 4, 8), axis=1)
            return qkv, out[:, 0], enter, leave
        qkv, out, ffn = jnp.split(stack, (3, 4), axis=1)
        third = inner // 3
        parts = jnp.moveaxis(ffn[:, :, : 3 * third].reshape(-1, 8, third, 3, width), 3, 1)
        enter, leave = jnp.split(parts, (2,), axis=1)
        return qkv, out[:, 0], enter, leave[:, 0]

    def unfold_factored(self, groups: Cores, dress: Dress) -> tuple[Factored, ...]:
        core, row, col = groups["all"]
        core = core.reshape(-1, 12, *core.shape[1:])
        qkv, out = _factored(core[:, :3], row[None], col), _factored(core[:, 3:4], row[None], col)
        if dress == "plain":
            return qkv, out, _factored(core[:, 4:8], row[None], col), _factored(core[:, 8:], row[None], col)
        parts = jnp.moveaxis(row[: len(row) // 3 * 3].reshape(-1, 3, row.shape[1]), 1, 0)
        return qkv, out, _factored(core[:, 4:], parts[:2], col), _factored(core[:, 4:], parts[2:], col)


class Components(AbstractLayout):
    """A stack per kind of matrix, so that each kind has a template of its own (WAVE, FINE, TLEG)."""

    def per_layer(self, dress: Dress) -> dict[str, int]:
        return {
            "qkv": 3,
            "out": 1,
            "enter": 16 if dress == "enhanced" else 4,
            "leave": 8 if dress == "enhanced" else 4,
        }

    def rows(self, dress: Dress, inner: Any) -> dict[str, Any]:
        hidden = inner // 3 if dress == "enhanced" else inner
        return {"qkv": inner, "out": inner, "enter": hidden, "leave": hidden}

    def fold(self, leaves: tuple[Float[Array, "..."], ...]) -> Stacks:
        names = ("qkv", "out", "enter", "leave")
        return {name: leaf.reshape(-1, *leaf.shape[-2:]) for name, leaf in zip(names, leaves, strict=True)}

    def unfold(self, stacks: Stacks, dress: Dress) -> tuple[Float[Array, "..."], ...]:
        blocks = (2, 8) if dress == "enhanced" else (4,)

        def leaf(name: str, *lead: int) -> Float[Array, "..."]:
            return stacks[name].reshape(-1, *lead, *stacks[name].shape[1:])

        return leaf("qkv", 3), leaf("out"), leaf("enter", *blocks), leaf("leave", blocks[-1])

    def unfold_factored(self, groups: Cores, dress: Dress) -> tuple[Factored, ...]:
        leaves = []
        for name, count in self.per_layer(dress).items():
            core, row, col = groups[name]
            leaves.append(_factored(core.reshape(-1, count, *core.shape[1:]), row[None], col))
        return tuple(leaves)


LAYOUTS: dict[str, type[AbstractLayout]] = {"unified": Unified, "components": Components}
