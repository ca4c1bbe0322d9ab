"""The gate's decisions, written against its formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from edge.errors import GateError
from edge.gate import Gate, join_views
from edge.gate_calibration import build_calibrator, build_join
from tests.edge import gates


def test_gaussian_member_is_the_formula_of_its_docstring() -> None:
    numbers, x = gates.arrays(), gates.arrays()["golden.features"].astype(np.float64)
    u = x / np.linalg.norm(x, axis=1, keepdims=True) - numbers["density.centre"]
    inverse = np.eye(gates.SIZE) / 0.05 - numbers["density.basis"] @ numbers["density.basis"].T
    expected = 1.5 - 0.5 * np.einsum("ni,ij,nj->n", u, inverse, u)
    judged = Gate(gates.manifest(), numbers, precision="float64").judge(x)
    np.testing.assert_allclose(judged.score, expected, rtol=1e-12)
    np.testing.assert_allclose(judged.probability, 1 / (1 + np.exp(-(1.2 * expected + 2.0))), rtol=0, atol=1e-9)


def test_judge_accepts_from_the_threshold_on() -> None:
    gate = gates.gate()
    x = gates.arrays()["golden.features"]
    judged = gate.judge(x)
    assert judged.probability is not None
    assert 0 < judged.accepted.sum() < len(x)
    np.testing.assert_array_equal(judged.accepted, judged.probability >= 0.5)


def test_other_threshold_leaves_the_gate_itself_as_it_was() -> None:
    gate = Gate(gates.manifest(), gates.arrays(), precision="float64")
    x = gates.arrays()["golden.features"]
    exactly = float(gate.judge(x).decisive[5])
    assert gate.with_threshold(exactly).judge(x).accepted[5]
    assert not gate.with_threshold(float(np.nextafter(exactly, 1))).judge(x).accepted[5]
    assert gate.threshold == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_with_a_number_that_is_not_finite_is_never_accepted_and_leaves_the_others_alone(value: float) -> None:
    x = gates.arrays()["golden.features"].copy()
    expected = gates.gate().judge(x)
    x[15, 3] = value
    judged = gates.gate().with_threshold(0.0).judge(x)
    assert not judged.finite[15]
    assert not judged.accepted[15]
    assert judged.finite[:15].all()
    np.testing.assert_array_equal(judged.score[:15], expected.score[:15])


def test_zero_row_has_no_direction_and_is_never_accepted() -> None:
    judged = gates.gate().with_threshold(0.0).judge(np.zeros((1, gates.SIZE), np.float32))
    assert not judged.finite[0]
    assert not judged.accepted[0]


def test_row_so_large_that_float32_overflows_is_judged_all_the_same() -> None:
    x = np.full((1, gates.SIZE), np.float32(3e38))
    fast, exact = gates.gate().judge(x), Gate(gates.manifest(), gates.arrays(), precision="float64").judge(x)
    np.testing.assert_array_equal(fast.accepted, exact.accepted)
    np.testing.assert_allclose(fast.score, exact.score, rtol=1e-6)


@given(any_array(np.float32, st.tuples(st.integers(0, 4), st.just(gates.SIZE)), elements=st.floats(width=32)))
def test_no_features_whatever_make_the_gate_fail_or_accept_what_is_not_finite(x: np.ndarray) -> None:
    judged = gates.gate().judge(x)
    assert judged.score.shape == judged.accepted.shape == (len(x),)
    assert not (judged.accepted & ~judged.finite).any()
    assert np.isfinite(judged.decisive[judged.finite]).all()


@pytest.mark.parametrize("shape", [(gates.SIZE,), (2, gates.SIZE + 1), (1, 2, gates.SIZE)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GateError, match=r"shape \(n, 6\)"):
        gates.gate().judge(np.zeros(shape, np.float32))


def test_without_negatives_the_p_value_decides() -> None:
    gate = gates.gate(**gates.WITHOUT_NEGATIVES)
    x = gates.arrays()["golden.features"]
    judged = gate.judge(x)
    assert judged.probability is None
    held_out = np.linspace(-6.0, 1.0, 9)
    expected = [(1 + (held_out <= score).sum()) / 10 for score in judged.score]
    np.testing.assert_allclose(judged.p_value, expected)
    np.testing.assert_array_equal(judged.accepted, np.asarray(expected) >= 0.15)
    assert 0 < judged.accepted.sum() < len(x)


def test_steep_isotonic_knots_are_scored_again_in_float64() -> None:
    """A knot pair closer than float32 can tell: without the second look the probability would be a coin's toss."""
    numbers = gates.arrays()
    x = np.abs(np.random.default_rng(3).standard_normal((400, gates.SIZE))).astype(np.float32)
    exact = Gate(gates.manifest(), numbers, precision="float64").judge(x).score
    edges = np.sort(exact)[100:300]
    numbers["calibration.x"] = np.sort(np.concatenate((edges - 1e-9, edges + 1e-9)))
    numbers["calibration.y"] = np.linspace(0.01, 0.99, 400)
    stepped = gates.manifest(calibration="isotonic")
    fast, slow = Gate(stepped, numbers).judge(x), Gate(stepped, numbers, precision="float64").judge(x)
    assert fast.probability is not None
    assert slow.probability is not None
    np.testing.assert_allclose(fast.probability, slow.probability, atol=1e-5)
    np.testing.assert_array_equal(fast.accepted, slow.accepted)


