"""A pre-training step of ours, ready to be timed."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from weight_templates import bank, scaling, training
from weight_templates.config import DecoderConfig, Family, OptimOptions, ScalingOptions, Scope, ViTConfig
from weight_templates.constraints import FAMILIES
from weight_templates.layouts import LAYOUTS
from weight_templates.tasks import masked


def our_step(
    family: Family,
    vit: ViTConfig,
    decoder: DecoderConfig,
    batch: int,
    *,
    scope: Scope | None = None,
    precision: str = "float32",
) -> Callable[[], None]:
    """A function that takes one step of pre-training on random images and waits for it."""
    constraint, layout = FAMILIES[family](), LAYOUTS["unified"]()
    optimizer = training.adamw(OptimOptions(), training.cosine(OptimOptions(), 1000))
    prepare = scaling.preparation(ScalingOptions(scope), vit, family, precision)

    @eqx.filter_jit
    def initial(key):
        model = bank.build(vit, decoder, constraint, layout, key=key)
        return training.init_state(model, masked.trainable(model), optimizer, ema=False)

    step = training.make_step(prepare, masked.loss, optimizer)
    state = initial(jr.key(0))
    images = jr.randint(jr.key(1), (batch, vit.image, vit.image, 3), 0, 256).astype(jnp.uint8)
    data = {"image": images, "label": jnp.zeros(batch, jnp.int32)}

    def run() -> None:
        nonlocal state
        state = step(state, data, jr.key(2))
        jax.block_until_ready(state)

    return run
