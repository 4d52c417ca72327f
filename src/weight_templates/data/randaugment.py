"""RandAugment (Cubuk et al., 2020) on the device, in the variant that MAE and DeiT fine-tune with.

That is `rand-m9-mstd0.5-inc1` in timm's notation: twice, one of 15 operations, applied half of the time. Under `vmap`
every branch of a choice is computed, so operations are grouped by what they cost: the geometric ones are one affine
warp, the enhancing ones one blend with a degenerate image, and the rest one table of 256 entries per channel. An
operation of one group leaves the other two at their identity, which changes no bit.

Operations are those of Pillow on uint8, down to its truncation. Warps are bilinear and show mid-grey outside, timm's
defaults; a recipe that tells timm its interpolation and mean, as MAE's does, warps by these instead.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8


Image = UInt8[Array, "h w 3"]
Values = UInt8[Array, "*shape"]
Wide = Int[Array, "h w 3"]
Real = float | Float[Array, ""]
Whole = int | Int[Array, ""]
Histogram = Int[Array, "3 256"]
Table = UInt8[Array, "3 256"]
"""What becomes of the values 0 … 255, by channel."""
WARPS = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")
POINTS = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")
OPERATIONS = (*WARPS, *BLENDS, *POINTS)
"""Names in timm's notation."""
ROUNDS, PROBABILITY, DEVIATION = 2, 0.5, 0.5
"""Operations drawn for an image, the chance that one is applied, and the deviation of its magnitude."""
GREY = 128  # what a warp shows outside the image


def randaugment(image: Image, magnitude: float, *, key: PRNGKeyArray) -> Image:
    """Two operations, drawn uniformly with replacement, each applied half of the time.

    **Arguments:**

    - `magnitude`: mean strength, 0 … 10. An operation's own is normal around it with deviation 0.5, clipped to
      [0, 10]; where an operation has two directions, its sign is random.
    """

    def one(image: Array, key: Array) -> tuple[Array, None]:
        okey, akey, mkey, skey = jr.split(key, 4)
        drawn = jr.randint(okey, (), 0, len(OPERATIONS))
        operation = jnp.where(jr.bernoulli(akey, PROBABILITY), drawn, len(OPERATIONS))
        level = jnp.clip(magnitude + DEVIATION * jr.normal(mkey), 0, 10) / 10
        return operate(image, operation, level, jr.rademacher(skey, (), jnp.float32)), None

    return jax.lax.scan(one, image, jr.split(key, ROUNDS))[0]


def operate(image: Image, operation: Whole, level: Real, sign: Real = 1.0) -> Image:
    """One of `OPERATIONS` by its index (their number stands for none), at a level in [0, 1], with a sign of 1 or -1.

    Strengths are timm's and grow with the level: rotation to 30 degrees, shear to 0.3, translation to 0.45 of a side,
    factors 1 ± 0.9 but at least 0.1, 4 … 0 bits kept, inverted from 256 … 0 on, and 0 … 110 added.
    """

    # A loop over a switch that `vmap` does not batch keeps the stages apart: fused into one by XLA, they would compute
    # a warp anew for every neighbour that smoothing reads, and none of it in vectors (5 times slower on a CPU).
    def stage(image: Array, index: Array) -> tuple[Array, None]:
        return jax.lax.switch(index, (_warped, _blended, _mapped), image, operation, level, sign), None

    return jax.lax.scan(stage, image, jnp.arange(3))[0]


def _warped(image: Array, operation: Whole, level: Real, sign: Real) -> Array:
    height, width = image.shape[:2]
    shear, shift = 0.3 * level * sign, 0.45 * level * sign
    straight = [_affine(x=shear), _affine(y=shear), _affine(right=shift * width), _affine(down=shift * height)]
    matrices = jnp.stack([_rotation(30 * level * sign, height, width), *straight, _affine()])
    return warp(image, matrices[jnp.minimum(operation, len(WARPS))])


