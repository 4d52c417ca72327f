"""Low-rank approximations of matrices and of tensors with three axes, in NumPy and float64.

A tensor is `tensor[slice, tap, row, col]`: a basis is found along slices, rows and columns, and taps are carried along.
Bases are eigenvectors of Gram matrices, because the SVD of an unfolding takes minutes at ViT-B's size. This loses
singular values below 1e-8 of the largest, which weights in float32 do not resolve either.

An alternating fit never ends above the error that it starts from; see `sweep`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


Matrix = Float[np.ndarray, "_ _"]
Tensor = Float[np.ndarray, "slice tap row col"]
Cube = Float[np.ndarray, "slice row col"]

SETTLED = 1e-4
"""An alternating fit stops after a sweep that lowers the squared error by less than this share."""
ROUNDING = 1e-12
"""Share of the energy that counts as none: arithmetic in float32 changes about 1e-13 of it."""
PART = 2**25
"""Numbers that a part of a product has at most: 256 MB."""


def energy(array: np.ndarray) -> float:
    """The sum of squares."""
    return float(np.vdot(array, array))


def smallest_rank(energies: Float[np.ndarray, " n"], discarded: float) -> int:
    """Returns the smallest rank, at least 1, beyond which lies at most this share of the energy.

    **Arguments:**

    - `energies`: the largest first.
    """
    tails = np.cumsum(energies[::-1])[::-1]
    return max(1, int((tails > max(discarded, ROUNDING) * tails[0]).sum()))


def eigen(gram: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Eigenvalues, none negative, and eigenvectors of a Gram matrix, the largest first."""
    values, vectors = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def low_rank(
    matrix: Float[np.ndarray, "a b"], rank: int
) -> tuple[Float[np.ndarray, "a {rank}"], Float[np.ndarray, "{rank} b"]]:
    """Returns `left` and `right`, whose product is the best approximation of this rank (Eckart & Young, 1936).

    The columns of `left` are orthonormal, and the energies of the rows of `right` fall: the leading ranks are the best
    approximation of a lower rank. `right` ends in zeros where the rank is above the number of columns.

    **Arguments:**

    - `rank`: at most the number of rows.
    """
    rows, cols = matrix.shape
    if rows <= cols:
        left = eigen(matrix @ matrix.T)[1][:, :rank]
    else:
        left = matrix @ eigen(matrix.T @ matrix)[1][:, :rank]
        left = np.linalg.qr(np.pad(left, ((0, 0), (0, max(0, rank - cols)))))[0]
    return left, left.T @ matrix


def sweep(step: Callable[[Any], tuple[Any, float]], state: Any, captured: float, total: float, sweeps: int) -> Any:
    """Repeats a sweep of an alternating fit until that settles.

    **Arguments:**

    - `step`: returns a new state and the energy that it captures: the total without the squared error.
    - `state`, `captured`: what to start from. It is returned if it is exact, or if a sweep makes it no better.
    - `sweeps`: most sweeps.
    """
    for _ in range(sweeps):
        lost = total - captured
        if lost <= ROUNDING * total:
            break
        new, found = step(state)
        if found <= captured:
            break
        state, captured = new, found
        if total - captured > (1 - SETTLED) * lost:
            break
    return state


# Tucker


def grams(tensor: Tensor) -> tuple[Matrix, Matrix, Matrix]:
    """The Gram matrices of the unfoldings along slices, rows and columns."""
    flat = tensor.reshape(len(tensor), -1)
    rows, cols = (np.zeros((size, size)) for size in tensor.shape[2:])
    # One matrix at a time: an unfolding along rows or columns would be a copy of the tensor.
    for matrix in tensor.reshape(-1, *tensor.shape[2:]):
        rows += matrix @ matrix.T
        cols += matrix.T @ matrix
    return flat @ flat.T, rows, cols


def project(tensor: Tensor, bases: Sequence[Matrix]) -> Float[np.ndarray, "r1 tap r2 r3"]:
    """The core of a tensor in bases of its slices, rows and columns."""
    slices, rows, cols = bases
    return np.tensordot(slices.T, rows.T @ tensor @ cols, 1)


def hosvd(tensor: Tensor, ranks: Sequence[int]) -> list[Matrix]:
    """The bases of the truncated higher-order SVD (De Lathauwer, De Moor & Vandewalle, 2000a): the leading singular
    vectors of every unfolding. The error is at most √3 times that of the best bases of these ranks."""
    return [eigen(gram)[1][:, :rank] for gram, rank in zip(grams(tensor), ranks, strict=True)]


