"""The step, the loop, checkpoints and the run directory: laws of the machinery, on a model of two numbers or a small MAE."""

import dataclasses
import json
import math
import os
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import weight_templates as wt
from weight_templates import constrained, trees
from weight_templates.cli import clock
from weight_templates.config import OptimOptions, RunOptions, ScalingOptions
from weight_templates.constrained import materialize
from weight_templates.scaling import (
    USES,
    drawn_widths,
    narrowed,
    preparation,
    sample_widths,
    settled,
    sliced,
    widths_of,
)
from weight_templates.tasks.masked import Masked
from weight_templates.training import (
    Checkpoints,
    Interrupt,
    Run,
    Stopwatch,
    Watch,
    adamw,
    data_mesh,
    fit,
    init_state,
    make_step,
    read_metrics,
    replicate,
    schedule_of,
    session,
    share,
)
from weight_templates.training.optim import decayed

from .helpers import DECODER, ENHANCED, PLAIN, mae


OPTIM = OptimOptions(base_lr=0.1, batch=8)
TASK = Masked(DECODER)


def images(count, key):
    return {
        "image": jr.randint(key, (count, 16, 16, 3), 0, 256).astype(jnp.uint8),
        "label": jnp.zeros(count, jnp.int32),
    }


def prepare(params, key):
    return materialize(params, sample_widths(ScalingOptions(), ENHANCED, key=key))


def started(optimizer=None, config=ENHANCED, ema=False):
    model = mae(config, key=jr.key(0))
    optimizer = optimizer or adamw(OPTIM, schedule_of(OPTIM, 20))
    return init_state(model, constrained.trainable(model), optimizer, ema), optimizer


def assert_trees_close(one, two, **tolerance):
    one, two = trees.named_arrays(one), trees.named_arrays(two)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], err_msg=name, **tolerance)


def test_adamw_step_by_hand():
    """One parameter, one step, against Loshchilov & Hutter's formulae worked out with numpy."""
    options = OptimOptions(base_lr=0.1, batch=256, betas=(0.9, 0.95), weight_decay=0.5, warmup=0.0)
    optimizer = adamw(options, schedule_of(options, 10))
    params = {"weight": jnp.array([2.0]), "bias": jnp.array([2.0])}
    gradient = {"weight": jnp.array([3.0]), "bias": jnp.array([3.0])}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    moved = (0.1 * 3 / 0.1) / (math.sqrt(0.05 * 9 / 0.05) + 1e-8)
    np.testing.assert_allclose(updates["weight"], -0.1 * (moved + 0.5 * 2), rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], -0.1 * moved, rtol=1e-5)


def test_schedule_is_maes():
    """Peak 1.5e-4 · 1024 / 256 = 6e-4, SWEET's rate; half of it in the middle of warm-up and of the cosine; zero at the end."""
    schedule = schedule_of(OptimOptions(batch=1024, warmup=0.1), 1000)
    expected = {0: 0.0, 50: 3e-4, 100: 6e-4, 325: 3e-4 * (1 + math.cos(math.pi / 4)), 550: 3e-4, 1000: 0.0}
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, atol=1e-10)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", {100: 1.0, 325: 0.75, 550: 0.5, 1000: 0.0}),
        ("constant", {100: 1.0, 550: 1.0, 1000: 1.0}),
        ("stable", {100: 1.0, 820: 1.0, 910: 0.5, 955: 0.25, 1000: 0.0}),
    ],
)
def test_other_schedules_by_hand(schedule, expected):
    """Shares of the peak, 0.1, after the same warm-up of 100 of 1000 steps; `stable` falls over a fifth of the rest."""
    found = schedule_of(OptimOptions(base_lr=0.1, batch=256, warmup=0.1, schedule=schedule), 1000)
    for step, part in ({0: 0.0, 50: 0.5} | expected).items():
        np.testing.assert_allclose(found(step), 0.1 * part, atol=1e-7)
    short = schedule_of(OptimOptions(base_lr=0.1, batch=256, warmup=0.0, schedule=schedule), 1)
    assert float(short(0)) == pytest.approx(0.1)  # a run of one step has a rate, and no warm-up


