"""Models of any size from a bank: laws over sizes, rules and families."""

import dataclasses
import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weight_templates as wt
from weight_templates import inherit, trees
from weight_templates.counting import count_mae
from weight_templates.models.mae import reconstruction_loss

from .helpers import CONFIGS, DECODER, ENHANCED, PLAIN, mae, scrambled


SOURCE = dataclasses.replace(ENHANCED, heads=3)  # 12 rows: SwiGLU's come in threes
FAMILIES = st.sampled_from(sorted(wt.FAMILIES))
LAYOUTS = st.sampled_from(["unified", "components"])
RULES = st.sampled_from(["first", "uniform", "interpolate"])


@functools.cache
def bank_of(family="tucker", layout="unified", config=ENHANCED):
    with jax.enable_x64(False):  # whoever asks first
        model = eqx.filter_jit(lambda: scrambled(mae(config, family, layout, key=jr.key(0)), jr.key(1)))()
    return wt.Bank(model, family, {"data": "synthetic"})


@functools.cache
def expanded(family, layout, config):
    """The leaves of the source's plain backbone."""
    return trees.named_arrays(eqx.filter_jit(wt.expand)(bank_of(family, layout, config).model.backbone))


CASES = [  # every family, layout and dress, and a residual width of its own
    ("none", "components", "plain"),
    ("linear", "unified", "wide"),
    ("kronecker", "unified", "enhanced"),
    ("svd", "components", "wide-plain"),
    ("tucker", "unified", "wide"),
    ("tucker", "components", "enhanced"),
]


@functools.cache
def source_in_double(family, layout, config):
    """The bank in float64, and its masked backbone as one program for all widths and depths: layers are left out by
    closing their gates."""
    bank = bank_of(family, layout, CONFIGS[config])
    bank = dataclasses.replace(bank, model=trees.cast(bank.model, jnp.float64))

    @eqx.filter_jit
    def masked(image, heads, gates):
        return wt.expand(bank.model.backbone, wt.Widths(heads, heads))(image, gates=gates)

    return bank, masked


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(CASES), st.integers(1, 3), st.integers(1, 4))
def test_zero_shot_models_compute_what_the_masked_source_does(case, depth, heads):
    """Every size within the source, in float64: the plain model's tokens are those of the source's first layers under
    masks, its other channels being zero."""
    with jax.enable_x64(True):
        bank, masked = source_in_double(*case)
        image = jr.normal(jr.key(2), (16, 16, 3), jnp.float64)
        plain = wt.initialize(bank, depth, heads)
        assert type(plain) is wt.ViT
        width = plain.config.channels
        gates = jnp.ones((3, 2)).at[depth:].set(0)
        expected = masked(image, jnp.array(heads), gates)
        np.testing.assert_allclose(eqx.filter_jit(plain)(image), expected[:, :width], atol=1e-11)
        np.testing.assert_array_equal(expected[:, width:], 0)


