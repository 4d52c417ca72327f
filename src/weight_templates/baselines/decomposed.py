"""A size from a decomposition of the source's weights (Tucker by default), cut as a bank is, without any training.

The strongest simple competitor of pre-training under a constraint: what the factors of an ordinary network know of its
prefixes. Nobody publishes it; it is ours.
"""

import dataclasses
from typing import ClassVar

from .. import constraints, from_model, inherit
from ..config import BackboneConfig, ConstraintOptions, Layout
from ..training import Run
from .base import FromSource, Made, Source, cut


@dataclasses.dataclass(frozen=True)
class Decomposed(FromSource):
    """The first layers and heads of a bank that is made by a decomposition of the source's weights."""

    constraint: ConstraintOptions = ConstraintOptions()
    layout: Layout = "unified"
    """unified: one template for all matrices. components: one for each kind of matrix."""

    name: ClassVar[str] = "decomposed"
    any_backbone: ClassVar[bool] = True

    def check_options(self) -> None:
        FromSource.check_options(self)
        self.constraint.check()

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        assert source
        constraint = constraints.constraint_of(self.constraint)
        bank = from_model.bank_of(source.backbone, constraint, self.layout, source.about)
        return cut(self, source, inherit.initialize(bank, target.depth, target.heads))
