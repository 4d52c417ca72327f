"""RandAugment's operations against Pillow, and the laws of erasing, mixing, smoothing and dropping."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from weight_templates.data import randaugment, regularize


GREY = (128, 128, 128)


@pytest.fixture
def images(rng):
    """Smooth, noisy, pale, constant, tiny; none square, so that axes cannot be confused."""
    smooth = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((40, 32), Image.Resampling.BICUBIC)
    noise = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    return [
        np.asarray(smooth),
        noise,
        (noise // 3 + [20, 60, 100]).astype(np.uint8),
        np.full((9, 7, 3), (0, 90, 255), np.uint8),
        noise[:5, :4],
    ]


def transformed(image, *matrix):
    """Pillow's affine warp, as timm calls it."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)


def turned(image, degrees):
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY)


def raised(image, added):
    """What timm calls SolarizeAdd."""
    return image.point([min(255, i + added) if i < 128 else i for i in range(256)] * 3)


EXACT = {
    "equalize": (randaugment.equalize, ImageOps.equalize, [()]),
    "invert": (randaugment.invert, ImageOps.invert, [()]),
    "posterize": (randaugment.posterize, ImageOps.posterize, [(1,), (3,), (4,), (8,)]),
    "solarize": (randaugment.solarize, ImageOps.solarize, [(0,), (26,), (128,), (255,), (256,)]),
    "solarize_add": (randaugment.solarize_add, raised, [(0,), (99,), (110,), (255,)]),
}
FACTORS = [(0.1,), (0.55,), (1.0,), (1.43,), (1.9,)]
CLOSE = {
    "autocontrast": (randaugment.autocontrast, ImageOps.autocontrast, [()]),
    "color": (randaugment.color, lambda image, x: ImageEnhance.Color(image).enhance(x), FACTORS),
    "contrast": (randaugment.contrast, lambda image, x: ImageEnhance.Contrast(image).enhance(x), FACTORS),
    "brightness": (randaugment.brightness, lambda image, x: ImageEnhance.Brightness(image).enhance(x), FACTORS),
    "sharpness": (randaugment.sharpness, lambda image, x: ImageEnhance.Sharpness(image).enhance(x), FACTORS),
    "rotate": (randaugment.rotate, turned, [(-30.0,), (-13.0,), (0.7,), (27.0,), (30.0,)]),
    "shear": (
        randaugment.shear,
        lambda image, x, y: transformed(image, 1, x, 0, y, 1, 0),
        [(0.3, 0.0), (-0.27, 0.0), (0.0, 0.13), (0.0, -0.3)],
    ),
    "translate": (
        randaugment.translate,
        lambda image, x, y: transformed(image, 1, 0, x * image.width, 0, 1, y * image.height),
        [(0.45, 0.0), (-0.123, 0.0), (0.0, 0.4), (0.0, -0.37)],
    ),
}


def pairs(images, ours, theirs, arguments):
    """The pixels of both sides, as integers, for all images and arguments."""
    for image in images:
        for given in arguments:
            yield (
                np.asarray(ours(jnp.asarray(image), *given), int),
                np.asarray(theirs(Image.fromarray(image), *given), int),
            )


@pytest.mark.parametrize("name", EXACT)
def test_tables_of_integers_equal_pillow(images, name):
    for found, expected in pairs(images, *EXACT[name]):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CLOSE)
def test_operations_in_floats_equal_pillow_to_a_level(images, name):
    """Both truncate: where the exact value is an integer, single and double precision may fall on either side of it.

    A shift by a tenth of a pixel meets integers in a tenth of the pixels; more than that would be another rule.
    """
    differences = [abs(found - expected) for found, expected in pairs(images, *CLOSE[name])]
    assert max(each.max() for each in differences) <= 1
    assert np.mean(np.concatenate([each.ravel() for each in differences])) < 0.03


def test_posterizing_to_no_bits_is_black(images):
    assert not randaugment.posterize(jnp.asarray(images[1]), 0).any()


def test_equalizing_few_pixels_changes_nothing():
    few = jnp.arange(27, dtype=jnp.uint8).reshape(3, 3, 3)
    np.testing.assert_array_equal(randaugment.equalize(few), few)


