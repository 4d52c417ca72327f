from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..config import ConvNextConfig
from ..nn import Gelu, LayerNorm
from .backbone import AbstractBackbone, Multiplications
from .vit import PatchEmbed, patchify


class ConvNextBlock(eqx.Module):
    """`x + MLP(LayerNorm(depthwise(x)))` (Liu et al., 2022, figure 4), the LayerScale folded into the last product."""

    spatial: Float[Array, "width k k"]
    spatial_bias: Float[Array, " width"]
    norm: LayerNorm
    mlp: Gelu

    def __init__(self, width: int, kernel: int, *, key: PRNGKeyArray):
        """A random block; the kernels of the depthwise product have variance 1 / kernel²."""
        skey, mkey = jr.split(key)
        self.spatial = jr.normal(skey, (width, kernel, kernel)) / kernel
        self.spatial_bias = jnp.zeros(width)
        self.norm = LayerNorm(width)
        self.mlp = Gelu(width, width, key=mkey)

    def __call__(
        self, x: Float[Array, "h w width"], gate: Float[Array, "1"] | None = None
    ) -> Float[Array, "h w width"]:
        """**Arguments:**

        - `x`: the map of one image.
        - `gate`: what the branch is multiplied with; None: with 1.
        """
        mixed = depthwise(x, self.spatial) + self.spatial_bias
        tokens = self.mlp(self.norm(mixed).reshape(-1, x.shape[-1]))
        return x + (1 if gate is None else gate.astype(x.dtype)) * tokens.reshape(x.shape)


def depthwise(x: Float[Array, "h w width"], kernel: Float[Array, "width k k"]) -> Float[Array, "h w width"]:
    """A convolution of every channel with its own kernel, zeros around the map; as PyTorch's, a cross-correlation."""
    made = lax.conv_general_dilated(
        x[None],
        kernel.transpose(1, 2, 0)[:, :, None],
        (1, 1),
        "SAME",
        feature_group_count=x.shape[-1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return made[0]


class ConvNext(AbstractBackbone):
    """An isotropic ConvNeXt without a head: an image in, a map of features out (Liu et al., 2022, appendix A).

    The pointwise matrices of a block are 8 slices of D x D, in the same blocks as the plain ViT's feed-forward layer.
    """

    stem: PatchEmbed
    blocks: ConvNextBlock
    norm: LayerNorm
    config: ConvNextConfig = eqx.field(static=True)

    def __init__(self, config: ConvNextConfig, *, key: PRNGKeyArray):
        """Raises UserError where `config` does not make a network."""
        config.check()
        skey, bkey = jr.split(key)
        width = config.channels
        self.stem = PatchEmbed(3 * config.patch**2, width, key=skey)
        self.blocks = eqx.filter_vmap(lambda k: ConvNextBlock(width, config.kernel, key=k))(
            jr.split(bkey, config.depth)
        )
        self.norm = LayerNorm(width)
        self.config = config

    @property
    def stages(self) -> tuple[str, ...]:
        return ("blocks",)

    def governed(self) -> dict[str, str]:
        return {"blocks.mlp.enter": "enter", "blocks.mlp.leave": "leave"}

    def multiplications(self, patches: int | None = None) -> Multiplications:
        mlp, positions = self.blocks.mlp, self.config.grid**2
        weights = (mlp.enter, mlp.leave, self.blocks.spatial, self.stem.weight)
        return Multiplications(sum(weight.size for weight in weights) * positions, 0)

    def __call__(
        self, image: Float[Array, "h w 3"], gates: Float[Array, "layer 1"] | None = None
    ) -> Float[Array, "row col width"]:
        """**Returns:** the normalised map; see `features`."""
        return self.norm(self.features(image, gates))

    def features(
        self, image: Float[Array, "h w 3"], gates: Float[Array, "layer 1"] | None = None
    ) -> Float[Array, "row col width"]:
        """**Arguments:**

        - `image`: pixels, normalised by the mean and deviation of ImageNet.
        - `gates`: what the branch of every block is multiplied with, for stochastic depth; None: with 1.

        **Returns:** the map before the last norm.
        """
        grid = self.config.grid
        x = self.stem(patchify(image.astype(self.stem.bias.dtype), self.config.patch)).reshape(grid, grid, -1)
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def one(x: Array, layer: tuple[Any, Any]) -> tuple[Array, None]:
            return eqx.combine(layer[0], rest)(x, layer[1]), None

        return jax.lax.scan(one, x, (arrays, gates))[0]

    def pooled(
        self,
        image: Float[Array, "h w 3"],
        pool: Literal["mean"] = "mean",
        gates: Float[Array, "layer 1"] | None = None,
    ) -> Float[Array, " width"]:
        """The last norm of the mean over the map, as the authors' head sees it."""
        return self.norm(jnp.mean(self.features(image, gates), axis=(0, 1)))
