"""Stacks are bijections whose prefixes are sub-networks; and the law that everything else stands on, masked ≡ sliced: for
every backbone, family and layout."""

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
from weight_templates.config import depths
from weight_templates.constrained import (
    WORTH,
    Widths,
    constrain,
    expand,
    factoring,
    is_cheaper_factored,
    select,
    with_backbone,
)
from weight_templates.errors import UserError
from weight_templates.models.mae import reconstruction_loss
from weight_templates.models.vit import ViT
from weight_templates.nn import Linear
from weight_templates.sites import LAYOUTS, governed, skeleton, stacks

from .helpers import BACKBONES, CONFIGS, ENHANCED, PLAIN, mae, scrambled


layouts = pytest.mark.parametrize("layout", LAYOUTS)
backbones = pytest.mark.parametrize("config", BACKBONES.values(), ids=BACKBONES)
families = pytest.mark.parametrize("family", wt.FAMILIES)
cases = pytest.mark.parametrize(  # the layouts take turns, so that each family and each backbone has both
    ("family", "config", "layout"),
    [
        pytest.param(family, config, LAYOUTS[(i + j) % 2], id=f"{family}-{name}-{LAYOUTS[(i + j) % 2]}")
        for i, family in enumerate(wt.FAMILIES)
        for j, (name, config) in enumerate(BACKBONES.items())
    ],
)
IMAGE = (16, 16, 3)


def network(config, family, layout, *, key=None):
    """A constrained backbone, all of its numbers random; None where the family has no template for several widths."""
    key = jr.key(0) if key is None else key
    constraint = wt.FAMILIES[family]() if isinstance(family, str) else family
    widths = {(stack.group, *stack.shape(config)[1:3]) for stack in stacks(config, layout)}
    if not constraint.sizeless and len(widths) > len({group for group, *_ in widths}):
        with pytest.raises(UserError, match="of one width"):
            constrain(config, constraint, layout, key=key)
        return None
    return scrambled(constrain(config, constraint, layout, key=key), jr.key(1))


@layouts
@backbones
def test_round_trip(config, layout):
    """Every governed leaf comes back from the stacks, whose shapes and slices are what they say."""
    leaves = {
        name: jnp.asarray(np.random.default_rng(i).normal(size=leaf.shape))
        for i, (name, leaf) in enumerate(governed(skeleton(config)).items())
    }
    found = {}
    for stack in stacks(config, layout):
        folded = stack.fold(leaves)
        assert folded.shape == stack.shape(config).full
        found |= stack.unfold(folded)
        by_leaf = stack.slices_by_leaf(depths(config)[stack.stage])
        assert {slice for own in by_leaf.values() for slice in own} == set(range(stack.shape(config).slices))
    assert found.keys() == leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(found[name], leaf)


@settings(max_examples=12, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    depth=st.integers(1, 3),
    heads=st.integers(1, 5),
    head_dim=st.sampled_from([4, 8]),
    width=st.sampled_from([None, 1, 2]),
    dress=st.sampled_from(["enhanced", "plain"]),
)
def test_round_trip_of_any_vit(layout, depth, heads, head_dim, width, dress):
    width = None if width is None else 4 * width * heads
    config = wt.ViTConfig(image=8, patch=4, depth=depth, heads=heads, head_dim=head_dim, width=width, dress=dress)
    test_round_trip(config, layout)


@pytest.mark.parametrize("dress", ["enhanced", "plain"])
def test_unified_order(dress):
    """Slice 12·layer + j is q, k, v, o, f0 … f7; SwiGLU interleaves gate, up, down with stride three (hand-worked)."""
    config = dataclasses.replace(ENHANCED, dress=dress, head_dim=8, heads=1)  # D = 8: thirds of 2, two rows left over
    vit = ViT(config, key=jr.key(0))
    (stack,) = stacks(config, "unified")
    blocks, found, layer = vit.blocks, np.asarray(stack.fold(governed(vit))), 2
    for j in range(3):
        np.testing.assert_array_equal(found[12 * layer + j], blocks.attention.qkv[layer, j])
    np.testing.assert_array_equal(found[12 * layer + 3], blocks.attention.out[layer])
    for i in range(8):
        own = found[12 * layer + 4 + i]
        if dress == "plain":
            side, block = (blocks.mlp.enter, i) if i < 4 else (blocks.mlp.leave, i - 4)
            np.testing.assert_array_equal(own, side[layer, block])
            continue
        for row in range(6):
            unit, component = row // 3, row % 3
            expected = [blocks.mlp.enter[layer, 0], blocks.mlp.enter[layer, 1], blocks.mlp.leave[layer]][component]
            np.testing.assert_array_equal(own[row], expected[i, unit])
        assert not own[6:].any()


