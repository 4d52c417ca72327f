"""The competitors: each rule by a known answer."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.fft
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import weight_templates as wt
from weight_templates import baselines, constrained, training, trees
from weight_templates.baselines import dmae, learngene, mimetic, pruning, selection, spectral
from weight_templates.baselines.parts import assemble, hidden_units, parts_of, take
from weight_templates.config import OptimOptions, RecipeOptions
from weight_templates.constrained import constrain, materialize
from weight_templates.data import normalize
from weight_templates.errors import RunError, UserError
from weight_templates.models import MAE, Classifier
from weight_templates.models.mae import reconstruction_loss
from weight_templates.sites import stacks
from weight_templates.tasks import masked
from weight_templates.tasks.classify import Classify
from weight_templates.tasks.distil import student_mask

from .helpers import CONFIGS, DECODER, ENHANCED, PLAIN, vit
from .helpers import mae as constrained_mae


# As one program each: op by op, compilation would take several times as long.
new, at_size, expand = map(eqx.filter_jit, (constrain, learngene.at_size, wt.expand))


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_parts_come_apart_and_together(config):
    model = vit(config)
    parts = parts_of(model)
    assert eqx.tree_equal(assemble(config, {name: part.array for name, part in parts.items()}), model)
    whole = {"layer": np.arange(config.depth), "hidden": np.arange(hidden_units(config))}
    assert eqx.tree_equal(take(model, config, whole), model)


def test_selected_indices_of_the_paper():
    """The spec's golden numbers for ViT-B: every second, every fourth, and rounding where 768 does not divide."""
    np.testing.assert_array_equal(selection.spaced(768, 384), np.arange(0, 768, 2))
    np.testing.assert_array_equal(selection.spaced(768, 192), np.arange(0, 768, 4))
    np.testing.assert_array_equal(selection.spaced(768, 320), [round(i * 767 / 319) for i in range(320)])
    assert selection.spaced(768, 320)[-1] == 767
    # Halves go to the even neighbour: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2 would repeat, so the ends are 6 of 4: 0 5/3 10/3 5.
    np.testing.assert_array_equal(selection.spaced(6, 4), [0, 2, 3, 5])
    np.testing.assert_array_equal(selection.spaced(4, 3), [0, 2, 3])  # 1.5 -> 2
    np.testing.assert_array_equal(selection.spaced(6, 5), [0, 1, 2, 4, 5])  # 2.5 -> 2
    np.testing.assert_array_equal(selection.spaced(7, 1), [0])


@given(st.integers(1, 200), st.data())
def test_selected_indices_increase_within_range(source, data):
    target = data.draw(st.integers(1, source))
    found = selection.spaced(source, target)
    assert len(found) == target
    assert (np.diff(found) > 0).all()
    assert found[0] == 0
    assert found[-1] <= source - 1
    if source % target:
        assert found[-1] == source - 1


def test_selection_by_hand():
    """From PLAIN, 3 layers of 4 heads of 4 channels, to 2 of 2: every second channel; hidden units are one axis."""
    model = vit(PLAIN)
    small = selection.select_weights(model, PLAIN.resized(depth=2, heads=2))
    block, chosen = model.blocks, slice(None, None, 2)
    np.testing.assert_array_equal(small.embed.weight, model.embed.weight[chosen])
    np.testing.assert_array_equal(small.positions.table, model.positions.table[:, chosen])
    np.testing.assert_array_equal(small.blocks.attention.qkv, block.attention.qkv[:2, :, chosen, chosen])
    np.testing.assert_array_equal(small.blocks.attention.out, block.attention.out[:2, chosen, chosen])
    flat = block.mlp.enter[:2].reshape(2, 64, 16)[:, chosen, chosen]
    np.testing.assert_array_equal(small.blocks.mlp.enter.reshape(2, 32, 8), flat)
    np.testing.assert_array_equal(
        small.blocks.mlp.enter_bias.reshape(2, 32), block.mlp.enter_bias[:2].reshape(2, 64)[:, chosen]
    )
    np.testing.assert_array_equal(small.norm.gain, model.norm.gain[chosen])
    whole = selection.select_weights(model, PLAIN.resized(depth=2, heads=2), heads="whole")
    rows = [0, 1, 2, 3, 8, 9, 10, 11]
    np.testing.assert_array_equal(whole.blocks.attention.out, block.attention.out[:2][:, rows][:, :, chosen])


