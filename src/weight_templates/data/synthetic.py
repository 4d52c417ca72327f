"""Images made by a formula: coloured shapes on textured backgrounds, with labels, boxes and masks. No file needed."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from .encoded import About


SHAPES = ("disk", "ring", "square", "frame", "triangle", "diamond", "cross", "star", "crescent", "hexagon")


class Scene(NamedTuple):
    """A synthetic image and what is in it."""

    image: UInt8[np.ndarray, "size size 3"]
    label: int
    """The shape with the largest visible area, an index into `SHAPES`."""
    classes: Int[np.ndarray, " objects"]
    """The shape of every visible object."""
    boxes: Float[np.ndarray, "objects 4"]
    """x0, y0, x1, y1 of the visible part, pixels, the far edges exclusive."""
    masks: Bool[np.ndarray, "objects size size"]
    """The visible parts; they do not overlap."""


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """`count` scenes of `size` pixels; scene `i` is a pure function of `seed`, `size` and `i`."""

    size: int = 32
    count: int = 4096
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    @property
    def name(self) -> str:
        return "synthetic"

    @property
    def classes(self) -> tuple[str, ...]:
        return SHAPES

    @property
    def about(self) -> About:
        return About(f"a formula, seed {self.seed}")

    def fingerprint(self) -> str:
        """A string that changes when the images do."""
        return f"synthetic-1-{self.size}-{self.count}-{self.seed}"

    def path(self, index: int) -> str:
        """What to call an image."""
        return f"synthetic image {index}"

    def image(self, index: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of a scene."""
        return self.scene(index).image

    def label(self, index: int) -> int:
        """The class of a scene."""
        return self.scene(index).label

    def scene(self, index: int) -> Scene:
        """A scene with its annotations."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        y, x = (np.mgrid[: self.size, : self.size] + 0.5) / self.size
        image = _texture(rng, x, y)
        painted = []
        for _ in range(rng.integers(1, 4)):
            kind = int(rng.integers(len(SHAPES)))
            radius = rng.uniform(0.15, 0.33)
            cx, cy = rng.uniform(radius, 1 - radius, 2)
            angle = rng.uniform(0, 2 * np.pi)
            cos, sin = np.cos(angle), np.sin(angle)
            u, v = (x - cx) / radius, (y - cy) / radius
            inside = _inside(SHAPES[kind], cos * u + sin * v, cos * v - sin * u)
            shade = 1 + rng.uniform(-0.25, 0.25) * u + rng.uniform(-0.25, 0.25) * v
            color = rng.uniform(0, 1, 3)
            image = np.where(inside[..., None], color * shade[..., None], image)
            painted = [(k, m & ~inside) for k, m in painted] + [(kind, inside)]
        painted = [(k, m) for k, m in painted if m.any()]
        masks = np.stack([m for _, m in painted])
        return Scene(
            image=np.round(255 * np.clip(image, 0, 1)).astype(np.uint8),
            label=painted[int(masks.sum(axis=(1, 2)).argmax())][0],
            classes=np.array([k for k, _ in painted]),
            boxes=np.array([_box(m) for m in masks], dtype=np.float32),
            masks=masks,
        )


def _texture(rng: np.random.Generator, x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"]) -> np.ndarray:
    dark, light = rng.uniform(0.05, 0.95, (2, 3))
    waves = np.zeros_like(x)
    for frequency in rng.uniform(0.5, 4, 3):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        waves += np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase) / frequency**0.5
    blend = (0.5 + 0.5 * np.tanh(waves))[..., None]
    return dark + (light - dark) * blend + rng.normal(0, 0.01, (*x.shape, 3))


def _inside(kind: str, u: Float[np.ndarray, "h w"], v: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    a, b = abs(u), abs(v)
    regions = {
        "disk": r < 0.9,
        "ring": (r < 1) & (r > 0.55),
        "square": np.maximum(a, b) < 0.75,
        "frame": (np.maximum(a, b) < 0.8) & (np.maximum(a, b) > 0.45),
        "triangle": (v > -0.5) & (a < (1 - v) / 1.732),
        "diamond": a + 1.6 * b < 1,
        "cross": np.minimum(a, b) < np.where(np.maximum(a, b) < 0.95, 0.28, 0),
        "star": r < 0.62 + 0.36 * np.cos(5 * angle),
        "crescent": (r < 0.95) & (np.hypot(u - 0.45, v) > 0.75),
        "hexagon": np.maximum(b, 0.866 * a + 0.5 * b) < 0.8,
    }
    return regions[kind]


def _box(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1
