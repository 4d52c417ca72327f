"""FINE: see `learngene`."""

import dataclasses
from typing import Any, ClassVar

from .. import constraints
from ..config import SvdOptions
from .learngene import Learngene


@dataclasses.dataclass(frozen=True)
class Fine(Learngene):
    """Shared bases with a diagonal per slice, distilled, fitted to the size (Xie et al., 2024)."""

    svd: SvdOptions = SvdOptions()

    name: ClassVar[str] = "fine"

    def constraint(self) -> Any:
        return constraints.Svd(**dataclasses.asdict(self.svd))
