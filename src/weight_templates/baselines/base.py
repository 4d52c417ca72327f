"""What a baseline is, and how to add one.

A baseline is a frozen dataclass: its fields are the options of its command, its methods say what is refused, what it
makes and what it costs. To add one: a file here, and its name in `baselines.METHODS`.
"""

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import tyro

from .. import bank, convert, inherit, trees
from ..config import BackboneConfig, RunOptions, ViTConfig, check_seed
from ..errors import UserError
from ..files import identity
from ..learning import at_width
from ..models import AbstractBackbone, ViT
from ..programs import flops_of
from ..training import Run


class Source(NamedTuple):
    """What a method takes from."""

    backbone: Any
    """A plain backbone."""
    bank: bank.Bank | None
    """The bank it is from, which has a head too."""
    about: dict[str, Any]


class Made(NamedTuple):
    """What a method makes of a size."""

    backbone: AbstractBackbone
    size_flops: int | float = 0
    """What this size cost."""
    transferred: int = 0
    """Numbers that came from the source."""
    source_flops: int | float | None = 0
    """What the source's training cost; None where that is not known."""
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """What else the account is to tell."""

    @property
    def cost(self) -> dict[str, Any]:
        """The account, as a summary holds it."""
        names = ("source_flops", "size_flops", "transferred")
        return {name: getattr(self, name) for name in names} | self.more


@dataclasses.dataclass(frozen=True)
class AbstractMethod(abc.ABC):
    """A baseline: how a plain backbone of any size is made."""

    depth: int | None = None
    """Layers; default the source's."""
    heads: int | None = None
    """Heads, and with them the width; default the source's."""
    seed: int = 0
    """Seed of everything random in this method."""
    run: RunOptions = RunOptions()

    name: ClassVar[str]
    """What the command calls it."""
    shrinks: ClassVar[bool] = False
    """Whether it makes no network larger than its source."""

    @abc.abstractmethod
    def check_options(self) -> None:
        """Raises UserError for what can be refused before a source is read or anything is trained."""

    @abc.abstractmethod
    def open(self) -> Source | None:
        """Reads the source, if there is one; raises UserError where it cannot be read, or will not do."""

    @abc.abstractmethod
    def shape(self, source: Source | None) -> BackboneConfig:
        """The network whose size is the default."""

    @abc.abstractmethod
    def check(self, source: Source | None, target: BackboneConfig) -> None:
        """Raises UserError for whatever else a job would fail with before it trains."""

    @abc.abstractmethod
    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        """The backbone, made in a run's directory, which is not entered; raises UserError and RunError."""

    @abc.abstractmethod
    def cost(self, source: Source | None, target: BackboneConfig) -> int | float:
        """FLOPs of what `make` trains; raises UserError where there are no images."""

    def target(self, source: Source | None) -> BackboneConfig:
        """The size that is asked for; raises UserError where the method does not make it, or not of this source."""
        shape = self.shape(source)
        target = inherit.target_size(shape, self.depth, self.heads)
        if self.shrinks:
            check_smaller(self.name, shape, target)
        return target


@dataclasses.dataclass(frozen=True)
class FromNothing(AbstractMethod):
    """A method without a source."""

    model: ViTConfig = ViTConfig(depth=12, head_dim=16)

    def check_options(self) -> None:
        check_common(self)
        self.model.check()

    def open(self) -> None:
        return None

    def shape(self, source: Source | None) -> BackboneConfig:
        return self.model

    def check(self, source: Source | None, target: BackboneConfig) -> None:
        pass

    def cost(self, source: Source | None, target: BackboneConfig) -> int | float:
        return 0.0


@dataclasses.dataclass(frozen=True)
class FromSource(AbstractMethod):
    """A method that takes from a bank or a model."""

    any_backbone: ClassVar[bool] = False
    """Whether its source may be another network than a vision transformer."""

    source: tyro.conf.Positional[str] = ""
    """A bank or a model to take from."""
    source_heads: int | None = None
    """Heads of a source whose file does not record them, such as timm's models of unusual width."""
    image: int | None = None
    """Side of the input, pixels; default what the source was trained for."""

    def check_options(self) -> None:
        check_common(self)
        if not self.source:
            raise UserError(
                f"no source was given; say `python experiments/baseline.py {self.name} PATH/TO/bank.safetensors`."
            )
        identity(self.source, "give the path of one")

    def open(self) -> Source:
        return open_source(self)

    def shape(self, source: Source | None) -> BackboneConfig:
        assert source
        return source.backbone.config

    def check(self, source: Source | None, target: BackboneConfig) -> None:
        pass

    def cost(self, source: Source | None, target: BackboneConfig) -> int | float:
        return 0.0


def check_common(method: AbstractMethod) -> None:
    """Raises UserError for options that all methods have."""
    check_seed(method.seed)
    method.run.check()


def open_source(method: FromSource) -> Source:
    """Reads a bank or a model; raises UserError where it is neither."""
    if bank.is_bank(method.source):
        found = bank.load_bank(method.source)
        if method.source_heads not in (None, found.config.heads):
            raise UserError(f"{method.source} has {found.config.heads} heads; leave out --source-heads.")
        backbone, about = at_width(found.model.backbone, "float32"), found.about
    else:
        loaded = convert.load_model(method.source, heads=method.source_heads)
        backbone, about, found = backbone_of(loaded.model), loaded.about, None
    if not (method.any_backbone or isinstance(backbone, ViT)):
        raise UserError(
            f"{method.name} is for vision transformers, but {method.source} is a {type(backbone).__name__}; give another source."
        )
    return Source(backbone if method.image is None else convert.at_resolution(backbone, method.image), found, about)


def backbone_of(model: Any) -> AbstractBackbone:
    """A plain backbone, or the one that a model is around."""
    return model if isinstance(model, AbstractBackbone) else model.backbone


def cut(method: FromSource, source: Source, backbone: AbstractBackbone, size_flops: int | float = 0) -> Made:
    """What a method made of its source without training a network of the size."""
    before = flops_of(source.bank, method.source) if source.bank else None
    return Made(backbone, size_flops, trees.shared(source.backbone, backbone), before)


def check_smaller(name: str, source: BackboneConfig, target: BackboneConfig) -> None:
    """Raises UserError if `target` is deeper or wider than `source`."""
    sizes, wanted = source.axes(), target.axes()
    if target.depth > source.depth or target.heads > source.heads or any(wanted[a] > sizes[a] for a in wanted):
        raise UserError(
            f"{name} only shrinks: {target.depth} layers of {target.heads} heads are no part of {source.depth} layers "
            f"of {source.heads}; choose a --depth and --heads within the source's."
        )


def plain(config: BackboneConfig, *, key: Any) -> AbstractBackbone:
    """A random backbone, made as one program."""
    return eqx.filter_jit(lambda k: config.create(key=k))(key)