def test_clipped_sum_lets_no_member_buy_forgiveness_for_another() -> None:
    join = build_join("clipped_sum", {"join.centre": np.array([0.0, 10.0]), "join.scale": np.array([1.0, 2.0])}, 2)
    scores = [np.array([-3.0, 5.0, 1.0]), np.array([1000.0, 6.0, 10.0])]
    np.testing.assert_allclose(join(scores), [-3.0, -2.0, 0.0])


def test_beta_with_equal_weights_is_platt() -> None:
    s = np.linspace(-30, 30, 61)
    platt = build_calibrator("platt", {"calibration.parameters": np.array([0.7, -1.0])})
    beta = build_calibrator("beta", {"calibration.parameters": np.array([0.7, -1.0, 1.0, 1.0, 0.0])})
    assert platt is not None
    assert beta is not None
    np.testing.assert_allclose(beta(s), platt(s), rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("isotonic", "calibration.x", np.array([0.0, 0.0])),
        ("isotonic", "calibration.y", np.array([0.9, 0.1])),
        ("isotonic", "calibration.y", np.array([0.1, 1.1])),
        ("platt", "calibration.parameters", np.array([-1.0, 0.0])),
        ("platt", "calibration.parameters", np.array([1.0])),
        ("beta", "calibration.parameters", np.array([1.0, 0.0, -0.1, 1.0, 0.0])),
    ],
)
def test_calibration_that_could_fall_or_leave_the_unit_interval_is_refused(
    kind: str, name: str, value: np.ndarray
) -> None:
    good = {"calibration.x": np.array([0.0, 1.0]), "calibration.y": np.array([0.1, 0.9])}
    with pytest.raises(GateError):
        build_calibrator(kind, {**good, name: value})


def test_views_are_averaged_on_the_unit_sphere_where_the_gate_normalises() -> None:
    a, b = np.array([[3.0, 0.0]], np.float32), np.array([[0.0, 0.5]], np.float32)
    np.testing.assert_allclose(join_views([a, b], normalise=True), [[0.5, 0.5]])
    np.testing.assert_allclose(join_views([a, b], normalise=False), [[1.5, 0.25]])
    with pytest.raises(GateError, match="joins the views full"):
        gates.gate().join_views([a, b])


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_outside_the_unit_interval_is_refused(threshold: float) -> None:
    with pytest.raises(GateError, match="threshold"):
        gates.gate().with_threshold(threshold)
