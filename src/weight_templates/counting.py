"""Parameters and floating-point operations of a network, by the papers' convention and in full."""

from typing import NamedTuple

import equinox as eqx
import jax.random as jr

from . import trees
from .config import BackboneConfig, DecoderConfig, ViTConfig
from .models import MAE
from .sites import skeleton


def count_mae(config: ViTConfig, decoder: DecoderConfig) -> int:
    """Floating-point operations of the forward pass of a masked auto-encoder on one image, attention's products left out.

    Twice the multiplications in affine maps: of the backbone on the visible patches and the class token, of the decoder
    on all.
    """
    mae = eqx.filter_eval_shape(lambda key: MAE(config.create(key=key), decoder, key=key), jr.key(0))
    visible = int(config.patches * (1 - decoder.mask_ratio))
    encoder = mae.backbone.multiplications(visible).affine
    blocks = mae.decoder.blocks
    inside = trees.count((blocks.attention.qkv, blocks.attention.out, blocks.mlp.enter, blocks.mlp.leave))
    around = mae.decoder.embed.weight.size * (visible + 1) + mae.decoder.predict.weight.size * config.patches
    return 2 * (encoder + inside * (config.patches + 1) + around)


class Count(NamedTuple):
    """The cost of a network on one image."""

    parameters: int
    """Numbers in the network: position tables and the head included."""
    flops: int
    """Twice the multiplications in affine maps: how SWEET's Table 1 counts, leaving out attention's two products."""
    flops_with_attention: int
    """The same, with attention's two products."""


def count(config: BackboneConfig, classes: int = 0) -> Count:
    """Counts a backbone, with a linear head of `classes` outputs if that is not 0.

    ```python
    >>> wt.count(wt.ViTConfig(image=224, patch=16, depth=12, heads=6, head_dim=64, dress="plain"), classes=1000)
    Count(parameters=22050664, flops=8482..., flops_with_attention=9199...)
    ```

    Raises UserError where `config` does not make a network.
    """
    config.check()
    backbone = skeleton(config)
    width = config.axes()[config.features]
    affine, attention = backbone.multiplications()
    products = affine + width * classes
    return Count(trees.count(backbone) + (width + 1) * classes, 2 * products, 2 * (products + attention))
