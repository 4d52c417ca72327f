"""Decompositions against numpy, tensorly, theorems, and the laws of every family."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import tensorly as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac, partial_tucker

import weight_templates as wt
from weight_templates import decompose as module
from weight_templates import factorize
from weight_templates.constraints import AbstractConstraint
from weight_templates.decompose import (
    decompose,
    decompose_shared,
    errors_by_component,
    errors_by_rank,
    mode_energies,
    ranks_by_energy,
    relative_error,
)

from .helpers import CONSTRAINTS


SHAPE = wt.Shape(12, 16, 24, layers=3)
FULL = {
    "none": wt.Unconstrained(),
    "linear": wt.Linear(12),
    "kronecker": wt.Kronecker(48, (8, 12)),
    "kronecker, small tiles": wt.Kronecker(24, (4, 6)),
    "kronecker, more tiles than numbers": wt.Kronecker(30, (4, 6)),
    "kronecker, cropped": wt.Kronecker(35, (5, 7)),
    "svd": wt.Svd(12 * 16),
    "tucker": wt.Tucker((12, 16, 24)),
}
"""Constraints that any weights of SHAPE satisfy."""
MADE = CONSTRAINTS | {"tleg": wt.Linear(tleg=True), "kronecker, tiling": wt.Kronecker(4, (4, 8))}
"""Constraints that weights satisfy which they have made."""


def noise(rng, *shape):
    return rng.normal(size=shape or SHAPE[:3]).astype(np.float32)


def fitted(constraint, weights, shape=SHAPE, **options):
    return constraint.expand(decompose(constraint, weights, shape, **options), shape)


def norm(x):
    return np.linalg.norm(np.asarray(x, np.float64))


def spectrum(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


@pytest.fixture
def unsettled(monkeypatch):
    """Alternating fits go on for all their sweeps."""
    monkeypatch.setattr(factorize, "SETTLED", 0.0)


# Every family


@pytest.mark.parametrize("family", FULL)
@pytest.mark.parametrize("sweeps", [0, 10])
def test_full_ranks_give_the_weights_back(family, sweeps, rng):
    weights = noise(rng)
    assert norm(weights - fitted(FULL[family], weights, sweeps=sweeps)) < 1e-5 * norm(weights)


@pytest.mark.parametrize("family", MADE)
def test_weights_that_a_family_made_are_recovered(family, key):
    weights = MADE[family].expand(MADE[family].init(SHAPE, key=key), SHAPE)
    assert norm(weights - fitted(MADE[family], weights, sweeps=300)) < 1e-5 * norm(weights)


@pytest.mark.parametrize("family", wt.FAMILIES)
def test_factors_look_as_those_of_init_do(family, key, rng):
    """At default ranks: the same names, shapes and types."""
    constraint = wt.FAMILIES[family]()
    made = decompose(constraint, noise(rng), SHAPE)
    expected = jax.eval_shape(lambda k: constraint.init(SHAPE, key=k), key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)


@pytest.mark.parametrize("family", MADE)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_sweeps_never_raise_the_error(family, seed):
    weights = noise(np.random.default_rng(seed))
    start, end = (relative_error(weights, fitted(MADE[family], weights, sweeps=n)) for n in (0, 20))
    assert end <= start + 1e-7
    if family in ("svd", "tucker", "kronecker"):
        assert end < start - 1e-3


def test_sweeps_end_where_they_gain_nothing():
    """Of a total energy of 100: sweeps that settle, that make it worse, and that are exact."""

    def last(energies, sweeps=10):
        gains = iter(energies)
        return factorize.sweep(lambda state: (state + 1, next(gains)), 0, 50.0, 100.0, sweeps)

    assert last([60.0, 70.0, 70.002, 80.0]) == 3  # under 1e-4 of the 30 that were lost
    assert last([60.0, 70.0, 70.004, 80.0], 4) == 4
    assert last([60.0, 55.0, 90.0]) == 1
    assert last([100.0, 101.0]) == 1
    assert last([60.0, 70.0], 0) == 0


@pytest.mark.parametrize("family", MADE)
def test_the_scale_of_the_weights_is_that_of_the_result(family, rng):
    weights = noise(rng)
    once, scaled = (fitted(MADE[family], scale * weights) for scale in (1, 1e-3))
    np.testing.assert_allclose(scaled, 1e-3 * once, atol=2e-8)


@pytest.mark.parametrize("family", MADE)
def test_zeros_are_zeros(family):
    weights = np.zeros(SHAPE[:3], np.float32)
    factors = decompose(MADE[family], weights, SHAPE)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(factors))
    assert relative_error(weights, MADE[family].expand(factors, SHAPE)) == 0


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        (wt.Tucker((13, 6, 6)), "number of slices is 12"),
        (wt.Tucker((4, 17, 6)), "number of rows is 16"),
        (wt.Tucker((4, 6, 0)), "from 1 to 24"),
        (wt.Linear(13), "--linear.rank"),
        (wt.Linear(7, tleg=True), "leave it out"),
        (wt.Svd(193), "from 1 to 192"),
        (wt.Kronecker(4, (17, 8)), "--kronecker.tile"),
        (wt.Kronecker(10**6, (8, 8)), "--kronecker.templates"),
    ],
)
def test_impossible_ranks_are_refused(constraint, says, rng):
    with pytest.raises(wt.UserError, match=says):
        decompose(constraint, noise(rng), SHAPE)


def test_weights_must_be_finite(rng):
    weights = noise(rng)
    weights[3, 2, 1] = np.nan
    with pytest.raises(wt.UserError, match="not all finite"):
        decompose(wt.Tucker(), weights, SHAPE)


def test_a_family_without_a_decomposition_is_refused(rng):
    class Other(AbstractConstraint):
        template = scalers = expand = select = mask = wt.Unconstrained.expand

    other = Other()
    with pytest.raises(wt.UserError, match=r"Other has no decomposition; choose one of Kronecker, .*Unconstrained"):
        decompose_shared(other, {}, {"a": noise(rng)}, {"a": SHAPE})


# Linear


def test_linear_is_the_best_mixture(rng):
    """Eckart & Young: the error is what the discarded singular values hold."""
    weights = noise(rng)
    values = spectrum(weights.reshape(12, -1))
    for rank in (1, 5, 11):
        error = norm(weights - fitted(wt.Linear(rank), weights))
        np.testing.assert_allclose(error, np.linalg.norm(values[rank:]), rtol=1e-5)
    expected = [np.linalg.norm(values[r:]) / norm(weights) for r in (1, 4, 8)]
    by_rank = errors_by_rank(wt.Linear(8), weights, SHAPE, shares=(1.0, 0.5, 0.01))
    assert list(by_rank) == [(1,), (4,), (8,)]
    np.testing.assert_allclose(list(by_rank.values()), expected, rtol=1e-6)


def test_linear_is_the_best_mixture_where_slices_are_many(rng):
    shape = wt.Shape(40, 3, 4)
    weights = noise(rng, *shape[:3])
    values = spectrum(weights.reshape(40, -1))
    error = norm(weights - fitted(wt.Linear(5), weights, shape))
    np.testing.assert_allclose(error, np.linalg.norm(values[5:]), rtol=1e-5)
    assert norm(weights - fitted(wt.Linear(20), weights, shape)) < 1e-5 * norm(weights)  # more than a slice's numbers


def test_tleg_is_the_least_squares_fit(rng):
    weights, constraint = noise(rng), wt.Linear(tleg=True)
    factors = decompose(constraint, weights, SHAPE)
    place, which = np.repeat(np.arange(3) / 3, 4)[:, None], np.tile(np.eye(4), (3, 1))
    mixtures = np.concatenate([which, place * which], axis=1)
    expected = np.linalg.lstsq(mixtures, weights.reshape(12, -1).astype(np.float64))[0]
    np.testing.assert_allclose(factors.scalers["slice"], mixtures, atol=1e-7)
    np.testing.assert_allclose(factors.template["bases"], expected.reshape(8, 16, 24), atol=1e-5)
    assert 0.3 < relative_error(weights, constraint.expand(factors, SHAPE)) < 1
    assert errors_by_rank(constraint, weights, SHAPE) == {}


# Kronecker


def tiles_of(weights, p, q):
    """All tiles that are not cropped, one by one."""
    m, n = weights.shape[1:3]
    return np.stack(
        [w[i : i + p, j : j + q].reshape(-1) for w in weights for i in range(0, m, p) for j in range(0, n, q)]
    )


def test_kronecker_is_the_best_set_of_tiles(rng):
    """Van Loan & Pitsianis: the error is what the discarded singular values of the rearrangement hold."""
    weights = noise(rng)
    values = spectrum(tiles_of(weights, 4, 8))
    for count in (1, 7, 31):
        error = norm(weights - fitted(wt.Kronecker(count, (4, 8)), weights))
        np.testing.assert_allclose(error, np.linalg.norm(values[count:]), rtol=1e-5)
    by_rank = errors_by_rank(wt.Kronecker(20, (4, 8)), weights, SHAPE, shares=(0.25, 1.0))
    expected = {(c,): np.linalg.norm(values[c:]) / norm(weights) for c in (5, 20)}
    assert by_rank == pytest.approx(expected, rel=1e-6)


def test_cropped_entries_are_those_outside_the_slice():
    for rows, cols, p, q in ((16, 24, 5, 7), (16, 24, 4, 7), (16, 24, 9, 24), (7, 8, 3, 2)):
        ones = np.ones((3, rows, cols))
        seen, kind, place = module._seen([ones], (p, q))
        expected = np.pad(ones, ((0, 0), (0, -rows % p), (0, -cols % q)))
        np.testing.assert_array_equal(seen[kind][:, place], tiles_of(expected, p, q) == 1)


def test_a_sweep_over_cropped_tiles_solves_every_row_and_column(rng):
    """Against numpy's least squares, on the entries that each row and each column shows."""
    weights, count = noise(rng).astype(np.float64), 3
    seen, kind, place = module._seen([weights], (5, 7))
    matrix, shown = module._rearranged(weights, 5, 7), seen[kind][:, place]
    right = rng.normal(size=(count, 35))
    left, _ = factorize._solve_seen(matrix, right, seen, kind, place)
    for row, mask, found in zip(matrix, shown, left, strict=True):
        np.testing.assert_allclose(found, np.linalg.lstsq(right[:, mask].T, row[mask])[0], atol=1e-8)
    found, captured = factorize._solve_seen(matrix.T, left.T, seen.T, place, kind)
    for col, mask, each in zip(matrix.T, shown.T, found, strict=True):
        np.testing.assert_allclose(each, np.linalg.lstsq(left[mask], col[mask])[0], atol=1e-8)
    np.testing.assert_allclose(norm(weights) ** 2 - captured, norm((matrix - left @ found.T)[shown]) ** 2)


