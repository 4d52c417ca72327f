"""A backbone under a constraint.

    Constrained                          ViT
    ├── factors {group: Factors}   ──►   ├── blocks: the governed weights   (expand, then unfold)
    ├── free    a ViT with None    ──►   └── everything else, as it is
    │           at the governed leaves
    ├── constraint                 how weights follow from factors
    └── layout                     where they go

The parameterisation sits at the root of the backbone because one template is shared by all of its layers, and Equinox
modules are trees. What holds the backbone (an auto-encoder, a classifier) holds a `Constrained` in its parameters, and
`materialize` puts the plain backbone there, once per loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from . import trees
from .config import Application, Scope, ViTConfig
from .constraints import AbstractConstraint, Factors
from .errors import UserError
from .layouts import AbstractLayout, governed, shapes, slices_of
from .models import ViT
from .nn import AbstractNorm


WORTH = 0.5
"""Share of the multiplications below which factors are applied: their products are small and bound by memory, so that a step
takes as long both ways at a share well below one. `benchmarks/growth.py` times both ways at several ranks."""


class Widths(NamedTuple):
    """How much of the width takes part, in heads; may be traced."""

    rows: Int[Array, ""] | int
    """Heads and their share of hidden units."""
    cols: Int[Array, ""] | int
    """Residual channels, in units of the channels that go with one head."""


class Constrained(eqx.Module):
    """A backbone whose governed weights are expanded from factors; see this module's docstring."""

    factors: dict[str, Factors]
    free: ViT
    constraint: AbstractConstraint
    layout: AbstractLayout

    @property
    def config(self) -> ViTConfig:
        """The backbone's configuration."""
        return self.free.config


def constrain(
    config: ViTConfig, constraint: AbstractConstraint, layout: AbstractLayout, *, key: PRNGKeyArray
) -> Constrained:
    """A randomly initialised backbone under a constraint.

    Raises UserError where the configuration makes no network, or the constraint does not fit it.
    """
    fkey, vkey = jr.split(key)
    stacks = shapes(layout, config)
    keys = jr.split(fkey, len(stacks))
    factors = {g: constraint.init(s, key=k) for (g, s), k in zip(stacks.items(), keys, strict=True)}
    return Constrained(factors, _without_governed(ViT(config, key=vkey)), constraint, layout)


