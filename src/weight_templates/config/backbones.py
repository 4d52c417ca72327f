"""Backbones: what sizes them, and how their axes follow the width."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from ..errors import UserError


class Widths(NamedTuple):
    """The part of the width that takes part, in heads; both numbers may be traced."""

    rows: Any
    """Heads, and with them hidden units: whatever lies inside a block."""
    cols: Any
    """Residual channels, in units of the channels that go with one head."""


@runtime_checkable
class BackboneConfig(Protocol):
    """What a backbone's configuration has, a frozen dataclass of numbers and words; see `models.AbstractBackbone`."""

    depth: int | tuple[int, ...]
    """Blocks, by stage where there are several."""
    heads: int
    """The width, in heads: the unit in which it is scaled. In a convolutional network a head is a group of channels."""
    head_dim: int
    """Channels of a head."""
    interleaved: ClassVar[dict[str, str]]
    """Axes that hold every k-th row of another axis, by name: `{"third": "inner"}` for the parts of a SwiGLU. Where all
    matrices share one stack, such parts lie in the rows of one slice in turn."""
    features: ClassVar[str]
    """The axis of what comes out, which heads read."""
    branches: ClassVar[int]
    """Residual branches of a block, each of which stochastic depth may drop."""

    @property
    def tokens(self) -> int:
        """Positions that the blocks work on: patches, and a class token where there is one."""
        ...

    def axes(self, widths: Widths | None = None) -> dict[str, Any]:
        """The size of every axis that follows the width, by its name; at the full width, or at `widths`."""
        ...

    def resized(self, depth: Any = None, heads: int | None = None, columns: int | None = None) -> "BackboneConfig":
        """The same network at another depth, number of heads, and residual width in heads (default: `heads`)."""
        ...

    def check(self) -> None:
        """Raises UserError where the numbers do not make a network."""
        ...

    def create(self, *, key: Any) -> Any:
        """A random network; raises UserError where the numbers do not make one."""
        ...


Dress = Literal["enhanced", "plain"]


class Sizes:
    """What the sizes of all kinds of backbones derive from, so that a command takes any of them."""