def by_name(image, name, level, sign):
    """timm's operation at a level in [0, 1] and a sign, by Pillow; straight from its tables of strengths."""
    signed = level * sign
    factor = max(0.1, 1 + 0.9 * signed)
    return {
        "Rotate": lambda: turned(image, 30 * signed),
        "ShearX": lambda: transformed(image, 1, 0.3 * signed, 0, 0, 1, 0),
        "ShearY": lambda: transformed(image, 1, 0, 0, 0.3 * signed, 1, 0),
        "TranslateXRel": lambda: transformed(image, 1, 0, 0.45 * signed * image.width, 0, 1, 0),
        "TranslateYRel": lambda: transformed(image, 1, 0, 0, 0, 1, 0.45 * signed * image.height),
        "Color": lambda: ImageEnhance.Color(image).enhance(factor),
        "Contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "Brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
        "Posterize": lambda: ImageOps.posterize(image, 4 - int(4 * level)),
        "Solarize": lambda: ImageOps.solarize(image, 256 - int(256 * level)),
        "SolarizeAdd": lambda: raised(image, int(110 * level)),
    }[name]()


def test_grouped_operations_are_those_of_pillow(images):
    """All 15 by index, each through the warp, the blend and the table of a batch."""
    count = len(randaugment.OPERATIONS)
    assert count == len(set(randaugment.OPERATIONS)) == 15
    run = jax.jit(jax.vmap(randaugment.operate, in_axes=(None, 0, None, None)))
    for image in images[:2]:
        for level, sign in ((0.93, 1.0), (0.93, -1.0), (0.31, -1.0)):
            made = np.asarray(run(jnp.asarray(image), jnp.arange(count + 1), level, sign), int)
            for name, found in zip(randaugment.OPERATIONS, made, strict=False):
                expected = np.asarray(by_name(Image.fromarray(image), name, level, sign), int)
                assert abs(found - expected).max() <= 1, name
                assert (found != expected).mean() < 0.03, name
                assert (found != image).mean() > 0.1 or name in ("AutoContrast", "Equalize"), name
            np.testing.assert_array_equal(made[-1], image)  # none


def test_no_strength_is_the_identity(images):
    """Level 0 of what is a matter of degree, and factor 1, leave every bit; level 0 of posterize keeps 4 bits."""
    names = (*randaugment.WARPS, *randaugment.BLENDS, "Solarize", "SolarizeAdd", "Posterize")
    indices = jnp.array([randaugment.OPERATIONS.index(name) for name in names])
    run = jax.jit(jax.vmap(randaugment.operate, in_axes=(None, 0, None, None)))
    given = jnp.asarray(images[1])
    *same, posterized = run(given, indices, 0.0, -1.0)
    np.testing.assert_array_equal(posterized, images[1] & 0xF0)
    same += [randaugment.rotate(given, 0.0), randaugment.shear(given), randaugment.translate(given)]
    same += [getattr(randaugment, name)(given, 1.0) for name in ("color", "contrast", "brightness", "sharpness")]
    for made in same:
        np.testing.assert_array_equal(made, images[1])


def test_randaugment_draws_as_timm_does(monkeypatch):
    """Frequencies of operations, magnitudes and signs, seen by a stand-in for the operation."""

    def noted(image, operation, level, sign):
        """Moves the rows up and writes the draws into the last one; levels in steps of 1 / 50000."""
        high, low = jnp.divmod(jnp.round(level * 50000).astype(jnp.int32), 256)
        row = jnp.stack([operation, high, low, sign.astype(jnp.int32) + 1, operation, operation])
        return jnp.concatenate([image[1:], row.reshape(1, 2, 3).astype(jnp.uint8)])

    monkeypatch.setattr(randaugment, "operate", noted)
    count = 3000
    blank = jnp.zeros((2, 2, 3), jnp.uint8)
    run = jax.jit(jax.vmap(lambda key: randaugment.randaugment(blank, 9.0, key=key)))
    draws = np.asarray(run(jr.split(jr.key(0), count)), int).reshape(count, 2, 6)
    assert abs(np.corrcoef(draws[:, 0, 1], draws[:, 1, 1])[0, 1]) < 0.06  # the rounds are independent
    operation, high, low, sign = draws.reshape(-1, 6).T[:4]
    level, sign = (256 * high + low) / 50000, sign - 1
    frequency = np.bincount(operation, minlength=16)
    assert stats.chisquare(frequency, 2 * count * np.array([1 / 30] * 15 + [0.5])).pvalue > 1e-3
    # A normal of deviation 0.05 around 0.9, of which what exceeds 1 (2.3 %) is 1.
    assert level.max() == 1
    assert 0.016 < (level == 1).mean() < 0.03
    assert stats.kstest(level[level < 1], stats.truncnorm(-18, 2, 0.9, 0.05).cdf).pvalue > 1e-3
    assert set(sign) == {-1, 1}
    assert abs(sign.mean()) < 0.05
    assert abs(np.corrcoef(level, sign)[0, 1]) < 0.05