def test_the_fit_of_cropped_tiles_is_stationary(unsettled, rng):
    weights = noise(rng)
    tiles = wt.Kronecker(6, (5, 7))
    factors = decompose(tiles, weights, SHAPE, sweeps=300)

    @jax.grad
    def slope(factors):
        return jnp.sum((tiles.expand(factors, SHAPE) - weights) ** 2)

    assert max(norm(x) for x in jax.tree.leaves(slope(factors))) < 1e-2 * norm(weights)
    start = max(norm(x) for x in jax.tree.leaves(slope(decompose(tiles, weights, SHAPE, sweeps=0))))
    assert start > 1e-1 * norm(weights)
    best = spectrum(tiles_of(np.pad(weights, ((0, 0), (0, 4), (0, 4))), 5, 7))
    assert norm(weights - tiles.expand(factors, SHAPE)) < np.linalg.norm(best[6:])  # with zeros for the missing


# Svd


def test_orthonormal_terms_lose_what_they_discard(rng):
    core = noise(rng, 5, 6, 7).astype(np.float64)
    for rank in (1, 9, 20, 30):
        (slices, rows, cols), captured = factorize.orthonormal_terms(core, rank)
        made = np.einsum("sr,ir,jr->sij", slices, rows, cols)
        np.testing.assert_allclose(norm(core - made) ** 2, norm(core) ** 2 - captured, atol=1e-9)
        gram = (slices.T @ slices) * (rows.T @ rows) * (cols.T @ cols)
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    for axis in range(3):  # the shortest axis may be any
        turned = np.moveaxis(core, 0, axis)
        (slices, rows, cols), _ = factorize.orthonormal_terms(turned, 30)
        np.testing.assert_allclose(np.einsum("sr,ir,jr->sij", slices, rows, cols), turned, atol=1e-9)


