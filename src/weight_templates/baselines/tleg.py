"""TLEG: see `learngene`."""

import dataclasses
from typing import Any, ClassVar

from .. import constraints
from .learngene import Learngene


@dataclasses.dataclass(frozen=True)
class Tleg(Learngene):
    """Matrices that grow linearly with depth, distilled (Xia et al., 2024)."""

    name: ClassVar[str] = "tleg"

    def constraint(self) -> Any:
        return constraints.Linear(tleg=True)