def test_selection_by_hand_where_sizes_do_not_divide():
    """From 16 channels and 64 hidden units to 12 and 48, places i 15/11 and i 63/47 rounded; q, k and v each on their own,
    where the fused matrix would give them other places."""
    model = vit(PLAIN)
    small = selection.select_weights(model, PLAIN.resized(depth=2, heads=3))
    narrow = np.array([0, 1, 3, 4, 5, 7, 8, 10, 11, 12, 14, 15])
    hidden = np.rint(np.arange(48) * (63 / 47)).astype(int)
    fused = np.rint(np.arange(36) * (47 / 35)).astype(int)
    assert (fused != np.concatenate([narrow + 16 * kind for kind in range(3)])).any()
    block = model.blocks
    for kind in range(3):
        expected = np.asarray(block.attention.qkv)[:2, kind][:, narrow][:, :, narrow]
        np.testing.assert_array_equal(small.blocks.attention.qkv[:, kind], expected)
    expected = np.asarray(block.attention.out)[:2][:, narrow][:, :, narrow]
    np.testing.assert_array_equal(small.blocks.attention.out, expected)
    expected = np.asarray(block.mlp.enter)[:2].reshape(2, 64, 16)[:, hidden][:, :, narrow]
    np.testing.assert_array_equal(small.blocks.mlp.enter.reshape(2, 48, 12), expected)
    expected = np.asarray(block.mlp.leave)[:2].reshape(2, 64, 16)[:, hidden][:, :, narrow]
    np.testing.assert_array_equal(small.blocks.mlp.leave.reshape(2, 48, 12), expected)


def test_layers_go_where_the_heads_do_not_divide_the_width():
    """Of 4 heads and 18 channels: the layer with the larger weights stays, as it is."""
    uneven = dataclasses.replace(ENHANCED, width=18)
    model = eqx.tree_at(lambda v: v.blocks.mlp.leave, vit(uneven), replace_fn=lambda w: w.at[1].multiply(3))
    cut = pruning.prune(model, uneven.resized(depth=1), pruning.magnitude)
    assert cut.config.channels == 18
    np.testing.assert_array_equal(cut.blocks.attention.qkv[0], model.blocks.attention.qkv[1])
    np.testing.assert_array_equal(cut.embed.weight, model.embed.weight)


@pytest.mark.parametrize("config", [ENHANCED, PLAIN], ids=["enhanced", "plain"])
def test_all_cuts_have_the_shapes_of_their_size(config):
    model = vit(config)
    for depth, heads in ((2, 3), (1, 1)):
        target = config.resized(depth=depth, heads=heads)
        fresh = wt.ViT(target, key=jr.key(0))
        for made in (
            selection.select_weights(model, target),
            selection.select_weights(model, target, "whole"),
            spectral.truncate_spectrum(model, target),
            pruning.prune(model, target, pruning.magnitude),
            mimetic.mimic(fresh, key=jr.key(1)),
        ):
            assert trees.mismatch(fresh, trees.named_arrays(made)) is None
            assert all(jnp.isfinite(array).all() for array in trees.named_arrays(made).values())
            assert made.config == target
    same = selection.select_weights(model, config)
    assert eqx.tree_equal(same, model)
    with pytest.raises(UserError, match="only shrinks"):
        selection.select_weights(model, config.resized(heads=5))


