"""The join that multiplies probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from edge.errors import GateError
from edge.gate_calibration import Join, build_join, sigmoid
from edge.gate_math import Float64

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
def test_score_that_is_not_finite_is_never_clipped_away(value: float) -> None:
    for member in range(3):
        scores = [np.array([0.0]) for _ in range(3)]
        scores[member] = np.array([value])
        assert not np.isfinite(product()(scores)).any()


def test_certain_picture_has_a_finite_score() -> None:
    sure = build_join("product", ARRAYS | {"join.intercept": np.array([2000.0, 3000.0])}, 3)
    assert np.isfinite(sure([np.array([5.0])] * 3)).all()


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("join.weights", np.array([[0.7, -2.0, 0.0], [0.0, 0.0, 1.5]]), "must not be negative"),
        ("join.weights", np.ones((2, 2)), "float64 of shape"),
        ("join.weights", np.ones(3), "float64 of shape"),
        ("join.intercept", np.ones(3), "join.intercept"),
        ("join.centre", np.ones(2), "join.centre"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, array: Float64, sentence: str) -> None:
    with pytest.raises(GateError, match=sentence):
        build_join("product", ARRAYS | {name: array}, 3)
