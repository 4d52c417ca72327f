"""Laws of every task: over `TASKS` as the laws of constraints are over `CONSTRAINTS`."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from PIL import Image

import weight_templates as wt
from weight_templates import config, learning, scaling, training, trees
from weight_templates.config import DataOptions, OptimOptions, RunOptions
from weight_templates.constrained import part_of, trainable
from weight_templates.data import Arrays
from weight_templates.learning import Recipe, at_width, learn
from weight_templates.models import AbstractHead
from weight_templates.tasks.classify import Classify, accuracy
from weight_templates.tasks.distil import Distil, student_mask

from .helpers import ENHANCED, TASKS, model_for


NET = dataclasses.replace(ENHANCED, depth=2)
tasks = pytest.mark.parametrize("name", TASKS)


def images(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return Arrays(rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8), np.arange(count) % 3, name="made")


def opened(task, batch=8, mesh=None):
    mesh = mesh or training.data_mesh(1, batch, 1)
    return task.open(images(), DataOptions(), NET, training.share(mesh), batch=batch, seed=0, test=images(12, 1))


def backbone_of(model):
    return model.backbone if hasattr(model, "backbone") else model.student.backbone


def moves_of(task):
    if isinstance(task, Distil):
        return student_mask
    if hasattr(model := model_for(task, NET, key=jr.key(0)), "teacher"):
        assert model.teacher
        return lambda m: trees.put(trainable(m), {"teacher": jax.tree.map(lambda _: False, m.teacher)})
    return trainable


def test_every_task_there_is_has_laws():
    assert {type(task).__name__ for task in TASKS.values()} >= {
        entry.task.partition(":")[2] for entry in config.TASKS.values()
    }
    for name, entry in config.TASKS.items():
        assert config.found(entry.task).__name__ == entry.task.partition(":")[2]
        assert issubclass(config.found(entry.head), AbstractHead), name


@tasks
def test_loss_is_finite_and_differentiable_and_reports_its_terms(name):
    task = TASKS[name]
    model = model_for(task, NET, key=jr.key(0))
    batch, keys = opened(task).feed.batch(0), jr.split(jr.key(1), 8)
    (value, terms), grads = eqx.filter_value_and_grad(task.loss, has_aux=True)(model, batch, keys)
    assert value.shape == ()
    assert np.isfinite(value)
    assert set(terms) == set(task.terms)
    assert all(np.isfinite(term) for term in terms.values())
    moved = eqx.filter(grads, moves_of(task)(model))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(moved))
    assert any(
        np.abs(g).max() > 0 for g in jax.tree.leaves(trees.at(moved, "student" if name == "distil" else "backbone"))
    )


@tasks
def test_the_loss_of_a_batch_is_the_mean_of_its_samples(name):
    """Each under its own key: no sample looks at another. Classification mixes samples only under mixup and CutMix, which
    are off here."""
    task = TASKS[name]
    model = model_for(task, NET, key=jr.key(0))
    batch, keys = opened(task).feed.batch(0), jr.split(jr.key(1), 8)
    loss = eqx.filter_jit(lambda b, k: task.loss(model, b, k)[0])
    alone = [loss(jax.tree.map(lambda x, i=i: x[i : i + 1], batch), keys[i : i + 1]) for i in range(8)]
    np.testing.assert_allclose(loss(batch, keys), np.mean(alone), rtol=2e-5)


@tasks
def test_evaluation_does_not_depend_on_chunks(name):
    """The metrics of all held-out images are the mean of those of the halves."""
    task = TASKS[name]
    data = opened(task)
    model = model_for(task, NET, key=jr.key(0))
    found = task.evaluate(model, data.held_out)
    assert task.score in found
    assert all(np.isfinite(value) for value in found.values())
    assert found == task.evaluate(model, data.held_out)
    if name == "masked":
        from weight_templates.tasks import masked

        two = [masked.evaluate(model, data.held_out.images, chunk=chunk, key=data.held_out.key) for chunk in (1, 2)]
        np.testing.assert_allclose(two[0], two[1], rtol=1e-6)
    if name in ("classify", "distil"):
        views = dataclasses.replace(data.held_out.views, chunk=1, kept=[])
        assert task.evaluate(model, data.held_out._replace(views=views)) == found


def trained(task, path, *, steps=4, microbatches=1, devices=1, stop=None, constraint=None, **recipe):
    """A training in a run's directory; `stop` raises after so many steps are recorded."""
    optim = OptimOptions(base_lr=0.05, batch=8, steps=steps, microbatches=microbatches, clip=1.0)
    run = training.Run("tasks", "law", {"a": 1}, RunOptions(out=str(path), log_every=1, save_every=1, devices=devices))
    data = opened(task, mesh=training.data_mesh(devices, 8, microbatches))
    model = model_for(task, NET, key=jr.key(0), constraint=constraint)
    if stop:
        record = run.record

        def stopping(**row):
            if row["step"] == stop and "loss" not in row:
                raise KeyboardInterrupt
            record(**row)

        run.record = stopping
    with run:
        learned = learn(
            run,
            task,
            model,
            data,
            Recipe(optim, every=2, **recipe),
            key=jr.key(5),
            moves=moves_of(task),
            backbone=backbone_of,
        )
    return trees.named_arrays(learned.last), (path / "metrics.jsonl").read_text()


@tasks
def test_micro_batches_and_devices_change_nothing(name, tmp_path):
    task = TASKS[name]
    one, _ = trained(task, tmp_path / "one")
    for words in ({"microbatches": 2}, {"devices": 2}):
        other, _ = trained(task, tmp_path / str(words), **words)
        for leaf, array in one.items():
            np.testing.assert_allclose(array, other[leaf], atol=2e-3, err_msg=f"{words} {leaf}")


