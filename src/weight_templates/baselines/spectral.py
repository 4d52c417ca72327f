"""FRONT (2026): a network of any size is the low frequencies of another's weights; nothing is trained.

Every weight is transformed by an orthonormal discrete cosine transform along the axes that follow the size, depth among
them, cut to the target's sizes (or filled with zeros), and transformed back. We know the method by its abstract only
(arXiv 2603.07523). Our choices: all is cut by the orthonormal transform, so that what is added to the residual stream
(biases, the class token, positions) is cut as what the matrices write into it; it keeps the variance of white noise, and
what is alike in neighbouring entries grows, by the root of the ratio of sizes. Gains, which multiply, keep their values: a
constant stays what it is. Where positions are rotary, attention is cut along its heads and not along the channels of a
head, which would lose their frequencies.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float

from ..config import BackboneConfig, ViTConfig
from ..models import ViT
from ..training import Run
from .base import FromSource, Made, Source, cut
from .parts import assemble, hidden_units, parts_of


@dataclasses.dataclass(frozen=True)
class Front(FromSource):
    """Low frequencies of the weights (FRONT, 2026); also larger than the source."""

    name: ClassVar[str] = "front"

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        assert source
        return cut(self, source, truncate_spectrum(source.backbone, target))


def low_frequencies(
    array: Float[np.ndarray, "..."], axis: int, size: int, keep_values: bool, block: int = 1
) -> Float[np.ndarray, "..."]:
    """`array` with `size` entries along `axis`, by cutting or extending its cosine spectrum there.

    With `keep_values` a constant is resampled to itself; without, white noise keeps its variance. Of entries that come in
    a `block` each has a spectrum with its like in the other blocks.
    """
    if block > 1:
        shape = array.shape
        apart = array.reshape(*shape[:axis], -1, block, *shape[axis + 1 :])
        return low_frequencies(apart, axis, size // block, keep_values).reshape(*shape[:axis], size, *shape[axis + 1 :])
    before = array.shape[axis]
    spectrum = np.asarray(scipy.fft.dct(array, axis=axis, norm="ortho"))
    kept = np.take(spectrum, range(min(before, size)), axis=axis)
    filling = [(0, size - kept.shape[axis] if i == axis else 0) for i in range(array.ndim)]
    made = np.asarray(scipy.fft.idct(np.pad(kept, filling), axis=axis, norm="ortho"))
    return made * (size / before) ** 0.5 if keep_values or size > before else made


def truncate_spectrum(source: ViT, target: ViTConfig) -> ViT:
    """The backbone of the size `target`, smaller or larger, from the low frequencies of `source`'s weights."""
    sizes = {"layer": target.depth, "width": target.channels, "inner": target.inner, "hidden": hidden_units(target)}
    blocks = {"inner": target.head_dim} if target.dress == "enhanced" else {}
    arrays = {}
    for name, (array, axes) in parts_of(source).items():
        made, gain = np.asarray(array, np.float64), name.endswith("gain")
        for axis, what in enumerate(axes):
            if what in sizes and sizes[what] != made.shape[axis]:
                made = low_frequencies(made, axis, sizes[what], keep_values=gain, block=blocks.get(what, 1))
        arrays[name] = jnp.asarray(made, array.dtype)
    return assemble(target, arrays)
