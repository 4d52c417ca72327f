"""What a backbone is to the constraint engine, and how to add one.

A backbone is an Equinox module whose weights lie in *stacked* blocks: one module whose arrays have a leading axis of
layers, or several such modules, the stages. A leaf that a constraint may govern is annotated `"*slices row col *tap"`:
`row` (internal: heads, hidden units) and `col` (residual channels) are two axes whose sizes `config.axes` gives; what
stands in front counts slices, what trails are a kernel's taps. In every array the first entries along such an axis are
the narrower network. Norms are `nn.AbstractNorm`, so that they can leave out the channels that a narrower network lacks.

To add one: a configuration with the members of `config.BackboneConfig`, this module's three methods, and its name in
`config.BACKBONES`. `tests/helpers.py` then runs the laws on it.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from .. import trees
from ..config import BackboneConfig, depths


class Multiplications(NamedTuple):
    """Multiplications of a forward pass on one input."""

    affine: int
    """In affine maps and convolutions."""
    attention: int
    """In the two products of attention."""


class AbstractBackbone(eqx.Module):
    """An image (or other input) to features, at any depth and width."""

    config: eqx.AbstractVar[BackboneConfig]

    @property
    @abc.abstractmethod
    def stages(self) -> tuple[str, ...]:
        """Names of the stacked modules, in order: as many as `config.depth` has numbers."""

    @abc.abstractmethod
    def governed(self) -> dict[str, str]:
        """The leaves that a constraint may govern, and the component that each is of, such as `qkv`.

        The order is that of the slices in a stack.
        """

    @abc.abstractmethod
    def multiplications(self, patches: int | None = None) -> Multiplications:
        """What one input costs.

        **Arguments:**

        - `patches`: how many are looked at, where the network can leave some out; None for all.
        """

    @abc.abstractmethod
    def pooled(self, image: Any, pool: Any, gates: Any = None) -> Any:
        """The normalised vector of features that a linear head sees.

        **Arguments:**

        - `image`: one input.
        - `pool`: how positions are brought together; the backbone says what it knows.
        - `gates`: what the branches of every block are multiplied with, for stochastic depth; None: with 1.
        """


class AbstractHead(eqx.Module):
    """A model around a backbone: what a task trains.

    `backbone` is a plain backbone, or, while its templates are learned, a `Constrained` in the parameters and a plain
    backbone in the computation.
    """

    backbone: eqx.AbstractVar[Any]

    @property
    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """What a file has to tell to make the model again around its backbone: JSON."""

    @classmethod
    @abc.abstractmethod
    def around(cls, backbone: Any, options: dict[str, Any], *, key: PRNGKeyArray) -> "AbstractHead":
        """A random model of these `options`; the converse. Raises UserError where they do not fit the backbone."""


class Bare(AbstractHead):
    """A backbone with nothing around it, where a bank was made without a task."""

    backbone: Any

    @property
    def options(self) -> dict[str, Any]:
        return {}

    @classmethod
    def around(cls, backbone: Any, options: dict[str, Any], *, key: PRNGKeyArray) -> "Bare":
        return cls(backbone, **options)


def place_of(backbone: AbstractBackbone, leaf: str) -> int | None:
    """The number of the stage that a leaf belongs to by its name; None for one outside the stages."""
    return next((i for i, stage in enumerate(backbone.stages) if leaf.startswith(f"{stage}.")), None)


def layer_scales(model: PyTree, decay: float) -> PyTree:
    """The learning rate of every leaf over that of the head (layer-wise decay; Clark et al., 2020; Bao et al., 2022).

    What lies before the first block has decay^(L + 1), block i of L = 1 … L, counted over all stages, decay^(L + 1 - i),
    what lies between two stages the rate of the block before it, what lies behind the last block and around the backbone
    1. Leaves of stacked blocks get one number a layer.

    **Arguments:**

    - `model`: holds a plain backbone at `.backbone`, whose fields are in the order in which they are used.
    """
    backbone = model.backbone
    counts = depths(backbone.config)
    total, begun, scales = sum(counts), 0, {}
    for name, leaf in trees.named_arrays(backbone).items():
        stage = place_of(backbone, name)
        if stage is None:
            done = total + 1 if begun == len(counts) else sum(counts[:begun])
            scales[name] = jnp.asarray(decay ** (total + 1.0 - done))
        else:
            begun = max(begun, stage + 1)
            power = total + 1.0 - sum(counts[:stage]) - jnp.arange(1.0, counts[stage] + 1)
            scales[name] = (decay**power).reshape(-1, *[1] * (leaf.ndim - 1))

    def scale(path: tuple, leaf: Any) -> Any:
        name = trees.name_of(path)
        if not eqx.is_inexact_array(leaf):
            return None
        return scales[name.removeprefix("backbone.")] if name.startswith("backbone.") else jnp.asarray(1.0)

    return jax.tree_util.tree_map_with_path(scale, model)