def test_alternating_least_squares_are_those_of_tensorly(rng):
    core = noise(rng, 6, 7, 8).astype(np.float64)
    terms = [rng.normal(size=(n, 4)) for n in core.shape]
    expected = parafac(core, 4, n_iter_max=3, init=CPTensor((None, [t.copy() for t in terms])), tol=0)
    for _ in range(3):
        terms, captured = factorize.als(core, terms)
    made = tl.cp_to_tensor(expected)
    np.testing.assert_allclose(np.einsum("sr,ir,jr->sij", *terms), made, atol=1e-8)
    np.testing.assert_allclose(norm(core) ** 2 - captured, norm(core - made) ** 2)


@pytest.mark.parametrize(("shape", "rank"), [((6, 8, 9), 8), ((9, 6, 8), 8), ((9, 8, 6), 8), ((12, 16, 24), 5)])
def test_few_terms_are_found_without_a_sweep(shape, rank, rng):
    """By simultaneous diagonalisation; more terms than needed do no harm."""
    left, right, diagonals = (noise(rng, n, rank).astype(np.float64) for n in (shape[1], shape[2], shape[0]))
    weights = np.einsum("sr,ir,jr->sij", diagonals, left, right)
    for more in (0, 3):
        found = fitted(wt.Svd(rank + more), weights, wt.Shape(*shape), sweeps=0)
        assert norm(weights - found) < 1e-5 * norm(weights)


