"""The networks against independent ones in numpy, and the counts that the papers print."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.signal
import scipy.special

import weight_templates as wt
from weight_templates import trees
from weight_templates.models import MAE, ConvNext, ViT, patchify, unpatchify, vit
from weight_templates.models.mae import patch_statistics, random_mask, reconstruction_loss
from weight_templates.nn import nested_sincos, rotary
from weight_templates.nn.attention import attend
from weight_templates.nn.position import rotate
from weight_templates.nn.product import product

from . import conftest
from .helpers import BACKBONES, CONFIGS, DECODER, ENHANCED, PLAIN, scrambled


def numpy_vit(vit, image, visible=None):
    """A vision transformer written with loops over layers, heads and hidden units' blocks, in float64."""
    c = vit.config
    p = {name: np.asarray(leaf, np.float64) for name, leaf in trees.named_arrays(vit).items()}
    image = np.asarray(image, np.float64)
    patches = [
        image[y : y + c.patch, x : x + c.patch].reshape(-1)
        for y in range(0, c.image, c.patch)
        for x in range(0, c.image, c.patch)
    ]
    tokens = np.concatenate([p["cls"][None], np.stack(patches) @ p["embed.weight"].T + p["embed.bias"]])
    place = np.arange(len(tokens))
    if c.dress == "plain":
        tokens = tokens + p["positions.table"]
    if visible is not None:
        place = np.concatenate([[0], np.asarray(visible) + 1])
        tokens = tokens[place]

    def norm(x, name):
        if c.dress == "plain":
            x = x - x.mean(-1, keepdims=True)
            return x / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p[f"{name}.gain"] + p[f"{name}.bias"]
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p[f"{name}.gain"]

    def turn(x):
        """Rotates complex numbers, made of adjacent channels, by row and column angles."""
        if c.dress == "plain":
            return x
        z = x[:, 0::2] + 1j * x[:, 1::2]
        quarter = c.head_dim // 4
        for t, where in enumerate(place):
            if where == 0:
                continue
            row, col = divmod(where - 1, c.grid)
            for k in range(quarter):
                z[t, k] *= np.exp(1j * row * 10000 ** (-k / quarter))
                z[t, quarter + k] *= np.exp(1j * col * 10000 ** (-k / quarter))
        return np.stack([z.real, z.imag], -1).reshape(x.shape)

    for layer in range(c.depth):
        q = {k.removeprefix("blocks."): v[layer] for k, v in p.items() if k.startswith("blocks.")}
        for k in ("norm1", "norm2"):
            p |= {f"now.{k}.{n}": q[f"{k}.{n}"] for n in ("gain", "bias") if f"{k}.{n}" in q}
        x = norm(tokens, "now.norm1")
        total = np.zeros_like(tokens)
        for head in range(c.heads):
            rows = slice(head * c.head_dim, (head + 1) * c.head_dim)
            query, keys, values = (
                x @ q["attention.qkv"][i, rows].T + q["attention.qkv_bias"][i, rows] for i in range(3)
            )
            weights = scipy.special.softmax(turn(query) @ turn(keys).T / np.sqrt(c.head_dim), axis=-1)
            total += weights @ values @ q["attention.out"][rows]
        tokens = tokens + total + q["attention.out_bias"]
        x = norm(tokens, "now.norm2")
        total = np.zeros_like(tokens)
        for block in range(len(q["mlp.leave"])):
            if c.dress == "plain":
                hidden = x @ q["mlp.enter"][block].T + q["mlp.enter_bias"][block]
                hidden = hidden * (1 + scipy.special.erf(hidden / np.sqrt(2))) / 2
            else:
                gate, up = (x @ q["mlp.enter"][i, block].T + q["mlp.enter_bias"][i, block] for i in range(2))
                hidden = gate * scipy.special.expit(gate) * up
            total += hidden @ q["mlp.leave"][block]
        tokens = tokens + total + q["mlp.leave_bias"]
    return norm(tokens, "norm")


