"""FRONT (2026): a network of any size is the low frequencies of another's weights; nothing is trained.

Every weight is transformed by an orthonormal discrete cosine transform along the axes that follow the size, depth among
them, cut to the target's sizes (or filled with zeros), and transformed back. We know the method by its abstract only
(arXiv 2603.07523). Our choices: matrices are cut by the orthonormal transform, which keeps the variance of white noise (what is alike in
neighbouring entries grows instead, by the root of the ratio of sizes); gains, biases, the class token and positions keep
their values, so a constant stays what it is.
"""

import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float

from ..config import ViTConfig
from ..models import ViT
from .parts import assemble, hidden_units, parts_of


def low_frequencies(
    array: Float[np.ndarray, "..."], axis: int, size: int, keep_values: bool
) -> Float[np.ndarray, "..."]:
    """`array` with `size` entries along `axis`, by cutting or extending its cosine spectrum there.

    With `keep_values` a constant is resampled to itself; without, white noise keeps its variance.
    """
    before = array.shape[axis]
    spectrum = np.asarray(scipy.fft.dct(array, axis=axis, norm="ortho"))
    kept = np.take(spectrum, range(min(before, size)), axis=axis)
    filling = [(0, size - kept.shape[axis] if i == axis else 0) for i in range(array.ndim)]
    made = np.asarray(scipy.fft.idct(np.pad(kept, filling), axis=axis, norm="ortho"))
    return made * (size / before) ** 0.5 if keep_values or size > before else made


def truncate_spectrum(source: ViT, target: ViTConfig) -> ViT:
    """The backbone of the size `target`, smaller or larger, from the low frequencies of `source`'s weights."""
    sizes = {"layer": target.depth, "width": target.channels, "inner": target.inner, "hidden": hidden_units(target)}
    arrays = {}
    for name, (array, axes) in parts_of(source).items():
        made = np.asarray(array, np.float64)
        vector = sum(axis in ("width", "inner", "hidden", "pixel") for axis in axes) < 2
        for axis, what in enumerate(axes):
            if what in sizes and sizes[what] != made.shape[axis]:
                made = low_frequencies(made, axis, sizes[what], keep_values=vector)
        arrays[name] = jnp.asarray(made, array.dtype)
    return assemble(target, arrays)
