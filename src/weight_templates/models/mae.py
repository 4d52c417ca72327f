"""Masked auto-encoding (He et al., 2022): hide most patches, encode the rest, predict the hidden pixels."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..config import DecoderConfig, ViTConfig
from ..nn import AbstractNorm, Linear
from .backbone import AbstractHead
from .vit import Block, Positions, norm_of, patchify, run, stack


class Reconstruction(NamedTuple):
    """What an auto-encoder makes of one image."""

    predicted: Float[Array, "patch pixel"]
    target: Float[Array, "patch pixel"]
    hidden: Bool[Array, " patch"]


class Decoder(eqx.Module):
    """A light transformer from the visible tokens to the pixels of every patch. It lies outside the constraint."""

    embed: Linear
    mask_token: Float[Array, " dec"]
    positions: Positions
    blocks: Block
    norm: AbstractNorm
    predict: Linear

    def __init__(self, config: DecoderConfig, vit: ViTConfig, *, key: PRNGKeyArray):
        ekey, mkey, bkey, pkey = jr.split(key, 4)
        head_dim = config.width // config.heads
        self.embed = Linear(vit.channels, config.width, reads=vit.features, key=ekey)
        self.mask_token = 0.02 * jr.normal(mkey, (config.width,))
        self.positions = Positions(vit.grid, config.width, head_dim, vit.dress)
        self.blocks = stack(config.depth, config.width, config.heads, head_dim, vit.dress, key=bkey)
        self.norm = norm_of(vit.dress, config.width)
        self.predict = Linear(config.width, 3 * vit.patch**2, key=pkey)

    def __call__(
        self, tokens: Float[Array, "token width"], visible: Int[Array, " visible"]
    ) -> Float[Array, "patch pixel"]:
        patches = self.positions.grid**2
        tokens = self.embed(tokens)
        everywhere = jnp.broadcast_to(self.mask_token, (patches, len(self.mask_token))).at[visible].set(tokens[1:])
        tokens = jnp.concatenate([tokens[:1], everywhere])
        if self.positions.table is not None:
            tokens = tokens + self.positions.table
        tokens = self.norm(run(self.blocks, tokens, self.positions.angles))
        return self.predict(tokens[1:])


class MAE(AbstractHead):
    """A masked auto-encoder around a backbone.

    While pre-training under a constraint, `backbone` is a `Constrained` in the parameters and a `ViT` in the
    computation.
    """

    backbone: Any
    decoder: Decoder
    config: DecoderConfig = eqx.field(static=True)

    def __init__(self, backbone: Any, config: DecoderConfig, *, key: PRNGKeyArray):
        """**Arguments:**

        - `backbone`: a `ViT`, or a `Constrained` that stands for one.
        - `config`: the decoder, the mask and the target.

        Raises UserError where `config` does not fit the backbone.
        """
        config.check(backbone.config)
        self.backbone = backbone
        self.decoder = Decoder(config, backbone.config, key=key)
        self.config = config

    @property
    def options(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def around(cls, backbone: Any, options: dict[str, Any], *, key: PRNGKeyArray) -> "MAE":
        return cls(backbone, DecoderConfig(**options), key=key)

    def __call__(self, image: Float[Array, "h w 3"], *, key: PRNGKeyArray) -> Reconstruction:
        """**Arguments:**

        - `image`: pixels, normalised by the mean and deviation of ImageNet.
        - `key`: chooses the hidden patches.

        **Returns:** predictions and targets for all patches, and which of them were hidden. With `norm_pix` both are
        in units of the patch's own deviation around its own mean.
        """
        visible, hidden = random_mask(self.backbone.config.patches, self.config.mask_ratio, key=key)
        return self.decoded(image, self.backbone(image, visible), visible, hidden)

    def decoded(
        self,
        image: Float[Array, "h w 3"],
        tokens: Float[Array, "token width"],
        visible: Int[Array, " visible"],
        hidden: Bool[Array, " patch"],
    ) -> Reconstruction:
        """The decoder's half of the work, from the encoder's tokens of the visible patches."""
        predicted = self.decoder(tokens, visible)
        precision = jnp.promote_types(image.dtype, predicted.dtype)  # statistics and error are float32 or better
        predicted, target = predicted.astype(precision), patchify(image.astype(precision), self.backbone.config.patch)
        if self.config.norm_pix:
            mean, deviation = patch_statistics(target)
            target = (target - mean) / deviation
        return Reconstruction(predicted, target, hidden)


def random_mask(
    patches: int, ratio: float, *, key: PRNGKeyArray
) -> tuple[Int[Array, " visible"], Bool[Array, " patch"]]:
    """Keeps ⌊patches · (1 - ratio)⌋ patches of one image, uniformly at random.

    **Returns:** the indices of the visible patches, in random order, and a mask that is True where one is hidden.
    """
    order = jnp.argsort(jr.uniform(key, (patches,)))
    visible = order[: int(patches * (1 - ratio))]
    return visible, jnp.ones(patches, bool).at[visible].set(False)


def patch_statistics(
    patches: Float[Array, "*batch pixel"],
) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]]:
    """Mean, and square root of the unbiased variance plus 1e-6, of every patch."""
    mean = patches.mean(axis=-1, keepdims=True)
    return mean, jnp.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + 1e-6)


def reconstruction_loss(made: Reconstruction) -> Float[Array, ""]:
    """Mean squared error per pixel over the hidden patches.

    SWEET Eq. 1 sums over the pixels of a patch; this is that, divided by their number, as in MAE's own code: a
    constant, which AdamW does not see.
    """
    error = jnp.square(made.predicted - made.target).mean(axis=-1)
    return jnp.sum(error * made.hidden) / jnp.sum(made.hidden)