WRAPS = {
    "plain": lambda f: f,
    "vmap": lambda f: jax.vmap(f, (0, None)),
    "vmap twice": lambda f: jax.vmap(jax.vmap(f, (0, None)), (0, None)),
    "vmap, last axis": lambda f: lambda x, w: jax.vmap(f, (2, None), 2)(jnp.moveaxis(x, 0, 2), w),
    "a matrix each": lambda f: lambda x, w: jax.vmap(f)(x, jnp.stack([w, 2 * w, w**2, -w])),
    "in a loop, computed again": lambda f: (
        lambda x, w: jax.lax.scan(lambda c, a: (c, jax.checkpoint(f)(a, w)), 0, x)[1]
    ),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
@pytest.mark.parametrize(("size_out", "size_in"), [(5, 3), (3, 5)])
def test_products_have_jaxs_gradients(wrap, size_out, size_in):
    """Whichever orientation they are computed in, second derivatives and forward mode included."""
    with jax.enable_x64(True):
        xkey, wkey = jr.split(jr.key(0))
        x = jr.normal(xkey, (4, 7, size_in), jnp.float64)
        weight = jr.normal(wkey, (size_out, size_in), jnp.float64)

        def total(multiply):
            return lambda x, w: jnp.sum(jnp.sin(wrap(multiply)(x, w)))

        derivatives = (
            lambda f: jax.value_and_grad(f, (0, 1)),
            lambda f: jax.jacfwd(f, (0, 1)),
            lambda f: jax.hessian(f, 1),
            lambda f: jax.grad(lambda x, w: f(jnp.ones_like(x), w), 1),
        )

        def derived(f):
            return jax.jit(lambda x, w: [d(f)(x, w) for d in derivatives])(x, weight)  # as one program

        found, expected = derived(total(product)), derived(total(lambda x, w: jnp.einsum("...i,oi->...o", x, w)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


def test_products_in_half_precision_are_so_in_the_backward_pass():
    """Both factors of every product, in front and behind; sums are in float32."""

    def products(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from products(getattr(inner, "jaxpr", inner))

    x, weight = jnp.ones((7, 3), jnp.bfloat16), jnp.ones((5, 3), jnp.bfloat16)
    traced = jax.make_jaxpr(jax.grad(lambda x, w: jnp.sum(product(x, w).astype(jnp.float32) ** 2), (0, 1)))(x, weight)
    found = list(products(traced.jaxpr))
    assert len(found) == 3
    assert {v.aval.dtype for equation in found for v in equation.invars} == {jnp.dtype(jnp.bfloat16)}
    assert {equation.outvars[0].aval.dtype for equation in found} == {jnp.dtype(jnp.float32)}


def test_the_backward_pass_keeps_products_in_the_precision_of_the_tokens(capsys):
    """In half precision half as much, and no attention weights."""
    config = dataclasses.replace(ENHANCED, depth=2)
    tokens, hidden = config.patches + 1, 2 * 8 * (config.inner // 3)
    kept = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        dynamic, static = eqx.partition(trees.cast(wt.ViT(config, key=jr.key(0)), dtype), eqx.is_array)

        def total(arrays, static=static, dtype=dtype):
            return eqx.combine(arrays, static)(jnp.zeros((16, 16, 3), dtype)).astype(jnp.float32).sum()

        jax.ad_checkpoint.print_saved_residuals(total, dynamic)
        kept[dtype] = capsys.readouterr().out
    for rows in (3 * config.inner, config.channels, hidden):
        assert f"bf16[2,{tokens},{rows}]" in kept[jnp.bfloat16]
        assert f"f32[2,{tokens},{rows}]" not in kept[jnp.bfloat16].replace("bf16", "")
        assert f"f32[2,{tokens},{rows}]" in kept[jnp.float32]
    weights = f"f32[2,{config.heads},{tokens},{tokens}]"
    assert weights in kept[jnp.float32]
    assert weights not in kept[jnp.bfloat16]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("some", [False, True])
def test_vit_equals_numpy(config, some, key):
    vit = scrambled(ViT(config, key=key), key)
    image = jr.normal(key, (config.image, config.image, 3))
    visible = jnp.array([7, 0, 12]) if some else None
    np.testing.assert_allclose(vit(image, visible), numpy_vit(vit, image, visible), atol=2e-4)


def numpy_convnext(net, image):
    """An isotropic ConvNeXt before its last norm, by scipy's correlation, channel by channel, in float64; and that norm."""
    c = net.config
    p = {name: np.asarray(leaf, np.float64) for name, leaf in trees.named_arrays(net).items()}
    patches = np.asarray(patchify(image, c.patch), np.float64)
    x = (patches @ p["stem.weight"].T + p["stem.bias"]).reshape(c.grid, c.grid, -1)

    def norm(x, gain, bias):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * gain + bias

    for layer in range(c.depth):
        q = {k.removeprefix("blocks."): v[layer] for k, v in p.items() if k.startswith("blocks.")}
        mixed = np.stack(
            [scipy.signal.correlate2d(x[..., i], q["spatial"][i], "same") for i in range(x.shape[-1])], axis=-1
        )
        inside = norm(mixed + q["spatial_bias"], q["norm.gain"], q["norm.bias"])
        for block in range(4):
            hidden = inside @ q["mlp.enter"][block].T + q["mlp.enter_bias"][block]
            x = x + hidden * (1 + scipy.special.erf(hidden / np.sqrt(2))) / 2 @ q["mlp.leave"][block]
        x = x + q["mlp.leave_bias"]
    return x, lambda x: norm(x, p["norm.gain"], p["norm.bias"])


def test_convnext_equals_numpy(key):
    """The map, and what a head sees: the norm of the mean, as the authors have it."""
    net = scrambled(ConvNext(BACKBONES["convnext"], key=key), key)
    image = jr.normal(key, (16, 16, 3))
    features, norm = numpy_convnext(net, image)
    np.testing.assert_allclose(net(image), norm(features), atol=2e-4)
    np.testing.assert_allclose(net.pooled(image), norm(features.mean((0, 1))), atol=2e-4)


@pytest.mark.parametrize(
    ("depth", "width", "millions", "gigas"), [(18, 384, 22, 4.3), (18, 768, 87, 16.9), (36, 1024, 306, 59.7)]
)
def test_convnexts_have_the_sizes_of_their_paper(depth, width, millions, gigas):
    """ConvNeXt-S, -B and -L, isotropic, in its Table 2, which counts a multiplication and an addition as one operation."""
    config = wt.ConvNextConfig(image=224, patch=16, depth=depth, heads=width // 64, head_dim=64)
    found = wt.count(config, classes=1000)
    assert round(found.parameters / 1e6) == millions
    assert round(found.flops / 2e9, 1) == gigas
    assert found.flops_with_attention == found.flops
    block = 8 * width**2 + 49 * width
    assert found.parameters == depth * (block + 8 * width) + (768 + 1 + 2) * width + 1001 * width - width + 1000
    assert found.flops == 2 * (196 * (depth * block + 768 * width) + 1000 * width)


TABLE_1 = [  # SWEET's Table 1 as printed, and the exact counts of such networks
    (3, 12, 22.8, 8.6, None),
    (6, 12, 44.0, 17.0, None),
    (6, 6, 11.4, 4.3, None),
    (12, 6, 22.1, 8.5, 22_050_664),
    (12, 3, 5.7, 2.15, 5_717_416),
]


@pytest.mark.parametrize(("depth", "heads", "millions", "gigaflops", "exact"), TABLE_1)
def test_counts_are_those_of_the_paper(depth, heads, millions, gigaflops, exact):
    config = wt.ViTConfig(image=224, patch=16, depth=depth, heads=heads, head_dim=64, dress="plain")
    found, d, n = wt.count(config, classes=1000), 64 * heads, 197
    assert round(found.parameters / 1e6, 1) == millions
    assert round(found.flops / 1e9, 2 if gigaflops == 2.15 else 1) == gigaflops
    assert exact in (None, found.parameters)
    assert found.parameters == depth * (12 * d * d + 13 * d) + 769 * d + d + n * d + 2 * d + 1001 * d - d + 1000
    assert found.flops == 2 * (12 * depth * d * d * n + 196 * 768 * d + 1000 * d)
    assert found.flops_with_attention - found.flops == 2 * 2 * depth * d * n * n


def test_count_is_of_the_real_network():
    config = dataclasses.replace(PLAIN, depth=2)
    assert wt.count(config).parameters == sum(leaf.size for leaf in jax.tree.leaves(ViT(config, key=jr.key(0))))


def test_mae_has_the_size_of_the_official_one():
    """ViT-B with MAE's decoder: 111 907 840 numbers, the two sin-cos tables included."""
    config = wt.ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64, dress="plain")
    decoder = wt.DecoderConfig(depth=8, width=512, heads=16)
    skeleton = eqx.filter_eval_shape(lambda k: MAE(ViT(config, key=k), decoder, key=k), jr.key(0))
    assert trees.count(skeleton) == 111_907_840


def test_patches_round_trip(rng):
    image = rng.normal(size=(12, 12, 3)).astype(np.float32)
    patches = patchify(jnp.asarray(image), 4)
    assert patches.shape == (9, 48)
    np.testing.assert_array_equal(patches[5], image[4:8, 8:12].reshape(-1))  # row 1, column 2
    np.testing.assert_array_equal(unpatchify(patches, 4), image)


def test_rotary_tells_relative_places(rng):
    """⟨R_i q, R_j k⟩ depends on the offset between patches alone; the class token does not turn."""
    grid, dim = 5, 16
    angles = rotary(grid, dim)
    q, k = jnp.asarray(rng.normal(size=(2, 1, 1, dim)))

    def score(i, j):
        return float(np.sum(rotate(q, angles[i + 1 : i + 2]) * rotate(k, angles[j + 1 : j + 2])))

    assert np.isclose(score(0, 7), score(11, 18), atol=1e-4)  # down one, right two
    assert not np.isclose(score(0, 7), score(0, 11), atol=1e-2)
    np.testing.assert_array_equal(rotate(q, angles[:1]), q)


def test_nested_sincos_has_the_channels_of_maes_table():
    """The same columns as MAE's table (rebuilt from its definition), in another order; any prefix tells both axes."""
    grid, width = 4, 32
    omega = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    col, row = np.meshgrid(np.arange(grid), np.arange(grid))
    official = np.concatenate(
        [f(np.outer(place.reshape(-1), omega)) for place in (col, row) for f in (np.sin, np.cos)], axis=1
    )
    table = np.asarray(nested_sincos(grid, width))
    assert not table[0].any()
    found = sorted(table[1:].T.tolist())
    np.testing.assert_allclose(found, sorted(official.astype(np.float32).T.tolist()), atol=1e-6)
    for channels in range(4, width + 1, 4):
        kinds = np.unique(np.round(table[1:, :channels], 4), axis=0)
        assert len(kinds) == grid**2  # every patch has a row of its own


def test_masks_hide_three_quarters_uniformly():
    visible, hidden = jax.vmap(lambda k: random_mask(196, 0.75, key=k))(jr.split(jr.key(0), 400))
    assert visible.shape == (400, 49)
    np.testing.assert_array_equal(hidden.sum(axis=1), 147)
    for row, mask in zip(visible[:20], hidden[:20], strict=True):
        np.testing.assert_array_equal(np.sort(row), np.flatnonzero(~mask))
    assert abs(hidden.mean(axis=0) - 0.75).max() < 0.1


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_is_the_mean_over_hidden_pixels(norm_pix, key):
    decoder = dataclasses.replace(DECODER, norm_pix=norm_pix)
    mae = MAE(ViT(ENHANCED, key=key), decoder, key=key)
    image = jr.normal(key, (16, 16, 3))
    made = mae(image, key=key)
    errors = []
    for patch, predicted, hidden in zip(np.asarray(patchify(image, 4)), made.predicted, made.hidden, strict=True):
        if norm_pix:
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        if hidden:
            errors.append(np.mean((predicted - patch) ** 2))
    assert len(errors) == 12
    np.testing.assert_allclose(reconstruction_loss(made), np.mean(errors), rtol=1e-5)


def test_the_encoder_sees_visible_patches_only(key):
    """Pixels of hidden patches change neither the tokens nor the predictions."""
    mae = MAE(ViT(ENHANCED, key=key), dataclasses.replace(DECODER, norm_pix=False), key=key)
    image = jr.normal(key, (16, 16, 3))
    made = mae(image, key=key)
    noise = unpatchify(jnp.where(made.hidden[:, None], 9.0, 0.0) * jnp.ones((16, 48)), 4)
    again = mae(image + noise, key=key)
    np.testing.assert_array_equal(made.predicted, again.predicted)
    assert reconstruction_loss(again) > reconstruction_loss(made)


def test_decoder_predicts_every_patch_at_its_own_place(key):
    """Moving which patches are visible moves what is predicted: nothing is out of order."""
    mae = MAE(ViT(ENHANCED, key=key), DECODER, key=key)
    tokens, visible = jr.normal(key, (5, 16)), jnp.array([3, 9, 1, 14])
    shuffled = jnp.array([2, 0, 3, 1])
    one = mae.decoder(tokens, visible)
    two = mae.decoder(jnp.concatenate([tokens[:1], tokens[1:][shuffled]]), visible[shuffled])
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_patch_statistics(rng):
    patches = rng.normal(3, 2, (5, 48)).astype(np.float32)
    mean, deviation = patch_statistics(jnp.asarray(patches))
    np.testing.assert_allclose(mean[:, 0], patches.mean(1), rtol=1e-5)
    np.testing.assert_allclose(deviation[:, 0], patches.std(1, ddof=1), rtol=1e-5)


def test_blocks_are_independent_draws():
    vit = ViT(ENHANCED, key=jr.key(0))
    assert not np.allclose(vit.blocks.attention.qkv[0], vit.blocks.attention.qkv[1])


def test_depth_is_one_scan():
    """The traced program does not grow with the depth."""

    def equations(depth):
        config = dataclasses.replace(ENHANCED, depth=depth)
        vit = eqx.filter_eval_shape(ViT, config, key=jr.key(0))
        arrays, static = eqx.partition(vit, lambda x: isinstance(x, jax.ShapeDtypeStruct))
        jaxpr = jax.make_jaxpr(lambda a, x: eqx.combine(a, static)(x))(arrays, jnp.zeros((16, 16, 3)))
        return str(jaxpr).count("\n")

    assert equations(2) == equations(9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch": 5}, "do not tile"),
        ({"head_dim": 6}, "multiple of 4"),
        ({"width": -4}, "not positive"),
        ({"depth": 0}, "positive"),
        ({"heads": 0}, "positive"),
    ],
)
def test_configurations_that_make_no_network_are_refused(change, says):
    with pytest.raises(wt.UserError, match=says):
        ViT(dataclasses.replace(ENHANCED, **change), key=jr.key(0))


@pytest.mark.parametrize(
    ("change", "says"), [({"patch": 5}, "do not tile"), ({"kernel": 4}, "even"), ({"kernel": 0}, "positive")]
)
def test_convnexts_that_make_no_network_are_refused(change, says):
    config = dataclasses.replace(BACKBONES["convnext"], **change)
    with pytest.raises(wt.UserError, match=says):
        ConvNext(config, key=jr.key(0))
    with pytest.raises(wt.UserError, match="one width"):
        BACKBONES["convnext"].resized(heads=2, columns=3)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"heads": 3}, "decoder heads"), ({"mask_ratio": 0.99}, "visible"), ({"depth": 0}, "positive")],
)
def test_decoders_that_do_not_fit_are_refused(change, says):
    with pytest.raises(wt.UserError, match=says):
        dataclasses.replace(DECODER, **change).check(ENHANCED)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_attention_is_that_of_jax_and_of_numpy(scale):
    """Values and gradients, also where exponents overflow; JAX's own divides before it mixes."""
    with jax.enable_x64(True):
        q, k, v, g = (jr.normal(key, (5, 2, 4), jnp.float64) for key in jr.split(jr.key(0), 4))
        ours, pull = jax.vjp(attend, scale * q, k, v)
        theirs, pull_theirs = jax.vjp(jax.nn.dot_product_attention, scale * q, k, v)
        logits = scale * np.einsum("thc,khc->htk", q, k) / 2
        weights = scipy.special.softmax(logits, axis=-1)
        np.testing.assert_allclose(ours, np.einsum("htk,khc->thc", weights, v), rtol=1e-12)
        # JAX's own takes its softmax in float32.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        for a, b in zip(pull(g), pull_theirs(g), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_attention_in_bfloat16_sums_in_float32():
    q, k, v = (jr.normal(key, (300, 1, 8)) for key in jr.split(jr.key(0), 3))
    low = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), attend(q, k, v), atol=0.02)


def test_layers_written_out_are_layers_in_a_loop(monkeypatch, float64):
    """Values and gradients; on a CPU, commands write them out."""
    assert conftest.written_out()
    config = dataclasses.replace(ENHANCED, depth=3)
    image = jr.normal(jr.key(1), (config.image, config.image, 3), jnp.float64)
    network = scrambled(trees.cast(ViT(config, key=jr.key(0)), jnp.float64), jr.key(2))

    def both():
        return eqx.filter_value_and_grad(lambda network: jnp.sum(network(image) ** 3))(network)

    value, grads = both()
    monkeypatch.setattr(vit, "unrolled", lambda: True)
    other, other_grads = both()
    np.testing.assert_allclose(value, other, rtol=1e-12)
    for (name, a), b in zip(trees.named_arrays(grads).items(), trees.named_arrays(other_grads).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10, err_msg=name)
