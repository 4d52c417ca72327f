"""The families of constraints, one file each; see `base` for the four verbs and their laws."""

import dataclasses

from ..config import ConstraintOptions, Family
from .base import AbstractConstraint, Arrays, Factors, Shape
from .kronecker import Kronecker
from .linear import Linear
from .none import Unconstrained
from .svd import Svd
from .tucker import Tucker


FAMILIES: dict[Family, type[AbstractConstraint]] = {
    "none": Unconstrained,
    "linear": Linear,
    "kronecker": Kronecker,
    "svd": Svd,
    "tucker": Tucker,
}


def constraint_of(options: ConstraintOptions) -> AbstractConstraint:
    """The constraint that the options describe; raises UserError for options of another family."""
    options.check()
    return FAMILIES[options.family](**dataclasses.asdict(options.chosen))


def family_of(constraint: AbstractConstraint) -> Family:
    """The name of a constraint's family."""
    return next(name for name, kind in FAMILIES.items() if type(constraint) is kind)


__all__ = [
    "FAMILIES",
    "AbstractConstraint",
    "Arrays",
    "Factors",
    "Kronecker",
    "Linear",
    "Shape",
    "Svd",
    "Tucker",
    "Unconstrained",
    "constraint_of",
    "family_of",
]
