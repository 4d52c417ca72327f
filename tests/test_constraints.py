"""Laws of every family of constraints, and the reference that each is checked against."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import weight_templates as wt
from weight_templates.config import ConstraintOptions, KroneckerOptions, TuckerOptions
from weight_templates.constraints import constraint_of
from weight_templates.constraints.tucker import cheapest_order

from .helpers import CONSTRAINTS


SHAPE = wt.Shape(12, 16, 24, layers=2)
KERNELS = wt.Shape(12, 9, 11, layers=2, taps=(3, 3))
FIXED = {"tleg": wt.Linear(tleg=True)}
families = pytest.mark.parametrize("family", CONSTRAINTS | FIXED)
shapes = pytest.mark.parametrize("shape", [SHAPE, KERNELS], ids=["matrices", "kernels"])


def at_tap(family, factors, tap):
    """The factors of the matrices at one tap of kernels: by every family's own place for taps."""
    template, scalers = dict(factors.template), dict(factors.scalers)
    if family == "none":
        scalers["slice"] = scalers["slice"][..., *tap]
    elif family == "svd":
        template["right"] = template["right"][:, *tap]
    else:
        template = {name: array[..., *tap] for name, array in template.items()}
    return wt.Factors(template, scalers)


def reference(family, factors, shape):
    """The expansion by other means: loops, numpy's kron, tensorly; of kernels, tap by tap."""
    if shape.taps:
        matrices = [
            reference(family, at_tap(family, factors, tap), shape._replace(taps=())) for tap in np.ndindex(*shape.taps)
        ]
        return np.stack(matrices, axis=-1).reshape(shape.full)
    t = {k: np.asarray(v, np.float64) for k, v in factors.template.items()}
    s = {k: np.asarray(v, np.float64) for k, v in factors.scalers.items()}
    if family == "none":
        return s["slice"]
    if family in ("linear", "tleg"):
        weight = np.zeros(shape[:3])
        for i in range(shape.slices):
            for k in range(t["bases"].shape[0]):
                weight[i] += s["slice"][i, k] * t["bases"][k]
        return weight
    if family == "kronecker":
        return np.stack(
            [
                sum(np.kron(s["slice"][i, :, :, k], t["tiles"][k]) for k in range(len(t["tiles"])))[
                    : shape.rows, : shape.cols
                ]
                for i in range(shape.slices)
            ]
        )
    if family == "svd":
        return np.stack([t["left"] @ np.diag(d) @ t["right"].T for d in s["slice"]])
    import tensorly as tl

    tl.set_backend("numpy")
    return tl.tucker_to_tensor((t["core"], [s["slice"], s["row"], s["col"]]))


@families
@shapes
def test_expand_equals_reference(family, shape, key):
    constraint = (CONSTRAINTS | FIXED)[family]
    factors = constraint.init(shape, key=key)
    weight = constraint.expand(factors, shape)
    assert weight.shape == (*shape[:3], *shape.taps) == shape.full
    np.testing.assert_allclose(weight, reference(family, factors, shape), atol=2e-6)


@pytest.mark.parametrize("family", CONSTRAINTS)
@pytest.mark.parametrize("shape", [wt.Shape(96, 64, 64), wt.Shape(96, 24, 24, taps=(3, 3))], ids=["64", "24x3x3"])
def test_weights_start_with_variance_one_over_fan_in(family, shape):
    """The fan-in of a kernel is its columns times its taps."""
    fan_in = {(): 64, (3, 3): 216}[shape.taps]
    constraint = wt.FAMILIES[family]()
    expand = eqx.filter_jit(lambda k: constraint.expand(constraint.init(shape, key=k), shape))
    weights = np.stack([expand(k) for k in jr.split(jr.key(0), 8)])
    assert 0.85 < fan_in * weights.var() < 1.15
    assert abs(weights.mean()) < 0.01


@families
@shapes
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_select_is_the_prefix(family, shape, data):
    """Taps are never cut."""
    constraint = (CONSTRAINTS | FIXED)[family]
    factors = constraint.init(shape, key=jr.key(7))
    small = wt.Shape(
        data.draw(st.integers(1, shape.slices)),
        data.draw(st.integers(1, shape.rows)),
        data.draw(st.integers(1, shape.cols)),
        taps=shape.taps,
    )
    slices = np.array(data.draw(st.permutations(range(shape.slices)))[: small.slices])
    full = constraint.expand(factors, shape)
    found = constraint.expand(constraint.select(factors, small, slices), small)
    np.testing.assert_allclose(found, full[slices, : small.rows, : small.cols], atol=2e-6)


