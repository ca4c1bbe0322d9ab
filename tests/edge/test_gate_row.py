"""One row in plain numbers says what a batch in arrays says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gate_calibration import build_join
from edge.gate_math import aligned, build_member
from edge.gate_row import knots_curve, row_score

SIZE, KEPT, MIXTURES = 12, 5, 3


def mixture_arrays(covariance: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {
        "centre": rng.standard_normal(SIZE),
        "projection": rng.standard_normal((SIZE, KEPT)),
        "offset": rng.standard_normal(KEPT),
        "weights": np.array([0.2, 0.3, 0.5]),
        "means": rng.standard_normal((MIXTURES, KEPT)),
        "variances": rng.uniform(0.5, 2.0, MIXTURES if covariance == "spherical" else (MIXTURES, KEPT)),
    }


@pytest.mark.parametrize("covariance", ["spherical", "diag"])
def test_mixture_is_the_density_written_out(covariance: str) -> None:
    arrays = mixture_arrays(covariance)
    x = np.random.default_rng(5).standard_normal((7, SIZE))
    y = (x - arrays["centre"]) @ arrays["projection"] + arrays["offset"]
    variances = arrays["variances"].reshape(MIXTURES, -1) * np.ones(KEPT)
    exponent = -0.5 * (((y[:, None] - arrays["means"]) ** 2 / variances) + np.log(2 * np.pi * variances)).sum(-1)
    expected = np.log((arrays["weights"] * np.exp(exponent)).sum(1))
    member = build_member("mixture", covariance, arrays, np.float64)
    np.testing.assert_allclose(member.score(x), expected, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1e4))
def test_one_row_scores_as_it_does_in_a_batch(seed: int, scale: float) -> None:
    member = build_member("mixture", "spherical", mixture_arrays("spherical"), np.float32)
    alone = row_score([member])
    assert alone is not None
    x = (scale * np.random.default_rng(seed).standard_normal((3, SIZE))).astype(np.float32)
    np.testing.assert_allclose([alone(row[None]) for row in x], member.score(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_row_without_a_finite_score_is_nan_not_an_error(value: float) -> None:
    alone = row_score([build_member("mixture", "spherical", mixture_arrays("spherical"), np.float32)])
    assert alone is not None
    with np.errstate(all="ignore"):
        assert np.isnan(alone(np.full((1, SIZE), value, np.float32)))


def test_only_a_lone_spherical_mixture_has_the_short_way() -> None:
    spherical = build_member("mixture", "spherical", mixture_arrays("spherical"), np.float32)
    diag = build_member("mixture", "diag", mixture_arrays("diag"), np.float32)
    assert row_score([diag]) is None
    assert row_score([spherical, spherical]) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9, unique=True), st.floats(-2e3, 2e3))
def test_curve_is_numpy_interp(at: list[float], score: float) -> None:
    x = np.sort(at)
    y = np.linspace(0.0, 1.0, len(x))
    assert knots_curve(x, y)(score) == pytest.approx(float(np.interp(score, x, y)), abs=1e-12)


def test_join_never_clips_an_infinite_score_away() -> None:
    join = build_join("clipped_sum", {"join.centre": np.zeros(2), "join.scale": np.ones(2)}, 2)
    with np.errstate(invalid="ignore"):
        assert np.isnan(join([np.array([np.inf]), np.array([-1.0])])).all()


def test_aligned_copies_begin_on_a_cache_line() -> None:
    for shape in ((3, 5), (2048, 7), (1, 1)):
        source = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        copy = aligned(source, np.float32)
        assert copy.ctypes.data % 64 == 0
        assert copy.flags.c_contiguous
        np.testing.assert_array_equal(copy, source)
