"""Layouts are bijections whose prefixes are sub-networks; and the law that everything else stands on, masked ≡ sliced."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weight_templates as wt
from weight_templates import trees
from weight_templates.constrained import WORTH, Widths, constrain, expand, factoring, is_cheaper_factored
from weight_templates.errors import UserError
from weight_templates.layouts import LAYOUTS, governed, shapes
from weight_templates.models.mae import reconstruction_loss, with_encoder
from weight_templates.models.vit import ViT

from .helpers import CONFIGS, ENHANCED, PLAIN, mae, scrambled


layouts = pytest.mark.parametrize("layout", LAYOUTS)
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@layouts
@settings(max_examples=8, deadline=None)
@given(
    depth=st.integers(1, 3),
    heads=st.integers(1, 5),
    head_dim=st.sampled_from([4, 8]),
    width=st.sampled_from([None, 1, 2]),
    dress=st.sampled_from(["enhanced", "plain"]),
)
def test_round_trip(layout, depth, heads, head_dim, width, dress):
    width = None if width is None else 4 * width * heads
    config = wt.ViTConfig(image=8, patch=4, depth=depth, heads=heads, head_dim=head_dim, width=width, dress=dress)
    layout = LAYOUTS[layout]()
    skeleton = governed(eqx.filter_eval_shape(ViT, config, key=jr.key(0)).blocks)
    leaves = tuple(jnp.asarray(np.random.default_rng(i).normal(size=leaf.shape)) for i, leaf in enumerate(skeleton))
    stacks = layout.fold(leaves)
    assert {group: (*stack.shape, depth) for group, stack in stacks.items()} == shapes(layout, config)
    for before, after in zip(leaves, layout.unfold(stacks, dress), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("dress", ["enhanced", "plain"])
def test_unified_order(dress):
    """Slice 12·layer + j is q, k, v, o, f0 … f7; SwiGLU interleaves gate, up, down with stride three (hand-worked)."""
    config = dataclasses.replace(ENHANCED, dress=dress, head_dim=8, heads=1)  # D = 8: thirds of 2, two rows left over
    blocks = ViT(config, key=jr.key(0)).blocks
    stack = np.asarray(LAYOUTS["unified"]().fold(governed(blocks))["all"])
    layer = 2
    for j in range(3):
        np.testing.assert_array_equal(stack[12 * layer + j], blocks.attention.qkv[layer, j])
    np.testing.assert_array_equal(stack[12 * layer + 3], blocks.attention.out[layer])
    for i in range(8):
        found = stack[12 * layer + 4 + i]
        if dress == "plain":
            side, block = (blocks.mlp.enter, i) if i < 4 else (blocks.mlp.leave, i - 4)
            np.testing.assert_array_equal(found, side[layer, block])
            continue
        for row in range(6):
            unit, component = row // 3, row % 3
            expected = [blocks.mlp.enter[layer, 0], blocks.mlp.enter[layer, 1], blocks.mlp.leave[layer]][component]
            np.testing.assert_array_equal(found[row], expected[i, unit])
        assert not found[6:].any()


@layouts
@configs
def test_prefix_of_the_stack_is_the_prefix_of_the_network(layout, config):
    """Cutting the stacks and unfolding gives what cutting every leaf along its own axes gives."""
    layout, small = LAYOUTS[layout](), config.resized(heads=3, columns=2)
    vit = ViT(config, key=jr.key(0))
    stacks = layout.fold(governed(vit.blocks))
    cut = {g: stacks[g][:, : s.rows, : s.cols] for g, s in shapes(layout, dataclasses.replace(small)).items()}
    sizes = {"inner": small.inner, "third": small.inner // 3, "width": small.channels}
    names = trees.axes(vit)
    for name, leaf in zip(
        ("attention.qkv", "attention.out", "mlp.enter", "mlp.leave"),
        layout.unfold(cut, config.dress),
        strict=True,
    ):
        full = trees.named_arrays(vit)[f"blocks.{name}"]
        np.testing.assert_array_equal(leaf, trees.resized(full, names[f"blocks.{name}"], sizes))


@layouts
@pytest.mark.parametrize("config", [CONFIGS["enhanced"], CONFIGS["wide-plain"]], ids=["enhanced", "wide-plain"])
@pytest.mark.parametrize("family", ["none", "tucker"])
def test_materialized_is_what_the_factors_say(family, layout, config):
    constrained = mae(config, family, layout, key=jr.key(0)).encoder
    vit = wt.materialize(constrained)
    stacks = constrained.layout.fold(governed(vit.blocks))
    for group, shape in shapes(constrained.layout, config).items():
        expected = constrained.constraint.expand(constrained.factors[group], shape)
        used = stacks[group].shape[1] if layout == "components" or config.dress == "plain" else config.inner // 3 * 3
        np.testing.assert_array_equal(stacks[group][:, :used], expected[:, :used])
    assert trees.named_arrays(wt.materialize(vit)).keys() == trees.named_arrays(vit).keys()


@pytest.mark.parametrize("family", wt.FAMILIES)
@pytest.mark.parametrize(
    ("config", "layout"), [("enhanced", "unified"), ("wide-plain", "unified"), ("wide", "components")]
)
def test_masked_equals_sliced(family, config, layout, float64):
    """The full-width model under a mask computes what the sliced model computes."""
    config = dataclasses.replace(CONFIGS[config], depth=2)
    key, ikey, mkey = jr.split(jr.key(1), 3)
    model = trees.cast(scrambled(mae(config, family, layout, key=key), key), jnp.float64)
    image = jr.normal(ikey, (config.image, config.image, 3), jnp.float64)

    @eqx.filter_jit
    def compute(model, widths):
        made = wt.materialize(model, widths)
        return made.encoder(image), made(image, key=mkey).predicted

    for rows, cols in ((3, 3), (1, 4), (2, 1)):
        small = wt.select(model.encoder, config.resized(heads=rows, columns=cols), [0, 1])
        sliced = with_encoder(model, small)
        tokens, predicted = compute(model, wt.Widths(jnp.array(rows), jnp.array(cols)))
        expected_tokens, expected = compute(sliced, None)
        assert expected.dtype == jnp.float64
        np.testing.assert_allclose(tokens[:, : small.config.channels], expected_tokens, atol=1e-11)
        np.testing.assert_array_equal(tokens[:, small.config.channels :], 0)
        np.testing.assert_allclose(predicted, expected, atol=1e-11)


@pytest.mark.parametrize("family", wt.FAMILIES)
def test_gradients_of_masked_equal_those_of_sliced(family, float64):
    """On the factors and free leaves that both have; beyond the prefix, the masked model's gradients are zero."""
    config = dataclasses.replace(ENHANCED, depth=2)
    model = trees.cast(scrambled(mae(config, family, key=jr.key(0)), jr.key(1)), jnp.float64)
    image = jr.normal(jr.key(2), (16, 16, 3), jnp.float64)
    small = config.resized(heads=2, columns=3)

    def masked(model):
        return reconstruction_loss(wt.materialize(model, wt.Widths(jnp.array(2), jnp.array(3)))(image, key=jr.key(3)))

    def sliced(model):
        encoder = wt.select(model.encoder, small, [0, 1])
        model = with_encoder(model, wt.materialize(encoder))
        return reconstruction_loss(model(image, key=jr.key(3)))

    one, two = (eqx.filter_jit(eqx.filter_grad(f))(model) for f in (masked, sliced))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10, err_msg=trees.name_of(path))


