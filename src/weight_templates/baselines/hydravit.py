"""HydraViT (Haberer et al., 2024, arXiv 2409.17978): the prefix of an unconstrained network whose prefixes were trained.

Its first layers, heads and residual channels. Widths that were not drawn in pre-training are noted. Prefixes of the depth
never are drawn: HydraViT has one depth, and is trained supervised.
"""

import dataclasses
from typing import ClassVar

from .. import cli, convert, inherit
from ..config import BackboneConfig
from ..errors import UserError
from ..training import Run
from .base import FromSource, Made, Source, cut


@dataclasses.dataclass(frozen=True)
class HydraViT(FromSource):
    """The first layers and heads of an ordinary bank pre-trained with random widths, `--constraint none --scaling.scope
    submodel --scaling.coupled` (Haberer et al., 2024, arXiv 2409.17978; they train supervised, and leave no layers out)."""

    name: ClassVar[str] = "hydravit"
    shrinks: ClassVar[bool] = True

    def target(self, source: Source | None) -> BackboneConfig:
        bank = source and source.bank
        if bank is None or bank.family != "none" or bank.about.get("scaling") != "submodel":
            raise UserError(
                f"{self.source} is no ordinary bank that was pre-trained with random widths; make one with `python "
                "experiments/pretrain.py --constraint none --scaling.scope submodel --scaling.coupled`."
            )
        return FromSource.target(self, source)

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        assert source
        assert source.bank
        drawn = source.bank.about.get("widths")
        if drawn and target.heads not in drawn:
            cli.say(
                f"note: {self.source} was pre-trained at widths of {' '.join(map(str, drawn))} heads, not {target.heads}."
            )
        backbone = inherit.initialize(source.bank, target.depth, target.heads)
        return cut(self, source, convert.at_resolution(backbone, target.image))
