"""No random number is drawn twice: what the code says, and what augmentation does."""

import ast
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import weight_templates as wt
from weight_templates.config import RecipeOptions
from weight_templates.tasks import classify

from .helpers import ENHANCED


ROOT = Path(__file__).parent.parent
FILES = sorted(path for top in ("src", "experiments", "ablations") for path in (ROOT / top).rglob("*.py"))
WAYS = ("split", "fold_in")


def split_and_folded(source):
    """The keys that a function both splits and folds a number into, with the lines.

    Either way alone gives other keys each time; but `fold_in(key, 1)` is `split(key)[1]`. A lambda belongs to the function
    around it: in `jax.vmap(lambda k: jr.split(k))(keys)` it is `keys` that are split.
    """
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.Module):
            ways = {what: [(key, line) for way, key, line in uses(function, {}) if way == what] for what in WAYS}
            found += [(one, other) for one in ways["split"] for other in ways["fold_in"] if meet(one[0], other[0])]
    return found


def uses(node, names):
    """The splits and folds in a function, as (which, key, line); `names` tells what parameters of lambdas stand for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            continue
        inner = names
        if isinstance(child, ast.Call):
            name = ast.unparse(child.func).rpartition(".")
            if name[0] in ("jr", "jax.random") and name[2] in WAYS and child.args:
                yield name[2], places(child.args[0], names), child.lineno
            functions = [part for part in ast.walk(child.func) if isinstance(part, ast.Lambda)]
            if functions:
                inner = names | {a.arg: v for a, v in zip(functions[0].args.args, child.args, strict=False)}
        yield from uses(child, inner)


def places(key, names):
    """A key as the name of a variable or the text of a call, and which of several keys it is, None for all or any."""
    if isinstance(key, ast.Name) and key.id in names:
        return places(names[key.id], {k: v for k, v in names.items() if k != key.id})[0], None
    if isinstance(key, ast.Subscript) and isinstance(key.slice, ast.Constant):
        return ast.unparse(key.value), key.slice.value
    return ast.unparse(key.value if isinstance(key, ast.Subscript) else key), None


def meet(one, other):
    """Whether two keys may be the same."""
    return one[0] == other[0] and (one[1] == other[1] or None in (one[1], other[1]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_key_is_split_and_folded(path):
    assert not split_and_folded(path.read_text())


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("a, b = jr.split(key)\n    return g(a, jr.fold_in(key, 1))", True),
        ("return jax.random.split(keys[0], 3), jax.random.fold_in(keys[0], 1)", True),
        ("a = jax.vmap(lambda key: jr.split(key, 3))(keys)\n    return g(a, jr.fold_in(keys[0], 1))", True),
        ("return jr.split(jr.key(seed)), jr.fold_in(jr.key(seed), 3)", True),
        ("a, b = jr.split(key)\n    return g(a, jr.fold_in(b, 1))", False),
        ("return jr.split(jr.fold_in(key, 2)), jr.fold_in(key, 1)", False),
        ("return jr.split(keys[0]), jr.fold_in(keys[1], 1)", False),
        ("def g(key):\n        return jr.split(key)\n    return jr.fold_in(key, 1)", False),
    ],
)
def test_the_search_finds_what_it_is_for(body, wrong):
    """The third is the fault that this was written for."""
    assert bool(split_and_folded(f"def f(key, keys, seed):\n    {body}\n")) == wrong


def test_fold_in_is_split():
    """Why the two must not meet: JAX's default generator gives one and the same key."""
    key = jr.key(7)
    for i in range(3):
        assert (jr.key_data(jr.fold_in(key, i)) == jr.key_data(jr.split(key, 3)[i])).all()


def test_streams_share_no_key():
    keys = jr.split(jr.key(0), 50)
    streams = np.array([jr.key_data(jr.split(key, len(classify.Streams._fields))) for key in keys]).reshape(-1, 2)
    assert len(np.unique(np.concatenate([streams, jr.key_data(keys)]), axis=0)) == 5 * 50


def test_cutting_does_not_depend_on_erasing():
    """Of 2000 batches, those with an erased image are cut as often as the others.

    Images are of one colour each: pixels of another are noise, or blended. Erasing has half of the images, cutting half
    of the batches.
    """
    recipe = RecipeOptions(erasing=0.5, mixup=1.0, cutmix=1.0, smoothing=0.0)
    model = wt.Classifier(wt.ViT(dataclasses.replace(ENHANCED, image=8, depth=1), key=jr.key(0)), 2, key=jr.key(1))
    colours = jnp.array([0, 255], jnp.uint8)
    batch = {"image": jnp.broadcast_to(colours[:, None, None, None], (2, 8, 8, 3)), "label": jnp.array([0, 1])}
    plain = dataclasses.replace(recipe, mixup=0.0, cutmix=0.0)

    @jax.jit
    @jax.vmap
    def drawn(key):
        keys = jr.split(key, 2)
        _, _, erased = classify.forward(plain, model, batch, keys)
        _, _, mixed = classify.forward(recipe, model, batch, keys)
        black, white = (classify.normalize(batch["image"])[i, 0, 0, 0] for i in range(2))
        # A pixel that is neither erased nor mixed has one of the two colours exactly.
        kept = (mixed[..., 0] == erased[..., 0]) | (mixed[..., 0] == erased[::-1, ..., 0])
        return jnp.any(erased[0, ..., 0] != black), jnp.all(kept), jnp.any(erased[1, ..., 0] != white)

    first, cut, second = (np.asarray(x) for x in drawn(jr.split(jr.key(2), 2000)))
    for erased in (first, second):
        assert 0.45 < erased.mean() < 0.55
        assert 0.45 < cut.mean() < 0.55
        assert abs(cut[erased].mean() - cut[~erased].mean()) < 4 * np.sqrt(0.25 / 1000 * 2)
