"""Factors of a constraint from given weights: a decomposition takes the place of pre-training.

| family | decomposition | squared error |
|---|---|---|
| none | the weights themselves | 0 |
| linear | truncated SVD of the unfolding along slices | the least |
| linear, `tleg` | least squares with the fixed mixtures | the least |
| kronecker | truncated SVD of the rearrangement (Van Loan & Pitsianis, 1993) | the least |
| kronecker, cropped tiles | the same for the entries that are not cropped, by alternating fits | a local minimum |
| svd | canonical polyadic decomposition, by alternating fits | a local minimum |
| tucker | HOSVD, then HOOI | at most 3 times the least, then a local minimum |

`factorize` has the algorithms. They run in float64 on NumPy; the factors are float32. Everything runs once, at shapes of
its own, so that compiling would cost more than it saves.

At ViT-B's size (144 x 768 x 768) and default ranks, one core of a CPU takes 2 to 7 s for linear, 6 to 14 s for
kronecker, 13 s and 6 to 8 s a sweep for tucker, a minute and 36 s a sweep for svd (4 s a sweep on weights of rank 24, 384,
384). The process holds at most 1.2, 1.9, 1.7 and 2.6 GB, the weights among them.

Factors are balanced for training. Scalers have the variance that `init` gives them, Tucker's rows and columns are
orthogonal as there, and the template takes what is left of the scale of the weights (for `svd` the diagonals do, as in
its `init`). Leading ranks hold the most energy.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from .constraints import AbstractConstraint, Factors, Kronecker, Linear, Shape, Svd, Tucker, Unconstrained
from .constraints.base import Arrays
from .errors import UserError
from .factorize import (
    Matrix,
    eigen,
    energy,
    grams,
    hooi,
    hosvd,
    low_rank,
    low_rank_seen,
    polyadic,
    project,
    smallest_rank,
    sweep,
)


Weights = Float[Array, "slice row col *tap"] | Float[np.ndarray, "slice row col *tap"]
Indices = Sequence[int] | Int[np.ndarray, " chosen"]
Sizes = Mapping[str, tuple[int, ...]]
"""Shapes of a template's arrays, by name."""
Fitted = tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]
"""A template, and the scalers of each stack."""

SWEEPS = 10
"""Most sweeps of an alternating fit. Later ones gain little, and those of `svd` find large terms that cancel each other."""


def decompose(constraint: AbstractConstraint, weights: Weights, shape: Shape, *, sweeps: int = SWEEPS) -> Factors:
    """Returns the factors whose expansion is closest to `weights`.

    **Arguments:**

    - `weights`: a stack of matrices, or of convolution kernels whose taps are the last axes.
    - `shape`: their sizes, from which the constraint's default ranks follow.
    - `sweeps`: most sweeps of an alternating fit; 0 keeps what the fit starts from.

    Raises UserError where the constraint's ranks do not fit `shape`, and where weights are not finite.
    """
    like = _template_like(constraint, shape)
    template, scalers = decompose_shared(constraint, like, {"": weights}, {"": shape}, sweeps=sweeps)
    return Factors(template, scalers[""])


def decompose_shared(
    constraint: AbstractConstraint,
    like: Mapping[str, Any],
    stacks: Mapping[str, Weights],
    shapes: Mapping[str, Shape],
    *,
    sweeps: int = SWEEPS,
) -> tuple[Arrays, dict[str, Arrays]]:
    """Returns one template for several stacks, and the scalers of each stack by its name.

    The slices of all stacks are fitted together, each entry with the same weight.

    **Arguments:**

    - `like`: arrays of the template's shapes, or their `ShapeDtypeStruct`s. They say the ranks.
    - `stacks`, `shapes`: the weights and their sizes, by name. Only `Kronecker` can fit stacks of different widths.

    Raises UserError where the family has no decomposition, stacks have different widths, or weights are not finite.
    """
    if type(constraint) not in FITS:
        known = ", ".join(sorted(family.__name__ for family in FITS))
        raise UserError(f"{type(constraint).__name__} has no decomposition; choose one of {known}.")
    tensors = [np.asarray(weights, np.float64) for weights in stacks.values()]
    if not all(np.isfinite(energy(tensor)) for tensor in tensors):
        raise UserError("The weights are not all finite, so they cannot be decomposed; give a model without NaN.")
    fixed = [_mixtures(constraint, like, shapes[name]) for name in stacks] if constraint.fixed else None
    sizes = {name: tuple(array.shape) for name, array in like.items()}
    template, scalers = FITS[type(constraint)](sizes, tensors, fixed, sweeps)
    return _single(template), dict(zip(stacks, map(_single, scalers), strict=True))