def test_conjugate_eigenvectors_give_independent_terms():
    """In rows and columns: mixtures of the identity and of a quarter turn have complex eigenvectors only."""
    core = np.stack([np.eye(2), [[0.0, -1.0], [1.0, 0.0]]])
    terms, _ = factorize.diagonalised_terms(core, 2)
    assert [np.linalg.matrix_rank(term) for term in terms[1:]] == [2, 2]


def test_svd_is_as_good_as_tensorly(rng):
    """After a few sweeps from the starts that each has; both are local minima."""
    weights = noise(rng)
    ours = norm(weights - fitted(wt.Svd(30), weights, sweeps=10))
    with pytest.warns(UserWarning, match="n_eigenvecs"):
        made = parafac(weights.astype(np.float64), 30, n_iter_max=10, tol=0, random_state=0)
    assert ours < 1.01 * norm(weights - tl.cp_to_tensor(made))


# Tucker


def test_mode_energies_are_squared_singular_values(rng):
    weights = noise(rng, 12, 16, 24, 3)
    for axis, energies in enumerate(mode_energies(weights)):
        np.testing.assert_allclose(energies, spectrum(tl.unfold(weights, axis)) ** 2, rtol=1e-9)


def test_tucker_without_sweeps_is_the_hosvd(rng):
    weights, ranks = noise(rng), (4, 6, 7)
    bases = [np.linalg.svd(tl.unfold(weights.astype(np.float64), axis))[0][:, :r] for axis, r in enumerate(ranks)]
    expected = tl.tenalg.multi_mode_dot(weights, [basis @ basis.T for basis in bases])
    np.testing.assert_allclose(fitted(wt.Tucker(ranks), weights, sweeps=0), expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["noise", "decaying"])
def test_tucker_is_as_good_as_the_theorems_say(kind, unsettled, rng):
    """√3 times the best is the bound of the HOSVD, and what is discarded along one axis bounds the best from below."""
    weights, ranks = noise(rng), (4, 6, 7)
    if kind == "decaying":
        weights = weights / np.arange(1, 13)[:, None, None] / np.arange(1, 17)[:, None] / np.arange(1, 25)
    discarded = [e[r:].sum() for e, r in zip(mode_energies(weights), ranks, strict=True)]
    hosvd, hooi = (norm(weights - fitted(wt.Tucker(ranks), weights, sweeps=n)) for n in (0, 300))
    (core, bases), _ = partial_tucker(weights.astype(np.float64), list(ranks), n_iter_max=300, tol=0)
    theirs = norm(weights - tl.tucker_to_tensor((core, bases)))
    assert hosvd**2 <= sum(discarded) * (1 + 1e-6)
    assert max(discarded) * (1 - 1e-6) <= hooi**2
    assert hooi <= hosvd <= math.sqrt(3) * hooi
    np.testing.assert_allclose(hooi, theirs, rtol=2e-3)  # both are local minima


