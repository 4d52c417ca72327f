"""What fine-tuning blurs on purpose: erased rectangles, mixed images, smoothed labels, dropped branches.

Images are normalised here, as the network sees them. Randomness follows from the key alone.
"""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


AREA = (0.02, 1 / 3)
"""Range of an erased rectangle's share of the image, uniform."""
RATIO = (0.3, 1 / 0.3)
"""Range of its height over its width, log-uniform."""
TRIES = 10
SWITCH = 0.5
"""Chance that a batch is cut, not blended, where both are on."""


def erase(image: Float[Array, "h w 3"], probability: float, *, key: PRNGKeyArray) -> Float[Array, "h w 3"]:
    """Random erasing (Zhong et al., 2020): with `probability`, in [0, 1], one rectangle becomes N(0, 1) noise.

    The rectangle is the first of `TRIES` draws that is smaller than the image in both directions, at a uniform place;
    if none is, nothing is erased. This is timm's mode `pixel`: noise in every pixel and channel.
    """
    if probability == 0:
        return image
    height, width = image.shape[:2]
    ukey, akey, rkey, tkey, lkey, nkey = jr.split(key, 6)
    area = height * width * jr.uniform(akey, (TRIES,), minval=AREA[0], maxval=AREA[1])
    ratio = jnp.exp(jr.uniform(rkey, (TRIES,), minval=math.log(RATIO[0]), maxval=math.log(RATIO[1])))
    h, w = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (h < height) & (w < width)
    chosen = jnp.argmax(fits)
    h, w = h[chosen], w[chosen]
    top = jnp.floor(jr.uniform(tkey) * (height - h + 1))
    left = jnp.floor(jr.uniform(lkey) * (width - w + 1))
    applied = jr.bernoulli(ukey, probability) & jnp.any(fits)
    inside = _rectangle(height, width, top, top + h, left, left + w) & applied
    return jnp.where(inside[..., None], jr.normal(nkey, image.shape, image.dtype), image)


def mix(
    images: Float[Array, "batch h w 3"],
    targets: Float[Array, "batch classes"],
    mixup: float,
    cutmix: float,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "batch h w 3"], Float[Array, "batch classes"]]:
    """Mixes a batch with itself reversed: mixup (Zhang et al., 2018) or CutMix (Yun et al., 2019), one draw for all.

    An image keeps a share λ ~ Beta(α, α) of itself, in every pixel (mixup) or outside a box (CutMix), and the same
    share of its target. With both on, half of the batches are cut. This is timm's mode `batch`.

    **Arguments:**

    - `mixup`, `cutmix`: their α; 0 is off, and both 0 returns what was given.
    """
    if mixup == 0 and cutmix == 0:
        return images, targets
    height, width = images.shape[1:3]
    skey, mkey, ckey, bkey = jr.split(key, 4)
    blended = cut = jnp.ones((height, width), images.dtype)
    if mixup > 0:
        blended = jnp.full((height, width), jr.beta(mkey, mixup, mixup), images.dtype)
    if cutmix > 0:
        cut = kept(jr.beta(ckey, cutmix, cutmix), height, width, key=bkey).astype(images.dtype)
    cutting = jr.bernoulli(skey, SWITCH) if mixup > 0 and cutmix > 0 else cutmix > 0
    return combine(images, targets, jnp.where(cutting, cut, blended))


def kept(share: float | Float[Array, ""], height: int, width: int, *, key: PRNGKeyArray) -> Bool[Array, "h w"]:
    """False in CutMix's box: sides of √(1 - share) of the image's, centre uniform, clipped at the border.

    Half a side is a whole number of pixels, as in timm. What is kept is `share` or, after clipping, more.
    """
    ykey, xkey = jr.split(key)
    side = jnp.sqrt(1 - share)
    half_height, half_width = jnp.floor(jnp.floor(height * side) / 2), jnp.floor(jnp.floor(width * side) / 2)
    y, x = jr.randint(ykey, (), 0, height), jr.randint(xkey, (), 0, width)
    return ~_rectangle(height, width, y - half_height, y + half_height, x - half_width, x + half_width)


def combine(
    images: Float[Array, "batch h w 3"], targets: Float[Array, "batch classes"], weight: Float[Array, "h w"]
) -> tuple[Float[Array, "batch h w 3"], Float[Array, "batch classes"]]:
    """Images and targets mixed with the reversed batch, where pixels weigh `weight` in [0, 1] and targets its mean."""
    share = weight.mean()
    weight = weight[..., None]
    return weight * images + (1 - weight) * images[::-1], share * targets + (1 - share) * targets[::-1]


def smooth(labels: Int[Array, " batch"], classes: int, smoothing: float) -> Float[Array, "batch classes"]:
    """Targets of 1 - smoothing at the label, and smoothing / classes everywhere (Szegedy et al., 2016).

    **Arguments:**

    - `labels`: 0 … classes - 1; a label outside is of no class.
    - `smoothing`: in [0, 1].
    """
    return (1 - smoothing) * jax.nn.one_hot(labels, classes, dtype=jnp.float32) + smoothing / classes


def drop_gates(depth: int, rate: float, branches: int = 2, *, key: PRNGKeyArray) -> Float[Array, "layer branch"]:
    """Stochastic depth (Huang et al., 2016): factors of one sample's branches, drawn independently.

    Layer l of `depth` loses a branch with probability p = rate · l / (depth - 1), timm's linear rule, 0 at depth 1; a
    factor is 0 or 1 / (1 - p), 1 on average.

    **Arguments:**

    - `rate`: that of the last layer, in [0, 1).
    - `branches`: residual branches of a layer: two in a transformer, attention and feed-forward.
    """
    stay = 1 - rate * jnp.arange(depth)[:, None] / max(depth - 1, 1)
    return jr.bernoulli(key, stay, (depth, branches)) / stay


def _rectangle(
    height: int,
    width: int,
    top: Float[Array, ""],
    bottom: Float[Array, ""],
    left: Float[Array, ""],
    right: Float[Array, ""],
) -> Bool[Array, "h w"]:
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)