def test_stacks_of_the_networks_by_hand():
    """Slices, rows, columns, layers and taps; two stages of kernels share a template, and have a stack each."""
    found = {
        name: [(s.name, s.group, s.shape(BACKBONES[name])) for s in stacks(BACKBONES[name], layout)]
        for name, layout in (("enhanced", "components"), ("convnext", "unified"), ("staged", "unified"))
    }
    assert found["enhanced"] == [
        ("qkv", "qkv", wt.Shape(9, 16, 16, 3)),
        ("out", "out", wt.Shape(3, 16, 16, 3)),
        ("enter", "enter", wt.Shape(48, 5, 16, 3)),
        ("leave", "leave", wt.Shape(24, 5, 16, 3)),
    ]
    assert found["convnext"] == [("all", "all", wt.Shape(16, 16, 16, 2))]
    assert found["staged"] == [
        ("stages_.0.all3x3", "all3x3", wt.Shape(4, 16, 16, 2, (3, 3))),
        ("stages_.1.all3x3", "all3x3", wt.Shape(2, 32, 32, 1, (3, 3))),
    ]


@layouts
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_prefix_of_the_stack_is_the_prefix_of_the_network(layout, config):
    """Cutting the stacks and unfolding gives what cutting every leaf along its own axes gives."""
    small, vit = config.resized(heads=3, columns=2), ViT(config, key=jr.key(0))
    names, arrays = trees.axes(vit), trees.named_arrays(vit)
    for stack in stacks(config, layout):
        shape = stack.shape(small)
        for name, leaf in stack.unfold(stack.fold(governed(vit))[:, : shape.rows, : shape.cols]).items():
            np.testing.assert_array_equal(leaf, trees.resized(arrays[name], names[name], small.axes()))


@cases
def test_materialized_is_what_the_factors_say(family, layout, config):
    if (made := network(config, family, layout)) is None:
        return
    plain = wt.materialize(made)
    assert type(plain) is type(skeleton(config))
    for stack in made.stacks:
        expected = made.constraint.expand(made.factors(stack), stack.shape(config))
        for name, leaf in stack.unfold(expected).items():
            np.testing.assert_array_equal(trees.at(plain, name), leaf)
    assert trees.named_arrays(plain).keys() == trees.named_arrays(skeleton(config)).keys()
    assert trees.named_arrays(wt.materialize(plain)).keys() == trees.named_arrays(plain).keys()


@cases
def test_masked_equals_sliced(family, layout, config, float64):
    """The full-width model under a mask computes what the sliced model computes; with a classifier's head, too."""
    if (made := network(config, family, layout)) is None:
        return
    model = trees.cast(wt.Classifier(made, 3, key=jr.key(2)), jnp.float64)
    model = eqx.tree_at(lambda m: m.head.weight, model, jr.normal(jr.key(3), model.head.weight.shape, jnp.float64))
    image = jr.normal(jr.key(4), IMAGE, jnp.float64)

    @eqx.filter_jit
    def compute(model, widths):
        plain = wt.materialize(model, widths)
        return plain.backbone(image), plain(image)

    apart = not isinstance(config, wt.ViTConfig)  # convolutional networks have one width for rows and columns
    for rows, cols in ((3, 3), (1, 1)) if apart else ((3, 3), (1, 4), (2, 1)):
        small = config.resized(heads=rows, columns=cols)
        sliced = with_backbone(model, select(model.backbone, small, [range(n) for n in depths(config)]))
        features, logits = compute(model, Widths(jnp.array(rows), jnp.array(cols)))
        expected, expected_logits = compute(sliced, None)
        kept = small.axes()[small.features]
        assert expected.dtype == jnp.float64
        np.testing.assert_allclose(features[..., :kept], expected, atol=1e-10)
        np.testing.assert_array_equal(features[..., kept:], 0)
        np.testing.assert_allclose(logits, expected_logits, atol=1e-10)


