"""Random weights, as all other methods have them where they take nothing from a source."""

import dataclasses
from typing import ClassVar

import jax.random as jr

from ..config import BackboneConfig
from ..training import Run
from .base import FromNothing, Made, Source


@dataclasses.dataclass(frozen=True)
class Scratch(FromNothing):
    """Random weights."""

    name: ClassVar[str] = "scratch"

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        return Made(target.create(key=jr.key(self.seed)))
