"""The deployed prior, estimated from probabilities calibrated at another."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.calibrators import fit_calibrator
from calibrate.priors import estimate_prior, rogan_gladen, shift_prior
from engines import UsageError


def scores(rng: np.random.Generator, n: int, prior: float) -> tuple[np.ndarray, np.ndarray]:
    positive = rng.random(n) < prior
    return np.where(positive, rng.normal(1.5, 1.0, n), rng.normal(-1.5, 1.0, n)), positive


@pytest.mark.parametrize("kind", ["platt", "beta", "isotonic"])
def test_prior_of_two_percent_is_estimated_within_a_point_on_ten_thousand_pictures(kind: str) -> None:
    rng = np.random.default_rng(6)
    errors = []
    for _ in range(5):
        fitted, labels = scores(rng, 2000, 0.5)
        calibrate = fit_calibrator(kind, fitted, labels)
        deployed, truth = scores(rng, 10_000, 0.02)
        estimate = estimate_prior(calibrate(deployed), float(labels.mean()))
        errors.append(abs(estimate - truth.mean()))
        shifted = shift_prior(calibrate(deployed), float(labels.mean()), estimate)
        assert np.square(shifted - truth).mean() < np.square(calibrate(deployed) - truth).mean() / 2
    assert max(errors) <= 0.01


def test_shift_there_and_back_changes_nothing() -> None:
    p = np.array([0.0, 1e-6, 0.3, 0.999, 1.0])
    np.testing.assert_allclose(shift_prior(shift_prior(p, 0.5, 0.02), 0.02, 0.5), p, atol=1e-12)
    np.testing.assert_allclose(shift_prior(np.array([0.5]), 0.5, 0.02), [0.02])


def test_rogan_gladen_undoes_the_gates_errors() -> None:
    prior, (low, high) = rogan_gladen(accepted=119, n=10_000, recall=0.9, false_accepts=0.01)
    assert prior == pytest.approx(0.0019 / 0.89)
    assert low < prior < high
    assert rogan_gladen(0, 1000, 0.9, 0.01)[0] == 0.0
    with pytest.raises(UsageError, match="says nothing about the prior"):
        rogan_gladen(5, 100, 0.1, 0.1)


def test_impossible_prior_is_refused() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        shift_prior(np.array([0.5]), 0.5, 0.0)
    with pytest.raises(UsageError, match="no probability"):
        estimate_prior(np.array([]), 0.5)