def test_spectra_are_cut_as_scipy_cuts_them():
    model = vit(PLAIN)
    small = spectral.truncate_spectrum(model, PLAIN.resized(depth=2, heads=2))
    weight = np.asarray(model.blocks.attention.out, np.float64)
    spectrum = scipy.fft.dctn(weight, norm="ortho")[:2, :8, :8]
    np.testing.assert_allclose(small.blocks.attention.out, scipy.fft.idctn(spectrum, norm="ortho"), atol=1e-5)
    ones = eqx.tree_at(lambda v: v.norm.gain, model, jnp.ones(16))
    for heads in (1, 3, 6):
        gain = spectral.truncate_spectrum(ones, PLAIN.resized(heads=heads)).norm.gain
        np.testing.assert_allclose(gain, np.ones(4 * heads), atol=1e-5)
    assert eqx.tree_equal(spectral.truncate_spectrum(model, PLAIN), model)
    # What is added to the residual stream is cut as what is multiplied into it.
    spectrum = scipy.fft.dct(np.asarray(model.cls, np.float64), norm="ortho")[:8]
    np.testing.assert_allclose(small.cls, scipy.fft.idct(spectrum, norm="ortho"), atol=1e-5)
    stream = np.asarray(model.embed.weight, np.float64) @ np.ones(model.embed.weight.shape[1]) + model.embed.bias
    cut = scipy.fft.idct(scipy.fft.dct(stream, norm="ortho")[:8], norm="ortho")
    mine = np.asarray(small.embed.weight) @ np.ones(small.embed.weight.shape[1]) + small.embed.bias
    np.testing.assert_allclose(mine, cut, atol=1e-5)


def test_spectra_keep_the_frequencies_of_rotary_positions():
    """Under rotary positions the channels of a head keep their places: heads are mixed, channels are not."""
    model = vit(ENHANCED)
    one = eqx.tree_at(
        lambda v: v.blocks.attention.qkv, model, jnp.zeros_like(model.blocks.attention.qkv).at[:, :, 1::4].set(1.0)
    )
    small = spectral.truncate_spectrum(one, ENHANCED.resized(depth=2, heads=2)).blocks.attention.qkv
    energy = np.square(np.asarray(small)).reshape(2, 3, 2, 4, -1).sum(axis=(0, 1, 2, 4))
    assert energy[1] > 1
    np.testing.assert_allclose(energy[[0, 2, 3]], 0, atol=1e-8)
    heads = np.asarray(model.blocks.attention.out, np.float64).reshape(3, 4, 4, 16)
    spectrum = scipy.fft.dctn(heads, axes=(0, 1, 3), norm="ortho")[:2, :2, :, :8]
    expected = scipy.fft.idctn(spectrum, axes=(0, 1, 3), norm="ortho").reshape(2, 8, 8)
    made = spectral.truncate_spectrum(model, ENHANCED.resized(depth=2, heads=2))
    np.testing.assert_allclose(made.blocks.attention.out, expected, atol=1e-5)


def test_spectra_keep_the_variance_of_noise():
    noise = np.random.default_rng(0).normal(size=(400, 300))
    for size in (100, 350, 800):
        made = spectral.low_frequencies(noise, 0, size, keep_values=False)
        assert made.shape == (size, 300)
        assert made.std() == pytest.approx(1, abs=0.03)