@tasks
def test_killed_and_resumed_is_the_straight_run_to_the_bit(name, tmp_path):
    task, tucker = TASKS[name], wt.Tucker()
    words = {"constraint": tucker, "scaling": wt.ScalingOptions(scope="submodel", execution="masked")}
    straight, metrics = trained(task, tmp_path / "straight", **words)
    with pytest.raises(KeyboardInterrupt):
        trained(task, tmp_path / "killed", stop=4, **words)
    again, resumed = trained(task, tmp_path / "killed", **words)
    for leaf, array in straight.items():
        np.testing.assert_array_equal(array, again[leaf], err_msg=leaf)
    assert resumed == metrics
    rows = [json.loads(line) for line in metrics.splitlines()]
    watched = {"gradient_norm", "parameter_norm", "update_ratio/template", "update_ratio/slice", "update_ratio/head"}
    for row in rows:
        if "loss" in row:
            assert watched - ({"update_ratio/head"} if name == "features" else set()) <= row.keys()
            assert set(task.terms) <= row.keys()
            assert all(np.isfinite(row[name]) for name in row)


@tasks
def test_pictures_show_something(name, tmp_path):
    task = TASKS[name]
    data = opened(task)
    model = model_for(task, NET, key=jr.key(0))
    path = tmp_path / task.shown
    task.picture({"half": model, "whole": model}, data.held_out, path)
    with Image.open(path) as picture:
        assert min(picture.size) > 100
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_what_is_watched_by_hand():
    """One step of plain descent on a parabola: gradient, parameters and the update's size over theirs."""

    class Model(eqx.Module):
        backbone: dict
        head: jax.Array

    model = Model({"scalers": {"all": {"slice": jnp.array([3.0, 4.0])}}}, jnp.array([12.0]))
    watch = training.Watch(("half",), part_of)

    def loss(model, batch, keys):
        value = sum(jnp.sum(x**2) for x in jax.tree.leaves(model)) / 2
        return value, {"half": value / 2}

    optimizer = optax.sgd(0.1)
    state = training.init_state(model, jax.tree.map(lambda _: True, model), optimizer, ema=False, watch=watch)
    step = training.make_step(lambda m, key: m, loss, optimizer, watch=watch)
    tally = step(state, jnp.zeros(1), jr.key(0)).tally
    assert {name: float(x) for name, x in tally.items()} == pytest.approx(
        {
            "loss": 84.5,
            "half": 42.25,
            "gradient_norm": 13,
            "parameter_norm": 13,
            "update_ratio/slice": 0.1,
            "update_ratio/head": 0.1,
        }
    )


def test_gradients_are_clipped_to_their_norm():
    optimizer = training.adamw(OptimOptions(clip=0.5), optax.constant_schedule(1.0))
    plain = training.adamw(OptimOptions(), optax.constant_schedule(1.0))
    params = {"w": jnp.ones(4)}
    grads = {"w": jnp.array([3.0, 0, 0, 4.0])}
    clipped, _ = optimizer.update(grads, optimizer.init(params), params)
    expected, _ = plain.update({"w": grads["w"] / 10}, plain.init(params), params)
    np.testing.assert_allclose(clipped["w"], expected["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0, 0.5, 1, 0.5 * (1 + np.cos(np.pi / 8)), 0.5]),
        ("linear", [0, 0.5, 1, 7 / 8, 0.5]),
        ("constant", [0, 0.5, 1, 1, 1]),
        ("stable", [0, 0.5, 1, 1, 1]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    """Ten steps, two of which warm up; places 0, 1, 2, 3 and 6."""
    options = OptimOptions(base_lr=1.0, batch=256, warmup=0.2, schedule=schedule)
    rate = training.schedule_of(options, 10)
    np.testing.assert_allclose([float(rate(step)) for step in (0, 1, 2, 3, 6)], expected, atol=1e-6)
    ends = {"cosine": 0.0380602, "linear": 1 / 8, "constant": 1, "stable": 1 / 2}
    np.testing.assert_allclose(float(rate(9)), ends[schedule], atol=1e-4)


def test_an_answer_that_is_no_number_is_wrong():
    logits = np.array([[np.nan, 0, 0], [2, 1, 0], [np.nan] * 3, [0, np.inf, 0]], np.float32)
    assert accuracy(logits, np.array([0, 0, 1, 1])).top1 == 0.5


def test_sliced_execution_is_masked_execution_for_a_classifier(tmp_path):
    """Supervised templates: the states of both are the same to rounding."""
    task = Classify()
    words = {"steps": 3, "constraint": wt.Tucker()}
    made = [
        trained(task, tmp_path / execution, scaling=wt.ScalingOptions(execution=execution, coupled=True), **words)[0]
        for execution in ("masked", "sliced")
    ]
    for leaf, array in made[0].items():
        np.testing.assert_allclose(array, made[1][leaf], atol=2e-3, err_msg=leaf)


def test_widths_of_a_model_are_those_of_its_masks():
    model = model_for(TASKS["classify"], NET, key=jr.key(0), constraint=wt.Tucker())
    image = jr.normal(jr.key(1), (16, 16, 3))
    narrow, whole = at_width(model, "float32", 2), at_width(model, "float32")
    assert not np.asarray(narrow.backbone(image))[:, 8:].any()
    assert np.asarray(whole.backbone(image))[:, 8:].any()
    assert scaling.widths_of(wt.ScalingOptions(), NET) == (1, 2, 3, 4)
    assert learning.FULL.scope_for("tucker") == "off"