def test_randaugment_depends_on_its_key_alone(images):
    batch = jnp.asarray(np.stack([images[1]] * 40))
    run = jax.jit(jax.vmap(lambda image, key: randaugment.randaugment(image, 9.0, key=key)))
    keys = jr.split(jr.key(3), 40)
    made = run(batch, keys)
    assert made.dtype == jnp.uint8
    np.testing.assert_array_equal(made, run(batch, keys))
    np.testing.assert_array_equal(made[::-1], run(batch, keys[::-1]))
    assert not np.array_equal(made, run(batch, jr.split(jr.key(4), 40)))
    untouched = np.mean([np.array_equal(image, images[1]) for image in made])
    assert 0.05 < untouched < 0.5  # a quarter, and a little more: noise uses all levels already


# Erasing


def erased(height, width, probability, count, key):
    """The erased pixels of many images: 0 marks what was left."""
    run = jax.jit(jax.vmap(lambda k: regularize.erase(jnp.zeros((height, width, 3)), probability, key=k)))
    return np.asarray(run(jr.split(key, count)))


def test_erasing_cuts_one_rectangle_of_noise(key):
    made = erased(30, 50, 1.0, 400, key)
    mask = (made != 0).any(axis=-1)
    for each in mask:
        rows, columns = np.flatnonzero(each.any(axis=1)), np.flatnonzero(each.any(axis=0))
        assert each[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert each.sum() == len(rows) * len(columns)  # nothing outside
    noise = made[mask]
    assert stats.kstest(noise[::20].ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.02  # channels of their own
    assert not np.array_equal(made[0], made[1])


def test_erased_rectangles_are_distributed_as_in_the_paper(key):
    """On a square, against draws by hand: share, ratio, place; the probability; and too large a draw tried again."""
    side, count = 60, 3000
    made = erased(side, side, 0.4, count, key)
    mask = (made != 0).any(axis=-1)
    hit = mask.any(axis=(1, 2))
    assert 0.37 < hit.mean() < 0.43
    mask = mask[hit]
    height, width = mask.any(axis=2).sum(axis=1), mask.any(axis=1).sum(axis=1)
    rng = np.random.default_rng(0)
    area, ratio = rng.uniform(0.02, 1 / 3, 20000), np.exp(rng.uniform(np.log(0.3), -np.log(0.3), 20000))
    h, w = np.round(side * np.sqrt(area * ratio)), np.round(side * np.sqrt(area / ratio))
    h, w = h[(h < side) & (w < side)], w[(h < side) & (w < side)]
    for found, expected in ((height * width, h * w), (np.log(height / width), np.log(h / w))):
        assert stats.ks_2samp(found, expected).pvalue > 1e-3
    for extent, first in ((height, mask.any(axis=2).argmax(axis=1)), (width, mask.any(axis=1).argmax(axis=1))):
        assert (first + extent).max() == side
        room = side - extent + 1
        assert stats.kstest((first + rng.random(len(first))) / room, "uniform").pvalue > 1e-3


def test_erasing_nothing(key):
    image = jr.normal(key, (8, 8, 3))
    assert regularize.erase(image, 0.0, key=key) is image
    flat = jnp.ones((1, 90, 3))  # no rectangle is lower than one pixel
    np.testing.assert_array_equal(regularize.erase(flat, 1.0, key=key), flat)


# Mixing


def batch_of(count, height=12, width=20):
    """Images that are constant, with the number of the image; targets that tell the same."""
    images = jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32)[:, None, None, None], (count, height, width, 3))
    return images, jnp.eye(count)


def shares(images, count):
    """What every pixel kept of its own image, by inverting the mixture of i and count - 1 - i."""
    own = np.arange(count)[:, None, None, None]
    return (np.asarray(images) - (count - 1 - own)) / (2 * own - count + 1)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_are_mixed_in_the_share_of_the_pixels(mixup, cutmix):
    """Of the boxes, to the last bit of a float; everywhere alike, where images are blended; one share for a batch."""
    images, targets = batch_of(4)
    run = jax.jit(lambda key: regularize.mix(images, targets, mixup, cutmix, key=key))
    cuts = 0
    for seed in range(60):
        made, mixed = run(jr.key(seed))
        kept, share = shares(made, 4), np.diag(mixed)
        np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed, np.diag(share) + np.diag(1 - share)[:, ::-1], atol=1e-7)
        np.testing.assert_allclose(kept - kept[:1], 0, atol=1e-5)
        if set(kept.ravel()) <= {0.0, 1.0}:
            cuts += 1
            np.testing.assert_allclose(kept.mean(axis=(1, 2, 3)), share, rtol=2e-7)
        else:
            np.testing.assert_allclose(kept, share[0], atol=1e-5)
    low, high = {(True, False): (0, 0), (False, True): (60, 60), (True, True): (17, 43)}[mixup > 0, cutmix > 0]
    assert low <= cuts <= high