def test_scope_scalers_masks_the_weights_alone():
    """Eq. 7-8 to the letter: U and V are masked, the residual stream is not, so the narrow model is another one."""
    model = mae(ENHANCED, key=jr.key(0)).encoder
    widths = wt.Widths(jnp.array(2), jnp.array(2))
    by_letter, whole = wt.expand(model, widths, "scalers"), wt.expand(model, widths, "submodel")
    for a, b in zip(governed(by_letter.blocks), governed(whole.blocks), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(by_letter.embed.weight, model.free.embed.weight)
    assert by_letter.norm.kept is None
    assert not whole.embed.weight[8:].any()
    factors = model.factors["all"]
    rows, cols = (np.where(np.arange(16)[:, None] < 8, factors.scalers[name], 0) for name in ("row", "col"))
    expected = np.einsum("kpq,sk,ip,jq->sij", factors.template["core"], factors.scalers["slice"], rows, cols)
    np.testing.assert_allclose(by_letter.blocks.attention.qkv.reshape(-1, 16, 16)[:3], expected[:3], atol=1e-5)


def test_every_sized_axis_is_named():
    """The axes that the annotations name are exactly those that change with the size, by as much as they say."""
    for config in CONFIGS.values():
        small = config.resized(depth=2, heads=3, columns=2)
        vits = [eqx.filter_eval_shape(ViT, c, key=jr.key(0)) for c in (config, small)]
        (big, little), names = (trees.named_arrays(v) for v in vits), trees.axes(vits[0])
        assert names.keys() == big.keys()
        sizes = {"inner": small.inner, "third": small.inner // 3, "width": small.channels, "layer": 2}
        for name, leaf in big.items():
            expected = [sizes.get(axis, size) for axis, size in zip(names[name], leaf.shape, strict=True)]
            assert tuple(expected) == little[name].shape, name


@layouts
@configs
def test_factors_are_applied_as_they_are_multiplied_out(config, layout, float64):
    """Outputs and gradients, at full width and under masks."""
    constraint = wt.Tucker(ranks=(2, 5, 7) if layout == "components" else (5, 6, 7))
    made = mae(config, constraint, layout, key=jr.key(0)).encoder
    made = scrambled(jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, made), jr.key(1))
    image, weigh = jr.normal(jr.key(2), (16, 16, 3)), jr.normal(jr.key(3), (17, config.channels))

    @eqx.filter_jit
    def run(c, widths, factored):
        return eqx.filter_value_and_grad(lambda c: jnp.sum(weigh * expand(c, widths, factored=factored)(image)))(c)

    for widths in (None, Widths(jnp.array(2), jnp.array(3))):
        for one, other in zip(
            jax.tree.leaves(run(made, widths, True)), jax.tree.leaves(run(made, widths, False)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_products_are_counted():
    """Of a layer of 4 heads of 4 by hand: what `Factored.products` says, and what is chosen at which ranks."""
    made = mae(PLAIN, wt.Tucker(ranks=(5, 3, 2)), key=jr.key(0)).encoder
    qkv, out, enter, leave = governed(expand(made, factored=True).blocks)
    layers, width = 3, 16
    assert qkv.products == layers * (width * 2 + 3 * 2 * 3 + 3 * 3 * width)
    assert out.products == layers * (width * 2 + 2 * 3 + 3 * width)
    assert enter.products == leave.products == layers * (width * 2 + 4 * 2 * 3 + 4 * 3 * width)
    assert is_cheaper_factored(made, 1000)
    assert not is_cheaper_factored(mae(PLAIN, key=jr.key(0)).encoder, 1000)  # ranks of a half
    # ViT-B in small: so few tokens do not pay for the expansion, columns first, then rows, then 144 slices.
    big, rank = wt.ViTConfig(depth=12, head_dim=16, dress="plain"), 80
    network = eqx.filter_jit(constrain)(big, wt.Tucker(ranks=(24, rank, rank)), LAYOUTS["unified"](), key=jr.key(0))
    applied, full = 12 * (4 * 192 * rank + 12 * rank**2 + 12 * rank * 192), 144 * 192**2
    expanding = 24 * (192 * rank**2 + 192 * rank * 192 + 144 * 192**2)
    assert network.constraint.multiplications(network.factors["all"], shapes(network.layout, big)["all"]) == (
        expanding,
        144 * 24 * rank**2,
    )
    tokens = (WORTH * expanding - 144 * 24 * rank**2) / (applied - WORTH * full)
    assert tokens > 10
    assert is_cheaper_factored(network, int(tokens))
    assert not is_cheaper_factored(network, int(tokens) + 1)
    for family in ("none", "linear", "kronecker", "svd"):
        other = mae(PLAIN, family, key=jr.key(0)).encoder
        assert not is_cheaper_factored(other, 1000)
        with pytest.raises(UserError, match="--application factored"):
            factoring("factored", other, 1000)
    assert factoring("factored", mae(PLAIN, key=jr.key(0)).encoder, 1000)(made)
    assert not factoring("expanded", made, 1000)(made)
    assert factoring("auto", made, 1000)(made)