def test_planted_ranks_are_found_by_energy(rng):
    ranks = (3, 5, 6)
    core, bases = noise(rng, *ranks), [noise(rng, n, r) for n, r in zip(SHAPE, ranks, strict=False)]
    weights = tl.tucker_to_tensor((core, bases))
    assert ranks_by_energy(weights, 0.0) == ranks
    assert relative_error(weights, fitted(wt.Tucker(ranks), weights)) < 1e-6
    noisy = weights + 1e-3 * weights.std() * noise(rng)
    assert ranks_by_energy(noisy, 0.0) == SHAPE[:3]
    assert ranks_by_energy(noisy, 1e-4) == ranks


def test_ranks_by_energy_are_the_smallest(rng):
    weights = noise(rng)
    for discarded in (0.9, 0.3, 0.01):
        for rank, energies in zip(ranks_by_energy(weights, discarded), mode_energies(weights), strict=True):
            assert energies[rank:].sum() <= discarded * energies.sum()
            assert rank == 1 or energies[rank - 1 :].sum() > discarded * energies.sum()
    for wrong in (-0.1, 1.0, 30.0):
        with pytest.raises(wt.UserError, match="from 0 to below 1"):
            ranks_by_energy(weights, wrong)


# Errors


@pytest.mark.parametrize("family", [*MADE, "default svd"])
@pytest.mark.parametrize("sweeps", [0, 5])
def test_errors_by_rank_are_those_of_a_decomposition(family, sweeps, rng):
    weights, constraint = noise(rng), (MADE | {"default svd": wt.Svd()})[family]
    found = errors_by_rank(constraint, weights, SHAPE, shares=(0.5, 1.0), sweeps=sweeps)
    ranks = {
        "linear": ("rank", [(2,), (3,)]),
        "kronecker": ("templates", [(2,), (4,)]),
        "kronecker, tiling": ("templates", [(2,), (4,)]),
        "svd": ("rank", [(4,), (7,)]),
        "default svd": ("rank", [(2,), (5,)]),
        "tucker": ("ranks", [(2, 3, 4), (5, 6, 7)]),
    }
    if family not in ranks:
        assert found == {}
        return
    name, expected = ranks[family]
    assert list(found) == expected
    for each, error in found.items():
        smaller = eqx.tree_at(
            lambda c: c,
            constraint,
            type(constraint)(**(vars(constraint) | {name: each if name == "ranks" else each[0]})),
        )
        assert error == pytest.approx(relative_error(weights, fitted(smaller, weights, sweeps=sweeps)), abs=1e-6)
    assert found[expected[1]] < found[expected[0]]


def test_errors_by_component_add_up(rng):
    weights = noise(rng)
    made = fitted(wt.Tucker(), weights)
    components = {"q": [0, 4, 8], "k": np.array([1, 5, 9]), "v": [2, 6, 10], "out": range(3, 12, 4)}
    found = errors_by_component(weights, made, components)
    assert found["q"] == pytest.approx(norm((weights - made)[::4]) / norm(weights[::4]))
    total = sum((found[name] * norm(weights[list(slices)])) ** 2 for name, slices in components.items())
    assert total == pytest.approx((relative_error(weights, made) * norm(weights)) ** 2)
    assert relative_error(weights, made) == pytest.approx(norm(weights - made) / norm(weights))
    assert relative_error(0 * weights, made) == math.inf


# Balance


