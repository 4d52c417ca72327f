"""Weight selection (Xu et al., ICLR 2024, arXiv 2311.18823): a small network is an evenly spaced part of a large one.

The first layers; along every axis evenly spaced entries, the same ones wherever the axis is the same. q, k and v are
selected apart; the authors' code selects in the fused matrix, which is the same where the sizes divide. Hidden units
are one axis, although they are stored in blocks.
"""

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from ..config import BackboneConfig, ViTConfig
from ..errors import UserError
from ..models import ViT
from ..training import Run
from .base import FromSource, Made, Source, check_smaller, cut
from .parts import hidden_units, take


Heads = Literal["strided", "whole"]
"""strided: evenly spaced channels through all heads, as the paper has it. whole: evenly spaced heads with all their
channels, which under rotary positions alone keeps their frequencies."""


@dataclasses.dataclass(frozen=True)
class WeightSelection(FromSource):
    """Evenly spaced parts of the first layers (Xu et al., 2024)."""

    select_heads: Heads | None = None
    """strided: evenly spaced channels through all heads, as published. whole: evenly spaced heads, which under rotary
    positions keeps their frequencies. Default: whole under rotary positions, else strided."""

    name: ClassVar[str] = "weight-selection"
    shrinks: ClassVar[bool] = True

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        assert source
        rotary = source.backbone.config.dress == "enhanced"
        heads = self.select_heads or ("whole" if rotary else "strided")
        return cut(self, source, select_weights(source.backbone, target, heads))


def spaced(source: int, target: int) -> Int[np.ndarray, " target"]:
    """Evenly spaced indices: multiples of source / target where that is whole, else i (source - 1) / (target - 1)
    rounded, halves to even (the authors' code since September 2024).

    Raises UserError unless 1 <= target <= source.
    """
    if not 1 <= target <= source:
        raise UserError(f"{target} of {source} cannot be selected; choose a size within the source's.")
    if source % target == 0:
        return np.arange(target) * (source // target)
    # Exact: a rounded quotient may fall on either side of a half.
    whole, rest = np.divmod(np.arange(target) * (source - 1), target - 1)
    return whole + ((2 * rest > target - 1) | ((2 * rest == target - 1) & (whole % 2 == 1)))


def select_weights(source: ViT, target: ViTConfig, heads: Heads = "strided") -> ViT:
    """The backbone of the size `target` that is selected from `source`; raises UserError if it is larger."""
    big = source.config
    check_smaller("weight selection", big, target)
    if heads == "whole":
        inner = (spaced(big.heads, target.heads)[:, None] * big.head_dim + np.arange(big.head_dim)).reshape(-1)
    else:
        inner = spaced(big.inner, target.inner)
    return take(
        source,
        target,
        {
            "layer": np.arange(target.depth),
            "width": spaced(big.channels, target.channels),
            "inner": inner,
            "hidden": spaced(hidden_units(big), hidden_units(target)),
        },
    )