@families
@pytest.mark.parametrize(("config", "layout"), [("enhanced", "unified"), ("wide-plain", "components")])
def test_gradients_of_masked_equal_those_of_sliced(family, config, layout, float64):
    """Of an auto-encoder, on the factors and free leaves that both have; beyond the prefix, the masked model's are zero."""
    config = dataclasses.replace(CONFIGS[config], depth=2)
    model = trees.cast(scrambled(mae(config, family, layout, key=jr.key(0)), jr.key(1)), jnp.float64)
    image = jr.normal(jr.key(2), IMAGE, jnp.float64)
    small = config.resized(heads=2, columns=3)

    def masked(model):
        return reconstruction_loss(wt.materialize(model, wt.Widths(jnp.array(2), jnp.array(3)))(image, key=jr.key(3)))

    def sliced(model):
        model = with_backbone(model, wt.materialize(select(model.backbone, small, [[0, 1]])))
        return reconstruction_loss(model(image, key=jr.key(3)))

    one, two = (eqx.filter_jit(eqx.filter_value_and_grad(f))(model) for f in (masked, sliced))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10, err_msg=trees.name_of(path))


@cases
def test_larger_repeats_the_source(family, layout, config):
    """Beyond the source, layers, rows and columns come over and over, leaf by leaf; what comes out is finite."""
    if (made := network(config, family, layout)) is None:
        return
    layers = [np.arange(n + 1) % n for n in depths(config)]
    depth = tuple(len(own) for own in layers)
    target = config.resized(depth if len(depth) > 1 else depth[0], 3)
    narrow = expand(select(made, target, layers))
    full, names = trees.named_arrays(expand(made)), trees.axes(narrow)
    for name, leaf in trees.named_arrays(narrow).items():
        source = trees.resized(full[name], names[name], target.axes())
        if names[name][:1] == ("layer",):
            stage = next(i for i, own in enumerate(narrow.stages) if name.startswith(f"{own}."))
            source = source[jnp.asarray(layers[stage])]
        np.testing.assert_allclose(leaf, source, atol=1e-5, err_msg=name)
    wide = expand(select(made, config.resized(heads=6), [range(n) for n in depths(config)]))
    assert np.isfinite(eqx.filter_jit(wide)(jnp.ones(IMAGE))).all()


@cases
def test_a_bank_comes_back(family, layout, config, tmp_path):
    """From the disk, of every backbone: the same tensors under the same names, and the same features."""
    if (made := network(config, family, layout)) is None:
        return
    model = wt.Classifier(made, 3, key=jr.key(2))
    wt.save_bank(tmp_path / "bank.safetensors", wt.Bank(model, family, {"classes": ["a", "b", "c"]}))
    found = wt.load_bank(tmp_path / "bank.safetensors", layout)
    assert (found.family, found.task, found.config) == (family, "classify", config)
    assert eqx.tree_equal(found.model, model)
    assert sum(found.sizes.values()) == trees.count(model)


def test_scope_scalers_masks_the_weights_alone():
    """Eq. 7-8 to the letter: U and V are masked, the residual stream is not, so the narrow model is another one."""
    model = mae(ENHANCED, key=jr.key(0)).backbone
    widths = wt.Widths(jnp.array(2), jnp.array(2))
    by_letter, whole = wt.expand(model, widths, "scalers"), wt.expand(model, widths, "submodel")
    for name, leaf in governed(by_letter).items():
        np.testing.assert_array_equal(leaf, governed(whole)[name])
    np.testing.assert_array_equal(by_letter.embed.weight, model.free.embed.weight)
    assert by_letter.norm.kept is None
    assert not whole.embed.weight[8:].any()
    scalers = model.scalers["all"]
    rows, cols = (np.where(np.arange(16)[:, None] < 8, scalers[name], 0) for name in ("row", "col"))
    expected = np.einsum("kpq,sk,ip,jq->sij", model.templates["all"]["core"], scalers["slice"], rows, cols)
    np.testing.assert_allclose(by_letter.blocks.attention.qkv.reshape(-1, 16, 16)[:3], expected[:3], atol=1e-5)


