from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from .. import trees
from ..config import Dress, ViTConfig
from ..nn import AbstractNorm, Attention, Gelu, LayerNorm, RMSNorm, SwiGlu, nested_sincos, project, rotary
from ..nn.linear import PRODUCT, glorot
from .backbone import AbstractBackbone, Multiplications


Pool = Literal["mean", "cls"]
"""What a head sees of a ViT. mean: the last norm of the mean over patches, as MAE fine-tunes (He et al., 2022, appendix
A.1; timm's `fc_norm`). cls: the class token after the last norm, as in DeiT."""


def patchify(image: Shaped[Array, "h w c"], patch: int) -> Shaped[Array, "patch pixel"]:
    """Cuts an image into square patches: row by row over the grid; inside a patch by row, column, channel."""
    h, w, c = image.shape
    tiles = image.reshape(h // patch, patch, w // patch, patch, c).swapaxes(1, 2)
    return tiles.reshape(-1, patch * patch * c)


def unpatchify(patches: Shaped[Array, "patch pixel"], patch: int) -> Shaped[Array, "h w c"]:
    """Puts the patches of a square image together; the converse of `patchify`."""
    grid = round(len(patches) ** 0.5)
    tiles = patches.reshape(grid, grid, patch, patch, -1).swapaxes(1, 2)
    return tiles.reshape(grid * patch, grid * patch, -1)


class PatchEmbed(eqx.Module):
    """An affine map from the pixels of a patch to the residual stream."""

    weight: Float[Array, "width pixel"]
    bias: Float[Array, " width"]

    def __init__(self, pixels: int, width: int, *, key: PRNGKeyArray):
        self.weight = glorot(key, (width, pixels), pixels, width)
        self.bias = jnp.zeros(width)

    def __call__(self, x: Float[Array, "patch pixel"]) -> Float[Array, "patch width"]:
        return project(x, self.weight) + self.bias


class Block(eqx.Module):
    """A pre-norm transformer block."""

    norm1: AbstractNorm
    attention: Attention
    norm2: AbstractNorm
    mlp: Gelu | SwiGlu

    def __init__(self, width: int, heads: int, head_dim: int, dress: Dress, *, key: PRNGKeyArray):
        akey, mkey = jr.split(key)
        self.norm1 = norm_of(dress, width)
        self.attention = Attention(width, heads, head_dim, key=akey)
        self.norm2 = norm_of(dress, width)
        mlp = SwiGlu if dress == "enhanced" else Gelu
        self.mlp = mlp(width, heads * head_dim, key=mkey)

    def __call__(
        self,
        x: Float[Array, "token width"],
        angles: Float[Array, "token pair"] | None,
        gates: Float[Array, "2"] | None = None,
    ) -> Float[Array, "token width"]:
        """**Arguments:**

        - `x`: the tokens of one image.
        - `angles`: the tokens' rotations, radians; None for no rotary positions.
        - `gates`: what the two branches, attention and feed-forward, are multiplied with; None: with 1.
        """
        attend, feed = (1, 1) if gates is None else gates.astype(x.dtype)
        x = x + attend * self.attention(self.norm1(x), angles)
        return x + feed * self.mlp(self.norm2(x))


class Positions(eqx.Module):
    """Where the tokens are, the class token first: a table to add (plain) or angles to turn by (enhanced)."""

    table: Float[Array, "token width"] | None = trees.constant()
    grid: int = eqx.field(static=True)
    head_dim: int = eqx.field(static=True)

    def __init__(self, grid: int, width: int, head_dim: int, dress: Dress):
        self.table = nested_sincos(grid, width) if dress == "plain" else None
        self.grid = grid
        self.head_dim = head_dim

    @property
    def angles(self) -> Float[Array, "token pair"] | None:
        """Rotations of the tokens, radians; None in the plain dress."""
        return rotary(self.grid, self.head_dim) if self.table is None else None


class ViT(AbstractBackbone):
    """A vision transformer (Dosovitskiy et al., 2021) without a head: an image in, tokens out.

    Its blocks are one `Block` whose arrays have a leading axis of layers. `config.dress` is `plain` (LayerNorm, GELU,
    nested sin-cos positions: the networks of the papers' tables) or `enhanced` (RMSNorm, SwiGLU, 2-D RoPE: SWEET §3.3;
    biases are kept, as in the works it cites).
    """

    embed: PatchEmbed
    cls: Float[Array, " width"]
    positions: Positions
    blocks: Block
    norm: AbstractNorm
    config: ViTConfig = eqx.field(static=True)

    def __init__(self, config: ViTConfig, *, key: PRNGKeyArray):
        """Raises UserError where `config` does not make a network."""
        config.check()
        pkey, ckey, bkey = jr.split(key, 3)
        self.embed = PatchEmbed(3 * config.patch**2, config.channels, key=pkey)
        self.cls = 0.02 * jr.normal(ckey, (config.channels,))
        self.positions = Positions(config.grid, config.channels, config.head_dim, config.dress)
        self.blocks = stack(config.depth, config.channels, config.heads, config.head_dim, config.dress, key=bkey)
        self.norm = norm_of(config.dress, config.channels)
        self.config = config

    @property
    def stages(self) -> tuple[str, ...]:
        return ("blocks",)

    def governed(self) -> dict[str, str]:
        return {
            "blocks.attention.qkv": "qkv",
            "blocks.attention.out": "out",
            "blocks.mlp.enter": "enter",
            "blocks.mlp.leave": "leave",
        }

    def multiplications(self, patches: int | None = None) -> Multiplications:
        config = self.config
        patches = config.patches if patches is None else patches
        blocks = sum(trees.at(self, leaf).size for leaf in self.governed())
        affine = blocks * (patches + 1) + self.embed.weight.size * patches
        return Multiplications(affine, 2 * config.depth * config.inner * (patches + 1) ** 2)

    def pooled(
        self, image: Float[Array, "h w 3"], pool: Pool = "mean", gates: Float[Array, "layer 2"] | None = None
    ) -> Float[Array, " width"]:
        """What a head sees of an image; see `Pool`."""
        tokens = self.features(image, gates=gates)
        return self.norm(tokens[0] if pool == "cls" else jnp.mean(tokens[1:], axis=0))

    def __call__(
        self,
        image: Float[Array, "h w 3"],
        visible: Int[Array, " visible"] | None = None,
        gates: Float[Array, "layer 2"] | None = None,
    ) -> Float[Array, "token width"]:
        """**Returns:** the normalised tokens; see `features`."""
        return self.norm(self.features(image, visible, gates))

    def features(
        self,
        image: Float[Array, "h w 3"],
        visible: Int[Array, " visible"] | None = None,
        gates: Float[Array, "layer 2"] | None = None,
    ) -> Float[Array, "token width"]:
        """**Arguments:**

        - `image`: pixels, normalised by the mean and deviation of ImageNet.
        - `visible`: indices of the patches to look at; all of them if None.
        - `gates`: what the two branches of every block are multiplied with, for stochastic depth; None: with 1.

        **Returns:** the tokens before the last norm: the class token, then the visible patches in the order given.
        """
        tokens, angles = self.embedded(image, visible)
        return run(self.blocks, tokens, angles, gates)

    def embedded(
        self, image: Float[Array, "h w 3"], visible: Int[Array, " visible"] | None = None
    ) -> tuple[Float[Array, "token width"], Float[Array, "token pair"] | None]:
        """What goes into the first block: the tokens, and their rotations in radians if there are any."""
        patches = patchify(image.astype(self.cls.dtype), self.config.patch)
        table, angles = self.positions.table, self.positions.angles
        if visible is not None:
            patches = patches[visible]
            chosen = jnp.concatenate([jnp.zeros(1, visible.dtype), visible + 1])
            table, angles = (None if places is None else places[chosen] for places in (table, angles))
        tokens = jnp.concatenate([self.cls[None], self.embed(patches)])
        return tokens if table is None else tokens + table, angles


def stack(depth: int, width: int, heads: int, head_dim: int, dress: Dress, *, key: PRNGKeyArray) -> Block:
    """`depth` independent blocks as one, on a leading axis of layers."""
    return eqx.filter_vmap(lambda k: Block(width, heads, head_dim, dress, key=k))(jr.split(key, depth))


KEPT = jax.checkpoint_policies.save_only_these_names(PRODUCT)
"""What a backward pass keeps of a block; the rest is computed again."""


def run(
    blocks: Block,
    tokens: Float[Array, "token width"],
    angles: Float[Array, "token pair"] | None,
    gates: Float[Array, "layer 2"] | None = None,
) -> Float[Array, "token width"]:
    """Applies stacked blocks one after the other, in a loop: compile time does not grow with their number.

    The backward pass keeps the products alone, in the precision of the tokens, and computes what lies between them again, to save
    memory; what that costs in time, and saves, is a row `all kept` of `benchmarks/pretrain_step.py` and `memory.py`. On a CPU the
    loop is `unrolled`, too: what a loop stores for its backward pass, and passes that read a layer's bias out of a stack,
    cost more time than the longer compilation (`benchmarks/breakdown.py`).
    """
    arrays, rest = eqx.partition(blocks, eqx.is_array)

    def one(x: Float[Array, "token width"], layer: tuple[Block, Float[Array, "2"] | None]) -> tuple[Array, None]:
        return eqx.combine(layer[0], rest)(x, angles, layer[1]), None

    kept = jax.checkpoint(one, policy=KEPT, prevent_cse=unrolled())
    return jax.lax.scan(kept, tokens, (arrays, gates), unroll=unrolled())[0]


def unrolled() -> bool:
    """Whether loops over layers are written out."""
    return jax.default_backend() == "cpu"


def norm_of(dress: Dress, width: int) -> AbstractNorm:
    """The normalisation of a dress."""
    return RMSNorm(width) if dress == "enhanced" else LayerNorm(width)