def test_mimetic_products():
    """Over all heads the rank suffices, and Aᵀ B is α Z - β I; a head's is the best approximation of its rank."""
    whole = mimetic.split_product(16, 16, 0.4, -0.4, key=jr.key(0))
    product = np.asarray(whole[0].T @ whole[1])
    expected = 0.4 * np.asarray(jr.normal(jr.key(0), (16, 16))) / 4 - 0.4 * np.eye(16)
    np.testing.assert_allclose(product, expected, atol=1e-5)
    part = mimetic.split_product(16, 4, 0.4, -0.4, key=jr.key(0))
    error = np.linalg.norm(np.asarray(part[0].T @ part[1]) - expected, 2)
    assert error == pytest.approx(np.linalg.svd(expected)[1][4], rel=1e-4)  # Eckart & Young
    model = mimetic.mimic(wt.ViT(PLAIN, key=jr.key(0)), key=jr.key(1))
    query, key, _ = jnp.moveaxis(model.blocks.attention.qkv.reshape(3, 3, 4, 4, 16), 1, 0)
    heads = jnp.einsum("lhki,lhkj->lhij", query, key)  # of rank 4: the largest of 16 singular values of 0.7 (Z + I)
    assert (np.linalg.matrix_rank(np.asarray(heads), tol=1e-4) == 4).all()
    for layer, lkey in enumerate(jr.split(jr.key(1), 3)):  # each the best of its rank to 0.7 Z + 0.7 I, by numpy
        for head, hkey in enumerate(jr.split(jr.split(lkey)[0], 4)):
            u, s, vt = np.linalg.svd(0.7 * np.asarray(jr.normal(hkey, (16, 16))) / 4 + 0.7 * np.eye(16))
            np.testing.assert_allclose(heads[layer, head], (u[:, :4] * s[:4]) @ vt[:4], atol=1e-4)
    both = jnp.einsum("lik,lij->lkj", model.blocks.attention.qkv[:, 2], model.blocks.attention.out)
    assert float(jnp.trace(both, axis1=1, axis2=2).mean()) / 16 == pytest.approx(-0.4, abs=0.1)


@pytest.mark.parametrize("config", [ENHANCED, PLAIN], ids=["enhanced", "plain"])
def test_pruning_finds_what_matters(config):
    """A small network planted among parts of tiny weights is found again, by magnitude and by gradient, and the result
    is the dense slice."""
    rng = np.random.default_rng(0)
    small = config.resized(depth=2, heads=2)
    layers = np.array([0, 2])
    heads = np.array([[0, 2], [1, 3]])
    chosen = {
        "width": np.sort(rng.choice(16, 8, replace=False)),
        "inner": (heads[..., None] * 4 + np.arange(4)).reshape(2, -1),
        "hidden": np.stack([np.sort(rng.choice(hidden_units(config), hidden_units(small), False)) for _ in range(2)]),
    }
    model, arrays = vit(config), {}
    for name, (array, axes) in parts_of(model).items():
        if name == "positions.table":  # which is no weight: what it holds says nothing of what matters
            arrays[name] = array
            continue
        scale = np.full(array.shape, 1.0)
        for axis, what in enumerate(axes):
            if what == "layer":
                weight = np.isin(np.arange(3), layers)
            elif what == "width":
                weight = np.isin(np.arange(16), chosen["width"])
            elif what in ("inner", "hidden"):
                weight = np.ones((3, array.shape[axis]), bool)
                for row, layer in enumerate(layers):
                    weight[layer] = np.isin(np.arange(array.shape[axis]), chosen[what][row])
                weight = weight.reshape([array.shape[i] if i in (0, axis) else 1 for i in range(array.ndim)])
                scale = scale * np.where(weight, 1, 1e-3)
                continue
            else:
                continue
            scale = scale * np.where(weight, 1, 1e-3).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        arrays[name] = array * scale
    planted = assemble(config, arrays)
    expected = take(take(planted, config.resized(depth=2), {"layer": layers}), small, chosen)
    for row, layer in enumerate(layers):  # the dense slice, by numpy
        rows, width, units = chosen["inner"][row], chosen["width"], chosen["hidden"][row]
        both, attention = (np.asarray(planted.blocks.attention.qkv)[layer], expected.blocks.attention)
        np.testing.assert_array_equal(attention.qkv[row], both[:, rows][:, :, width])
        leave = np.asarray(planted.blocks.mlp.leave)[layer].reshape(hidden_units(config), 16)[units][:, width]
        np.testing.assert_array_equal(np.asarray(expected.blocks.mlp.leave[row]).reshape(leave.shape), leave)
        enter = np.asarray(planted.blocks.mlp.enter)[layer]
        if config.dress == "plain":
            mine = np.asarray(expected.blocks.mlp.enter[row]).reshape(-1, 8)
            np.testing.assert_array_equal(mine, enter.reshape(-1, 16)[units][:, width])
        else:  # gate and up lose the same units
            mine = np.asarray(expected.blocks.mlp.enter[row]).reshape(2, -1, 8)
            np.testing.assert_array_equal(mine, enter.reshape(2, -1, 16)[:, units][:, :, width])
        np.testing.assert_array_equal(
            attention.qkv_bias[row], np.asarray(planted.blocks.attention.qkv_bias)[layer][:, rows]
        )
        np.testing.assert_array_equal(
            expected.blocks.norm1.gain[row], np.asarray(planted.blocks.norm1.gain)[layer][width]
        )
    np.testing.assert_array_equal(expected.embed.weight, np.asarray(planted.embed.weight)[chosen["width"]])
    assert eqx.tree_equal(pruning.prune(planted, small, pruning.magnitude), expected)
    auto = MAE(planted, DECODER, key=jr.key(3))
    scores = pruning.taylor(auto, [images(8, seed) for seed in range(3)], key=jr.key(4))
    depths = []

    def counted(model):
        depths.append(model.config.depth)
        return scores(model)

    assert eqx.tree_equal(pruning.prune(planted, small, counted), expected)
    assert depths == [3, 2]  # gradients are taken anew without the layers that go
    nothing = eqx.tree_at(lambda v: v.norm.gain, planted, jnp.full(16, jnp.nan))
    with pytest.raises(RunError, match="not finite"):
        pruning.prune(nothing, small, scores)