def hooi(tensor: Tensor, state: Sequence[np.ndarray]) -> tuple[tuple[np.ndarray, ...], float]:
    """One sweep of higher-order orthogonal iteration (De Lathauwer, De Moor & Vandewalle, 2000b): each basis becomes
    the best one for the two others.

    tensorly's `partial_tucker` does the same by SVDs, which take minutes at ViT-B's size.

    **Arguments:**

    - `state`: bases of slices, rows and columns, and the core.
    """
    slices, rows, cols, _ = state
    r1, r2, r3 = (basis.shape[1] for basis in (slices, rows, cols))
    rows = eigen(grams(np.tensordot(slices.T, tensor @ cols, 1))[1])[1][:, :r2]
    half = rows.T @ tensor
    cols = eigen(grams(np.tensordot(slices.T, half, 1))[2])[1][:, :r3]
    half = half @ cols
    slices = eigen(grams(half)[0])[1][:, :r1]
    core = np.tensordot(slices.T, half, 1)
    return (slices, rows, cols, core), energy(core)


# Canonical polyadic decomposition: `cube[s, i, j] = Σ_r slices[s, r] rows[i, r] cols[j, r]`


def polyadic(cube: Cube, rank: int, sweeps: int) -> list[Matrix]:
    """Returns the factors of a sum of `rank` rank-one tensors, by alternating least squares (ALS) from the better of
    two starts: `orthonormal_terms`, which is exact at full rank, and `diagonalised_terms`, which is exact where few terms
    are enough.

    The fit runs on the core of the HOSVD, which is smaller where the weights have low rank (CANDELINC; Carroll,
    Pruzansky & Kruskal, 1980); nothing is discarded. tensorly's `parafac` has the same sweep; it needs memory for
    `rank · rows · cols` numbers and starts far from exact at high ranks.
    """
    tensor = cube[:, None]
    bases = [vectors[:, : smallest_rank(energies, 0.0)] for energies, vectors in map(eigen, grams(tensor))]
    core = project(tensor, bases)[:, 0]
    terms, captured = orthonormal_terms(core, rank)
    if min(core.shape) > 1:
        others, reached = diagonalised_terms(core, min(rank, sorted(core.shape)[1]))
        if reached > captured:
            terms, captured = others, reached
    terms = _with_spare(terms, rank)
    terms = sweep(lambda state: als(core, state), terms, captured, energy(core), sweeps)
    return [basis @ term for basis, term in zip(bases, terms, strict=True)]


def orthonormal_terms(core: Cube, rank: int) -> tuple[list[Matrix], float]:
    """Returns the largest terms of a sum of orthonormal rank-one tensors that is exact at full rank, and their energy
    (Batselier, Liu & Wong, 2015).

    They are singular triplets of the slices along the shortest axis, which are orthogonal in the core of a HOSVD. There
    may be fewer of them than `rank`.
    """
    axis = int(np.argmin(core.shape))
    front = np.moveaxis(core, axis, 0)
    values, which = np.zeros(0), np.zeros(0, int)
    sides = [np.zeros((0, size)) for size in front.shape[1:]]
    for i, matrix in enumerate(front):
        left, found, right = np.linalg.svd(matrix, full_matrices=False)
        values, which = np.concatenate([values, found]), np.concatenate([which, np.full(len(found), i)])
        best = np.argsort(-values, kind="stable")[:rank]
        values, which = values[best], which[best]
        sides = [np.concatenate([old, new])[best] for old, new in zip(sides, (left.T, right), strict=True)]
    terms = [*sides[:axis], np.eye(len(front))[which], *sides[axis:]]
    terms[0] = terms[0] * values[:, None]
    return [term.T for term in terms], energy(values)


def diagonalised_terms(core: Cube, rank: int) -> tuple[list[Matrix], float]:
    """Returns factors by the simultaneous diagonalisation of two mixtures of slices, and the energy they capture
    (Leurgans, Ross & Abel, 1993).

    They are exact where such factors exist, with none parallel; ALS alone often stalls there.

    **Arguments:**

    - `core`: of a HOSVD, so that the first entries along every axis hold the most energy.
    - `rank`: at most the size of the two longer axes.
    """
    axis = int(np.argmin(core.shape))
    front = np.moveaxis(core, axis, 0)
    one, other = np.tensordot(np.random.default_rng(0).normal(size=(2, len(front))), front[:, :rank, :rank], 1)
    values, vectors = np.linalg.eig(one @ np.linalg.pinv(other))
    # A conjugate pair, which noise may bring about, spans the same plane as its real and imaginary part.
    left = np.where(np.imag(values) < 0, np.imag(vectors), np.real(vectors))
    right = (np.linalg.pinv(left) @ other).T
    left, right = (
        np.pad(side, ((0, size - rank), (0, 0))) for side, size in zip((left, right), front.shape[1:], strict=True)
    )
    products = np.stack([(left * (matrix @ right)).sum(0) for matrix in front])
    third = _third(left, right, products)
    fitted = ((third.T @ third) * (left.T @ left) * (right.T @ right)).sum()
    sides = [left, right]
    return [*sides[:axis], third, *sides[axis:]], float(2 * (third * products).sum() - fitted)