def test_gradients_are_clipped_by_their_norm_over_all_leaves():
    """(3, 4) has norm 5: at most 1 makes it (0.6, 0.8); at most 10 leaves it. AdamW does not see a scale but through ε."""
    grads = {"weight": jnp.array([3.0]), "bias": jnp.array([4.0])}
    params = {"weight": jnp.array([2.0]), "bias": jnp.array([2.0])}

    def moments(clip):
        optimizer = adamw(dataclasses.replace(OPTIM, clip=clip), schedule_of(OPTIM, 10))
        _, state = optimizer.update(grads, optimizer.init(params), params)
        (adam,) = [s for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")]
        return np.concatenate([adam.mu["weight"], adam.mu["bias"]]) / (1 - OPTIM.betas[0])

    np.testing.assert_allclose(moments(1.0), [0.6, 0.8], rtol=1e-5)
    for clip in (10.0, None):
        np.testing.assert_allclose(moments(clip), [3, 4], rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_watched_by_hand(parts):
    """Of two steps of plain descent on a model of three numbers: sums of the terms and of norms in numpy; the frozen leaf
    has none, and micro-batches change nothing."""
    model = {"head": jnp.array([3.0, 4.0]), "body": jnp.array([2.0]), "still": jnp.array([9.0])}
    watch = Watch(("error",), lambda name: name)
    optimizer = optax.sgd(0.5)

    def loss(model, batch, keys):
        error = jnp.mean(batch["x"])
        return error * (jnp.sum(model["head"]) + 2 * model["body"][0] + model["still"][0]), {
            "error": error,
            "more": 7.0,
        }

    state = init_state(model, {"head": True, "body": True, "still": False}, optimizer, False, watch)
    assert not any(float(total) for total in state.tally.values())
    step = make_step(lambda p, k: p, loss, optimizer, microbatches=parts, watch=watch)
    head, body, expected = np.array([3.0, 4.0]), np.array([2.0]), {}
    for x in (np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 1, 0])):
        state = step(state, {"x": jnp.asarray(x, jnp.float32)}, jr.key(0))
        error = x.mean()
        gradients = error * np.array([1, 1]), error * np.array([2])
        seen = {
            "loss": error * (head.sum() + 2 * body[0] + 9),
            "error": error,
            "gradient_norm": np.linalg.norm(np.concatenate(gradients)),
            "parameter_norm": np.linalg.norm(np.concatenate([head, body])),
            "update_ratio/head": 0.5 * np.linalg.norm(gradients[0]) / np.linalg.norm(head),
            "update_ratio/body": 0.5 * np.linalg.norm(gradients[1]) / np.linalg.norm(body),
        }
        expected = {name: expected.get(name, 0) + value for name, value in seen.items()}
        head, body = head - 0.5 * gradients[0], body - 0.5 * gradients[1]
    assert state.tally.keys() == expected.keys()
    for name, total in expected.items():
        assert float(state.tally[name]) == pytest.approx(total, rel=1e-5), name
    assert int(state.tallied) == 2
    emptied = state.recounted()
    assert int(emptied.step) == 2
    assert not any(float(total) for total in (*emptied.tally.values(), emptied.tallied))


def test_parts_of_a_constrained_model_are_named():
    """What update ratios are of, for leaves of a pre-trained and of a plain model."""
    names = {
        "backbone.templates.all.core": "template",
        "backbone.scalers.all.slice": "slice",
        "backbone.scalers.all.row": "row",
        "backbone.free.norm.gain": "free",
        "backbone.embed.weight": "backbone",
        "decoder.predict.weight": "head",
        "student.backbone.scalers.qkv.col": "col",
    }
    assert {name: constrained.part_of(name) for name in names} == names


def test_gains_and_biases_are_not_decayed():
    model = mae(PLAIN, key=jr.key(0))
    free = {
        name for name, flag in zip(trees.named_arrays(model), jax.tree.leaves(decayed(model)), strict=True) if not flag
    }
    assert {"backbone.free.norm.gain", "backbone.free.blocks.mlp.enter_bias", "decoder.predict.bias"} <= free
    assert not any(
        name.startswith(("backbone.templates", "backbone.scalers")) or name.endswith(("weight", "cls", "mask_token"))
        for name in free
    )


def test_sincos_tables_are_frozen():
    model = mae(PLAIN, key=jr.key(0))
    frozen = {
        n
        for n, f in zip(trees.named_arrays(model), jax.tree.leaves(constrained.trainable(model)), strict=True)
        if not f
    }
    assert frozen == {"backbone.free.positions.table", "decoder.positions.table"}