@dataclasses.dataclass(frozen=True)
class ViTConfig(Sizes):
    """A vision transformer backbone."""

    image: int = 32
    """Side of the square input, pixels."""
    patch: int = 4
    """Side of a patch, pixels; divides the image."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Number of attention heads."""
    head_dim: int = 16
    """Channels per head; a multiple of 4."""
    width: int | None = None
    """Channels of the residual stream; heads x head_dim if not given."""
    dress: Dress = "enhanced"
    """enhanced: RMSNorm, SwiGLU, 2-D RoPE. plain: LayerNorm, GELU, nested sin-cos positions."""

    interleaved: ClassVar[dict[str, str]] = {"third": "inner"}
    features: ClassVar[str] = "width"
    branches: ClassVar[int] = 2

    def axes(self, widths: Widths | None = None) -> dict[str, Any]:
        """`inner`: heads x channels of a head. `third`: a third of it, a component of SwiGLU in one slice. `width`: residual
        channels."""
        if widths is None:
            return {"inner": self.inner, "third": self.inner // 3, "width": self.channels}
        inner = widths.rows * self.head_dim
        return {"inner": inner, "third": inner // 3, "width": widths.cols * self.channels_per_head}

    def create(self, *, key: Any) -> Any:
        """A random network; raises UserError where the numbers do not make one."""
        from ..models.vit import ViT  # so that nothing here imports JAX

        return ViT(self, key=key)

    @property
    def channels(self) -> int:
        """Channels of the residual stream, D."""
        return self.heads * self.head_dim if self.width is None else self.width

    @property
    def inner(self) -> int:
        """Channels inside attention, heads x head_dim; also the rows of a slice."""
        return self.heads * self.head_dim

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image // self.patch

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.grid**2

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.patches + 1

    @property
    def channels_per_head(self) -> int:
        """Residual channels that go with one head when the width is scaled."""
        return self.channels // self.heads

    def resized(self, depth: int | None = None, heads: int | None = None, columns: int | None = None):
        """The same network at another depth, number of heads, and residual width in heads (default: `heads`).

        A width that is no multiple of the heads stays as it is if their number does; raises UserError otherwise.
        """
        if self.channels % self.heads and {heads, columns} - {None, self.heads}:
            raise UserError(
                f"a width of {self.channels} channels is no multiple of {self.heads} heads, so {heads or columns} heads have no "
                "width of their own; leave --heads out, or begin with a --model.width that is a multiple."
            )
        heads = self.heads if heads is None else heads
        columns = heads if columns is None else columns
        width = self.channels if columns == self.heads else columns * self.channels_per_head
        return dataclasses.replace(
            self,
            depth=self.depth if depth is None else depth,
            heads=heads,
            width=None if width == heads * self.head_dim else width,
        )

    def check(self) -> None:
        """Raises UserError where the numbers do not make a network."""
        for name in ("image", "patch", "depth", "heads", "head_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}; give a positive number.")
        if self.image % self.patch:
            raise UserError(
                f"patches of {self.patch} px do not tile an image of {self.image} px; "
                "choose --model.patch among the divisors of --model.image."
            )
        if self.head_dim % 4:
            raise UserError(f"--model.head-dim {self.head_dim} is not a multiple of 4, which 2-D positions need.")
        if self.channels < 1:
            raise UserError(f"--model.width {self.channels} is not positive.")


@dataclasses.dataclass(frozen=True)
class ConvNextConfig(Sizes):
    """An isotropic ConvNeXt: a stem of patches, then equal blocks at one resolution (Liu et al., 2022, appendix A)."""

    image: int = 32
    """Side of the square input, pixels."""
    patch: int = 4
    """Side of a patch, pixels; divides the image."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Width, in groups of `head_dim` channels."""
    head_dim: int = 16
    """Channels of a group."""
    kernel: int = 7
    """Side of the depthwise kernels; odd."""

    interleaved: ClassVar[dict[str, str]] = {}
    features: ClassVar[str] = "width"
    branches: ClassVar[int] = 1

    @property
    def channels(self) -> int:
        """Channels of the residual stream, D."""
        return self.heads * self.head_dim

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image // self.patch

    @property
    def tokens(self) -> int:
        """Positions of the map."""
        return self.grid**2

    def axes(self, widths: Widths | None = None) -> dict[str, Any]:
        """`inner`: a quarter of the hidden units. `width`: residual channels."""
        rows, cols = (self.heads, self.heads) if widths is None else widths
        return {"inner": rows * self.head_dim, "width": cols * self.head_dim}

    def resized(self, depth: int | None = None, heads: int | None = None, columns: int | None = None):
        """The same network at another depth and width; raises UserError for rows and columns of different width."""
        heads = self.heads if heads is None else heads
        if columns not in (None, heads):
            raise UserError(
                "a ConvNeXt has as many hidden units as its width asks for; give rows and columns one width."
            )
        return dataclasses.replace(self, depth=self.depth if depth is None else depth, heads=heads)

    def check(self) -> None:
        """Raises UserError where the numbers do not make a network."""
        for name in ("image", "patch", "depth", "heads", "head_dim", "kernel"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}; give a positive number.")
        if self.image % self.patch:
            raise UserError(
                f"patches of {self.patch} px do not tile an image of {self.image} px; "
                "choose --model.patch among the divisors of --model.image."
            )
        if self.kernel % 2 == 0:
            raise UserError(f"--model.kernel {self.kernel} is even, so that it has no centre; give an odd number.")

    def create(self, *, key: Any) -> Any:
        """A random network; raises UserError where the numbers do not make one."""
        from ..models.convnext import ConvNext  # so that nothing here imports JAX

        return ConvNext(self, key=key)


BACKBONES: dict[str, type] = {"vit": ViTConfig, "convnext": ConvNextConfig}
"""The configurations of all backbones, by name."""


def depths(config: BackboneConfig) -> tuple[int, ...]:
    """The number of blocks of every stage."""
    return config.depth if isinstance(config.depth, tuple) else (config.depth,)


def to_header(config: BackboneConfig) -> dict[str, Any]:
    """A backbone's configuration as JSON that tells its kind."""
    kind = next(name for name, one in BACKBONES.items() if type(config) is one)
    return {"kind": kind, **dataclasses.asdict(config)}  # pyright: ignore[reportArgumentType]


def from_header(path: Any, header: dict[str, Any]) -> BackboneConfig:
    """The converse of `to_header`; raises UserError for a kind that this version does not know, in the file `path`."""
    kind = header.get("kind")
    if kind not in BACKBONES:
        raise UserError(
            f"{path} has a backbone {kind!r}, which this version does not know; read it with the version that wrote it."
        )
    return BACKBONES[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in header.items() if k != "kind"})
