"""WAVE: see `learngene`."""

import dataclasses
from typing import Any, ClassVar

from .. import constraints
from ..config import KroneckerOptions
from ..errors import UserError
from .learngene import Learngene


@dataclasses.dataclass(frozen=True)
class Wave(Learngene):
    """Kronecker templates, distilled, fitted to the size (Feng et al., 2025)."""

    kronecker: KroneckerOptions = KroneckerOptions()
    parts: int = 4
    """Templates across a slice, and along it, where `tile` does not say. Theirs is not published; with four, all multiples of
    a quarter of the width are made of whole templates."""

    name: ClassVar[str] = "wave"

    def check_options(self) -> None:
        if self.kronecker.tile and self.parts != Wave().parts:
            raise UserError("--parts and --kronecker.tile both tell the size of a template; leave one out.")
        Learngene.check_options(self)

    def constraint(self) -> Any:
        return constraints.Kronecker(**dataclasses.asdict(self.kronecker), parts=self.parts)