def relative_error(weights: Weights, fitted: Weights, slices: Indices | None = None) -> float:
    """Returns the Frobenius norm of `weights - fitted` over that of `weights`.

    **Arguments:**

    - `slices`: indices of the slices to take; None for all.
    """
    weights, fitted = np.asarray(weights), np.asarray(fitted)
    chosen = range(len(weights)) if slices is None else slices
    lost = sum(energy(weights[i].astype(np.float64) - fitted[i]) for i in chosen)
    return _ratio(lost, sum(energy(weights[i].astype(np.float64)) for i in chosen))


def errors_by_component(weights: Weights, fitted: Weights, components: Mapping[str, Indices]) -> dict[str, float]:
    """Returns the relative error of every component, given the indices of its slices.

    The squares of `error · norm` add up to that of all slices, where every slice is in one component.
    """
    return {name: relative_error(weights, fitted, slices) for name, slices in components.items()}


def errors_by_rank(
    constraint: AbstractConstraint,
    weights: Weights,
    shape: Shape,
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    sweeps: int = 0,
) -> dict[tuple[int, ...], float]:
    """Returns the relative error at several ranks; an empty dictionary for families without ranks.

    One decomposition gives all of them where lower ranks are the leading part of higher ones: for linear, for Kronecker
    with tiles that are not cropped, and for Tucker without sweeps (HOSVD). Elsewhere each rank is fitted anew.

    **Arguments:**

    - `shares`: the ranks, as shares of the constraint's own.
    - `sweeps`: as in `decompose`. With 0, errors of Tucker and `svd` are above those that `decompose` ends at.

    Raises UserError where the constraint's ranks do not fit `shape`.
    """
    if type(constraint) not in RANKED or constraint.fixed:
        return {}
    like, axes = _template_like(constraint, shape), RANKED[type(constraint)]
    name = next(iter(axes))
    full = [like[name].shape[axis] for axis in axes[name]]
    ladder = sorted({tuple(max(1, round(share * rank)) for rank in full) for share in shares})
    tensor = np.asarray(weights, np.float64)
    energies = _nested_energies(constraint, like, tensor, sweeps)
    if energies is not None:
        total = energy(tensor)
        held = [float(energies[tuple(map(slice, ranks))].sum()) for ranks in ladder]
        return {ranks: _ratio(max(0.0, total - part), total) for ranks, part in zip(ladder, held, strict=True)}
    found = {}
    for ranks in ladder:
        smaller = {n: _resized(like[n], axes[n], ranks) for n in like}
        template, scalers = decompose_shared(constraint, smaller, {"": weights}, {"": shape}, sweeps=sweeps)
        found[ranks] = relative_error(weights, constraint.expand(Factors(template, scalers[""]), shape))
    return found


def mode_energies(weights: Weights) -> tuple[Float[np.ndarray, " n"], ...]:
    """Returns the squared singular values of the unfoldings along slices, along rows and along columns, the largest
    first."""
    return tuple(eigen(gram)[0] for gram in grams(_taps_second(np.asarray(weights, np.float64))))


def ranks_by_energy(weights: Weights, discarded: float) -> tuple[int, ...]:
    """Returns the smallest ranks, for `Tucker`, beyond which at most this share of the energy lies along each axis.

    The squared relative error of the HOSVD is then at most `3 * discarded`. What rounding to float32 adds is not counted,
    so that `discarded = 0.0` gives the ranks of weights of low rank.

    **Arguments:**

    - `discarded`: in [0, 1); raises UserError otherwise.
    """
    if not 0 <= discarded < 1:
        raise UserError(f"{discarded:g} of the energy cannot be discarded; give a number from 0 to below 1.")
    return tuple(smallest_rank(energies, discarded) for energies in mode_energies(weights))


# Families. A fit takes the sizes of the template, the stacks in float64, the fixed mixtures of each stack if the family
# fixes them, and the most sweeps.


def _fit_none(sizes: Sizes, stacks: list[np.ndarray], fixed: list[Matrix] | None, sweeps: int) -> Fitted:
    return {}, [{"slice": stack} for stack in stacks]