@jax.named_scope("expand")
def expand(
    constrained: Constrained, widths: Widths | None = None, scope: Scope = "submodel", factored: bool = False
) -> ViT:
    """The plain backbone that a constrained one stands for.

    **Arguments:**

    - `widths`: the part of the width that takes part; None for all of it.
    - `scope`: what the masks of `widths` reach. `submodel`: all that the narrower model lacks, and the norms' statistics
        cover the kept channels only, so that the result computes what the sliced model does, at static shapes.
        `scalers`: the governed weights only (SWEET Eq. 7-8 to the letter).
    - `factored`: leave the governed weights as `Factored`, to be applied factor by factor; see `is_cheaper_factored`.
    """
    config, constraint, layout = constrained.config, constrained.constraint, constrained.layout
    factors, free, sizes = constrained.factors, constrained.free, shapes(layout, config)
    if widths is not None:
        inner, cols = widths.rows * config.head_dim, widths.cols * config.channels_per_head
        rows = layout.rows(config.dress, inner)
        factors = {group: constraint.mask(f, sizes[group], rows[group], cols) for group, f in factors.items()}
        if scope == "submodel":
            free = _masked(free, {"inner": inner, "third": inner // 3, "width": cols})
    if factored:
        cores: Any = {group: constraint.cores(f, sizes[group]) for group, f in factors.items()}
        leaves = layout.unfold_factored(cores, config.dress)
    else:
        stacks = {group: constraint.expand(f, sizes[group]) for group, f in factors.items()}
        leaves = layout.unfold(stacks, config.dress)
    return eqx.tree_at(lambda vit: governed(vit.blocks), free, leaves, is_leaf=lambda x: x is None)


def factoring(application: Application, constrained: Constrained, tokens: int) -> Callable[[Constrained], bool]:
    """Of a backbone, or a narrower one, whether a step on so many tokens applies its weights factor by factor.

    Raises UserError if that is asked for where the family has no such form.
    """
    if application == "factored" and not _has_cores(constrained):
        raise UserError(
            "--application factored needs a family whose weights have factors to apply; say --constraint tucker."
        )
    return lambda c: application == "factored" or (application == "auto" and is_cheaper_factored(c, tokens))


def _has_cores(constrained: Constrained) -> bool:
    sizes = shapes(constrained.layout, constrained.config)
    return all(constrained.constraint.cores(f, sizes[group]) is not None for group, f in constrained.factors.items())


def is_cheaper_factored(constrained: Constrained, tokens: int) -> bool:
    """Whether the factors are applied to so many tokens where `--application auto` decides: see `WORTH`."""
    return _has_cores(constrained) and factored_share(constrained, tokens) < WORTH


def factored_share(constrained: Constrained, tokens: int) -> float:
    """Multiplications of applying the factors to so many tokens, over those of multiplying them out first and applying the
    result; counted from shapes, for families whose weights have such factors.

    **Arguments:**

    - `tokens`: of a step on one device, over all its micro-batches, since weights are multiplied out once a step.
    """
    sizes = shapes(constrained.layout, constrained.config)
    lazy, full = eqx.filter_eval_shape(
        lambda c: (governed(expand(c, factored=True).blocks), governed(expand(c).blocks)), constrained
    )
    once = [constrained.constraint.multiplications(f, sizes[group]) for group, f in constrained.factors.items()]
    expanding, mixing = map(sum, zip(*once, strict=True))
    factored = mixing + sum(leaf.products for leaf in lazy) * tokens
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


def select(constrained: Constrained, config: ViTConfig, layers: list[int]) -> Constrained:
    """The constrained backbone of another size: given layers, first heads, first residual channels.

    The template and everything else that does not follow the size is shared with the source. Its expansion is, to the
    last bit or nearly, the corresponding part of the source's. Layers may come in any order and number; where `config`
    is wider than the source, scalers and free leaves are repeated.
    """
    constraint, layout = constrained.constraint, constrained.layout
    slices = slices_of(layout, config.dress, layers)
    factors = {
        group: constraint.select(constrained.factors[group], shape, slices[group])
        for group, shape in shapes(layout, config).items()
    }
    arrays = resized(constrained.free, config)
    for name, names in trees.axes(constrained.free).items():
        if names[0] == "layer":
            arrays[name] = arrays[name][jnp.array(layers)]
    skeleton = _without_governed(eqx.filter_eval_shape(ViT, config, key=jr.key(0)))
    return Constrained(factors, trees.with_arrays(skeleton, arrays), constraint, layout)


def resized(vit: ViT, config: ViTConfig) -> dict[str, Array]:
    """The arrays of a backbone by name, at the width of `config`: the first ones along every axis that follows it, over
    and over where there are fewer."""
    sizes = {"inner": config.inner, "third": config.inner // 3, "width": config.channels}
    names = trees.axes(vit)
    return {name: trees.resized(array, names[name], sizes) for name, array in trees.named_arrays(vit).items()}


def blend(low: Constrained, high: Constrained, share: Float[np.ndarray, " layer"]) -> Constrained:
    """Layer by layer, `low` and `high` in the proportion 1 - share to share; two selections of one backbone.

    All weights are linear in what is blended: the scalers of the slices, and the free leaves that belong to a layer.
    """

    def between(a: Array, b: Array) -> Array:
        t = jnp.asarray(np.repeat(share, len(a) // len(share)), a.dtype).reshape(-1, *[1] * (a.ndim - 1))
        return (1 - t) * a + t * b

    factors = {
        group: Factors(
            f.template, f.scalers | {"slice": between(f.scalers["slice"], high.factors[group].scalers["slice"])}
        )
        for group, f in low.factors.items()
    }
    arrays, others = trees.named_arrays(low.free), trees.named_arrays(high.free)
    for name, names in trees.axes(low.free).items():
        if names[0] == "layer":
            arrays[name] = between(arrays[name], others[name])
    return Constrained(factors, trees.with_arrays(low.free, arrays), low.constraint, low.layout)


def _without_governed(vit: ViT) -> ViT:
    return eqx.tree_at(lambda v: governed(v.blocks), vit, (None,) * 4)


def _masked(vit: ViT, sizes: dict[str, Int[Array, ""] | int]) -> ViT:
    arrays = trees.named_arrays(vit)
    for name, names in trees.axes(vit).items():
        arrays[name] = trees.prefix_mask(arrays[name], names, sizes)

    def count_kept(norm: AbstractNorm) -> AbstractNorm:
        kept = jnp.broadcast_to(jnp.asarray(sizes["width"]), norm.gain.shape[:-1])
        return eqx.tree_at(lambda n: n.kept, norm, kept, is_leaf=lambda x: x is None)

    return jax.tree.map(
        lambda node: count_kept(node) if isinstance(node, AbstractNorm) else node,
        trees.with_arrays(vit, arrays),
        is_leaf=lambda node: isinstance(node, AbstractNorm),
    )