def test_gradients_reach_factors_and_free_leaves_only():
    """What is trained is the template, the scalers and the free leaves; all of it moves, and nothing else is there."""
    state, optimizer = started(config=PLAIN)
    step = make_step(lambda p, k: materialize(p), TASK.loss, optimizer)
    before = jax.tree.map(np.array, state.model)
    state = step(step(state, images(8, jr.key(1)), jr.key(2)), images(8, jr.key(1)), jr.key(2))
    names = trees.named_arrays(state.trained)
    assert not any(
        "qkv" in name.split(".") or name.endswith(("mlp.enter", "mlp.leave")) for name in names if "backbone" in name
    )
    assert {"backbone.templates.all.core", "backbone.scalers.all.slice"} <= names.keys()
    for name, leaf in trees.named_arrays(state.model).items():
        moved = not np.array_equal(leaf, trees.named_arrays(before)[name])
        assert moved == (name in names), name


def test_the_step_is_traced_once_and_the_loss_falls():
    state, optimizer = started()
    traces = []

    def loss(model, batch, keys):
        traces.append(1)
        return TASK.loss(model, batch, keys)

    step = make_step(prepare, loss, optimizer)
    losses = []
    for _ in range(20):
        state = step(state, images(8, jr.key(1)), jr.key(2))
        losses.append(float(state.tally["loss"]))
    assert len(traces) == 1
    losses = np.diff(losses, prepend=0.0)
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()
    assert int(state.step) == 20


def test_accumulation_changes_nothing():
    """Four micro-batches give the step of the whole batch: the same masks, widths, loss and parameters."""
    results = []
    for parts in (1, 4):
        state, optimizer = started(optax.sgd(0.1))
        step = make_step(prepare, TASK.loss, optimizer, microbatches=parts)
        results.append(step(state, images(8, jr.key(1)), jr.key(2)))
    assert_trees_close(*results, rtol=1e-4, atol=1e-6)


def test_accumulation_in_double_precision_is_in_double_precision():
    """Sums of gradients, and the loss, are as precise as the model is."""
    optimizer, results = optax.sgd(1.0), []
    with jax.enable_x64(True):
        ready = preparation(ScalingOptions(), PLAIN, "tucker", "float64")
        for parts in (1, 2):
            model = trees.cast(mae(PLAIN, key=jr.key(0)), jnp.float64)
            state = init_state(model, constrained.trainable(model), optimizer, False)
            step = make_step(ready, TASK.loss, optimizer, microbatches=parts)
            results.append(step(state, images(8, jr.key(1)), jr.key(2)).trained)
    assert_trees_close(*results, rtol=1e-12, atol=1e-13)


def test_two_devices_give_the_result_of_one():
    assert len(jax.devices()) == 2
    results = []
    for devices in (1, 2):
        mesh = data_mesh(devices, 8, 1)
        state, optimizer = started()
        state, batch = replicate(state, mesh), jax.device_put(images(8, jr.key(1)), share(mesh))
        assert len(batch["image"].sharding.device_set) == devices
        step = make_step(prepare, TASK.loss, optimizer)
        for _ in range(3):
            state = step(state, batch, jr.key(2))
        results.append(jax.tree.map(np.array, state))
    assert_trees_close(*results, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("devices", "batch", "parts", "says"), [(3, 8, 1, "this host has 2"), (2, 9, 1, "multiple of 2")]
)
def test_batches_that_cannot_be_shared_are_refused(devices, batch, parts, says):
    with pytest.raises(wt.UserError, match=says):
        data_mesh(devices, batch, parts)


def test_moving_average_follows_the_recursion():
    state, optimizer = started(ema=True)
    step = make_step(prepare, TASK.loss, optimizer, ema=0.9)
    expected = np.array(state.trained.backbone.templates["all"]["core"])
    for _ in range(3):
        state = step(state, images(8, jr.key(1)), jr.key(2))
        expected = 0.9 * expected + 0.1 * np.array(state.trained.backbone.templates["all"]["core"])
    np.testing.assert_allclose(state.average.backbone.templates["all"]["core"], expected, rtol=1e-4, atol=1e-7)
    assert state.result.backbone.templates["all"]["core"] is state.average.backbone.templates["all"]["core"]


