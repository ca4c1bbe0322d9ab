"""Promises on held-out scores, kept in simulation over fresh draws."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.decision import Wish
from calibrate.thresholds import (
    abstain_band,
    conformal_threshold,
    positives_needed,
    rejected_with_confidence,
)
from edge.gate import conformal
from engines import UsageError

RESPLITS = 200


@pytest.mark.parametrize(("n", "k"), [(50, 0), (100, 2), (200, 5), (500, 17), (1000, 39)])
def test_rank_that_keeps_95_percent_recall_is_the_published_one(n: int, k: int) -> None:
    assert rejected_with_confidence(n, 0.05) == k


def test_recall_promised_with_95_percent_confidence_is_kept_in_93_percent_of_resplits() -> None:
    rng = np.random.default_rng(3)
    scores = rng.beta(3.0, 1.0, size=20_000)
    promised = Wish("promise", 0.95)
    kept = 0
    for _ in range(RESPLITS):
        held_out = np.zeros(len(scores), dtype=bool)
        held_out[rng.choice(len(scores), 300, replace=False)] = True
        threshold = promised.threshold(scores[held_out], np.ones(300, dtype=bool))
        kept += (scores[~held_out] >= threshold).mean() >= 0.95
    assert kept >= 0.93 * RESPLITS
    assert kept < RESPLITS  # a promise never broken would be far too careful


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1])
def test_conformal_alpha_holds_on_average_over_resplits(alpha: float) -> None:
    rng = np.random.default_rng(4)
    scores = rng.standard_normal(3000)
    rejected = []
    for _ in range(RESPLITS):
        order = rng.permutation(len(scores))
        held_out, fresh = np.sort(scores[order[:200]]), scores[order[200:]]
        p_value = conformal(fresh, held_out)
        rejected.append((p_value <= alpha).mean())
        assert ((p_value <= alpha) == (fresh < conformal_threshold(held_out, alpha))).all()
    standard_error = np.std(rejected) / np.sqrt(RESPLITS)
    assert np.mean(rejected) <= alpha + standard_error
    assert np.mean(rejected) >= 0.8 * alpha


def test_threshold_that_n_positives_cannot_promise_is_refused_with_the_number_that_could() -> None:
    assert positives_needed(0.95) == 59
    assert (rejected_with_confidence(58, 0.05), rejected_with_confidence(59, 0.05)) == (0, 1)
    with pytest.raises(UsageError, match="at least 99 are needed"):
        conformal_threshold(np.arange(50.0), 0.01)


def test_abstain_band_holds_the_overlap_and_vanishes_without_one() -> None:
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(1.0, 1.0, 4000), rng.normal(-1.0, 1.0, 4000)
    low, high = abstain_band(positive, negative, 0.05)
    assert (positive < low).mean() <= 0.05
    assert (negative >= high).mean() <= 0.05
    assert low < high
    low, high = abstain_band(positive + 20.0, negative, 0.05)
    assert low == high
