"""Backbones by the axes that follow their size: what all methods that cut a network to size have in common."""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from .. import trees
from ..config import ViTConfig
from ..models import ViT


class Part(NamedTuple):
    """An array of a backbone, and what its axes are: `layer`, `inner` (channels inside attention), `hidden` (units of a
    feed-forward layer), `width` (residual channels), or something that does not follow the size."""

    array: Float[Array, "..."]
    axes: tuple[str, ...]


def parts_of(vit: ViT) -> dict[str, Part]:
    """The arrays of a backbone by name, the blocks of its hidden units joined to one axis."""
    arrays, found = trees.named_arrays(vit), {}
    for name, axes in trees.axes(vit).items():
        array = arrays[name]
        for blocks, units in (("4", "inner"), ("8", "third")):
            if blocks in axes:
                at = axes.index(blocks)
                array = array.reshape(*array.shape[:at], -1, *array.shape[at + 2 :])
                axes = (*axes[:at], "hidden", *axes[axes.index(units) + 1 :])
        found[name] = Part(array, axes)
    return found


def assemble(config: ViTConfig, arrays: Mapping[str, Array]) -> ViT:
    """The backbone of a size from its arrays; the converse of `parts_of`."""
    skeleton = eqx.filter_eval_shape(ViT, config, key=jr.key(0))
    shapes = {name: array.shape for name, array in trees.named_arrays(skeleton).items()}
    return trees.with_arrays(skeleton, {name: jnp.reshape(arrays[name], shape) for name, shape in shapes.items()})


def hidden_units(config: ViTConfig) -> int:
    """Hidden units of a feed-forward layer."""
    return 8 * (config.inner // 3) if config.dress == "enhanced" else 4 * config.inner


def take(source: ViT, target: ViTConfig, chosen: Mapping[str, Int[np.ndarray, "..."]]) -> ViT:
    """The dense backbone that consists of chosen parts of another.

    **Arguments:**

    - `target`: the size of the result.
    - `chosen`: indices along `layer`, `width`, `inner` and `hidden`: (number,), or (layers of the result, number) where
        every layer has its own. An axis that is not named is kept.
    """
    arrays = {}
    for name, (array, axes) in parts_of(source).items():
        for axis, what in enumerate(axes):
            if what not in chosen:
                continue
            indices = jnp.asarray(chosen[what])
            if indices.ndim == 1:
                array = jnp.take(array, indices, axis=axis)
            else:
                shape = [len(indices) if i == 0 else indices.shape[1] if i == axis else 1 for i in range(array.ndim)]
                array = jnp.take_along_axis(array, indices.reshape(shape), axis)
        arrays[name] = array
    return assemble(target, arrays)
