"""A small convolutional network in two stages, which the tests alone know: kernels with taps, widths that double, a template
that stages share, and stages of different depth."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from weight_templates.config import Widths
from weight_templates.config.backbones import Sizes
from weight_templates.models import AbstractBackbone
from weight_templates.models.backbone import Multiplications
from weight_templates.nn import LayerNorm


@dataclasses.dataclass(frozen=True)
class StagedConfig(Sizes):
    """Two stages, the second twice as wide."""

    image: int = 16
    patch: int = 4
    depth: tuple[int, ...] = (2, 1)
    heads: int = 4
    head_dim: int = 4

    interleaved: ClassVar[dict[str, str]] = {}
    features: ClassVar[str] = "width1"
    branches: ClassVar[int] = 1

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2

    def axes(self, widths: Widths | None = None) -> dict[str, Any]:
        rows, cols = (self.heads, self.heads) if widths is None else widths
        return {
            f"{name}{stage}": number * self.head_dim * 2**stage
            for stage in range(len(self.depth))
            for name, number in (("inner", rows), ("width", cols))
        }

    def resized(self, depth: Any = None, heads: int | None = None, columns: int | None = None):
        heads = self.heads if heads is None else heads
        return dataclasses.replace(self, depth=self.depth if depth is None else depth, heads=heads)

    def check(self) -> None:
        pass

    def create(self, *, key: Any) -> Any:
        return Staged(self, key=key)


class Block(eqx.Module):
    """Two convolutions around a residual stream."""

    convs: Float[Array, "2 inner width k k"]
    norm1: LayerNorm
    norm2: LayerNorm
    axis_names: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __init__(self, width: int, stage: int, *, key: Any):
        self.convs = jr.normal(key, (2, width, width, 3, 3)) / (9 * width) ** 0.5
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width, over="inner")
        self.axis_names = (("inner", f"inner{stage}"), ("width", f"width{stage}"))

    def __call__(self, x: Float[Array, "h w width"]) -> Float[Array, "h w width"]:
        def conv(x: Array, kernel: Array) -> Array:
            return jax.lax.conv_general_dilated(
                x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
            )[0]

        inside = conv(jax.nn.relu(self.norm1(x)), self.convs[0])
        return x + conv(jax.nn.relu(self.norm2(inside)), self.convs[1].swapaxes(0, 1))


class Widen(eqx.Module):
    """Half the resolution, twice the width."""

    weight: Float[Array, "wide width"]
    axis_names: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __init__(self, width: int, *, key: Any):
        self.weight = jr.normal(key, (2 * width, width)) / width**0.5
        self.axis_names = (("wide", "width1"), ("width", "width0"))


class Staged(AbstractBackbone):
    """See this module's docstring."""

    stem: Float[Array, "width0 3"]
    stages_: tuple[Block, ...]
    widen: Widen
    scale: Float[Array, ""]
    norm: LayerNorm
    config: StagedConfig = eqx.field(static=True)

    def __init__(self, config: StagedConfig, *, key: Any):
        width = config.heads * config.head_dim
        keys = jr.split(key, 4)
        self.stem, self.config = jr.normal(keys[0], (width, 3)), config
        self.stages_ = tuple(
            eqx.filter_vmap(lambda k, s=s: Block(width * 2**s, s, key=k))(jr.split(keys[1 + s], depth))
            for s, depth in enumerate(config.depth)
        )
        self.widen, self.scale = Widen(width, key=keys[3]), jnp.ones(())
        self.norm = LayerNorm(2 * width, over="width1")

    @property
    def stages(self) -> tuple[str, ...]:
        return ("stages_.0", "stages_.1")

    def governed(self) -> dict[str, str]:
        return {"stages_.0.convs": "conv", "stages_.1.convs": "conv"}

    def multiplications(self, patches: int | None = None) -> Multiplications:
        return Multiplications(sum(stage.convs.size for stage in self.stages_), 0)

    def __call__(self, image: Float[Array, "h w 3"], gates: Any = None) -> Float[Array, "row col width"]:
        return self.norm(self.features(image))

    def features(self, image: Float[Array, "h w 3"]) -> Float[Array, "row col width"]:
        x = image.astype(self.stem.dtype)[::4, ::4] @ self.stem.T * self.scale
        for i, stage in enumerate(self.stages_):
            if i:
                x = x[::2, ::2] @ self.widen.weight.T
            arrays, rest = eqx.partition(stage, eqx.is_array)
            x = jax.lax.scan(lambda x, a, rest=rest: (eqx.combine(a, rest)(x), None), x, arrays)[0]
        return x

    def pooled(self, image: Any, pool: Any, gates: Any = None) -> Any:
        return self.norm(jnp.mean(self.features(image), axis=(0, 1)))
