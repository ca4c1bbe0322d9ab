"""Calibrators recover what is known to be true, and never claim certainty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from calibrate.calibrators import Kind, choose_kind, cross_fit, fit_calibrator

Float64 = npt.NDArray[np.float64]


def known(n: int, seed: int = 0) -> tuple[Float64, npt.NDArray[np.bool_], Float64]:
    """Scores, labels drawn from their true probabilities, and those probabilities."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.0, 3.0, n)
    truth = 1.0 / (1.0 + np.exp(-(0.8 * scores - 1.0)))
    return scores, rng.random(n) < truth, truth


@pytest.mark.parametrize(
    ("kind", "n", "error"), [("platt", 4000, 0.02), ("beta", 4000, 0.03), ("isotonic", 4000, 0.06)]
)
def test_calibrator_finds_the_true_probabilities(kind: Kind, n: int, error: float) -> None:
    scores, positive, truth = known(n)
    found = fit_calibrator(kind, scores, positive)(scores)
    assert np.sqrt(np.square(found - truth).mean()) < error


@pytest.mark.parametrize("kind", ["platt", "beta", "isotonic"])
def test_probability_never_falls_as_the_score_grows(kind: Kind) -> None:
    scores, positive, _ = known(300)
    grid = np.linspace(-30, 30, 500)
    assert (np.diff(fit_calibrator(kind, scores, positive)(grid)) >= 0).all()


@pytest.mark.parametrize("kind", ["platt", "beta", "isotonic"])
def test_scores_that_point_the_wrong_way_are_not_turned_round(kind: Kind) -> None:
    scores, positive, _ = known(300)
    found = fit_calibrator(kind, -scores, positive)(np.array([-5.0, 0.0, 5.0]))
    np.testing.assert_allclose(found, found[0], atol=1e-6)


def test_isotonic_claims_no_certainty() -> None:
    scores = np.linspace(-1, 1, 100)
    found = fit_calibrator("isotonic", scores, scores > 0)(np.array([-9.0, 9.0]))
    np.testing.assert_allclose(found, [1 / 102, 1 - 1 / 102])


def test_isotonic_from_a_thousand_samples_on_and_smooth_below() -> None:
    for n, expected in ((999, {"platt", "beta"}), (1000, {"isotonic"})):
        scores, positive, _ = known(n)
        assert choose_kind(scores, positive, np.arange(n) % 5) in expected


def test_cross_fit_does_not_see_the_fold_it_judges() -> None:
    scores, positive, _ = known(200)
    fold = np.arange(200) % 5
    before = cross_fit("platt", scores, positive, fold)
    turned = np.where(fold == 2, ~positive, positive)
    after = cross_fit("platt", scores, turned, fold)
    np.testing.assert_array_equal(before[fold == 2], after[fold == 2])
    assert (before[fold == 1] != after[fold == 1]).all()