def tiled(array, names, sizes):
    """numpy's own repetition, axis by axis."""
    for axis, name in enumerate(names):
        if name in sizes:
            size = sizes[name]
            reps = -(-size // array.shape[axis])
            array = np.concatenate([array] * reps, axis=axis).take(range(size), axis=axis)
    return array


@settings(max_examples=10, deadline=None)
@given(FAMILIES, LAYOUTS, st.sampled_from(["enhanced", "plain"]), st.integers(1, 8), st.integers(1, 9))
def test_any_size_repeats_the_source(family, layout, config, depth, heads):
    """Beyond the source, layers, heads, hidden units and channels come over and over, leaf by leaf."""
    bank = bank_of(family, layout, CONFIGS[config])
    vit = wt.initialize(bank, depth, heads)
    assert (vit.config.depth, vit.config.heads, vit.config.channels) == (depth, heads, 4 * heads)
    full, names = expanded(family, layout, CONFIGS[config]), trees.axes(vit)
    sizes = {"layer": depth, "inner": 4 * heads, "third": 4 * heads // 3, "width": 4 * heads}
    for name, leaf in trees.named_arrays(vit).items():
        np.testing.assert_allclose(leaf, tiled(np.asarray(full[name]), names[name], sizes), atol=1e-5, err_msg=name)
    assert np.isfinite(eqx.filter_jit(vit)(jnp.zeros((16, 16, 3)))).all()


@pytest.mark.parametrize(
    ("rule", "source", "target", "low", "share"),
    [
        ("first", 12, 3, [0, 1, 2], [0, 0, 0]),
        ("first", 2, 5, [0, 1, 0, 1, 0], [0] * 5),
        ("uniform", 12, 3, [0, 6, 11], [0, 0, 0]),
        ("uniform", 12, 12, list(range(12)), [0] * 12),
        ("uniform", 2, 4, [0, 0, 1, 1], [0] * 4),
        ("uniform", 12, 1, [0], [0]),
        ("interpolate", 5, 3, [0, 2, 4], [0, 0, 0]),
        ("interpolate", 4, 3, [0, 1, 3], [0, 0.5, 0]),
        ("interpolate", 2, 5, [0, 0, 0, 0, 1], [0, 0.25, 0.5, 0.75, 0]),
    ],
)
def test_layers_are_chosen_by_hand_worked_rules(rule, source, target, low, share):
    found = inherit.chosen_layers(source, target, rule)
    np.testing.assert_array_equal(found.low, low)
    np.testing.assert_allclose(found.share, share)
    assert found.high.max() < source


@pytest.mark.parametrize(
    ("family", "layout"),
    [(family, ("unified", "components")[i % 2]) for i, family in enumerate(wt.FAMILIES)] + [("tucker", "components")],
)
def test_interpolated_layers_are_mixtures_of_their_neighbours(family, layout):
    """3 layers to 4: places 0, 2/3, 4/3, 2. Every leaf that belongs to a layer is mixed, the governed ones included."""
    bank = bank_of(family, layout, PLAIN)
    vit = wt.initialize(bank, 4, layers="interpolate")
    full, found = expanded(family, layout, PLAIN), trees.named_arrays(vit)
    for name, leaf in found.items():
        source = np.asarray(full[name])
        if name.startswith("blocks."):
            expected = [source[0], source[0] / 3 + source[1] * 2 / 3, source[1] * 2 / 3 + source[2] / 3, source[2]]
            source = np.stack(expected)
        np.testing.assert_allclose(leaf, source, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("rule", ["first", "uniform", "interpolate"])
def test_the_sources_own_size_is_the_source(rule):
    bank = bank_of()
    expected = trees.named_arrays(wt.expand(bank.model.backbone))
    for name, leaf in trees.named_arrays(wt.initialize(bank, layers=rule)).items():
        np.testing.assert_array_equal(leaf, expected[name])


@pytest.mark.parametrize(("depth", "heads"), [(2, 2), (3, 4), (5, 6)])
def test_what_a_size_is_made_from_by_hand(depth, heads):
    """The core; of each scaler and free number what the source has of it. Plain layers are twelve slices of D x D."""
    bank = bank_of("tucker", "unified", PLAIN)
    core = bank.model.backbone.templates["all"]["core"].shape
    layers, width = min(depth, PLAIN.depth), 4 * min(heads, PLAIN.heads)
    scalers = 12 * layers * core[0] + width * core[1] + width * core[2]
    small = PLAIN.resized(layers, width // 4)
    free = trees.count(wt.ViT(small, key=jr.key(0))) - 12 * layers * width**2
    made = inherit.inherited(bank.model.backbone, PLAIN.resized(depth, heads))
    assert made == int(np.prod(core)) + scalers + free


@settings(max_examples=8, deadline=None)
@given(FAMILIES, RULES, st.integers(1, 5), st.integers(1, 5))
def test_a_resized_bank_stands_for_the_initialised_model(family, rule, depth, heads):
    """Factors at the target's size expand to what zero-shot initialisation gives, larger sizes included."""
    bank = bank_of(family, config=SOURCE)
    small = eqx.filter_jit(lambda c: wt.expand(inherit.resize(c, depth, heads, rule)))(bank.model.backbone)
    one, two = trees.named_arrays(small), trees.named_arrays(wt.initialize(bank, depth, heads, rule))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def test_a_resized_bank_can_be_resized_again():
    bank = bank_of()
    once = wt.resize(wt.resize(bank.model.backbone, 3, 3), 2, 2)
    straight = wt.resize(bank.model.backbone, 2, 2)
    assert eqx.tree_equal(wt.expand(once), wt.expand(straight), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", wt.FAMILIES)
@pytest.mark.parametrize("size", [(2, 2), (5, 6)])
def test_random_scalers_keep_the_template_and_the_scale(family, size):
    bank = bank_of(family, config=SOURCE)
    small = inherit.resize(bank.model.backbone, *size)
    drawn = inherit.redraw(small, key=jr.key(5))
    assert eqx.tree_equal(drawn.templates, small.templates)
    assert drawn.scalers.keys() == small.scalers.keys()
    for name, scalers in drawn.scalers.items():
        assert jax.tree.map(jnp.shape, scalers) == jax.tree.map(jnp.shape, small.scalers[name])
        assert not eqx.tree_equal(scalers, small.scalers[name])
    assert eqx.tree_equal(drawn.free, small.free)


@pytest.mark.parametrize("family", wt.FAMILIES)
def test_random_scalers_give_weights_of_the_sources_variance(family):
    """A template keeps the source's scale, 1/96, at any size; those of `none` and `svd` have none, and scalers give the
    target's, 1/48."""
    config = wt.ViTConfig(image=16, patch=4, depth=4, heads=6, head_dim=16)
    bank = wt.Bank(mae(config, family, key=jr.key(0)), family, {})
    drawn = inherit.redraw(inherit.resize(bank.model.backbone, 3, 3), key=jr.key(5))
    qkv = wt.expand(drawn).blocks.attention.qkv
    expected = 1 / (48 if family in ("none", "svd") else 96)
    if family == "linear":  # few slices: the mixtures' own norms vary
        assert float(qkv.var()) == pytest.approx(expected, rel=0.6)
    else:
        assert float(qkv.var()) == pytest.approx(expected, rel=0.35)


def test_trained_leaves_of_adaptation_are_the_scalers():
    model = inherit.adaptable(bank_of(), 2, 2)

    def names(*also):
        return set(trees.named_arrays(eqx.filter(model, inherit.scalers_of(model, also))))

    scalers = {f"backbone.scalers.all.{name}" for name in ("slice", "row", "col")}
    assert names() == scalers
    free = names("free") - scalers
    assert "backbone.free.norm.gain" in free
    assert all(name.startswith("backbone.free.") for name in free)
    assert all(name.startswith("decoder.") for name in names("head") - scalers)
    assert names("head") > scalers
    assert "backbone.templates.all.core" not in names("free", "head")


@pytest.mark.parametrize("config", ["enhanced", "plain"])
@pytest.mark.parametrize("heads", [2, 7])
def test_the_head_fits_the_size(config, heads):
    model = inherit.adaptable(bank_of(config=CONFIGS[config]), 2, heads)
    made = wt.materialize(model)(jr.normal(jr.key(0), (16, 16, 3)), key=jr.key(1))
    assert jnp.isfinite(reconstruction_loss(made))


@pytest.mark.parametrize("family", wt.FAMILIES)
@pytest.mark.parametrize("size", [(2, 2), (4, 7)])
def test_adapted_banks_round_trip(tmp_path, family, size):
    """Their template has the source's ranks, which the target's own size would not give."""
    bank = bank_of(family)
    adapted = wt.Bank(inherit.adaptable(bank, *size), family, {"x": 1}, source=bank.config)
    wt.save_bank(tmp_path / "bank.safetensors", adapted)
    found = wt.load_bank(tmp_path / "bank.safetensors")
    assert (found.source, found.config.depth, found.config.heads) == (bank.config, *size)
    assert eqx.tree_equal(adapted.model, found.model)
    assert eqx.filter_eval_shape(lambda: wt.initialize(found, 1, 1)).config.heads == 1


@pytest.mark.parametrize(
    ("size", "says"), [({"depth": 0}, "--depth 0"), ({"heads": 0}, "--heads 0"), ({"heads": -2}, "--heads -2")]
)
def test_sizes_that_are_no_network_are_refused(size, says):
    with pytest.raises(wt.UserError, match=says):
        wt.initialize(bank_of(), **size)


def test_a_width_that_heads_do_not_divide_has_one_size_only():
    config = dataclasses.replace(ENHANCED, width=22)
    bank = wt.Bank(mae(config, key=jr.key(0)), "tucker", {})
    assert wt.initialize(bank, depth=2).config.channels == 22
    assert wt.initialize(bank, depth=2, heads=4).config.channels == 22
    with pytest.raises(wt.UserError, match="22 channels is no multiple of 4 heads"):
        wt.initialize(bank, heads=2)


def test_cost_of_an_auto_encoder_by_hand():
    """One layer each: backbone 12 D² on 4 + 1 tokens, decoder 12 d² on 16 + 1, and the maps around them."""
    config = dataclasses.replace(PLAIN, depth=1)
    d, e, pixels = 16, DECODER.width, 48
    encoder = 12 * d * d * 5 + d * pixels * 4
    decoder = 12 * e * e * 17 + d * e * 5 + e * pixels * 16
    assert count_mae(config, DECODER) == 2 * (encoder + decoder)


def test_metadata_of_banks_tells_the_source(tmp_path):
    from weight_templates.files import read_safetensors

    bank = bank_of()
    adapted = wt.Bank(inherit.adaptable(bank, 1, 2), "tucker", {}, source=bank.config)
    wt.save_bank(tmp_path / "b.safetensors", adapted)
    header = read_safetensors(tmp_path / "b.safetensors", "")[1]
    assert json.dumps(header)
    assert (header["backbone"]["heads"], header["source"]["heads"]) == (2, 4)
    assert wt.is_bank(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    assert not wt.is_bank(tmp_path / "c.safetensors")
    assert not wt.is_bank(tmp_path / "none.safetensors")
