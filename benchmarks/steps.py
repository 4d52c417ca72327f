"""Steps of ours, ready to be timed."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from weight_templates import bank, constrained, inherit, jobs, scaling, training
from weight_templates.config import Application, DecoderConfig, Family, OptimOptions, ScalingOptions, ViTConfig
from weight_templates.constrained import factoring
from weight_templates.constraints import FAMILIES, AbstractConstraint
from weight_templates.models import MAE
from weight_templates.models import vit as vit_module
from weight_templates.tasks import masked


jobs.compute_inline()  # as experiments do
DEFAULT = ScalingOptions()
TASK = masked.Masked(DecoderConfig())
"""Whose loss a step has: a model brings its own decoder."""


def our_step(
    family: Family,
    vit: ViTConfig,
    decoder: DecoderConfig,
    batch: int,
    *,
    scaled: ScalingOptions = DEFAULT,
    precision: str = "float32",
    constraint: AbstractConstraint | None = None,
    application: Application = "expanded",
) -> Callable[[], None]:
    """A function that takes one step of pre-training on random images and waits for it.

    Under sliced execution it takes one step at each width there is to draw.
    """
    model = auto_encoder(family, vit, decoder, constraint)
    return _step(model, constrained.trainable(model), family, batch, scaled, precision, application)


@contextlib.contextmanager
def all_kept() -> Iterator[None]:
    """Steps that are traced meanwhile keep everything for their backward pass, and compute nothing again."""
    with mock.patch.object(vit_module, "KEPT", jax.checkpoint_policies.everything_saveable):
        yield


def keeping_step(*args: Any, **words: Any) -> Callable[[], None]:
    """`our_step`, already called once, which keeps everything for its backward pass."""
    with all_kept():
        step = our_step(*args, **words)
        step()
    return step


def adaptation_step(
    family: Family, vit: ViTConfig, decoder: DecoderConfig, batch: int, depth: int, heads: int
) -> Callable[[], None]:
    """A function that takes one step of adaptation to another size, and waits for it."""
    model = inherit.adaptable(bank.Bank(auto_encoder(family, vit, decoder), family, {}), depth, heads)
    return _step(model, inherit.scalers_of(model), family, batch, ScalingOptions("off"), "float32")


def auto_encoder(
    family: Family, vit: ViTConfig, decoder: DecoderConfig, constraint: AbstractConstraint | None = None
) -> MAE:
    return eqx.filter_jit(bank.build)(
        vit, constraint or FAMILIES[family](), "unified", "masked", dataclasses.asdict(decoder), key=jr.key(0)
    )


def begin(
    model: MAE, trainable: PyTree, batch: int
) -> tuple[Callable[[scaling.Prepare], Any], training.TrainState, dict[str, Any]]:
    """What makes a step from its preparation, the state before the first one, and random images."""
    optimizer = training.adamw(OptimOptions(), training.schedule_of(OptimOptions(), 1000))

    def make(prepare: scaling.Prepare) -> Any:
        return training.make_step(prepare, TASK.loss, optimizer)

    state = eqx.filter_jit(lambda m: training.init_state(m, trainable, optimizer, ema=False))(model)
    side = model.backbone.config.image
    images = jr.randint(jr.key(1), (batch, side, side, 3), 0, 256).astype(jnp.uint8)
    return make, state, {"image": images, "label": jnp.zeros(batch, jnp.int32)}


def _step(
    model: MAE,
    trainable: PyTree,
    family: Family,
    batch: int,
    scaled: ScalingOptions,
    precision: str,
    application: Application = "expanded",
) -> Callable[[], None]:
    vit = model.backbone.config
    make, state, data = begin(model, trainable, batch)
    factored = factoring(application, model.backbone, batch * (int(vit.patches * (1 - model.config.mask_ratio)) + 1))
    step, batches = make(scaling.preparation(scaled, vit, family, precision, factored)), [data]
    if scaled.execution == "sliced":
        widths = np.array([[n, n] for n in scaling.widths_of(scaled, vit)])
        step, all_batches = scaling.sliced(make, lambda done: [data] * len(widths), widths, precision, factored)
        batches = list(all_batches(0))

    def run() -> None:
        nonlocal state
        for item in batches:
            state = step(state, item, jr.key(2))
        jax.block_until_ready(state)

    return run