def _with_spare(terms: Sequence[Matrix], rank: int) -> list[Matrix]:
    """`terms`, and as many more as are missing. These are zero by their first factor only, so that training can use them."""
    missing, rng = rank - terms[0].shape[1], np.random.default_rng(1)
    spare = [np.zeros((len(terms[0]), missing)), *(rng.normal(size=(len(term), missing)) for term in terms[1:])]
    return [np.concatenate(pair, axis=1) for pair in zip(terms, spare, strict=True)]


def als(core: Cube, terms: Sequence[Matrix]) -> tuple[list[Matrix], float]:
    """One sweep of ALS (Carroll & Chang, 1970): each factor becomes the best one for the two others."""
    slices, rows, cols = terms
    # Part by part: products of all slices, or the Khatri-Rao product of two factors, would take gigabytes.
    found, products = [], np.zeros_like(rows)
    count = max(1, PART // rows.size)
    for part in np.split(core, range(count, len(core), count)):
        half = part @ cols
        found.append(_third(rows, cols, np.einsum("ir,sir->sr", rows, half)))
        products += np.einsum("sr,sir->ir", found[-1], half)
    slices = np.concatenate(found)
    rows = _third(slices, cols, products)
    products = np.zeros_like(cols)
    for weight, matrix in zip(slices, core, strict=True):
        products += weight * (matrix.T @ rows)
    cols = _third(slices, rows, products)
    fitted = ((slices.T @ slices) * (rows.T @ rows) * (cols.T @ cols)).sum()
    return [slices, rows, cols], float(2 * (products * cols).sum() - fitted)


def _third(one: Matrix, other: Matrix, products: Matrix) -> Matrix:
    """The third factor, from the normal equations."""
    gram = (one.T @ one) * (other.T @ other)
    gram[np.diag_indices_from(gram)] += 1e-13 * gram.trace() / len(gram)  # terms may be parallel, or zero
    return np.linalg.solve(gram, products.T).T


# Matrices with missing entries: `matrix[i, j]` is seen where `seen[kind[i], place[j]]`, and is zero elsewhere


def low_rank_seen(
    matrix: Float[np.ndarray, "a b"],
    rank: int,
    seen: Bool[np.ndarray, "kinds places"],
    kind: Int[np.ndarray, " a"],
    place: Int[np.ndarray, " b"],
    sweeps: int,
) -> tuple[Float[np.ndarray, "a {rank}"], Float[np.ndarray, "{rank} b"]]:
    """Returns `left` and `right` as `low_rank` does, fitted to the entries seen: by ALS from the best approximation of
    `matrix` with its zeros (no closed form exists; Srebro & Jaakkola, 2003).

    Rows of one kind see the same entries, so that a sweep solves one small problem for each kind and each place.
    """

    def step(state: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[np.ndarray, np.ndarray], float]:
        left, _ = _solve_seen(matrix, state[1], seen, kind, place)
        right, captured = _solve_seen(matrix.T, left.T, seen.T, place, kind)
        return (left, right.T), captured

    left, right = low_rank(matrix, rank)
    if not seen.all():
        # The start errs less on the entries seen than on all, so its energy on all is a safe bound.
        left, right = sweep(step, (left, right), energy(right), energy(matrix), sweeps)
        basis, rest = np.linalg.qr(left)
        rotation, right = low_rank(rest @ right, rank)
        left = basis @ rotation
    return left, right


def _solve_seen(matrix: Matrix, right: Matrix, seen: np.ndarray, kind: np.ndarray, place: np.ndarray) -> Any:
    """The best `left` for a `right`, and the energy that their product captures."""
    products = matrix @ right.T
    left = np.empty_like(products)
    for i, pattern in enumerate(seen):
        shown = right[:, pattern[place]]
        left[kind == i] = products[kind == i] @ np.linalg.pinv(shown @ shown.T, rcond=1e-12, hermitian=True)
    return left, float((left * products).sum())