def _blended(image: Array, operation: Whole, level: Real, sign: Real) -> Array:
    index = operation - len(WARPS)
    grey = _grey(image)
    others = [grey, _mean(grey), jnp.zeros_like(grey)]
    degenerate = jnp.select([index == i for i in range(3)], others, _smooth(image))
    factor = jnp.maximum(0.1, 1 + 0.9 * level * sign)
    return _blend(degenerate, image, jnp.where((index >= 0) & (index < len(BLENDS)), factor, 1))


def _mapped(image: Array, operation: Whole, level: Real, sign: Real) -> Array:
    histogram, values = _histogram(image), jnp.arange(256, dtype=jnp.uint8)
    bits, below, added = jnp.floor(level * jnp.array([4, 256, 110])).astype(jnp.int32)
    fixed = [invert(values), posterize(values, 4 - bits), solarize(values, 256 - below), solarize_add(values, added)]
    channels = [jnp.broadcast_to(table, (3, 256)) for table in (*fixed, values)]
    tables = jnp.stack([_stretched(histogram), _equalized(histogram), *channels])
    index = operation - len(WARPS) - len(BLENDS)
    return _look_up(image, tables[jnp.where(index >= 0, index, len(POINTS))])


def warp(image: Image, matrix: Float[Array, "2 3"]) -> Image:
    """The image read at `matrix @ (x, y, 1)`, bilinearly: Pillow's AFFINE. Pixels' centres are at halves."""
    height, width = image.shape[:2]
    x, y = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    left, top = jnp.floor(u - 0.5), jnp.floor(v - 0.5)
    across, down = (u - 0.5 - left)[..., None], (v - 0.5 - top)[..., None]
    # Gathers cost by the number of indices: the channels of a pixel travel in one word.
    shifts = jnp.arange(0, 24, 8, dtype=jnp.uint32)
    packed = (image.astype(jnp.uint32) << shifts).sum(axis=-1, dtype=jnp.uint32).reshape(-1)
    columns = [jnp.clip(left + i, 0, width - 1).astype(jnp.int32) for i in range(2)]

    def line(row: Float[Array, "h w"]) -> Float[Array, "h w 3"]:
        start = jnp.clip(row, 0, height - 1).astype(jnp.int32) * width
        words = [packed.at[start + column].get(mode="promise_in_bounds") for column in columns]
        a, b = [((word[..., None] >> shifts) & 255).astype(jnp.float32) for word in words]
        return a + (b - a) * across

    upper, lower = line(top), line(top + 1)
    return jnp.where(inside[..., None], upper + (lower - upper) * down, GREY).astype(jnp.uint8)


def rotate(image: Image, degrees: Real) -> Image:
    """Turned about the centre, counter-clockwise."""
    return warp(image, _rotation(degrees, *image.shape[:2]))


def shear(image: Image, x: Real = 0.0, y: Real = 0.0) -> Image:
    """Every row moved left by `x` times its distance from the top, every column up by `y` times that from the left."""
    return warp(image, _affine(x=x, y=y))


def translate(image: Image, x: Real = 0.0, y: Real = 0.0) -> Image:
    """Moved left and up, by shares of the sides."""
    return warp(image, _affine(right=x * image.shape[1], down=y * image.shape[0]))


def _affine(x: Real = 0.0, right: Real = 0.0, y: Real = 0.0, down: Real = 0.0) -> Float[Array, "2 3"]:
    return jnp.array([[1, x, right], [y, 1, down]], jnp.float32)


def _rotation(degrees: Real, height: int, width: int) -> Float[Array, "2 3"]:
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    centre = jnp.array([width / 2, height / 2])
    return jnp.column_stack([turn, centre - (turn * centre).sum(axis=1)])  # not `@`, which may round to TF32


def color(image: Image, factor: Real) -> Image:
    """Away from (factors above 1) or towards (below 1) the grey image, which is reached at 0."""
    return _blend(_grey(image), image, factor)