@families
@shapes
def test_a_mixture_of_slices_is_a_mixture_of_their_scalers(family, shape, key):
    """The weights are linear in what each slice has of its own, which inheritance blends."""
    constraint = (CONSTRAINTS | FIXED)[family]
    factors = constraint.init(shape, key=key)
    weight = np.asarray(constraint.expand(factors, shape))
    mixture = jnp.asarray(np.random.default_rng(0).normal(size=(shape.slices, shape.slices)).astype(np.float32))
    mixed = wt.Factors(
        factors.template, factors.scalers | {"slice": jnp.tensordot(mixture, factors.scalers["slice"], 1)}
    )
    np.testing.assert_allclose(constraint.expand(mixed, shape), np.tensordot(mixture, weight, 1), atol=2e-5)


@families
@shapes
def test_mask_is_zero_beyond_the_prefix_for_every_width(family, shape, key):
    constraint = (CONSTRAINTS | FIXED)[family]
    factors = constraint.init(shape, key=key)
    full = np.asarray(constraint.expand(factors, shape))
    masked = jax.jit(lambda r, c: constraint.expand(constraint.mask(factors, shape, r, c), shape))
    for rows in range(shape.rows + 1):
        cols = (7 * rows) % (shape.cols + 1)
        expected = full.copy()
        expected[:, rows:] = 0
        expected[:, :, cols:] = 0
        np.testing.assert_allclose(masked(rows, cols), expected, atol=2e-6)


@families
@pytest.mark.parametrize("taps", [(), (3, 2)], ids=["matrices", "kernels"])
def test_gradients_are_right(family, taps, key, float64):
    constraint = (CONSTRAINTS | FIXED)[family]
    shape = wt.Shape(12, 8, 9, layers=2, taps=taps)
    factors = jax.tree.map(lambda x: x.astype(jnp.float64), constraint.init(shape, key=key))
    weigh = jr.normal(key, shape.full, jnp.float64)
    check_grads(
        lambda f: jnp.sum(weigh * constraint.expand(jax.tree.map(jnp.asarray, f), shape) ** 2),
        (factors,),
        order=1,
        modes=["rev"],
    )


@families
def test_hyperparameters_are_static(family):
    constraint = (CONSTRAINTS | FIXED)[family]
    assert jax.tree.leaves(constraint) == []
    traces = []

    @jax.jit
    def expand(constraint, factors):
        traces.append(1)
        return constraint.expand(factors, SHAPE)

    for i in range(2):
        expand(type(constraint)(**vars(constraint)), constraint.init(SHAPE, key=jr.key(i)))
    assert len(traces) == 1


def test_kronecker_is_a_tucker(key):
    """SWEET App. A.2: with the core E_ij ⊗ T_t, identity widths and the scalers as mixtures, the weights are the same."""
    count, (p, q), (a, b), slices = 3, (4, 6), (2, 3), 12
    shape = wt.Shape(slices, a * p, b * q)
    kronecker = wt.Kronecker(count, (p, q))
    factors = kronecker.init(shape, key=key)
    tiles, tile = factors.template["tiles"], factors.scalers["slice"]
    cells = [(t, i, j) for t in range(count) for i in range(a) for j in range(b)]
    core = np.stack([np.kron(np.eye(a)[:, [i]] @ np.eye(b)[[j]], tiles[t]) for t, i, j in cells])
    mixture = np.stack([tile[:, i, j, t] for t, i, j in cells], axis=1)
    as_tucker = wt.Factors(
        {"core": jnp.asarray(core)},
        {"slice": jnp.asarray(mixture), "row": jnp.eye(a * p), "col": jnp.eye(b * q)},
    )
    expanded = wt.Tucker((len(cells), a * p, b * q)).expand(as_tucker, shape)
    np.testing.assert_allclose(expanded, kronecker.expand(factors, shape), atol=1e-6)


def test_svd_is_a_tucker_with_a_superdiagonal_core(key):
    shape, rank = wt.Shape(12, 8, 9), 5
    svd = wt.Svd(rank)
    factors = svd.init(shape, key=key)
    core = np.zeros((rank,) * 3, np.float32)
    core[range(rank), range(rank), range(rank)] = 1
    scalers = {
        "slice": factors.scalers["slice"],
        "row": factors.template["left"],
        "col": factors.template["right"],
    }
    as_tucker = wt.Factors({"core": jnp.asarray(core)}, scalers)
    np.testing.assert_allclose(wt.Tucker((rank,) * 3).expand(as_tucker, shape), svd.expand(factors, shape), atol=1e-6)


