"""The join that multiplies probabilities."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from edge.errors import GateError
from edge.gate import Gate, Precision
from edge.gate_calibration import Join, build_join, sigmoid
from edge.gate_math import Float64
from tests.edge import gates

ARRAYS = {
    "join.centre": np.array([1.0, -2.0, 0.5]),
    "join.weights": np.array([[0.7, 2.0, 0.0], [0.0, 0.0, 1.5]]),
    "join.intercept": np.array([3.0, 1.0]),
}
SCORES = any_array(np.float64, (3, 5), elements=st.floats(-1e6, 1e6))


def product() -> Join:
    return build_join("product", ARRAYS, 3)


def log_odds(scores: Float64) -> Float64:
    """Of each factor (2, n), as the docstring has it."""
    clipped = np.minimum(scores - ARRAYS["join.centre"][:, None], 0.0)
    return np.asarray(ARRAYS["join.weights"] @ clipped + ARRAYS["join.intercept"][:, None])


def test_product_is_the_log_odds_of_multiplied_probabilities() -> None:
    scores = np.array([[0.0, 1.5, -3.0], [-2.5, 0.0, -2.0], [1.0, -1.0, 0.0]])
    p = sigmoid(log_odds(scores)).prod(axis=0)
    np.testing.assert_allclose(product()(list(scores)), np.log(p / (1 - p)), rtol=1e-12)


@given(SCORES)
def test_no_factor_buys_forgiveness_for_another(scores: Float64) -> None:
    joined = product()(list(scores))
    assert np.isfinite(joined).all()
    assert (joined <= log_odds(scores).min(axis=0) + 1e-9).all()


@given(SCORES, st.integers(0, 2), st.floats(0.0, 1e6))
def test_score_never_falls_as_a_member_likes_a_picture_better(scores: Float64, member: int, more: float) -> None:
    better = scores.copy()
    better[member] += more
    assert (product()(list(better)) >= product()(list(scores)) - 1e-9).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["product", "clipped_sum"])
def test_score_that_is_not_finite_is_never_clipped_away_and_nothing_is_computed_with_it(
    kind: str, value: float
) -> None:
    join = build_join(kind, ARRAYS | {"join.scale": np.array([1.0, 2.0, 3.0])}, 3)
    others = np.array([0.5, -3.0, 2.0])
    for member in range(3):
        scores = [others.copy() for _ in range(3)]
        scores[member][1] = value
        with np.errstate(all="raise"):
            joined = join(scores)
        assert np.isfinite(joined).tolist() == [True, False, True]
        assert np.array_equal(joined[[0, 2]], join([others[[0, 2]]] * 3))


def test_certain_picture_has_a_finite_score() -> None:
    sure = build_join("product", ARRAYS | {"join.intercept": np.array([2000.0, 3000.0])}, 3)
    assert np.isfinite(sure([np.array([5.0])] * 3)).all()


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("join.weights", np.array([[0.7, -2.0, 0.0], [0.0, 0.0, 1.5]]), "must not be negative"),
        ("join.weights", np.ones((2, 2)), "float64 of shape"),
        ("join.weights", np.ones(3), "float64 of shape"),
        ("join.weights", np.ones((2, 3), np.float32), "float64 of shape"),
        ("join.weights", np.ones((0, 3)), "1 to 16 factors; found 0"),
        ("join.weights", np.ones((17, 3)), "1 to 16 factors; found 17"),
        ("join.intercept", np.ones(3), "join.intercept"),
        ("join.centre", np.ones(2), "join.centre"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, array: Float64, sentence: str) -> None:
    with pytest.raises(GateError, match=sentence):
        build_join("product", ARRAYS | {name: array}, 3)


def product_gate(precision: Precision, intercept: float = 4.0) -> Gate:
    """Density, and two borders, on unit rows; the first factor takes density and far border."""
    rng = np.random.default_rng(3)
    members = [{"name": "density", "kind": "gaussian"}, *({"name": n, "kind": "linear"} for n in ("finer", "far"))]
    arrays = gates.arrays() | {
        "join.centre": np.array([1.0, 2.0, 2.0]),
        "join.weights": np.array([[0.1, 0.0, 1.1], [0.0, 1.4, 0.0]]),
        "join.intercept": np.full(2, intercept),
    }
    for name in ("finer", "far"):
        arrays[f"{name}.centre"] = np.full(gates.SIZE, 0.3)
        arrays[f"{name}.weights"] = 40.0 * rng.standard_normal(gates.SIZE)
        arrays[f"{name}.intercept"] = np.asarray(1.0)
    return Gate(gates.manifest(members=members, join="product"), arrays, precision=precision)


def test_both_precisions_decide_alike() -> None:
    rows = np.random.default_rng(1).standard_normal((4000, gates.SIZE)).astype(np.float32)
    rows[:, 0] += 1.5
    exact, fast = product_gate("float64").judge(rows), product_gate("float32").judge(rows)
    assert 400 < exact.accepted.sum() < 3600
    np.testing.assert_array_equal(fast.accepted, exact.accepted)
    np.testing.assert_allclose(fast.decisive, exact.decisive, atol=1e-5)
    np.testing.assert_allclose(fast.score, exact.score, atol=1e-3)
    alone = np.concatenate([product_gate("float32").judge(row[None]).score for row in rows[:50]])
    np.testing.assert_allclose(alone, exact.score[:50], atol=1e-3)


def test_row_that_is_no_number_is_never_accepted_however_sure_the_factors_are() -> None:
    rows = np.full((4, gates.SIZE), np.nan, np.float32)
    rows[1:] = np.array([np.inf, 0.0, -np.inf])[:, None]
    for precision in get_args(Precision):
        scores = product_gate(precision, intercept=1e6).judge(rows)
        assert not scores.finite.any()
        assert not scores.accepted.any()


def test_score_that_overflows_is_no_number() -> None:
    gate = build_join("product", ARRAYS | {"join.weights": np.full((2, 3), 1e308)}, 3)
    with np.errstate(over="ignore"):
        assert not np.isfinite(gate([np.array([-1e3])] * 3)).any()
