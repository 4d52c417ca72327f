"""MAE's augmentation (random resized crop, flip) and evaluation transform, on the host and on the device.

Both sides draw crops from the same distribution and resample with the same antialiased bicubic kernel; which one runs
depends on where the images live. Pixels are uint8 throughout; `normalize` is the first thing a task does.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8
from PIL import Image


LEAST = 0.2
"""Smallest share of the image that a crop shows, unless told otherwise; the largest is all."""
RATIO = (3 / 4, 4 / 3)
"""Range of a crop's width over its height, log-uniform."""
TRIES = 10
SHARE = 224 / 256
"""Part of the short side of an image that its evaluation view shows."""
LONG = 8
"""Times that an image may be as long as wide, to be resized before its centre is cut out: one of 1 × 40,000 pixels would
take gigabytes."""
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
"""Mean of ImageNet's pixels in [0, 1], by channel."""
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
"""Deviation of ImageNet's pixels in [0, 1], by channel."""


def normalize(image: UInt8[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """Pixels 0 … 255 to zero mean and unit deviation over ImageNet."""
    return (image.astype(jnp.float32) / 255 - MEAN) / DEVIATION


def denormalize(image: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """The converse of `normalize`, as intensities clipped to [0, 1]."""
    return jnp.clip(image * DEVIATION + MEAN, 0, 1)


def crop_box(rng: np.random.Generator, height: int, width: int, least: float = LEAST) -> tuple[int, int, int, int]:
    """Draws a crop: (left, top, right, bottom), pixels. After `TRIES` misfits, the largest central one of legal ratio."""
    for _ in range(TRIES):
        area = height * width * rng.uniform(least, 1)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = float(np.clip(width / height, *RATIO))
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def augment_on_host(
    image: UInt8[np.ndarray, "h w 3"], size: int, rng: np.random.Generator, least: float = LEAST
) -> UInt8[np.ndarray, "size size 3"]:
    """A random resized crop of `size` pixels, at least a share `least` of the image, flipped half of the time."""
    height, width = image.shape[:2]
    left, top, right, bottom = crop_box(rng, height, width, least)
    crop = Image.fromarray(image[top:bottom, left:right])
    made = np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC))
    return made[:, ::-1] if rng.random() < 0.5 else made


def augment_on_device(
    image: UInt8[Array, "h w 3"], size: int, least: float = LEAST, *, key: PRNGKeyArray
) -> UInt8[Array, "size size 3"]:
    """A random resized crop of `size` pixels, at least a share `least` of the image, flipped half of the time."""
    height, width = image.shape[:2]
    akey, rkey, lkey, tkey, fkey = jr.split(key, 5)
    area = height * width * jr.uniform(akey, (TRIES,), minval=least)
    ratio = jnp.exp(jr.uniform(rkey, (TRIES,), minval=np.log(RATIO[0]), maxval=np.log(RATIO[1])))
    w, h = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    chosen, found = jnp.argmax(fits), jnp.any(fits)
    central = float(np.clip(width / height, *RATIO))
    w = jnp.where(found, w[chosen], min(width, round(height * central)))
    h = jnp.where(found, h[chosen], min(height, round(width / central)))
    left = jnp.where(found, jnp.floor(jr.uniform(lkey) * (width - w + 1)), (width - w) // 2)
    top = jnp.where(found, jnp.floor(jr.uniform(tkey) * (height - h + 1)), (height - h) // 2)
    made = resample(image, jnp.stack([left, top, left + w, top + h]), size)
    return jnp.where(jr.bernoulli(fkey), made[:, ::-1], made)


def resample(image: UInt8[Array, "h w 3"], box: Float[Array, "4"], size: int) -> UInt8[Array, "size size 3"]:
    """The part of an image inside (left, top, right, bottom), pixels, at `size` pixels: antialiased bicubic.

    As cropping, then resizing with Pillow: two products with dense kernels, in which pixels outside do not count.
    """
    across = _kernel(image.shape[1], box[0], box[2], size)
    down = _kernel(image.shape[0], box[1], box[3], size)
    made = jnp.einsum("yh,hwc,xw->yxc", down, image.astype(jnp.float32), across)
    return jnp.clip(jnp.round(made), 0, 255).astype(jnp.uint8)


def _kernel(length: int, start: Float[Array, ""], stop: Float[Array, ""], size: int) -> Float[Array, "out in"]:
    # Keys' cubic (a = -1/2), widened when shrinking, normalised over the pixels inside the box.
    scale = (stop - start) / size
    support = jnp.maximum(scale, 1)
    centre = start + (jnp.arange(size) + 0.5) * scale
    pixel = jnp.arange(length) + 0.5
    t = jnp.abs(pixel - centre[:, None]) / support
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weight = jnp.where(t < 1, near, jnp.where(t < 2, far, 0))
    weight = jnp.where((pixel > start) & (pixel < stop), weight, 0)
    return weight / weight.sum(axis=1, keepdims=True)


def evaluation_view(
    image: UInt8[np.ndarray, "h w 3"], size: int, share: float = SHARE, whole: bool = True
) -> UInt8[np.ndarray, "size size 3"]:
    """The centre of an image: it is resized, and its central square of `size` pixels is cut out.

    Resized means bicubic, antialiased, so that the short side has ⌊size / share⌋ pixels and the long one is truncated,
    as in torchvision, timm and MAE. Of an image that is many times as long as wide only the part to be cut out is
    resized.

    **Arguments:**

    - `share`: the part of the short side that is seen, in (0, 1]; MAE's 224 of 256 by default.
    - `whole`: an image whose short side is at most `size` is seen whole in that direction, enlarged where it is
      smaller, as is usual for small sets such as CIFAR. False treats it as any other, as torchvision does.
    """
    height, width = image.shape[:2]
    shortest = min(height, width)
    short = size if whole and shortest <= size else int(size / share)
    rows, columns = (short if side == shortest else int(short * side / shortest) for side in (height, width))
    # Python rounds halves to even, and so does torchvision.
    top, left = (round((side - size) / 2) for side in (rows, columns))
    if (rows, columns) == (height, width):
        return image[top : top + size, left : left + size]
    file = Image.fromarray(image)
    if max(rows, columns) > LONG * short:
        across, down = width / columns, height / rows
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return np.asarray(file.resize((size, size), Image.Resampling.BICUBIC, box))
    resized = np.asarray(file.resize((columns, rows), Image.Resampling.BICUBIC))
    return resized[top : top + size, left : left + size]
