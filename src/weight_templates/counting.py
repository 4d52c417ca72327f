"""Parameters and floating-point operations of a vision transformer, by the papers' convention and in full."""

from typing import NamedTuple

import equinox as eqx
import jax.random as jr

from . import trees
from .config import DecoderConfig, ViTConfig
from .layouts import governed
from .models import MAE, ViT


def count_mae(config: ViTConfig, decoder: DecoderConfig) -> int:
    """Floating-point operations of the forward pass of a masked auto-encoder on one image, attention's products left out.

    Twice the multiplications in affine maps: of the backbone on the visible patches and the class token, of the decoder
    on all.
    """
    mae = eqx.filter_eval_shape(lambda key: MAE(ViT(config, key=key), config, decoder, key=key), jr.key(0))
    visible = int(config.patches * (1 - decoder.mask_ratio))
    encoder = trees.count(governed(mae.encoder.blocks)) * (visible + 1) + mae.encoder.embed.weight.size * visible
    inside = trees.count(governed(mae.decoder.blocks)) * (config.patches + 1)
    around = mae.decoder.embed.weight.size * (visible + 1) + mae.decoder.predict.weight.size * config.patches
    return 2 * (encoder + inside + around)


class Count(NamedTuple):
    """The cost of a network on one image."""

    parameters: int
    """Numbers in the network: position tables and the head included."""
    flops: int
    """Twice the multiplications in affine maps: how SWEET's Table 1 counts, leaving out attention's two products."""
    flops_with_attention: int
    """The same, with attention's two products."""


def count(config: ViTConfig, classes: int = 0) -> Count:
    """Counts a backbone, with a linear head of `classes` outputs on its class token if that is not 0.

    ```python
    >>> wt.count(wt.ViTConfig(image=224, patch=16, depth=12, heads=6, head_dim=64, dress="plain"), classes=1000)
    Count(parameters=22050664, flops=8482..., flops_with_attention=9199...)
    ```

    Raises UserError where `config` does not make a network.
    """
    vit = eqx.filter_eval_shape(ViT, config, key=jr.key(0))
    tokens = config.patches + 1
    head = (config.channels + 1) * classes
    products = trees.count(governed(vit.blocks)) * tokens
    products += vit.embed.weight.size * config.patches + config.channels * classes
    attention = 2 * config.depth * config.inner * tokens**2
    return Count(trees.count(vit) + head, 2 * products, 2 * (products + attention))