def test_magnitudes_of_gains_do_not_choose_layers():
    """Those of a fresh network's are near 1, its matrices near 0; the layer with the larger matrices stays."""
    model = vit(PLAIN)
    model = eqx.tree_at(lambda v: v.blocks.mlp.leave, model, replace_fn=lambda w: w.at[1].multiply(2))
    model = eqx.tree_at(lambda v: v.blocks.norm2.gain, model, replace_fn=lambda w: w.at[0].multiply(3))
    kept = pruning.prune(model, PLAIN.resized(depth=1), pruning.magnitude)
    np.testing.assert_array_equal(kept.blocks.mlp.leave[0], model.blocks.mlp.leave[1])


def test_taylor_scores_are_weight_times_gradient():
    auto = MAE(vit(PLAIN), DECODER, key=jr.key(3))
    batches = [images(4, 0), images(4, 1)]
    scores = pruning.taylor(auto, batches, key=jr.key(4))(auto.backbone)
    where = np.unravel_index(int(scores.blocks.attention.out.argmax()), (3, 16, 16))
    total, step = 0.0, 1e-2

    @eqx.filter_jit
    def loss(change, batch, key):
        weight = auto.backbone.blocks.attention.out.at[where].add(change)
        model = eqx.tree_at(lambda m: m.backbone.blocks.attention.out, auto, weight)
        return masked.loss(model, {"image": batch}, jr.split(key, 4))

    for i, batch in enumerate(batches):
        up, down = (loss(jnp.array(d), jnp.asarray(batch), jr.fold_in(jr.key(4), i)) for d in (step, -step))
        total += float(up - down) / (2 * step)
    found = float(scores.blocks.attention.out[where])
    assert found == pytest.approx(abs(total * float(auto.backbone.blocks.attention.out[where])), rel=0.02)


def test_alignment_of_blocks():
    assert [dmae.aligned(depth) for depth in (3, 6, 12, 24)] == [2, 4, 8, 17]


@eqx.filter_jit
def compare(pair, image, key):
    return dmae.compare(pair, image, key=key)


def lesson(student, teacher, key=0):
    return dmae.Distillation(MAE(student, DECODER, key=jr.key(7)), teacher, key=jr.key(key))


