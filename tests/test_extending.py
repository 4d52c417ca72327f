"""CONTRIBUTING's walk: a family, a backbone, a task and a baseline, each a new file, which the laws then hold for."""

import dataclasses
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weight_templates as wt
from experiments import baseline
from weight_templates import baselines, config, trees
from weight_templates.config import RunOptions, TaskEntry

from . import helpers, test_constraints, test_sites, test_tasks


FAMILY = '''
import jax.random as jr

from weight_templates.constraints.base import AbstractConstraint, Factors, weight_variance
from weight_templates.trees import cycle, first


class Shared(AbstractConstraint):
    """`W_s = x_s G`: every slice is a multiple of one slice."""

    @property
    def sizeless(self):
        return False

    def template(self, shape, *, key):
        return {"one": weight_variance(shape) ** 0.5 * jr.normal(key, (shape.rows, shape.cols, *shape.taps))}

    def scalers(self, template, shape, *, key):
        return {"slice": jr.normal(key, (shape.slices, 1))}

    def expand(self, factors, shape):
        return factors.scalers["slice"].reshape(-1, *[1] * (2 + len(shape.taps))) * factors.template["one"]

    def select(self, factors, shape, slices):
        one = cycle(cycle(factors.template["one"], shape.rows, 0), shape.cols, 1)
        return Factors({"one": one}, {"slice": factors.scalers["slice"][slices]})

    def mask(self, factors, shape, rows, cols):
        return Factors({"one": first(first(factors.template["one"], rows, 0), cols, 1)}, factors.scalers)
'''
BACKBONE = """
import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from weight_templates.config.backbones import Sizes
from weight_templates.models import AbstractBackbone
from weight_templates.models.backbone import Multiplications
from weight_templates.nn import LayerNorm


@dataclasses.dataclass(frozen=True)
class PerceptronConfig(Sizes):
    image: int = 16
    depth: int = 2
    heads: int = 4
    head_dim: int = 4
    interleaved: ClassVar[dict] = {}
    features: ClassVar[str] = "width"
    branches: ClassVar[int] = 1
    tokens: ClassVar[int] = 1

    def axes(self, widths=None):
        rows, cols = (self.heads, self.heads) if widths is None else widths
        return {"inner": rows * self.head_dim, "width": cols * self.head_dim}

    def resized(self, depth=None, heads=None, columns=None):
        return dataclasses.replace(self, depth=depth or self.depth, heads=heads or self.heads)

    def check(self):
        pass

    def create(self, *, key):
        return Perceptron(self, key=key)


class Block(eqx.Module):
    norm: LayerNorm
    enter: Float[Array, "inner width"]
    leave: Float[Array, "inner width"]

    def __init__(self, width, *, key):
        one, two = jr.split(key)
        self.norm, self.enter, self.leave = LayerNorm(width), jr.normal(one, (width, width)), jr.normal(two, (width, width))


class Perceptron(AbstractBackbone):
    stem: Float[Array, "width pixel"]
    blocks: Block
    norm: LayerNorm
    config: PerceptronConfig = eqx.field(static=True)

    def __init__(self, config, *, key):
        width = config.heads * config.head_dim
        skey, bkey = jr.split(key)
        self.stem = jr.normal(skey, (width, 3 * config.image**2)) / config.image
        self.blocks = eqx.filter_vmap(lambda k: Block(width, key=k))(jr.split(bkey, config.depth))
        self.norm, self.config = LayerNorm(width), config

    @property
    def stages(self):
        return ("blocks",)

    def governed(self):
        return {"blocks.enter": "enter", "blocks.leave": "leave"}

    def multiplications(self, patches=None):
        return Multiplications(self.stem.size + self.blocks.enter.size + self.blocks.leave.size, 0)

    def __call__(self, image, gates=None):
        x = self.stem @ image.reshape(-1).astype(self.stem.dtype)
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def one(x, arrays):
            block = eqx.combine(arrays, rest)
            return x + jax.nn.relu(block.enter @ block.norm(x)) @ block.leave, None

        return self.norm(jax.lax.scan(one, x, arrays)[0])

    def pooled(self, image, pool, gates=None):
        return self(image)
"""
TASK = '''
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from weight_templates import data, pictures
from weight_templates.data import normalize
from weight_templates.models import AbstractHead
from weight_templates.nn import Linear
from weight_templates.tasks.base import AbstractTask, Curves, Data, read


class Shade(AbstractHead):
    """Predicts the mean intensity of an image."""

    backbone: object
    head: Linear

    @property
    def options(self):
        return {}

    @classmethod
    def around(cls, backbone, options, *, key):
        axis = backbone.config.features
        return cls(backbone, Linear(backbone.config.axes()[axis], 1, reads=axis, key=key))

    def __call__(self, image):
        return self.head(self.backbone.pooled(image, "mean"))[0]


class Brightness(AbstractTask):
    score: ClassVar[str] = "error"
    lowest: ClassVar[bool] = True
    terms: ClassVar[tuple] = ("bias",)
    curves: ClassVar[Curves] = Curves("error.png", {"held_out_error": "held out"}, "step", "error")
    shown: ClassVar[str] = "images.png"

    def tokens(self, config):
        return config.tokens

    def flops(self, config):
        return 0

    def split(self, good, batch, seed, flag="--optim.batch"):
        return data.split(good, batch, seed, flag=flag)

    def open(self, source, options, config, sharding, *, batch, seed, test=None):
        loaded = read(source, options)
        chosen = self.split(loaded.good, batch, seed)
        views = jnp.asarray(data.evaluation_views(loaded, chosen.held_out, config.image))
        feed = data.feed_of(loaded, chosen, config.image, options, sharding)
        return Data(feed, views, None, None, chosen, (), source.name, source.name, {"images": 1, "labels": {}, "left_out": {}})

    def attach(self, backbone, classes, *, key):
        return Shade.around(backbone, {}, key=key)

    def loss(self, model, batch, keys):
        images = normalize(batch["image"])
        off = jax.vmap(model)(images) - images.mean(axis=(1, 2, 3))
        return jnp.mean(off**2), {"bias": jnp.mean(off)}

    def evaluate(self, model, views):
        images = normalize(views)
        return {"error": float(jnp.mean((jax.vmap(model)(images) - images.mean(axis=(1, 2, 3))) ** 2))}

    def picture(self, models, views, path):
        pictures.save(pictures.grid({title: jax.device_get(views[:3]) for title in models}, {}), path)
'''
METHOD = '''
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr

from weight_templates.baselines.base import FromNothing, Made


@dataclasses.dataclass(frozen=True)
class Halves(FromNothing):
    """All weights are a half."""

    name: ClassVar[str] = "halves"

    def make(self, source, target, run):
        return Made(jax.tree.map(lambda x: jnp.full_like(x, 0.5), target.create(key=jr.key(self.seed))))
'''


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A file of each, registered as CONTRIBUTING says."""
    for name, text in (("family", FAMILY), ("backbone", BACKBONE), ("task", TASK), ("method", METHOD)):
        (tmp_path / f"extending_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    modules = {name: importlib.import_module(f"extending_{name}") for name in ("family", "backbone", "task", "method")}
    monkeypatch.setitem(wt.FAMILIES, "shared", modules["family"].Shared)
    monkeypatch.setitem(helpers.CONSTRAINTS, "shared", modules["family"].Shared())
    monkeypatch.setitem(config.BACKBONES, "perceptron", modules["backbone"].PerceptronConfig)
    monkeypatch.setitem(helpers.BACKBONES, "perceptron", modules["backbone"].PerceptronConfig())
    entry = TaskEntry("extending_task:Brightness", "extending_task:Shade", ())
    monkeypatch.setitem(config.TASKS, "brightness", entry)
    monkeypatch.setitem(helpers.TASKS, "brightness", modules["task"].Brightness())
    monkeypatch.setitem(baselines.METHODS, "halves", "extending_method:Halves")
    yield modules
    for name in modules:
        sys.modules.pop(f"extending_{name}", None)


def test_a_family(written, key):
    """The laws of constraints and, on a network, masked ≡ sliced and the bank's round trip."""
    constraint = helpers.CONSTRAINTS["shared"]
    shape = test_constraints.SHAPE
    factors = constraint.init(shape, key=key)
    full = np.asarray(constraint.expand(factors, shape))
    np.testing.assert_allclose(full[3], factors.scalers["slice"][3] * np.asarray(factors.template["one"]), rtol=1e-6)
    test_constraints.test_mask_is_zero_beyond_the_prefix_for_every_width("shared", shape, key)
    with jax.enable_x64(True):
        small = dataclasses.replace(helpers.ENHANCED, depth=1)
        test_sites.test_masked_equals_sliced("shared", "unified", small, None)


def test_a_backbone(written, tmp_path):
    own = helpers.BACKBONES["perceptron"]
    test_sites.test_round_trip(own, "components")
    with jax.enable_x64(True):
        test_sites.test_masked_equals_sliced("tucker", "unified", own, None)
    test_sites.test_a_bank_comes_back("kronecker", "unified", own, tmp_path)


def test_a_task(written, tmp_path):
    test_tasks.test_loss_is_finite_and_differentiable_and_reports_its_terms("brightness")
    test_tasks.test_the_loss_of_a_batch_is_the_mean_of_its_samples("brightness")
    test_tasks.test_killed_and_resumed_is_the_straight_run_to_the_bit("brightness", tmp_path)


def test_a_baseline(written, tmp_path):
    asked = baseline.method("halves", depth=1, heads=2, run=RunOptions(root=str(tmp_path)))
    asked = dataclasses.replace(asked, model=helpers.ENHANCED)
    found = wt.load_model(baseline.main(asked)).model
    assert found.config == helpers.ENHANCED.resized(1, 2)
    assert all((jnp.asarray(leaf) == 0.5).all() for leaf in trees.named_arrays(found).values())
