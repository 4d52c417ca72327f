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
from weight_templates import data, trees
from weight_templates.config import RecipeOptions
from weight_templates.data.regularize import drop_gates
from weight_templates.models import Classifier
from weight_templates.tasks import classify

from .helpers import ENHANCED, PLAIN


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
    found = classify.loss_of(RecipeOptions(smoothing=0.3))(model, {"image": images, "label": labels}, keys)
    logits = np.asarray(jax.vmap(model)(data.normalize(images)), np.float64)
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.full((4, 3), 0.1)
    targets[np.arange(4), labels] = 0.8
    assert float(found) == pytest.approx(-(targets * logp).sum(axis=1).mean(), rel=1e-5)


def test_a_recipe_that_is_off_changes_nothing_and_one_that_is_on_does():
    model = Classifier(wt.ViT(ENHANCED, key=jr.key(0)), 3, key=jr.key(1))
    model = eqx.tree_at(lambda m: m.head.weight, model, jr.normal(jr.key(2), (3, 16)))
    batch = {
        "image": jr.randint(jr.key(3), (4, 16, 16, 3), 0, 256).astype(jnp.uint8),
        "label": jnp.array([0, 2, 1, 1], jnp.int32),
    }
    keys = jr.split(jr.key(4), 4)
    plain = float(classify.loss_of(RecipeOptions())(model, batch, keys))
    for change in ({"drop_path": 0.9}, {"randaugment": 9.0}, {"erasing": 1.0}, {"mixup": 1.0}, {"cutmix": 1.0}):
        found = [float(eqx.filter_jit(classify.loss_of(RecipeOptions(**change)))(model, batch, keys)) for _ in range(2)]
        assert found[0] == found[1]
        assert found[0] != plain, change


@pytest.mark.parametrize("config", [ENHANCED, PLAIN], ids=["enhanced", "plain"])
def test_closed_gates_leave_the_layers_out(config):
    """Gates of zero in a layer are the network without it; of one, the network."""
    vit = wt.ViT(config, key=jr.key(0))
    image = jr.normal(jr.key(1), (16, 16, 3))
    gates = jnp.ones((3, 2)).at[1].set(0)
    arrays, rest = eqx.partition(vit.blocks, eqx.is_array)
    without = eqx.tree_at(
        lambda v: v.blocks, vit, eqx.combine(jax.tree.map(lambda a: a[jnp.array([0, 2])], arrays), rest)
    )
    np.testing.assert_allclose(vit(image, gates=gates), without(image), atol=1e-6)
    np.testing.assert_allclose(vit(image, gates=jnp.ones((3, 2))), vit(image), atol=1e-6)
    assert drop_gates(3, 0.5, key=jr.key(0)).shape == (3, 2)


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