@pytest.mark.parametrize("config", [ENHANCED, PLAIN], ids=["enhanced", "plain"])
def test_identical_networks_are_at_no_distance(config):
    model = vit(config.resized(depth=4))  # one block comes after the one that is compared
    same = lesson(model, model)
    same = eqx.tree_at(lambda m: (m.project.weight, m.project.bias), same, (jnp.eye(16), jnp.zeros(16)))
    image = normalize(jnp.asarray(images(1)[0]))
    made, distance = compare(same, image, jr.key(1))
    assert float(distance) == pytest.approx(0, abs=1e-7)
    expected = eqx.filter_jit(same.student)(image, key=jr.key(1))
    np.testing.assert_allclose(made.predicted, expected.predicted, atol=1e-5)
    np.testing.assert_array_equal(made.hidden, expected.hidden)


def test_distance_by_hand_and_gradients():
    small = PLAIN.resized(depth=4, heads=2)
    pair = lesson(vit(small), vit(PLAIN.resized(depth=5), 5))
    image = normalize(jnp.asarray(images(1)[0]))
    made, distance = compare(pair, image, jr.key(1))
    visible = jnp.argsort(jr.uniform(jr.key(1), (16,)))[:4]
    assert not made.hidden[visible].any()

    def after(model, count):
        """By running a shallower network, whose last norm is left out."""
        parts = take(model, model.config.resized(depth=count), {"layer": np.arange(count)})
        return np.asarray(eqx.filter_jit(wt.ViT.features)(parts, image, visible), np.float64)

    goal, mine = after(pair.teacher, 4), after(pair.student.backbone, 3)  # ⌈3/4 · 5⌉ and ⌈3/4 · 4⌉
    mine = mine @ np.asarray(pair.project.weight, np.float64).T + np.asarray(pair.project.bias)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (goal, mine)]
    assert float(distance) == pytest.approx(np.abs(unit[0] - unit[1]).mean(), rel=1e-4)

    batch = {"image": jnp.asarray(images(1))}
    value_and_grad = eqx.filter_jit(eqx.filter_value_and_grad(dmae.loss, has_aux=True))
    (both, terms), grads = value_and_grad(pair, batch, jr.key(1)[None])
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(grads.teacher))
    assert float(jnp.abs(grads.project.weight).max()) > 0
    assert not any(jax.tree.leaves(student_mask(pair).teacher))
    assert float(both) == pytest.approx(float(reconstruction_loss(made) + distance), rel=1e-5)
    assert float(terms["task"]) == pytest.approx(float(reconstruction_loss(made)), rel=1e-5)
    assert float(terms["distance"]) == pytest.approx(float(distance), rel=1e-5)