def contrast(image: Image, factor: Real) -> Image:
    """Away from or towards the mean of the grey image."""
    return _blend(_mean(_grey(image)), image, factor)


def brightness(image: Image, factor: Real) -> Image:
    """Away from or towards black."""
    return _blend(jnp.zeros(image.shape, jnp.int32), image, factor)


def sharpness(image: Image, factor: Real) -> Image:
    """Away from or towards the smoothed image; the border's pixels, which Pillow does not smooth, remain."""
    return _blend(_smooth(image), image, factor)


def _blend(degenerate: Wide, image: Image, factor: Real) -> Image:
    made = degenerate + factor * (image.astype(jnp.int32) - degenerate).astype(jnp.float32)
    return jnp.clip(made, 0, 255).astype(jnp.uint8)


def _grey(image: Image) -> Wide:
    # ITU-R 601 in 16 bits of fixed point, as Pillow converts to L.
    red, green, blue = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
    return jnp.broadcast_to(((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[..., None], image.shape)


def _mean(grey: Wide) -> Wide:
    count = grey.shape[0] * grey.shape[1]
    return jnp.broadcast_to((2 * grey[..., 0].sum() + count) // (2 * count), grey.shape)


def _smooth(image: Image) -> Wide:
    # Pillow's SMOOTH: ones around a five, over 13, rounded; no quotient by 13 is a half.
    height, width = image.shape[:2]
    padded = jnp.pad(image.astype(jnp.int32), ((1, 1), (1, 1), (0, 0)))
    lines = padded[:-2] + padded[1:-1] + padded[2:]
    total = lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:] + 4 * padded[1:-1, 1:-1]
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    within = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return jnp.where(within, (2 * total + 13) // 26, image)


def invert(image: Values) -> Values:
    """The negative."""
    return 255 - image


def posterize(image: Values, bits: Whole) -> Values:
    """The highest `bits` (0 … 8) of every value; 0 leaves black."""
    return image & (256 - (1 << (8 - jnp.asarray(bits)))).astype(jnp.uint8)


def solarize(image: Values, threshold: Whole) -> Values:
    """Values from `threshold` (0 … 256) on inverted."""
    return jnp.where(image.astype(jnp.int32) < threshold, image, 255 - image)


def solarize_add(image: Values, added: Whole) -> Values:
    """Values below 128 raised by `added` (0 … 255), to 255 at most."""
    return jnp.where(image < 128, jnp.minimum(image.astype(jnp.int32) + added, 255).astype(jnp.uint8), image)


def autocontrast(image: Image) -> Image:
    """Every channel stretched to 0 … 255."""
    return _look_up(image, _stretched(_histogram(image)))


def equalize(image: Image) -> Image:
    """Every channel's histogram made uniform."""
    return _look_up(image, _equalized(_histogram(image)))


def _look_up(image: Image, table: Table) -> Image:
    return table.reshape(-1).at[_flat(image)].get(mode="promise_in_bounds")


def _histogram(image: Image) -> Histogram:
    return jnp.zeros(768, jnp.int32).at[_flat(image).reshape(-1)].add(1, mode="promise_in_bounds").reshape(3, 256)


def _flat(image: Image) -> Wide:
    return image.astype(jnp.int32) + 256 * jnp.arange(3)


def _stretched(histogram: Histogram) -> Table:
    values, seen = jnp.arange(256), histogram > 0
    low = jnp.min(jnp.where(seen, values, 255), axis=1, keepdims=True)
    high = jnp.max(jnp.where(seen, values, 0), axis=1, keepdims=True)
    made = jnp.clip(255 * (values - low) // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, made, values).astype(jnp.uint8)


def _equalized(histogram: Histogram) -> Table:
    below = jnp.cumsum(histogram, axis=1) - histogram
    # All pixels but the brightest, in 255 steps; where that is not one each, nothing changes.
    step = jnp.max(jnp.where(histogram > 0, below, 0), axis=1, keepdims=True) // 255
    made = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, made, jnp.arange(256)).astype(jnp.uint8)