def test_factors_have_the_scale_of_init(rng):
    weights = noise(rng)
    mean = {}
    for family in ("linear", "kronecker", "svd", "tucker"):
        factors = decompose(CONSTRAINTS[family], weights, SHAPE)
        mean |= {(family, n): float(jnp.mean(x**2)) for n, x in (factors.template | factors.scalers).items()}
    expected = {
        ("linear", "slice"): 1 / 3,
        ("kronecker", "slice"): 1 / 4,
        ("svd", "left"): 1 / 7,
        ("svd", "right"): 1 / 7,
        ("tucker", "slice"): 1 / 5,
        ("tucker", "row"): 1 / 6,
        ("tucker", "col"): 1 / 7,
    }
    assert {k: v for k, v in mean.items() if k in expected} == pytest.approx(expected, rel=1e-5)
    gram = factors.scalers["row"].T @ factors.scalers["row"]
    np.testing.assert_allclose(gram, 16 / 6 * np.eye(6), atol=1e-5)


def test_leading_ranks_hold_the_most_energy(rng):
    weights = noise(rng)
    core = decompose(wt.Tucker(), weights, SHAPE, sweeps=0).template["core"]
    bases = decompose(wt.Linear(6), weights, SHAPE).template["bases"]
    tiles = decompose(wt.Kronecker(6, (5, 7)), weights, SHAPE).template["tiles"]
    diagonals = decompose(wt.Svd(6), weights, SHAPE).scalers["slice"].T
    for array in (bases, tiles, diagonals):
        energies = [norm(x) for x in array]
        assert energies == sorted(energies, reverse=True)
    held = [norm(core[r]) for r in range(len(core))]
    assert held[0] > held[-1]


# Taps


def expanded(family, template, scalers, shape):
    """The expansion of kernels, tap by tap."""
    t, s = ({n: np.asarray(x, np.float64) for n, x in arrays.items()} for arrays in (template, scalers))
    slices, rows, cols, *taps = shape
    weights = np.zeros(shape)
    for tap in np.ndindex(*taps):
        at = (..., *tap)
        if family == "none":
            weights[at] = s["slice"][at]
        elif family == "linear":
            weights[at] = np.tensordot(s["slice"], t["bases"][at], 1)
        elif family == "kronecker":
            for i in range(slices):
                tiled = sum(np.kron(s["slice"][i, :, :, k], tile[at]) for k, tile in enumerate(t["tiles"]))
                weights[i][at] = tiled[:rows, :cols]
        elif family == "svd":
            weights[at] = [t["left"] @ np.diag(d) @ t["right"][(slice(None), *tap)].T for d in s["slice"]]
        else:
            weights[at] = tl.tucker_to_tensor((t["core"][at], [s["slice"], s["row"], s["col"]]))
    return weights


KERNELS = (8, 6, 7, 3, 2)
"""Slices, rows, columns, and two axes of taps."""


def templates(family, full):
    """Shapes of a template for KERNELS: at full ranks, or at low ones."""
    return {
        "none": {},
        "linear": {"bases": (8 if full else 2, 6, 7, 3, 2)},
        "kronecker": {"tiles": (48 if full else 3, 4, 3, 3, 2)},
        "svd": {"left": (6, 48 if full else 4), "right": (7, 3, 2, 48 if full else 4)},
        "tucker": {"core": (8, 6, 7, 3, 2) if full else (2, 3, 4, 3, 2)},
    }[family]


def scalers_for(family, template):
    count = {name: shape[0] for name, shape in template.items()}
    return {
        "none": lambda: {"slice": KERNELS},
        "linear": lambda: {"slice": (8, count["bases"])},
        "kronecker": lambda: {"slice": (8, 2, 3, count["tiles"])},
        "svd": lambda: {"slice": (8, template["left"][1])},
        "tucker": lambda: {
            n: (k, r) for n, k, r in zip(("slice", "row", "col"), KERNELS, template["core"], strict=False)
        },
    }[family]()


