"""What was trained before the engine was written for any backbone and any task is trained still; see `golden/before.py`."""

import dataclasses
import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import weight_templates as wt
from experiments import pretrain
from weight_templates import bank, constrained, inherit, learning, older, scaling, training, trees
from weight_templates.config import DataOptions, DecoderConfig, OptimOptions, RecipeOptions, RunOptions
from weight_templates.models import layer_scales
from weight_templates.sites import LAYOUTS
from weight_templates.tasks.classify import Classify
from weight_templates.tasks.masked import Masked

from .helpers import GOLDEN


BEFORE = GOLDEN / "before"
OPTIM = OptimOptions(base_lr=0.05, batch=8)
SCHEDULE = training.schedule_of(OPTIM, 10)
DECODER = DecoderConfig(depth=1, width=16, heads=2)


def projections(arrays):
    """Four sums of each array with fixed random weights, by name."""
    found = {}
    for name, array in arrays.items():
        flat = np.asarray(array, np.float64).reshape(-1)
        weights = np.random.Generator(np.random.PCG64(len(flat))).standard_normal((4, len(flat)))
        found[name] = (weights @ flat / max(len(flat), 1) ** 0.5).tolist()
    return found


def assert_equal(arrays, expected, tolerance):
    expected = older.renamed(expected)
    found = projections(arrays)
    assert found.keys() == expected.keys()
    for name, sums in found.items():
        np.testing.assert_allclose(sums, expected[name], atol=tolerance, rtol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def golden():
    return json.loads((BEFORE / "trajectories.json").read_text())


def ten_steps(task, model, trainable, prepare, optimizer):
    rng = np.random.Generator(np.random.PCG64(0))
    images = rng.integers(0, 256, (10, 8, 16, 16, 3), dtype=np.uint8)
    labels = rng.integers(0, 5, (10, 8), dtype=np.int32)
    model = jax.tree.map(lambda x: jnp.copy(x) if eqx.is_array(x) else x, trees.cast(model, jnp.float64))
    state = training.init_state(model, trainable, optimizer, ema=False)
    step = training.make_step(prepare, task.loss, optimizer, microbatches=2)
    for i in range(10):
        state = step(state, {"image": jnp.asarray(images[i]), "label": jnp.asarray(labels[i])}, jr.key(3))
    return state.model


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", wt.FAMILIES)
@pytest.mark.parametrize("dress", ["enhanced", "plain"])
def test_ten_steps_are_those_of_the_engine_before(golden, dress, family, layout, float64):
    """Pre-training under random widths, adaptation and fine-tuning, parameter by parameter, in float64."""
    about = f"{family}-{dress}-{layout}"
    config = wt.ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=4, dress=dress)
    options = dataclasses.asdict(DECODER)
    model = bank.build(config, wt.FAMILIES[family](), layout, "masked", options, key=jr.key(1))
    task, optimizer = Masked(DECODER), training.adamw(OPTIM, SCHEDULE)
    prepare = scaling.preparation(wt.ScalingOptions(scope="submodel"), config, family, "float64")
    model = ten_steps(task, model, constrained.trainable(model), prepare, optimizer)
    assert_equal(trees.named_arrays(model), golden[f"pretrain-{about}"], 1e-9)
    made = wt.Bank(model, family, {})
    if family != "none":
        adapted = inherit.adaptable(made, 3, 3, "interpolate")
        moves = inherit.scalers_of(adapted, ("free",))
        prepare = scaling.preparation(learning.FULL, adapted.backbone.config, family, "float64")
        adapted = ten_steps(task, adapted, moves, prepare, optimizer)
        assert_equal(trees.named_arrays(adapted), golden[f"adapt-{about}"], 1e-9)
    vit = trees.cast(wt.initialize(made, 3, 3, "uniform"), jnp.float64)
    classifier = trees.cast(wt.Classifier(vit, 5, key=jr.key(2)), jnp.float64)
    recipe = RecipeOptions(layer_decay=0.75, drop_path=0.1, erasing=0.5)
    optimizer = training.adamw(OPTIM, SCHEDULE, learning.SPARED)
    optimizer = training.scaled(optimizer, layer_scales(classifier, recipe.layer_decay))
    moves = jax.tree.map(eqx.is_inexact_array, classifier)
    classifier = ten_steps(Classify(recipe), classifier, moves, lambda params, key: params, optimizer)
    assert_equal(trees.named_arrays(classifier), golden[f"finetune-{about}"], 1e-9)


@pytest.mark.parametrize(("family", "layout"), [("tucker", "unified"), ("kronecker", "components")])
def test_banks_of_the_version_before_are_read(family, layout):
    found = wt.load_bank(BEFORE / f"{family}.safetensors")
    assert (found.family, found.task, found.model.backbone.layout) == (family, "masked", layout)
    assert found.config == wt.ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=4)
    assert found.about["steps"] == 4
    if family == "tucker":
        assert_equal(trees.named_arrays(found.model), json.loads((BEFORE / "after.json").read_text()), 1e-6)
        cut = wt.load_model(BEFORE / "model.safetensors").model
        for name, array in trees.named_arrays(wt.initialize(found, 1, 2)).items():
            np.testing.assert_allclose(array, trees.named_arrays(cut)[name], atol=1e-6, err_msg=name)


def test_models_of_the_version_before_are_read():
    found = wt.load_model(BEFORE / "classifier.safetensors").model
    assert isinstance(found, wt.Classifier)
    assert (found.backbone.config.depth, found.backbone.config.heads, len(found.head.bias)) == (1, 2, 10)


def test_a_run_of_the_version_before_goes_on(tmp_path):
    """From its checkpoint, by the same command, to the same end."""
    run = tmp_path / "run"
    shutil.copytree(BEFORE / "run", run)
    config = pretrain.Config(
        model=wt.ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=4),
        decoder=DECODER,
        data=DataOptions(count=64),
        optim=OptimOptions(batch=16, steps=4),
        run=RunOptions(out=str(run), save_every=2, log_every=1),
    )
    made = wt.load_bank(pretrain.main(config))
    assert [line["step"] for line in training.read_metrics(run) if "loss" in line] == [1, 2, 3, 4]
    assert_equal(trees.named_arrays(made.model), json.loads((BEFORE / "after.json").read_text()), 1e-3)
