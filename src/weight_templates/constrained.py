"""A backbone under a constraint: the part of a model that pre-training replaces.

    Constrained                              backbone
    ├── templates {group: arrays}   ┐
    ├── scalers   {stack: arrays}   ┴──►   ├── the governed leaves   (expand, then unfold)
    ├── free      the backbone with None
    │             at its governed leaves ──► └── everything else, as it is
    ├── constraint                  how weights follow from factors
    └── layout                      which stacks share a template (see `sites`)

The parameterisation sits at the root of the backbone because one template is shared by all of its layers, and Equinox
modules are trees. A model that holds the backbone, at `.backbone`, holds a `Constrained` in its parameters, and
`materialize` puts the plain backbone there, once per loss.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from . import trees
from .config import Application, BackboneConfig, Scope, Widths
from .constraints import AbstractConstraint, Arrays, Factors
from .errors import UserError
from .models import AbstractBackbone, place_of
from .nn import AbstractNorm
from .sites import Layout, Stack, governed, skeleton, stacks, without_governed


WORTH = 0.5
"""Share of the multiplications below which factors are applied: their products are small and bound by memory, so that a step
takes as long both ways at a share well below one. `benchmarks/growth.py` times both ways at several ranks."""

Layers = Sequence[Sequence[int] | Int[np.ndarray, "..."]]
"""Layers of a source by stage, those that the layers of a target are made of."""


class Constrained(eqx.Module):
    """A backbone whose governed weights are expanded from factors; see this module's docstring."""

    templates: dict[str, Arrays]
    scalers: dict[str, Arrays]
    free: AbstractBackbone
    constraint: AbstractConstraint
    layout: Layout = eqx.field(static=True)

    @property
    def config(self) -> BackboneConfig:
        """The backbone's configuration."""
        return self.free.config

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks of its governed weights."""
        return stacks(self.config, self.layout)

    def factors(self, stack: Stack) -> Factors:
        """What one stack is expanded from."""
        return Factors(self.templates[stack.group], self.scalers[stack.name])


def constrain(
    config: BackboneConfig, constraint: AbstractConstraint, layout: Layout, *, key: PRNGKeyArray
) -> Constrained:
    """A randomly initialised backbone under a constraint.

    A template that several stacks share is made for the largest of them. Raises UserError where the configuration makes
    no network, or the constraint does not fit it.
    """
    config.check()
    fkey, vkey = jr.split(key)
    where = stacks(config, layout)
    keys = [jr.split(k) for k in jr.split(fkey, len(where))]  # of a template, and of scalers
    templates: dict[str, Arrays] = {}
    for (tkey, _), stack in zip(keys, where, strict=True):
        shapes = [other.shape(config) for other in where if other.group == stack.group]
        if not constraint.sizeless and len({shape[1:3] for shape in shapes}) > 1:
            raise UserError(
                f"{type(constraint).__name__.lower()} templates are of one width, but the stages of this network have several "
                f"in the group {stack.group!r}; choose kronecker or tucker, whose templates fit any width."
            )
        if stack.group not in templates:
            largest = max(shapes, key=lambda shape: (shape.rows * shape.cols, shape.slices))
            templates[stack.group] = constraint.template(largest, key=tkey)
    scalers = {
        stack.name: constraint.scalers(templates[stack.group], stack.shape(config), key=skey)
        for (_, skey), stack in zip(keys, where, strict=True)
    }
    return Constrained(templates, scalers, without_governed(config.create(key=vkey)), constraint, layout)


@jax.named_scope("expand")
def expand(
    constrained: Constrained, widths: Widths | None = None, scope: Scope = "submodel", factored: bool = False
) -> AbstractBackbone:
    """The plain backbone that a constrained one stands for.

    **Arguments:**

    - `widths`: the part of the width that takes part; None for all of it.
    - `scope`: what the masks of `widths` reach. `submodel`: all that the narrower model lacks, and the norms' statistics
        cover the kept channels only, so that the result computes what the sliced model does, at static shapes.
        `scalers`: the governed weights only (SWEET Eq. 7-8 to the letter).
    - `factored`: leave the governed weights as `Factored`, to be applied factor by factor; see `is_cheaper_factored`.
    """
    config, constraint, free = constrained.config, constrained.constraint, constrained.free
    kept = config.axes(widths)
    if widths is not None and scope == "submodel":
        free = _masked(free, kept)
    leaves: dict[str, Any] = {}
    for stack in constrained.stacks:
        factors, shape = constrained.factors(stack), stack.shape(config)
        if widths is not None:
            factors = constraint.mask(factors, shape, kept[stack.row], kept[stack.col])
        if factored and (cores := constraint.cores(factors, shape)) is not None:
            leaves |= stack.unfold_factored(*cores)
        else:
            leaves |= stack.unfold(constraint.expand(factors, shape))
    return trees.put(free, leaves)


def factoring(application: Application, constrained: Constrained, tokens: int) -> Callable[[Constrained], bool]:
    """Returns whether a step on so many tokens applies weights factor by factor, given the backbone or a narrower one.

    Raises UserError if that is asked for where the family has no such form.
    """
    if application == "factored" and not _has_cores(constrained):
        raise UserError(
            "--application factored needs a family whose weights have factors to apply; say --constraint tucker."
        )
    return lambda c: application == "factored" or (application == "auto" and is_cheaper_factored(c, tokens))


def _has_cores(constrained: Constrained) -> bool:
    constraint, config = constrained.constraint, constrained.config
    return all(
        constraint.cores(constrained.factors(stack), stack.shape(config)) is not None for stack in constrained.stacks
    )


def is_cheaper_factored(constrained: Constrained, tokens: int) -> bool:
    """Whether the factors are applied to so many tokens where `--application auto` decides: see `WORTH`."""
    return _has_cores(constrained) and factored_share(constrained, tokens) < WORTH


def factored_share(constrained: Constrained, tokens: int) -> float:
    """Multiplications of applying the factors to so many tokens, over those of multiplying them out first and applying the
    result; counted from shapes, for families whose weights have such factors.

    **Arguments:**

    - `tokens`: of a step on one device, over all its micro-batches, since weights are multiplied out once a step.
    """
    lazy, full = eqx.filter_eval_shape(lambda c: (governed(expand(c, factored=True)), governed(expand(c))), constrained)
    config, constraint = constrained.config, constrained.constraint
    once = [constraint.multiplications(constrained.factors(s), s.shape(config)) for s in constrained.stacks]
    expanding, mixing = map(sum, zip(*once, strict=True))
    factored = mixing + sum(leaf.products for leaf in lazy.values()) * tokens
    return factored / (expanding + trees.count(full) * tokens)


def materialize(
    tree: PyTree,
    widths: Widths | None = None,
    scope: Scope = "submodel",
    factored: Callable[[Constrained], bool] = lambda constrained: False,
) -> PyTree:
    """`tree` with every constrained backbone in it expanded; see `expand`. Other trees are returned as they are."""
    return jax.tree.map(
        lambda node: expand(node, widths, scope, factored(node)) if isinstance(node, Constrained) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Constrained),
    )


def select(constrained: Constrained, config: BackboneConfig, layers: Layers) -> Constrained:
    """The constrained backbone of another size: given layers, first heads, first residual channels.

    The template and everything else that does not follow the size is shared with the source. Its expansion is, to the
    last bit or nearly, the corresponding part of the source's. Layers may come in any order and number; where `config`
    is wider than the source, scalers and free leaves are repeated.
    """
    constraint, where = constrained.constraint, stacks(config, constrained.layout)
    factors = {
        stack: constraint.select(constrained.factors(stack), stack.shape(config), stack.slices_of(layers[stack.stage]))
        for stack in where
    }
    arrays = resized(constrained.free, config)
    for name, names in trees.axes(constrained.free).items():
        if names[:1] == ("layer",) and (stage := place_of(constrained.free, name)) is not None:
            arrays[name] = arrays[name][jnp.asarray(np.asarray(layers[stage]))]
    return Constrained(
        {stack.group: f.template for stack, f in factors.items()},
        {stack.name: f.scalers for stack, f in factors.items()},
        trees.with_arrays(without_governed(skeleton(config)), arrays),
        constraint,
        constrained.layout,
    )


def resized(backbone: AbstractBackbone, config: BackboneConfig) -> dict[str, Array]:
    """The arrays of a backbone by name, at the width of `config`: the first ones along every axis that follows it, over
    and over where there are fewer."""
    sizes, names = config.axes(), trees.axes(backbone)
    return {name: trees.resized(array, names[name], sizes) for name, array in trees.named_arrays(backbone).items()}


def with_backbone(model: PyTree, backbone: Any) -> PyTree:
    """A model around a backbone of another size, at `.backbone`: what reads its features reads as many as there are."""
    around = trees.put(model, {"backbone": None})
    sizes = {f"backbone.{axis}": size for axis, size in backbone.config.axes().items()}  # see `nn.Linear`
    names = trees.axes(around)
    changed = {
        name: trees.resized(array, names[name], sizes)
        for name, array in trees.named_arrays(around).items()
        if any(axis in sizes for axis in names[name])
    }
    return trees.put(model, {"backbone": backbone} | changed)


def blend(low: Constrained, high: Constrained, share: Sequence[Float[np.ndarray, "..."]]) -> Constrained:
    """Layer by layer, `low` and `high` in the proportion 1 - share to share; two selections of one backbone.

    All weights are linear in what is blended: the scalers of the slices, and the free leaves that belong to a layer.

    **Arguments:**

    - `share`: in [0, 1], for each stage and layer.
    """

    def between(a: Array, b: Array, stage: int) -> Array:
        t = np.repeat(share[stage], len(a) // len(share[stage]))
        t = jnp.asarray(t, a.dtype).reshape(-1, *[1] * (a.ndim - 1))
        return (1 - t) * a + t * b

    scalers = {
        stack.name: low.scalers[stack.name]
        | {"slice": between(low.scalers[stack.name]["slice"], high.scalers[stack.name]["slice"], stack.stage)}
        for stack in low.stacks
    }
    arrays, others = trees.named_arrays(low.free), trees.named_arrays(high.free)
    for name, names in trees.axes(low.free).items():
        if names[:1] == ("layer",) and (stage := place_of(low.free, name)) is not None:
            arrays[name] = between(arrays[name], others[name], stage)
    return Constrained(low.templates, scalers, trees.with_arrays(low.free, arrays), low.constraint, low.layout)


def trainable(tree: PyTree) -> PyTree:
    """True at the leaves that training moves: all floating-point arrays but constants, as tables of positions are, and the
    scalers of a constraint whose scalers follow from the shape."""

    marks = trees.variables(tree)
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, Constrained)):
        if isinstance(node, Constrained) and node.constraint.fixed:
            name = f"{trees.name_of(path)}.scalers".lstrip(".")
            marks = trees.put(marks, {name: jax.tree.map(lambda _: False, node.scalers)})
    return marks


def part_of(name: str) -> str:
    """What a trained leaf is a part of, by its name: `template`, a scaler such as `slice`, what is `free`, a plain
    `backbone`, or the `head` around it."""
    inside = f".{name}".partition(".backbone.")[2].split(".")
    if inside[0] == "templates":
        return "template"
    return (
        inside[-1] if inside[0] == "scalers" else "free" if inside[0] == "free" else "backbone" if inside[0] else "head"
    )


def _masked(backbone: AbstractBackbone, kept: dict[str, Int[Array, ""] | int]) -> AbstractBackbone:
    """The backbone with zeros beyond the first `kept` entries along every axis, and norms over these alone."""
    arrays, names = trees.named_arrays(backbone), trees.axes(backbone)
    for name, axes in names.items():
        arrays[name] = trees.prefix_mask(arrays[name], axes, kept)
    backbone = trees.with_arrays(backbone, arrays)
    counts = {}
    for path, norm in jax.tree_util.tree_leaves_with_path(
        backbone, is_leaf=lambda node: isinstance(node, AbstractNorm)
    ):
        if isinstance(norm, AbstractNorm):
            name = trees.name_of(path)
            counts[f"{name}.kept"] = jnp.broadcast_to(
                jnp.asarray(kept[names[f"{name}.gain"][-1]]), norm.gain.shape[:-1]
            )
    return trees.put(backbone, counts)