@pytest.mark.parametrize("family", wt.FAMILIES)
@pytest.mark.parametrize("full", [True, False])
def test_kernels_are_decomposed_with_their_taps(family, full, rng):
    """Any kernels at full ranks, and those that low ranks make."""
    like = templates(family, full)
    made = [{n: noise(rng, *shape) for n, shape in shapes.items()} for shapes in (like, scalers_for(family, like))]
    weights = noise(rng, *KERNELS) if full else expanded(family, *made, KERNELS)
    shapes = {n: jax.ShapeDtypeStruct(shape, jnp.float32) for n, shape in like.items()}
    template, scalers = decompose_shared(
        CONSTRAINTS[family], shapes, {"conv": weights}, {"conv": wt.Shape(*KERNELS[:3])}, sweeps=300
    )
    assert {n: x.shape for n, x in template.items()} == like
    assert {n: x.shape for n, x in scalers["conv"].items()} == scalers_for(family, like)
    assert norm(weights - expanded(family, template, scalers["conv"], KERNELS)) < 1e-5 * norm(weights)


def test_taps_are_not_rotated(rng):
    """The ranks of kernels along slices, rows and columns do not see the taps."""
    weights = expanded(
        "tucker",
        {"core": noise(rng, 2, 3, 4, 3, 2)},
        {n: noise(rng, *s) for n, s in scalers_for("tucker", {"core": (2, 3, 4)}).items()},
        KERNELS,
    )
    assert ranks_by_energy(weights, 0.0) == (2, 3, 4)


# Several stacks


@pytest.mark.parametrize("family", MADE)
def test_stacks_that_share_a_template_are_fitted_as_one(family, rng):
    shapes = {"a": SHAPE._replace(slices=8, layers=2), "b": SHAPE._replace(slices=4, layers=1)}
    weights, constraint = noise(rng), MADE[family]
    like = jax.eval_shape(lambda k: constraint.template(shapes["a"], key=k), jr.key(0))
    template, scalers = decompose_shared(constraint, like, {"a": weights[:8], "b": weights[8:]}, shapes)
    made = [constraint.expand(wt.Factors(template, scalers[n]), shapes[n]) for n in ("a", "b")]
    assert [x.shape[0] for x in made] == [8, 4]
    if family == "tleg":  # each stack has the mixtures of its own depth
        mixtures = np.concatenate([scalers["a"]["slice"], scalers["b"]["slice"]]).astype(np.float64)
        np.testing.assert_array_equal(scalers["b"]["slice"], np.eye(4, 8))
        expected = mixtures @ np.linalg.lstsq(mixtures, weights.reshape(12, -1).astype(np.float64))[0]
        np.testing.assert_allclose(np.concatenate(made), expected.reshape(weights.shape), atol=1e-5)
    else:
        np.testing.assert_allclose(np.concatenate(made), fitted(constraint, weights), atol=1e-5)


@pytest.mark.parametrize("tile", [(4, 6), (5, 7)])
def test_tiles_can_be_shared_by_stacks_of_different_widths(tile, key, rng):
    shapes = {"narrow": wt.Shape(6, 12, 12), "wide": SHAPE}
    constraint = wt.Kronecker(5, tile)
    made = constraint.init(SHAPE, key=key)
    scalers = {n: constraint.scalers(made.template, shape, key=key) for n, shape in shapes.items()}
    stacks = {n: constraint.expand(wt.Factors(made.template, scalers[n]), shapes[n]) for n in shapes}
    template, found = decompose_shared(constraint, made.template, stacks, shapes, sweeps=300)
    for n, shape in shapes.items():
        assert norm(stacks[n] - constraint.expand(wt.Factors(template, found[n]), shape)) < 1e-4 * norm(stacks[n])
    tucker = wt.Tucker((4, 6, 6))
    like = tucker.init(SHAPE, key=key).template
    with pytest.raises(wt.UserError, match=r"slices of 12 x 12 and 16 x 24.*Kronecker"):
        decompose_shared(tucker, like, stacks, shapes)


# Size


@pytest.mark.large
def test_low_ranks_of_a_vit_b_are_recovered(rng):
    """144 x 768 x 768; half a minute on one core, 1.7 GB."""
    shape, ranks = wt.Shape(144, 768, 768, layers=12), (24, 384, 384)
    factors = wt.Tucker().init(shape, key=jr.key(0))
    weights = np.asarray(wt.Tucker().expand(factors, shape))
    assert ranks_by_energy(weights, 0.0) == ranks
    assert relative_error(weights, fitted(wt.Tucker(ranks), weights, shape)) < 1e-5