@backbones
def test_every_sized_axis_is_named(config):
    """The axes that the annotations name are exactly those that change with the size, by as much as they say."""
    columns = 2 if isinstance(config, wt.ViTConfig) else 3
    small = config.resized(heads=3, columns=columns)
    big, little, names = *(trees.named_arrays(skeleton(c)) for c in (config, small)), trees.axes(skeleton(config))
    assert names.keys() == big.keys()
    for name, leaf in big.items():
        expected = [small.axes().get(axis, size) for axis, size in zip(names[name], leaf.shape, strict=True)]
        assert tuple(expected) == little[name].shape, name


@layouts
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_factors_are_applied_as_they_are_multiplied_out(config, layout, float64):
    """Outputs and gradients, at full width and under masks."""
    constraint = wt.Tucker(ranks=(2, 5, 7) if layout == "components" else (5, 6, 7))
    made = mae(config, constraint, layout, key=jr.key(0)).backbone
    made = scrambled(jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, made), jr.key(1))
    image, weigh = jr.normal(jr.key(2), IMAGE), jr.normal(jr.key(3), (17, config.channels))

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
    made = mae(PLAIN, wt.Tucker(ranks=(5, 3, 2)), key=jr.key(0)).backbone
    qkv, out, enter, leave = governed(expand(made, factored=True)).values()
    layers, width = 3, 16
    assert qkv.products == layers * (width * 2 + 3 * 2 * 3 + 3 * 3 * width)
    assert out.products == layers * (width * 2 + 2 * 3 + 3 * width)
    assert enter.products == leave.products == layers * (width * 2 + 4 * 2 * 3 + 4 * 3 * width)
    assert is_cheaper_factored(made, 1000)
    assert not is_cheaper_factored(mae(PLAIN, key=jr.key(0)).backbone, 1000)  # ranks of a half
    # ViT-B in small: so few tokens do not pay for the expansion, columns first, then rows, then 144 slices.
    big, rank = wt.ViTConfig(depth=12, head_dim=16, dress="plain"), 80
    network = eqx.filter_jit(constrain)(big, wt.Tucker(ranks=(24, rank, rank)), "unified", key=jr.key(0))
    applied, full = 12 * (4 * 192 * rank + 12 * rank**2 + 12 * rank * 192), 144 * 192**2
    expanding = 24 * (192 * rank**2 + 192 * rank * 192 + 144 * 192**2)
    (stack,) = network.stacks
    assert network.constraint.multiplications(network.factors(stack), stack.shape(big)) == (
        expanding,
        144 * 24 * rank**2,
    )
    tokens = (WORTH * expanding - 144 * 24 * rank**2) / (applied - WORTH * full)
    assert tokens > 10
    assert is_cheaper_factored(network, int(tokens))
    assert not is_cheaper_factored(network, int(tokens) + 1)
    for family in ("none", "linear", "kronecker", "svd"):
        other = mae(PLAIN, family, key=jr.key(0)).backbone
        assert not is_cheaper_factored(other, 1000)
        with pytest.raises(UserError, match="--application factored"):
            factoring("factored", other, 1000)
    assert factoring("factored", mae(PLAIN, key=jr.key(0)).backbone, 1000)(made)
    assert not factoring("expanded", made, 1000)(made)
    assert factoring("auto", made, 1000)(made)


def test_axes_are_found_in_tuples_scalars_and_inherited_fields():
    """And an array that no annotation names is an error, not left out."""
    names = trees.axes(skeleton(BACKBONES["staged"]))
    assert names["scale"] == ()
    assert names["stages_.1.convs"] == ("layer", "2", "inner1", "width1", "k", "k")
    assert names["stages_.1.norm2.gain"] == ("layer", "inner1")
    assert names["widen.weight"] == ("width1", "width0")

    class Child(Linear):
        pass

    assert trees.axes(Child(3, 2, key=jr.key(0))) == {"weight": ("out", "in"), "bias": ("out",)}

    class Bare(eqx.Module):
        arrays: tuple

    with pytest.raises(TypeError, match="no annotation"):
        trees.axes(Bare((jnp.ones(3),)))
