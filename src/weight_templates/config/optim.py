"""The optimiser and its schedule."""

import dataclasses
from typing import Literal

from ..errors import UserError
from .run import LATER


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """AdamW; by default with MAE's schedule: linear warm-up, then half a cosine to zero, step by step."""

    base_lr: float = 1.5e-4
    """Learning rate per 256 images; the peak rate is base_lr x batch / 256."""
    batch: int = 256
    """Images per optimiser step, over all devices and micro-batches."""
    epochs: int = 40
    """Passes over the training images."""
    steps: int | None = None
    """Optimiser steps, instead of epochs."""
    warmup: float = 0.1
    """Fraction of the steps that warm up."""
    schedule: Literal["cosine", "linear", "constant", "stable"] = dataclasses.field(default="cosine", metadata=LATER)
    """How the rate falls after the warm-up. cosine: half a cosine to zero. linear: a line to zero. constant: not at all.
    stable: not at all, then a line to zero over the last fifth (warmup-stable-decay)."""
    clip: float | None = dataclasses.field(default=None, metadata=LATER)
    """Largest Euclidean norm of the gradient; larger ones are scaled down to it. Default: none is."""
    weight_decay: float = 0.05
    """Decoupled decay of everything but gains and biases."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's moments."""
    microbatches: int = 1
    """Gradient accumulation: parts that a batch is computed in."""
    ema: float | None = None
    """Decay of an exponential moving average of the parameters; the bank then holds the average."""

    def total(self, steps_per_epoch: int) -> int:
        """Optimiser steps in all."""
        return self.steps or self.epochs * steps_per_epoch

    def check(self, flag: str = "--optim") -> None:
        """Raises UserError where a number is out of range; `flag` is what these options are called."""
        if self.batch < 1:
            raise UserError(f"{flag}.batch {self.batch} has no image; give a positive number.")
        if self.microbatches < 1 or self.batch % self.microbatches:
            raise UserError(
                f"{flag}.batch {self.batch} does not divide into {self.microbatches} micro-batches; "
                f"choose {flag}.microbatches among its divisors."
            )
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise UserError(f"{flag}.epochs and {flag}.steps must be at least 1.")
        if not self.base_lr > 0:
            raise UserError(f"{flag}.base-lr {self.base_lr} is not positive.")
        if not 0 <= self.warmup < 1:
            raise UserError(f"{flag}.warmup {self.warmup} is not in [0, 1): it is a fraction of the steps.")
        if self.weight_decay < 0:
            raise UserError(f"{flag}.weight-decay {self.weight_decay} is negative.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"{flag}.betas {self.betas} are not both in [0, 1).")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"{flag}.clip {self.clip} is not positive.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"{flag}.ema {self.ema} is not in (0, 1).")