def test_default_templates_have_equal_size():
    """At ViT-B's size: 24 x 384 x 384 numbers, 4 % of the weights (method.md: 3.54 M). Of kernels nine times as many, but
    for the rounding of svd's rank."""
    for taps, slack in (((), 0), ((3, 3), 1e-3)):
        shape = wt.Shape(144, 768, 768, taps=taps)
        for family, cls in wt.FAMILIES.items():
            factors = eqx.filter_eval_shape(functools.partial(cls().init, shape), key=jr.key(0))
            size = sum(leaf.size for leaf in factors.template.values())
            expected = 0 if family == "none" else 24 * 384 * 384 * (9 if taps else 1)
            assert size == pytest.approx(expected, rel=slack if family == "svd" else 0)


def test_kernels_are_not_applied_factor_by_factor(key):
    """Of matrices, `row core[slice] colᵀ` is the weights; kernels have no such form."""
    tucker = CONSTRAINTS["tucker"]
    factors = tucker.init(SHAPE, key=key)
    core, row, col = tucker.cores(factors, SHAPE)
    np.testing.assert_allclose(jnp.einsum("ip,spq,jq->sij", row, core, col), tucker.expand(factors, SHAPE), atol=2e-6)
    assert tucker.cores(tucker.init(KERNELS, key=key), KERNELS) is None
    for family, constraint in CONSTRAINTS.items():
        if family != "tucker":
            assert constraint.cores(constraint.init(SHAPE, key=key), SHAPE) is None


@pytest.mark.parametrize(
    ("ranks", "sizes", "order"),
    [
        ((24, 384, 384), (144, 768, 768), "basis"),
        ((144, 4, 4), (12, 64, 64), "mix"),
    ],
)
def test_cheapest_order(ranks, sizes, order):
    """Against the closed forms: basis first r1 (D r2 r3 + D² r3) + S r1 D²; mix first S r1 r2 r3 + S (D r2 r3 + D² r3)."""
    (r1, r2, r3), (s, d, _) = ranks, sizes
    basis = r1 * (d * r2 * r3 + d * d * r3) + s * r1 * d * d
    mix = s * r1 * r2 * r3 + s * (d * r2 * r3 + d * d * r3)
    assert (basis < mix) == (order == "basis")
    assert (cheapest_order(ranks, sizes)[-1] == 0) == (order == "basis")
    assert (cheapest_order(ranks, sizes)[0] == 0) == (order == "mix")


def test_both_orders_expand_to_the_same(key):
    for shape in (wt.Shape(2, 30, 30), wt.Shape(60, 6, 6)):
        tucker = wt.Tucker((2, 5, 5))
        factors = tucker.init(shape, key=key)
        np.testing.assert_allclose(tucker.expand(factors, shape), reference("tucker", factors, shape), atol=2e-6)


def test_tucker_starts_from_orthogonal_widths(key):
    factors = wt.Tucker().init(SHAPE, key=key)
    for name, size in (("row", SHAPE.rows), ("col", SHAPE.cols)):
        gram = np.asarray(factors.scalers[name].T @ factors.scalers[name])
        np.testing.assert_allclose(gram, 2 * np.eye(size // 2), atol=1e-5)  # columns of norm² size / rank


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        (wt.Tucker((13, 6, 6)), "slices"),
        (wt.Tucker((4, 17, 6)), "number of rows is 16"),
        (wt.Tucker((4, 6, 25)), "number of columns is 24"),
        (wt.Tucker((4, 0, 6)), "from 1 to 16"),
        (wt.Linear(13), "--linear.rank"),
        (wt.Svd(193), "--svd.rank"),
        (wt.Kronecker(4, (17, 8)), "--kronecker.tile"),
        (wt.Kronecker(10**6, (8, 8)), "--kronecker.templates"),
    ],
)
def test_ranks_above_the_size_are_refused(constraint, says, key):
    with pytest.raises(wt.UserError, match=says):
        constraint.init(SHAPE, key=key)


def test_options_of_another_family_are_refused():
    with pytest.raises(wt.UserError, match="--tucker"):
        constraint_of(ConstraintOptions("linear", tucker=TuckerOptions((1, 2, 3))))
    assert constraint_of(ConstraintOptions("kronecker", kronecker=KroneckerOptions(3, (4, 4)))) == wt.Kronecker(
        3, (4, 4)
    )
