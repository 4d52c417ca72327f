"""Classification as a task: accuracy, learning rates of layers, the loss under a recipe, pooling."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import weight_templates as wt
from weight_templates import data, training, trees
from weight_templates.config import RecipeOptions
from weight_templates.data.regularize import drop_gates
from weight_templates.models import AbstractBackbone, Classifier, layer_scales
from weight_templates.tasks import classify
from weight_templates.tasks.classify import Classify

from .helpers import BACKBONES, ENHANCED, PLAIN
from .staged import StagedConfig


CONVNEXT = dataclasses.replace(BACKBONES["convnext"], depth=3)


def test_accuracy_by_hand():
    logits = np.array([[3.0, 2, 1, 0, -1, -2], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    assert classify.accuracy(logits, np.array([0, 0, 0, 5])) == (0.5, 0.5)
    assert classify.accuracy(logits[:2], np.array([4, 1])) == (0.0, 1.0)


def test_learning_rates_of_layers_are_those_of_mae():
    """γ^(L + 1 - i): with L = 3, γ = 0.5 the embedding has 1/16, the blocks 1/8, 1/4, 1/2, norm and head 1."""
    model = Classifier(wt.ViT(PLAIN, key=jr.key(0)), 5, key=jr.key(1))
    scales = trees.named_arrays(layer_scales(model, 0.5))
    assert scales.keys() == trees.named_arrays(model).keys()
    for name, scale in scales.items():
        if name.startswith("backbone.blocks."):
            np.testing.assert_allclose(scale.reshape(-1), [1 / 8, 1 / 4, 1 / 2], err_msg=name)
        else:
            expected = 1 if name.startswith(("head", "backbone.norm")) else 1 / 16
            np.testing.assert_allclose(scale, expected, err_msg=name)
    assert set(scales) >= {"backbone.cls", "backbone.positions.table", "backbone.embed.weight", "backbone.norm.gain"}


def test_the_lowest_rate_of_mae():
    """Twelve layers at a decay of 0.65: the patches' rate is 0.65^13."""
    deep = Classifier(wt.ViT(dataclasses.replace(PLAIN, depth=12), key=jr.key(0)), 2, key=jr.key(0))
    scale = layer_scales(deep, 0.65).backbone.embed.weight
    assert float(jnp.max(scale)) == pytest.approx(0.0037, abs=5e-5)


class TwoStages(AbstractBackbone):
    """Nothing but names, in the order of use."""

    stem: jax.Array
    low: dict[str, jax.Array]
    between: jax.Array
    high: dict[str, jax.Array]
    norm: jax.Array
    config: StagedConfig = eqx.field(static=True)

    @property
    def stages(self):
        return ("low", "high")

    def governed(self):
        return {}

    def multiplications(self, patches=None):
        raise NotImplementedError

    def pooled(self, image, pool, gates=None):
        raise NotImplementedError


def test_learning_rates_of_layers_in_stages():
    """Three blocks in two stages, γ = 0.5: counted on; what lies between has the rate of the block before it."""
    one = jnp.ones(3)
    backbone = TwoStages(
        one, {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3, 3))}, one, {"a": jnp.ones((1, 4))}, one, StagedConfig()
    )
    scales = trees.named_arrays(layer_scales(Classifier(backbone, 2, key=jr.key(0)), 0.5))
    expected = {
        "backbone.stem": [1 / 16],
        "backbone.low.a": [1 / 8, 1 / 4],
        "backbone.low.b": [1 / 8, 1 / 4],
        "backbone.between": [1 / 4],
        "backbone.high.a": [1 / 2],
        "backbone.norm": [1],
        "head.weight": [1],
        "head.bias": [1],
    }
    assert {name: scale.reshape(-1).tolist() for name, scale in scales.items()} == expected