def test_bfloat16_computes_what_float32_does_roughly():
    results = []
    for precision in ("float32", "bfloat16"):
        state, optimizer = started(optax.sgd(0.1))
        step = make_step(lambda p, k, d=precision: trees.cast(prepare(p, k), d), TASK.loss, optimizer)
        state = step(state, images(8, jr.key(1)), jr.key(2))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.trained))
        results.append(float(state.tally["loss"]))
    np.testing.assert_allclose(*results, rtol=0.02)
    assert results[0] != results[1]


def test_widths_are_uniform_independent_prefixes():
    config = wt.ViTConfig(heads=12)
    rows, cols = jax.vmap(lambda k: sample_widths(ScalingOptions(), config, key=k))(jr.split(jr.key(0), 4000))
    assert widths_of(ScalingOptions(), config) == (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
    assert set(np.unique(rows)) == set(np.unique(cols)) == set(range(3, 13))
    for drawn in (rows, cols):
        assert abs(np.bincount(drawn, minlength=13)[3:] / 4000 - 0.1).max() < 0.03
    assert abs(np.corrcoef(rows, cols)[0, 1]) < 0.06
    rows, cols = jax.vmap(lambda k: sample_widths(ScalingOptions(coupled=True, heads=(11, 12)), config, key=k))(
        jr.split(jr.key(0), 50)
    )
    np.testing.assert_array_equal(rows, cols)
    assert set(np.unique(rows)) == {11, 12}


@pytest.mark.parametrize(
    ("config", "family", "factored"),
    [  # the dresses take turns: `test_sites` has the gradients of all
        (ENHANCED, "tucker", False),
        (PLAIN, "tucker", True),
        (PLAIN, "none", False),
        (ENHANCED, "linear", False),
        (PLAIN, "kronecker", False),
        (ENHANCED, "svd", False),
    ],
)
def test_sliced_execution_leaves_what_masked_execution_leaves(config, family, factored):
    """Independent rows and columns, momentum and weight decay included; both draw the same widths. Applied factor by factor
    or not."""
    options, key = ScalingOptions(scope="submodel", heads=(1, 2, config.heads)), jr.key(5)
    with jax.enable_x64(True):
        optimizer = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1, momentum=0.9))
        widths = drawn_widths(options, config, 4, key=key)
        assert len(np.unique(widths, axis=0)) > 2, "the draws are too alike to tell"
        batches = [images(4, jr.key(i)) for i in range(4)]

        def make(prepare):
            return make_step(prepare, TASK.loss, optimizer)

        prepare = preparation(options, config, family, "float64")
        masked_step = make(prepare)
        step, pairs = sliced(make, lambda done: batches[done:], widths, "float64", lambda c: factored)
        results = []
        for stepping, feed in ((masked_step, batches), (step, pairs(0))):
            model = trees.cast(mae(config, family, key=jr.key(0)), jnp.float64)
            state = init_state(model, constrained.trainable(model), optimizer, False)
            results.append(fit(state, stepping, feed, start=0, stop=4, key=key))
        one, other = (float(result.tally["loss"]) for result in results)
        assert one == pytest.approx(other, rel=1e-6)  # which is of float32
        model = trees.cast(mae(config, family, key=jr.key(0)), jnp.float64)  # a step donates what it is given
        pkey, keys = jr.key(6), jr.split(jr.key(7), 4)
        rows, cols = sample_widths(options, config, key=pkey)
        narrow = narrowed(model, int(rows), int(cols), lambda c: factored)
        losses = [eqx.filter_jit(TASK.loss)(made, batches[0], keys)[0] for made in (prepare(model, pkey), narrow)]
        assert losses[0].dtype == jnp.float64
        assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-10)
        for (name, a), b in zip(
            trees.named_arrays(results[0].trained).items(), trees.named_arrays(results[1].trained).values(), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-10, err_msg=name)


def test_scaling_is_on_under_a_constraint_only():
    assert ScalingOptions().scope_for("tucker") == "submodel"
    assert ScalingOptions().scope_for("none") == "off"
    assert ScalingOptions(scope="submodel").scope_for("none") == "submodel"
    assert ScalingOptions(execution="sliced").scope_for("none") == "off"  # how it is computed does not say what