def test_shares_follow_beta():
    images, targets = batch_of(2, 2, 2)
    run = jax.jit(jax.vmap(lambda key: regularize.mix(images, targets, 0.8, 0.0, key=key)[1][0, 0]))
    found = np.asarray(run(jr.split(jr.key(0), 3000)))
    assert stats.kstest(found, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3


def test_boxes_of_cutmix(key):
    """Sides of √(1 - share) in even pixels, the centre anywhere, clipped at the border."""
    run = jax.vmap(lambda key: regularize.kept(0.75, 40, 60, key=key))
    box = ~np.asarray(run(jr.split(key, 4000)))
    height, width = box.any(axis=2).sum(axis=1), box.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(box.sum(axis=(1, 2)), height * width)
    assert (height.max(), width.max()) == (20, 30)
    assert (height.min(), width.min()) == (10, 15)  # centred on the first row, the first column
    # Every centre between half a side from either border gives a whole box.
    assert abs((height == 20).mean() - 21 / 40) < 0.03
    assert abs((width == 30).mean() - 31 / 60) < 0.03
    top, left = box.any(axis=2).argmax(axis=1)[height == 20], box.any(axis=1).argmax(axis=1)[width == 30]
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 20, 0, 30)
    assert stats.chisquare(np.bincount(top)).pvalue > 1e-3
    assert np.asarray(regularize.kept(0.0, 40, 60, key=key)).mean() < 1


def test_a_share_of_one_mixes_nothing(key):
    images, targets = jr.normal(key, (4, 6, 5, 3)), jax.nn.softmax(jr.normal(key, (4, 7)))
    assert regularize.kept(1.0, 6, 5, key=key).all()
    for weight, expected in ((1.0, (images, targets)), (0.0, (images[::-1], targets[::-1]))):
        for found, given in zip(regularize.combine(images, targets, jnp.full((6, 5), weight)), expected, strict=True):
            np.testing.assert_array_equal(found, given)
    assert regularize.mix(images, targets, 0.0, 0.0, key=key) == (images, targets)


def test_mixing_depends_on_its_key_alone(key):
    images, targets = batch_of(4)
    one, two = [regularize.mix(images, targets, 0.8, 1.0, key=jr.key(5)) for _ in range(2)]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[1], regularize.mix(images, targets, 0.8, 1.0, key=jr.key(6))[1])


# Smoothing and dropping


def test_smoothed_targets():
    np.testing.assert_allclose(
        regularize.smooth(jnp.array([2, 0]), 4, 0.1),
        [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]],
        rtol=1e-6,
    )
    np.testing.assert_array_equal(regularize.smooth(jnp.array([1, 2]), 3, 0.0), np.eye(3)[1:])
    np.testing.assert_allclose(regularize.smooth(jnp.arange(10), 10, 0.3).sum(axis=1), 1, rtol=1e-6)


def test_gates_drop_linearly_and_average_to_one():
    depth, rate, count = 5, 0.4, 20000
    run = jax.jit(jax.vmap(lambda key: regularize.drop_gates(depth, rate, key=key)))
    gates = np.asarray(run(jr.split(jr.key(0), count)))
    assert gates.shape == (count, depth, 2)
    expected = np.array([0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose((gates == 0).mean(axis=0), np.stack([expected] * 2, axis=1), atol=0.015)
    np.testing.assert_allclose(gates.mean(axis=0), 1, atol=0.03)
    for layer, drop in enumerate(expected):
        np.testing.assert_allclose(gates[:, layer][gates[:, layer] > 0], 1 / (1 - drop), rtol=1e-6)
    last = gates[:, -1] == 0
    assert abs(last.all(axis=1).mean() - 0.16) < 0.015  # the two branches apart from each other
    assert abs((last[:, 0] & (gates[:, -2, 0] == 0)).mean() - 0.12) < 0.015  # and from other layers'
    assert regularize.drop_gates(depth, rate, 1, key=jr.key(0)).shape == (depth, 1)


def test_gates_of_one_layer_or_no_rate_are_open(key):
    np.testing.assert_array_equal(regularize.drop_gates(1, 0.5, key=key), np.ones((1, 2)))
    np.testing.assert_array_equal(regularize.drop_gates(6, 0.0, key=key), np.ones((6, 2)))