def test_divergence_is_scipys():
    import scipy.stats

    teacher, student = np.random.default_rng(0).normal(size=(2, 5, 4))
    found = learngene.divergence(jnp.asarray(teacher), jnp.asarray(student))
    soft = scipy.special.softmax
    expected = [scipy.stats.entropy(soft(t), soft(s)) for t, s in zip(teacher, student, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(learngene.divergence(jnp.asarray(teacher), jnp.asarray(teacher)), 0, atol=1e-6)


def test_the_pupil_learns_and_the_teacher_does_not():
    backbone = constrained_mae(ENHANCED, "kronecker", "components", key=jr.key(0)).backbone
    student, teacher = (
        eqx.tree_at(lambda c: c.head.weight, Classifier(inner, 5, key=key), jr.normal(key, (5, 16)))
        for inner, key in ((backbone, jr.key(1)), (vit(PLAIN), jr.key(2)))
    )  # heads that matter: they would begin next to zero
    pupil = learngene.Distillation(student, teacher)
    batch = {"image": jnp.asarray(images(2)), "label": jnp.array([0, 3])}

    @eqx.filter_jit
    @functools.partial(eqx.filter_value_and_grad, has_aux=True)
    def run(pupil):
        return learngene.distillation(RecipeOptions(smoothing=0.0))(materialize(pupil), batch, jr.split(jr.key(0), 2))

    (value, terms), grads = run(pupil)
    plain = materialize(student)
    ours, theirs = (np.asarray(jax.vmap(m)(normalize(batch["image"])), np.float64) for m in (plain, teacher))
    logp, logq = scipy.special.log_softmax(ours, axis=1), scipy.special.log_softmax(theirs, axis=1)
    distance, task = (np.exp(logq) * (logq - logp)).sum(axis=1), -logp[[0, 1], [0, 3]]
    assert distance.mean() > 0.1
    assert float(value) == pytest.approx((distance + task).mean(), rel=1e-4)
    assert float(terms["distance"]) == pytest.approx(distance.mean(), rel=1e-4)
    assert float(terms["task"]) == pytest.approx(task.mean(), rel=1e-4)
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(grads.teacher))
    moved = trees.named_arrays(eqx.filter(pupil, student_mask(pupil)))
    assert all(name.startswith("student.") for name in moved)
    assert {name.split(".")[2] for name in moved if name.startswith("student.backbone.")} == {
        "templates", "scalers", "free"
    }  # fmt: skip
    fitting = trees.named_arrays(eqx.filter(student, learngene.scaler_mask(student)))
    assert all(".scalers." in name or name.startswith("head.") for name in fitting)
    assert len(fitting) == 4 + 2


def test_teachers_stay_as_they_are_through_a_step():
    """Weight decay included."""
    pair = lesson(constrained_mae(PLAIN, "none", key=jr.key(1)).backbone, vit(PLAIN))
    optimizer = training.adamw(OptimOptions(base_lr=1.0, weight_decay=0.5), lambda step: 0.1)
    state = training.init_state(pair, student_mask(pair), optimizer, False)
    step = training.make_step(lambda params, key: materialize(params), dmae.loss, optimizer)
    batch = {"image": jnp.asarray(images(2)), "label": jnp.zeros(2, jnp.int32)}
    before, student = jax.tree.map(np.asarray, (pair.teacher, pair.student.backbone.scalers))
    after = step(state, batch, jr.key(0)).model
    assert eqx.tree_equal(jax.tree.map(np.asarray, after.teacher), before)
    assert not eqx.tree_equal(jax.tree.map(np.asarray, after.student.backbone.scalers), student)
    table = np.asarray(wt.ViT(PLAIN, key=jr.key(0)).positions.table)
    np.testing.assert_array_equal(after.student.backbone.free.positions.table, table)


def test_tleg_by_hand():
    """Slice j of layer l is B_j + l/L A_j, at a target's own L; its mixtures never learn."""
    backbone = new(PLAIN, wt.Linear(tleg=True), "components", key=jr.key(0))
    bases = np.asarray(backbone.templates["qkv"]["bases"])
    assert bases.shape == (6, 16, 16)
    for depth in (3, 5):
        target = at_size(backbone, PLAIN.resized(depth=depth, heads=2), key=jr.key(1))
        weights = expand(target).blocks.attention.qkv
        for layer in range(depth):
            expected = bases[:3, :8, :8] + layer / depth * bases[3:, :8, :8]
            np.testing.assert_allclose(weights[layer], expected, atol=1e-6)
    # What is no matrix lies at the same places in the depth: 0, 3/2 and, beyond the last layer, 2 for 2 of 3 layers.
    gains = eqx.tree_at(lambda c: c.free.blocks.norm1.gain, backbone, jnp.arange(3.0)[:, None] * jnp.ones((3, 16)))
    for depth, places in ((2, [0, 1.5]), (3, [0, 1, 2]), (6, [0, 0.5, 1, 1.5, 2, 2])):
        target = at_size(gains, PLAIN.resized(depth=depth, heads=2), key=jr.key(1))
        np.testing.assert_allclose(target.free.blocks.norm1.gain[:, 0], places, atol=1e-6)
    auto = MAE(backbone, DECODER, key=jr.key(0))
    names = trees.named_arrays(eqx.filter(auto, constrained.trainable(auto)))
    assert not any(".scalers." in name for name in names)
    assert any(".templates." in name for name in names)
    with pytest.raises(UserError, match=r"--linear\.rank"):
        new(PLAIN, wt.Linear(rank=5, tleg=True), "components", key=jr.key(0))


@pytest.mark.parametrize("method", ["wave", "fine"])
def test_wave_and_fine_by_hand(method):
    """WAVE: slice s is the sum over t of S[s, :, :, t] ⊗ T[t]. FINE: it is U diag(x[s]) Vᵀ. A target takes the first layers'
    scalers, and the first tiles, or rows of the bases; the template is the auxiliary network's."""
    auxiliary = new(PLAIN, baselines.method(method).constraint(), "components", key=jr.key(0))
    template, scalers = jax.tree.map(np.asarray, (auxiliary.templates["out"], auxiliary.scalers["out"]))
    assert scalers["slice"].shape[0] == 3
    small = at_size(auxiliary, PLAIN.resized(depth=2, heads=2), key=jr.key(1))
    found = expand(small).blocks.attention.out
    assert found.shape == (2, 8, 8)
    for layer in range(2):
        x = scalers["slice"][layer]
        if method == "wave":
            tiles = template["tiles"]
            assert tiles.shape[1:] == (4, 4)
            expected = sum(np.kron(x[:2, :2, t], tiles[t]) for t in range(len(tiles)))
        else:
            expected = template["left"][:8] @ np.diag(x) @ template["right"][:8].T
        np.testing.assert_allclose(found[layer], expected, atol=1e-6)
    if method == "wave":
        assert eqx.tree_equal(small.templates, auxiliary.templates)


@pytest.mark.parametrize("method", ["wave", "fine"])
def test_templates_stay_as_they_are_through_a_fit(method):
    """To the bit, weight decay included; the scalers and the head learn."""
    auxiliary = new(ENHANCED, baselines.method(method).constraint(), "components", key=jr.key(0))
    model = Classifier(at_size(auxiliary, ENHANCED.resized(depth=2), key=jr.key(1)), 5, key=jr.key(2))
    optimizer = training.adamw(OptimOptions(base_lr=1.0, weight_decay=0.5), lambda step: 0.1)
    state = training.init_state(model, learngene.scaler_mask(model), optimizer, False)
    step = training.make_step(lambda params, key: materialize(params), Classify().loss, optimizer)
    before = {name: np.asarray(array) for name, array in trees.named_arrays(model).items()}
    batch = {"image": jnp.asarray(images(4)), "label": jnp.array([0, 1, 2, 3])}
    for seed in range(2):
        state = step(state, batch, jr.key(seed))
    for name, array in trees.named_arrays(state.model).items():
        learned = ".scalers." in name or name.startswith("head.")
        assert np.array_equal(array, before[name]) != learned, name


@pytest.mark.parametrize("heads", [3, 6, 9, 12])
def test_waves_templates_are_whole_at_every_size(heads):
    """At a quarter, a half, three quarters and all of the width, in every stack; and as many numbers as by halves."""
    big = wt.ViTConfig(depth=12, heads=12, head_dim=16)
    wave = baselines.method("wave").constraint()
    narrow = big.resized(heads=heads)
    for stack, other in zip(stacks(big, "components"), stacks(narrow, "components"), strict=True):
        shape, small = stack.shape(big), other.shape(narrow)
        factors = jax.eval_shape(lambda shape=shape: wave.init(shape, key=jr.key(0)))
        count, rows, cols = factors.template["tiles"].shape
        assert (stack.name, small.rows % rows, small.cols % cols) == (other.name, 0, 0)
        assert count * rows * cols == shape.slices // 6 * shape.rows * shape.cols // 4