def test_widths_are_sliced_in_runs_long_enough():
    """One program a pair of widths; 10 widths from 3 to 12 heads."""
    config = wt.ViTConfig(heads=12)

    def decided(steps, family="tucker", **options):
        return settled(ScalingOptions(**options), config, family, steps).execution

    assert [decided(steps, coupled=True) for steps in (10 * USES - 1, 10 * USES)] == ["masked", "sliced"]
    assert [decided(steps) for steps in (100 * USES - 1, 100 * USES)] == ["masked", "sliced"]
    assert decided(10**9, "none") == decided(10**9, scope="scalers") == decided(1, execution="masked") == "masked"
    assert decided(1, execution="sliced") == "sliced"


def test_fit_calls_its_hooks_on_time():
    calls = []

    def step(state, batch, key):
        return state + batch

    def double(done, state):
        calls.append((done, state))
        return state * 2

    every = [(2, double), (3, lambda done, state: calls.append(("three", done)))]
    assert (
        fit(1, step, [10, 20, 30, 40, 50], start=2, stop=7, key=jr.key(0), every=every)
        == ((((1 + 10 + 20) * 2) + 30 + 40) * 2 + 50) * 2
    )
    assert calls == [("three", 3), (4, 31), (6, 132), ("three", 6), (7, 314), ("three", 7)]


@pytest.mark.parametrize("together", [False, True])
def test_a_notice_is_heeded_within_some_steps(tmp_path, monkeypatch, together):
    """However rare the records: dispatch waits for the steps of some ago, and several processes often ask each other."""
    events = []

    class Mark:
        def __init__(self, number):
            self.number = int(number)

        def block_until_ready(self):
            events.append(("waits", self.number))

    def step(state, batch, key):
        events.append(("step", batch))
        tally = {"loss": state.tally["loss"] + 1.0}
        return dataclasses.replace(state, step=state.step + 1, tally=tally, tallied=state.tallied + 1)

    monkeypatch.setattr(session.jnp, "copy", Mark)
    monkeypatch.setattr(session, "alone", lambda: not together)
    monkeypatch.setattr(session, "agreed", lambda asked: events.append(("asks", events[-1][1])) or asked)
    optimizer = optax.sgd(1.0)
    options = RunOptions(root=str(tmp_path), log_every=100, save_every=100)
    with Run("test", "x", {}, options) as run:
        session.train(
            run,
            session.Plan(40, 100, 1, evaluate_every=100),
            init_state(jnp.zeros(2), True, optimizer, False),
            step,
            lambda done: range(done + 1, 41),
            lambda state: (0.0, {}),
            schedule=lambda done: jnp.array(0.0),
            identity="",
            mesh=data_mesh(1, 1, 1),
            key=jr.key(0),
        )
    asked = [number for kind, number in events if kind == "asks"]
    assert len(asked) == (5 if together else 40)
    reached = 0
    for number, (kind, value) in enumerate(events):
        if kind == "waits":
            reached = value
            assert events[number - 1] == ("step", value + 4)  # which the device has not seen the end of
        elif kind == "step":
            assert value - reached <= 8


def test_interrupt_raises_a_flag_first():
    with Interrupt() as interrupt:
        assert interrupt.asked == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert Interrupt.ORDER[interrupt.asked - 1] == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_checkpoints_round_trip_and_keep_two(tmp_path):
    state, _ = started()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state) is None
    for n in range(1, 5):
        checkpoints.save(n, eqx.tree_at(lambda s: s.step, state, jnp.array(n, jnp.int32)), {"best": 1 / 3}, best=n == 2)
    checkpoints.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000003.safetensors",
        "000000004.safetensors",
        "best.safetensors",
    ]
    restored, about = checkpoints.restore(state)
    assert about == {"best": 1 / 3, "step": 4}
    assert int(restored.step) == 4
    assert_trees_close(restored.model, state.model, rtol=0, atol=0)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    state, _ = started()
    checkpoints = Checkpoints(tmp_path)
    for n in (1, 2):
        checkpoints.save(n, state, {})
    checkpoints.wait()
    content = bytearray((tmp_path / "000000002.safetensors").read_bytes())
    content[-100] ^= 1
    (tmp_path / "000000002.safetensors").write_bytes(content)
    assert checkpoints.restore(state)[1]["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["000000001.safetensors"]  # the damaged one would count as kept
    (tmp_path / "000000001.safetensors").write_bytes(b"nothing")
    with pytest.raises(wt.UserError, match="corrupt"):
        checkpoints.restore(state)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, started()[0], {})
    checkpoints.wait()
    with pytest.raises(wt.UserError, match=r"norm1\.bias is missing"):
        checkpoints.restore(started(config=PLAIN)[0])


