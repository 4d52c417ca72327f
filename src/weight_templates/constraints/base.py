"""What a constraint is: a parameterisation of a stack of weight matrices or kernels `W[slice, row, col, *tap]`.

Rows are internal (heads, hidden units), columns are residual channels: the first rows and columns of every slice are a
narrower network. A constraint holds static hyper-parameters only; the numbers live in `Factors`, which four pure verbs
make and use:

- `init(shape, key)` — random factors, such that the entries of W have variance 2 / (rows + cols), 1/D for D x D slices:
  a `template(shape, key)`, and `scalers(template, shape, key)` around it;
- `expand(factors, shape)` — the weights;
- `select(factors, shape, slices)` — the factors of another stack: any slices, the first rows, the first columns; where
  it has more of these than the source, the source's over and over (WeiT's repeated concatenation);
- `mask(factors, shape, rows, cols)` — factors whose weights are zero beyond the first `rows` and `cols`, which may be
  traced: the smaller stack at the larger one's shape.

Laws, for every family: `expand(select(f, small, slices), small)` is `expand(f, full)[slices, :rows, :cols]`, and
`expand(mask(f, full, rows, cols), full)` is `expand(f, full)` with zeros outside that prefix. In every family
`scalers["slice"]` has an entry for each slice, in which W is linear: a mixture of slices is a mixture of these.
"""

import abc
import math
from typing import NamedTuple

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..errors import UserError


Count = Int[Array, ""] | int
"""A number of rows or columns, which may be traced."""


Arrays = dict[str, Float[Array, "..."]]


class Shape(NamedTuple):
    """Sizes of a stack of weight matrices, or of kernels whose taps trail."""

    slices: int
    rows: int
    cols: int
    layers: int = 1
    """Layers that the slices belong to, equally many to each, in order."""
    taps: tuple[int, ...] = ()
    """Further axes of a kernel, such as its height and width; never masked, never cut."""

    @property
    def full(self) -> tuple[int, ...]:
        """The shape of the array of weights."""
        return (self.slices, self.rows, self.cols, *self.taps)


class Factors(eqx.Module):
    """The numbers of a constraint: a size-agnostic template, and the scalers that fit it to a size."""

    template: Arrays
    scalers: Arrays


class AbstractConstraint(eqx.Module):
    """A family of parameterisations, as four pure verbs; see this module's docstring for their laws."""

    def init(self, shape: Shape, *, key: PRNGKeyArray) -> Factors:
        """Random factors of a stack; raises UserError where the hyper-parameters do not fit `shape`."""
        tkey, skey = jr.split(key)
        template = self.template(shape, key=tkey)
        return Factors(template, self.scalers(template, shape, key=skey))

    @property
    def sizeless(self) -> bool:
        """Whether one template serves stacks of different widths; if not, each width needs a template of its own."""
        return True

    @property
    def fixed(self) -> bool:
        """Whether the scalers follow from the shape alone, and are never trained."""
        return False

    @abc.abstractmethod
    def template(self, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        """A random template; raises UserError where the hyper-parameters do not fit `shape`."""

    @abc.abstractmethod
    def scalers(self, template: Arrays, shape: Shape, *, key: PRNGKeyArray) -> Arrays:
        """Random scalers that fit a template, of whatever source, to a stack of `shape`."""

    @abc.abstractmethod
    def expand(self, factors: Factors, shape: Shape) -> Float[Array, "slice row col *tap"]:
        """The weights that the factors stand for."""

    def cores(self, factors: Factors, shape: Shape) -> tuple[Array, Array, Array] | None:
        """Matrices with which the weights can be applied factor by factor: core (slice, r2, r3), row (row, r2) and col
        (col, r3), the weights being `row core[slice] colᵀ`; None if the family has none."""
        return None

    def multiplications(self, factors: Factors, shape: Shape) -> tuple[int, int]:
        """How many `expand` takes, and how many `cores`; counted where there are cores, else 0."""
        return 0, 0

    @abc.abstractmethod
    def select(self, factors: Factors, shape: Shape, slices: Int[np.ndarray, " chosen"]) -> Factors:
        """The factors of a stack of `shape`, larger or smaller, whose slices are those of the given indices."""

    @abc.abstractmethod
    def mask(self, factors: Factors, shape: Shape, rows: Count, cols: Count) -> Factors:
        """Factors of the same shape, with weights only in the first `rows` and `cols`."""


def weight_variance(shape: Shape) -> float:
    """Variance that weights start with (Glorot & Bengio, 2010): 1/D for D x D slices; a kernel's taps share it."""
    return 2 / (shape.rows + shape.cols) / math.prod(shape.taps)


def check_rank(flag: str, rank: int, limit: int, what: str) -> None:
    """Raises UserError unless 1 <= rank <= limit."""
    if not 1 <= rank <= limit:
        raise UserError(f"{flag} asks for {rank}, but {what} is {limit}; give a number from 1 to {limit}.")