def test_scaled_optimisers_scale_decay_as_well():
    params = {"weight": jnp.array([2.0, 2.0])}
    plain = optax.adamw(0.1, weight_decay=0.5)
    scaled = training.scaled(plain, {"weight": jnp.array([1.0, 0.25])})
    grads = {"weight": jnp.array([1.0, 1.0])}
    one, _ = plain.update(grads, plain.init(params), params)
    two, _ = scaled.update(grads, scaled.init(params), params)
    np.testing.assert_allclose(two["weight"], one["weight"] * np.array([1, 0.25]), rtol=1e-6)


def test_loss_is_cross_entropy_with_smoothed_targets():
    model = Classifier(wt.ViT(ENHANCED, key=jr.key(0)), 3, key=jr.key(1))
    model = eqx.tree_at(lambda m: m.head.weight, model, jr.normal(jr.key(2), (3, 16)))
    images = jr.randint(jr.key(3), (4, 16, 16, 3), 0, 256).astype(jnp.uint8)
    labels = jnp.array([0, 2, 1, 1], jnp.int32)
    keys = jr.split(jr.key(4), 4)
    found, terms = Classify(RecipeOptions(smoothing=0.3)).loss(model, {"image": images, "label": labels}, keys)
    logits = np.asarray(jax.vmap(model)(data.normalize(images)), np.float64)
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.full((4, 3), 0.1)
    targets[np.arange(4), labels] = 0.8
    assert terms == {}
    assert float(found) == pytest.approx(-(targets * logp).sum(axis=1).mean(), rel=1e-5)


def test_a_recipe_that_is_off_changes_nothing_and_one_that_is_on_does():
    model = Classifier(wt.ViT(ENHANCED, key=jr.key(0)), 3, key=jr.key(1))
    model = eqx.tree_at(lambda m: m.head.weight, model, jr.normal(jr.key(2), (3, 16)))
    batch = {
        "image": jr.randint(jr.key(3), (4, 16, 16, 3), 0, 256).astype(jnp.uint8),
        "label": jnp.array([0, 2, 1, 1], jnp.int32),
    }
    keys = jr.split(jr.key(4), 4)
    plain = float(Classify().loss(model, batch, keys)[0])
    for change in ({"drop_path": 0.9}, {"randaugment": 9.0}, {"erasing": 1.0}, {"mixup": 1.0}, {"cutmix": 1.0}):
        loss = eqx.filter_jit(Classify(RecipeOptions(**change)).loss)
        found = [float(loss(model, batch, keys)[0]) for _ in range(2)]
        assert found[0] == found[1]
        assert found[0] != plain, change


@pytest.mark.parametrize("config", [ENHANCED, PLAIN, CONVNEXT], ids=["enhanced", "plain", "convnext"])
def test_closed_gates_leave_the_layers_out(config):
    """Gates of zero in a layer are the network without it; of one, the network."""
    vit = config.create(key=jr.key(0))
    image = jr.normal(jr.key(1), (16, 16, 3))
    opened = jnp.ones((3, config.branches))
    gates = opened.at[1].set(0)
    arrays, rest = eqx.partition(vit.blocks, eqx.is_array)
    without = eqx.tree_at(
        lambda v: v.blocks, vit, eqx.combine(jax.tree.map(lambda a: a[jnp.array([0, 2])], arrays), rest)
    )
    np.testing.assert_allclose(vit(image, gates=gates), without(image), atol=1e-6)
    np.testing.assert_allclose(vit(image, gates=opened), vit(image), atol=1e-6)
    assert drop_gates(3, 0.5, config.branches, key=jr.key(0)).shape == opened.shape


def test_pooling_by_hand():
    model = Classifier(wt.ViT(PLAIN, key=jr.key(0)), 3, "mean", key=jr.key(1))
    image = jr.normal(jr.key(1), (16, 16, 3))
    tokens = np.asarray(model.backbone.features(image))
    mean = tokens[1:].mean(axis=0)
    expected = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-6)
    np.testing.assert_allclose(model.pooled(image), expected, atol=1e-5)
    first = Classifier(model.backbone, 3, "cls", key=jr.key(1))
    np.testing.assert_allclose(first.pooled(image), model.backbone(image)[0], atol=1e-6)
    assert float(jnp.abs(model.head.weight).max()) < 1e-4