def _fit_linear(sizes: Sizes, stacks: list[np.ndarray], fixed: list[Matrix] | None, sweeps: int) -> Fitted:
    whole = _joined(stacks)
    flat = whole.reshape(len(whole), -1)
    if fixed is None:
        mixtures, bases = _balanced(*low_rank(flat, sizes["bases"][0]))
    else:
        mixtures = np.concatenate(fixed)
        bases = np.linalg.pinv(mixtures) @ flat
    return {"bases": bases.reshape(-1, *whole.shape[1:])}, _split({"slice": mixtures}, stacks)


def _fit_kronecker(sizes: Sizes, stacks: list[np.ndarray], fixed: list[Matrix] | None, sweeps: int) -> Fitted:
    count, p, q = sizes["tiles"][:3]
    tile = (p, q, *stacks[0].shape[3:])
    grids = [(len(stack), -(-stack.shape[1] // p), -(-stack.shape[2] // q)) for stack in stacks]
    matrix = _joined([_rearranged(stack, p, q) for stack in stacks])
    mixtures, tiles = _balanced(*low_rank_seen(matrix, count, *_seen(stacks, tile), sweeps))
    parts = np.split(mixtures, np.cumsum([np.prod(grid) for grid in grids])[:-1])
    scalers = [{"slice": part.reshape(*grid, count)} for part, grid in zip(parts, grids, strict=True)]
    return {"tiles": tiles.reshape(count, *tile)}, scalers


def _fit_svd(sizes: Sizes, stacks: list[np.ndarray], fixed: list[Matrix] | None, sweeps: int) -> Fitted:
    whole = _joined(stacks)
    slices, rows, cols, *taps = whole.shape
    rank = sizes["left"][1]
    # A kernel has a row of the right basis for each column and tap.
    diagonals, left, right = polyadic(whole.reshape(slices, rows, -1), rank, sweeps)
    for side in (left, right):
        norms = np.linalg.norm(side, axis=0) * (rank / len(side)) ** 0.5
        norms[norms == 0] = 1
        side /= norms
        diagonals *= norms
    order = np.argsort(-np.linalg.norm(diagonals, axis=0), kind="stable")
    template = {"left": left[:, order], "right": right[:, order].reshape(cols, *taps, rank)}
    return template, _split({"slice": diagonals[:, order]}, stacks)


def _fit_tucker(sizes: Sizes, stacks: list[np.ndarray], fixed: list[Matrix] | None, sweeps: int) -> Fitted:
    whole = _joined(stacks)
    tensor = _taps_second(whole)
    bases = hosvd(tensor, sizes["core"][:3])
    core = project(tensor, bases)
    step = functools.partial(hooi, tensor)
    *bases, core = sweep(step, (*bases, core), energy(core), energy(tensor), sweeps)
    scales = [(len(basis) / basis.shape[1]) ** 0.5 for basis in bases]
    core = np.moveaxis(core / np.prod(scales), 1, 3)
    scaled = {n: s * basis for n, s, basis in zip(("slice", "row", "col"), scales, bases, strict=True)}
    return {"core": core.reshape(*core.shape[:3], *whole.shape[3:])}, _split(scaled, stacks)


FITS: dict[type[AbstractConstraint], Callable[[Sizes, list[np.ndarray], list[Matrix] | None, int], Fitted]] = {
    Unconstrained: _fit_none,
    Linear: _fit_linear,
    Kronecker: _fit_kronecker,
    Svd: _fit_svd,
    Tucker: _fit_tucker,
}
RANKED: dict[type[AbstractConstraint], dict[str, tuple[int, ...]]] = {
    Linear: {"bases": (0,)},
    Kronecker: {"tiles": (0,)},
    Svd: {"left": (1,), "right": (-1,)},
    Tucker: {"core": (0, 1, 2)},
}
"""Axes of a template's arrays whose sizes are ranks."""


def _rearranged(stack: np.ndarray, p: int, q: int) -> Matrix:
    """The tiles of p x q as rows, in order of slice, tile row and tile column, with zeros where a tile is cropped.

    A sum of `count` Kronecker products becomes a matrix of rank `count` (Van Loan & Pitsianis, 1993).
    """
    slices, rows, cols, *taps = stack.shape
    padding = [(0, 0), (0, -rows % p), (0, -cols % q), *[(0, 0)] * len(taps)]
    padded = np.pad(stack, padding) if rows % p or cols % q else stack
    tiles = padded.reshape(slices, -(-rows // p), p, -(-cols // q), q, *taps).swapaxes(2, 3)
    return tiles.reshape(-1, p * q * int(np.prod(taps)))


def _seen(stacks: list[np.ndarray], tile: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which entries of the rearranged matrix are weights: `seen`, `kind` and `place` of `low_rank_seen`.

    A kind is a number of rows and of columns that is left of a tile; a place is a set of entries that are in tiles of
    the same kinds.
    """
    p, q = tile[:2]
    sizes = []
    for slices, rows, cols in (stack.shape[:3] for stack in stacks):
        heights, widths = np.minimum(p, rows - np.arange(0, rows, p)), np.minimum(q, cols - np.arange(0, cols, q))
        grid = np.stack(np.meshgrid(heights, widths, indexing="ij"), axis=-1).reshape(-1, 2)
        sizes.append(np.tile(grid, (slices, 1)))
    kinds, kind = np.unique(np.concatenate(sizes), axis=0, return_inverse=True)
    row, col = (grid.reshape(-1) for grid in np.indices(tile)[:2])
    seen, place = np.unique((row < kinds[:, :1]) & (col < kinds[:, 1:]), axis=1, return_inverse=True)
    return seen, kind.reshape(-1), place.reshape(-1)


def _balanced(left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """The same product, with entries of variance 1 / rank instead of orthonormal columns in `left`."""
    scale = (len(left) / left.shape[1]) ** 0.5
    return scale * left, right / scale


def _nested_energies(
    constraint: AbstractConstraint, like: Mapping[str, Any], tensor: np.ndarray, sweeps: int
) -> np.ndarray | None:
    """Energies along an axis for each rank, where lower ranks are the leading part of higher ones; else None."""
    if isinstance(constraint, Tucker) and sweeps == 0:
        folded = _taps_second(tensor)
        return (project(folded, hosvd(folded, like["core"].shape[:3])) ** 2).sum(1)
    if isinstance(constraint, Linear):
        return (low_rank(tensor.reshape(len(tensor), -1), like["bases"].shape[0])[1] ** 2).sum(1)
    if isinstance(constraint, Kronecker):
        count, p, q = like["tiles"].shape[:3]
        if tensor.shape[1] % p == 0 and tensor.shape[2] % q == 0:
            return (low_rank(_rearranged(tensor, p, q), count)[1] ** 2).sum(1)
    return None


# Shapes


def _template_like(constraint: AbstractConstraint, shape: Shape) -> dict[str, Any]:
    """The shapes of the constraint's template, which hold its ranks; raises UserError where they do not fit."""
    return jax.eval_shape(functools.partial(constraint.template, shape), key=jr.key(0))


def _mixtures(constraint: AbstractConstraint, like: Mapping[str, Any], shape: Shape) -> Matrix:
    """The fixed mixtures, in the float32 values that they will have; they depend on the number of bases alone."""
    bases = {name: jnp.zeros((len(array), *[1] * (array.ndim - 1))) for name, array in like.items()}
    return np.asarray(constraint.scalers(bases, shape, key=jr.key(0))["slice"], np.float64)


def _joined(stacks: list[np.ndarray]) -> np.ndarray:
    """All slices as one stack."""
    sizes = {" x ".join(map(str, stack.shape[1:])) for stack in stacks}
    if len(sizes) > 1:
        raise UserError(
            f"One template cannot be fitted to slices of {' and '.join(sorted(sizes))} in this family; "
            "give every size its own template, or choose Kronecker."
        )
    return np.concatenate(stacks) if len(stacks) > 1 else stacks[0]


def _split(scalers: dict[str, np.ndarray], stacks: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The scalers of each stack: those of its slices, and the same for rows and columns."""
    ends = np.cumsum([len(stack) for stack in stacks])[:-1]
    return [scalers | {"slice": part} for part in np.split(scalers["slice"], ends)]


def _taps_second(stack: np.ndarray) -> Float[np.ndarray, "slice tap row col"]:
    return np.ascontiguousarray(np.moveaxis(stack.reshape(*stack.shape[:3], -1), 3, 1))


def _resized(array: Any, axes: tuple[int, ...], sizes: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    shape = list(array.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return jax.ShapeDtypeStruct(tuple(shape), array.dtype)


def _single(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


def _ratio(lost: float, total: float) -> float:
    """The root of a ratio of energies; 0 for nothing lost of nothing."""
    if total == 0:
        return 0.0 if lost == 0 else float("inf")
    return (lost / total) ** 0.5