def test_run_directory_is_a_function_of_the_configuration(tmp_path):
    options = RunOptions(root=str(tmp_path))
    one, two, three = (Run("e", "n", config, options) for config in ({"a": 1}, {"a": 1}, {"a": 2}))
    assert one.path == two.path != three.path
    assert list(tmp_path.iterdir()) == []  # looking touches nothing


def test_run_refuses_what_is_not_its_own(tmp_path):
    options = RunOptions(out=str(tmp_path / "run"))
    with Run("e", "n", {"a": {"b": 1}}, options) as run:
        run.begin(0, 10)
        with pytest.raises(wt.UserError, match="another process"):
            Run("e", "n", {"a": {"b": 1}}, options).__enter__()
    with pytest.raises(wt.UserError, match=r"a\.b was 1, now 2"):
        Run("e", "n", {"a": {"b": 2}}, options)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(wt.UserError, match=r"thesis\.tex"):
        Run("e", "n", {}, RunOptions(out=str(tmp_path / "other")))
    with pytest.raises(wt.UserError, match="is a file"):
        Run("e", "n", {}, RunOptions(out=str(tmp_path / "other" / "thesis.tex")))


def test_overwrite_deletes_only_what_a_run_writes(tmp_path):
    options = RunOptions(out=str(tmp_path))
    with Run("e", "n", {"a": 1}, options) as run:
        run.begin(0, 10)
        run.record(step=1, loss=0.5)
        run.finish(loss=0.5)
    (tmp_path / "notes.txt").write_text("mine")
    assert Run("e", "n", {"a": 1}, options).summary == {"loss": 0.5}
    with Run("e", "n", {"a": 2}, RunOptions(out=str(tmp_path), overwrite=True)) as run:
        assert run.summary is None
        run.begin(0, 10)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "summary.json").exists()
    assert read_metrics(tmp_path) == []


def test_records_beyond_the_checkpoint_are_dropped(tmp_path):
    with Run("e", "n", {}, RunOptions(out=str(tmp_path))) as run:
        run.begin(0, 10)
        for n in (1, 2, 3):
            run.record(step=n, loss=1 / n)
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"step": 4, "lo')  # killed while writing
        run.begin(2, 10)
        run.record(step=3, loss=1.0)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    starts = json.loads((tmp_path / "environment.json").read_text())
    assert [start["step"] for start in starts] == [0, 2]
    assert starts[0]["packages"]["jax"] == jax.__version__


def test_stopwatch_and_clock(capsys):
    watch = Stopwatch(0, 4, 100)
    assert watch.lap(2, 0.5) > 0
    watch.lap(4, 0.25)
    heard = capsys.readouterr().err
    assert "step 4/4  loss 0.2500" in heard
    assert "ETA 0:00" in heard
    assert [clock(s) for s in (0.0, 59.6, 3725.0, math.inf)] == ["0:00", "1:00", "1:02:05", "?"]


def test_tensorboard_is_an_extra(tmp_path):
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        with pytest.raises(wt.UserError, match="track"):
            Run("e", "n", {}, RunOptions(out=str(tmp_path / "r"), logger="tensorboard")).__enter__()
    else:
        with Run("e", "n", {}, RunOptions(out=str(tmp_path / "r"), logger="tensorboard")) as run:
            run.record(step=1, loss=0.5)
        assert list((tmp_path / "r" / "tensorboard").iterdir())


def test_overwriting_empties_once(tmp_path):
    """A run may be entered by one stage after the other."""
    options = RunOptions(root=str(tmp_path), overwrite=True)
    run = Run("x", "y", {"a": 1}, options)
    with run:
        run.record(step=1, loss=1.0)
    with run:
        run.record(step=2, loss=0.5)
    assert [line["step"] for line in read_metrics(run.path)] == [1, 2]
    with Run("x", "y", {"a": 1}, options) as again:
        assert not (again.path / "metrics.jsonl").exists()
