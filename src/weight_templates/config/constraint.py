"""Constraints, and the random widths of pre-training."""

import dataclasses
import typing
from typing import Annotated, Literal

from tyro.conf import arg

from ..errors import UserError
from .backbones import BackboneConfig, ViTConfig


Family = Literal["none", "linear", "kronecker", "svd", "tucker"]
Scope = Literal["submodel", "scalers", "off"]
Execution = Literal["auto", "masked", "sliced"]
Application = Literal["auto", "expanded", "factored"]
Layout = Literal["unified", "components"]


@dataclasses.dataclass(frozen=True)
class NoneOptions:
    """Ordinary pre-training: the weights are their own parameters."""


@dataclasses.dataclass(frozen=True)
class LinearOptions:
    """Every slice is a learned mixture of shared D x D slices."""

    rank: int | None = None
    """Number of shared slices; default slices / 24."""
    tleg: bool = False
    """Fixed mixtures, as in TLEG: every matrix grows linearly with the depth."""


@dataclasses.dataclass(frozen=True)
class KroneckerOptions:
    """Every slice is tiled by shared templates, scaled tile by tile (WAVE, WeiT)."""

    templates: int | None = None
    """Number of templates; default: as many template parameters as the other families."""
    tile: tuple[int, int] | None = None
    """Rows and columns of a template; default half a slice's, in the baseline wave a quarter."""


@dataclasses.dataclass(frozen=True)
class SvdOptions:
    """Shared bases left and right, one diagonal per slice (FINE)."""

    rank: int | None = None
    """Columns of the shared bases; default: as many template parameters as the other families."""


@dataclasses.dataclass(frozen=True)
class TuckerOptions:
    """A core, and factors along slices, rows and columns (SWEET)."""

    ranks: tuple[int, int, int] | None = None
    """Core sizes along slices, rows, columns; default slices / 6, rows / 2, columns / 2."""


@dataclasses.dataclass(frozen=True)
class ConstraintOptions:
    """The family of constraints, with each family's options beside it."""

    family: Annotated[Family, arg(name="")] = "tucker"
    """Constraint to pre-train under."""
    none: Annotated[NoneOptions, arg(prefix_name=False)] = NoneOptions()
    linear: Annotated[LinearOptions, arg(prefix_name=False)] = LinearOptions()
    kronecker: Annotated[KroneckerOptions, arg(prefix_name=False)] = KroneckerOptions()
    svd: Annotated[SvdOptions, arg(prefix_name=False)] = SvdOptions()
    tucker: Annotated[TuckerOptions, arg(prefix_name=False)] = TuckerOptions()

    @property
    def chosen(self) -> NoneOptions | LinearOptions | KroneckerOptions | SvdOptions | TuckerOptions:
        """The options of the chosen family."""
        return getattr(self, self.family)

    def check(self) -> None:
        """Raises UserError if an option of a family that is not chosen was given."""
        for other in typing.get_args(Family):
            if other != self.family and getattr(self, other) != type(getattr(self, other))():
                raise UserError(
                    f"options --{other}.* were given, but the constraint is {self.family}; "
                    f"drop them or say --constraint {other}."
                )


@dataclasses.dataclass(frozen=True)
class ScalingOptions:
    """Width-wise stochastic scaling (SWEET Eq. 7-8): every step sees a random prefix of the width."""

    scope: Scope | None = None
    """What a mask reaches. submodel: all that the narrower model lacks, so that masked equals sliced. scalers: the
    constrained weights alone, Eq. 7-8 to the letter. off: no masks. Default: submodel, and off for `none`."""
    heads: tuple[int, ...] | None = None
    """Widths to draw from, in heads; default all from a quarter of the model's heads."""
    coupled: bool = False
    """Draw one width for rows (heads) and columns (residual channels) instead of two."""
    execution: Execution = "auto"
    """masked: one program, which computes the full width and hides a part. sliced: a program for every width drawn,
    compiled when it first is, which computes that width only; same losses and gradients; scope submodel only. auto:
    sliced where the run is long enough for that to pay: 200 steps for every pair of widths there is to draw."""

    def scope_for(self, family: str) -> Scope:
        """The scope in force: as given, else `submodel` under a constraint and `off` without one."""
        return self.scope or ("off" if family == "none" else "submodel")

    def check(self, config: BackboneConfig, family: Family) -> None:
        """Raises UserError if the width does not scale with the heads, the widths are none of the model's, or there are no
        narrower models to compute."""
        if isinstance(config, ViTConfig) and config.channels % config.heads:
            raise UserError(
                f"{config.heads} heads do not divide a residual width of {config.channels}; "
                "choose --model.width as a multiple of --model.heads."
            )
        if self.heads is not None and not (self.heads and all(1 <= n <= config.heads for n in self.heads)):
            given = " ".join(map(str, self.heads))
            raise UserError(f"--scaling.heads {given} are not all between 1 and the model's {config.heads} heads.")
        scope = self.scope_for(family)
        if self.execution == "sliced" and scope != "submodel":
            raise UserError(
                f"--scaling.execution sliced computes narrower models, which --scaling.scope {scope} does not "
                "make; say --scaling.scope submodel, or --scaling.execution masked."
            )
