"""What several tests need: every family, small networks, and images on the disk."""

import dataclasses
import functools
import io
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

import weight_templates as wt
from weight_templates import bank, cli, config, naming, trees
from weight_templates.baselines.learngene import Distillation, distillation
from weight_templates.config import RecipeOptions
from weight_templates.constrained import constrain
from weight_templates.tasks.classify import Classify
from weight_templates.tasks.distil import Distil
from weight_templates.tasks.features import Features, Pair
from weight_templates.tasks.masked import Masked

from .staged import StagedConfig


CONSTRAINTS = {
    "none": wt.Unconstrained(),
    "linear": wt.Linear(rank=3),
    "kronecker": wt.Kronecker(templates=4, tile=(5, 8)),  # neither divides the widths below
    "svd": wt.Svd(rank=7),
    "tucker": wt.Tucker(ranks=(5, 6, 7)),
}
GOLDEN = Path(__file__).parent / "golden"
"""Files that other libraries wrote, and what these make of them."""
ENHANCED = wt.ViTConfig(image=16, patch=4, depth=3, heads=4, head_dim=4)
PLAIN = dataclasses.replace(ENHANCED, dress="plain")
WIDE = dataclasses.replace(ENHANCED, width=24)  # residual width and inner width differ
CONFIGS = {
    "enhanced": ENHANCED,
    "plain": PLAIN,
    "wide": WIDE,
    "wide-plain": dataclasses.replace(WIDE, dress="plain"),
}
BACKBONES = {
    "enhanced": ENHANCED,
    "wide-plain": CONFIGS["wide-plain"],
    "convnext": wt.ConvNextConfig(image=16, patch=4, depth=2, heads=4, head_dim=4, kernel=3),
    "staged": StagedConfig(),
}
"""A small configuration of every backbone, and of a network in stages that the tests alone know."""
config.BACKBONES["staged"] = StagedConfig
DECODER = wt.DecoderConfig(depth=1, width=16, heads=2)


def mae(config, family="tucker", layout="unified", *, key):
    """A small auto-encoder under a constraint: one, or the name of a family at its default ranks."""
    constraint = wt.FAMILIES[family]() if isinstance(family, str) else family
    return bank.build(config, constraint, layout, "masked", dataclasses.asdict(DECODER), key=key)


def vit(config, seed=0):
    """A random backbone, its biases and gains random, too."""
    return scrambled(wt.ViT(config, key=jr.key(seed)), jr.key(seed + 1))


@functools.cache
def model_of(config=PLAIN, pool=None, classes=5, seed=0):
    """A model whose every number is random, gains around 1; with a head if there is a pool."""
    rng = np.random.default_rng(seed)
    shapes = naming.skeleton(config, 0 if pool is None else classes, pool)
    arrays = {
        name: jnp.asarray(rng.normal(name.endswith("gain"), 0.2, leaf.shape), jnp.float32)
        for name, leaf in trees.named_arrays(shapes).items()
    }
    return trees.with_arrays(shapes, arrays)


def same(one, two):
    """Two models in every bit, and in their configuration."""
    return bool(eqx.tree_equal(one, two))


def scrambled(tree, key):
    """The same tree with all zeros and ones among its leaves replaced by noise: biases and gains that matter."""
    import equinox as eqx
    import jax

    leaves, treedef = jax.tree.flatten(tree)
    keys = jr.split(key, len(leaves))
    noisy = [
        leaf + 0.1 * jr.normal(k, leaf.shape, leaf.dtype) if eqx.is_inexact_array(leaf) else leaf
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(treedef, noisy)


def jpeg(rng, height=20, width=24, quality=90):
    """The bytes of a random smooth JPEG."""
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def image_folder(root, rng, classes=("cat", "dog"), count=6, **size):
    """An ImageNet-like folder: root/train/<class>/<n>.jpg."""
    for name in classes:
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{i}.jpg").write_bytes(jpeg(rng, **size))
    return root


def parquet(path, contents, labels=None, names=None, column="image"):
    """A Parquet file in the Hugging Face image layout."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": content, "path": f"{i}.jpg"} for i, content in enumerate(contents)]
    columns = {column: pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def refused(capsys, call):
    """Calls a command with a mistake; returns the one sentence that it must answer with."""
    with pytest.raises(SystemExit) as stop:
        cli.run(call)
    assert stop.value.code == 2
    heard = capsys.readouterr().err
    sentences = [line for line in heard.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    assert heard.endswith(sentences[0] + "\n")
    assert "Traceback" not in heard
    return sentences[0]


TASKS = {
    "masked": Masked(DECODER),
    "classify": Classify(RecipeOptions(drop_path=0.3, randaugment=3.0, erasing=0.5)),
    "features": Features(),
    "distil": Distil(Classify(RecipeOptions()), distillation(RecipeOptions())),
}
"""Every task, small. The laws run over all of them, in `tests/test_tasks.py`."""


def model_for(task, config, *, key, constraint=None):
    """A model that a task trains, around a random backbone, constrained if a constraint is given."""
    bkey, hkey, tkey = jr.split(key, 3)
    backbone = config.create(key=bkey) if constraint is None else constrain(config, constraint, "unified", key=bkey)
    classes = ("a", "b", "c")
    if isinstance(task, Features):
        return Pair(backbone, config.create(key=tkey), key=hkey)
    model = task.attach(backbone, classes, key=hkey)
    return (
        Distillation(model, task.attach(config.create(key=tkey), classes, key=hkey))
        if isinstance(task, Distil)
        else model
    )
