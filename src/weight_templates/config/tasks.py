"""Tasks: what is put around a backbone, and how it is trained."""

import dataclasses
import importlib
from typing import Any, NamedTuple

from ..errors import UserError
from .backbones import ViTConfig


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The masked auto-encoder around the backbone."""

    depth: int = 2
    """Decoder blocks. The decoder is most of a small encoder's cost: keep it light."""
    width: int = 96
    """Decoder channels."""
    heads: int = 6
    """Decoder heads; divides the width into heads of a multiple of 4 channels."""
    mask_ratio: float = 0.75
    """Fraction of the patches that is hidden, in (0, 1)."""
    norm_pix: bool = True
    """Predict pixels normalised by their patch's mean and deviation."""

    def check(self, vit: ViTConfig) -> None:
        """Raises UserError where the numbers do not make a decoder of `vit`."""
        if self.depth < 1 or self.width < 1 or self.heads < 1:
            raise UserError("decoder.depth, decoder.width and decoder.heads must be positive.")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise UserError(
                f"{self.heads} decoder heads do not divide {self.width} channels into multiples of 4; "
                "change --decoder.heads or --decoder.width."
            )
        if not 0 < self.mask_ratio < 1 or int(vit.patches * (1 - self.mask_ratio)) < 1:
            raise UserError(
                f"--decoder.mask-ratio {self.mask_ratio} does not leave some of {vit.patches} patches visible and hide "
                "others; give a ratio between 0 and 1 that leaves at least one."
            )


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """What fine-tuning adds to AdamW, after MAE and DeiT. Zero switches off; layer_decay 1 does."""

    layer_decay: float = 1.0
    """Learning rate of a layer over that of the one above it, in the model's own depth: block i of 1 … L has
    layer_decay^(L + 1 - i) of the head's, the embedding layer_decay^(L + 1)."""
    drop_path: float = 0.0
    """Stochastic depth: probability that the last block's branches are dropped; it grows linearly from 0 at the first."""
    crop: float = 0.2
    """Smallest share of an image that a random crop shows."""
    randaugment: float = 0.0
    """Magnitude of RandAugment, 0 to 10: two of fifteen operations on every image."""
    erasing: float = 0.0
    """Probability that a random rectangle is replaced by noise."""
    mixup: float = 0.0
    """Alpha of mixup; if cutmix is on too, each batch takes one of them."""
    cutmix: float = 0.0
    """Alpha of cutmix."""
    smoothing: float = 0.1
    """Label smoothing."""

    def check(self) -> None:
        """Raises UserError where a number is out of range."""
        ranges = {"drop_path": 1, "randaugment": 10, "erasing": 1, "smoothing": 1}
        for name, most in ranges.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"--recipe.{name.replace('_', '-')} {getattr(self, name)} is not in [0, {most}].")
        if self.drop_path == 1:
            raise UserError("--recipe.drop-path 1 drops the last block always; give a number below 1.")
        if not 0 < self.layer_decay <= 1 or not 0 < self.crop <= 1:
            raise UserError("--recipe.layer-decay and --recipe.crop must be in (0, 1].")
        if self.mixup < 0 or self.cutmix < 0:
            raise UserError("--recipe.mixup and --recipe.cutmix must not be negative.")


class TaskEntry(NamedTuple):
    """Where a task is found, without importing it: `module:class`; a dot in front stands for this package."""

    task: str
    head: str
    """What it puts around a backbone, a bank's other half."""
    options: tuple[str, ...]
    """The fields of a command's configuration that are its options."""


TASKS: dict[str, TaskEntry] = {
    "masked": TaskEntry(".tasks.masked:Masked", ".models.mae:MAE", ("decoder",)),
    "classify": TaskEntry(".tasks.classify:Classify", ".models.classifier:Classifier", ("recipe", "pool")),
    "features": TaskEntry(".tasks.features:Features", ".models.backbone:Bare", ()),
}
"""All tasks by name."""


def found(place: str) -> Any:
    """What `module:name` names, imported now; a dot in front stands for this package."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module, __package__.rpartition(".")[0]), name)
