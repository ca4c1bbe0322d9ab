"""A threshold from what is wanted of it, and the band around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from calibrate.chooser import Use
from calibrate.decision import Wish, decide, parse_wish
from calibrate.fit import FitOptions, fit_gate
from calibrate.recipes import RobustRecipe
from calibrate.study import refit
from calibrate.thresholds import abstain_band
from edge.cascade import Limits
from edge.gate_file import load_gate, save_gate
from edge.gate_manifest import Decision
from edge.records import Outcome
from engines import UsageError
from tests.calibrate import clusters


def scores(seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Values in (0, 1) that overlap: positives mostly high, negatives mostly low."""
    rng = np.random.default_rng(seed)
    positive = np.arange(n) < n // 3
    return np.where(positive, rng.beta(6.0, 2.0, n), rng.beta(1.0, 6.0, n)), positive


@pytest.mark.parametrize("text", ["0.7", "recall:0.9", "promise:0.9", "precision:0.8", "false_a_day:50", "cost:5"])
def test_what_is_wanted_is_kept_on_the_held_out_pictures(text: str) -> None:
    decisive, positive = scores()
    use = Use(prior=0.1, frames=1000.0)
    wish = parse_wish(text, use)
    threshold = wish.threshold(decisive, positive)
    recall, false = (decisive[positive] >= threshold).mean(), (decisive[~positive] >= threshold).mean()
    if wish.aim == "value":
        assert threshold == 0.7
    elif wish.aim in ("recall", "promise"):
        assert recall >= 0.9
    elif wish.aim == "precision":
        assert 0.1 * recall / (0.1 * recall + 0.9 * false) >= 0.8
    elif wish.aim == "false_a_day":
        assert 900.0 * false <= 50.0
    else:
        around = np.linspace(0.01, 0.99, 99)
        cost = [0.5 * (decisive[positive] < t).mean() + 0.9 * (decisive[~positive] >= t).mean() for t in around]
        assert 0.5 * (1.0 - recall) + 0.9 * false <= min(cost) + 1e-9


def test_dearer_misses_lower_the_line_and_rarer_animals_raise_it() -> None:
    decisive, positive = scores()
    at = [Wish("cost", amount).threshold(decisive, positive) for amount in (1.0, 10.0, 100.0)]
    assert at == sorted(at, reverse=True)
    assert at[0] > at[-1]
    rare, common = (Wish("cost", 5.0, Use(prior=prior)).threshold(decisive, positive) for prior in (0.01, 0.5))
    assert rare > common


@given(st.integers(0, 2**32 - 1))
def test_no_picture_lies_on_a_threshold_that_was_found(seed: int) -> None:
    decisive, positive = scores(seed, 90)
    assert np.abs(decisive - Wish("recall", 0.9).threshold(decisive, positive)).min() > 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("high", "wants a number between 0 and 1, or one of recall:AMOUNT, promise:AMOUNT"),
        ("value:0.5", "wants a number"),
        ("precision:nan", "wants a number"),
        ("cost:-1", "wants a number"),
        ("0", "wants a number"),
        ("recall:1.0", "recall:1.0 must lie between 0 and 1"),
    ],
)
def test_wish_that_cannot_be_read_is_told(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_wish(text, Use())


def test_wish_that_cannot_be_had_says_what_it_would_take() -> None:
    decisive, positive = scores()
    with pytest.raises(UsageError, match="at least 2995 are needed"):
        Wish("promise", 0.999).threshold(decisive, positive)
    with pytest.raises(UsageError, match=r"precision:0\.999 where 0\.001 of frames are positive.*false accepts"):
        Wish("precision", 0.999, Use(prior=0.001)).threshold(np.ones_like(decisive) * 0.5, positive)
    with pytest.raises(UsageError, match="says something about negatives, and there are none"):
        Wish("cost", 5.0).threshold(decisive[positive], positive[positive])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.05, 0.1]))
def test_band_leaves_the_stated_share_on_either_side_and_holds_the_threshold(seed: int, alpha: float) -> None:
    decisive, positive = scores(seed)
    low, high = abstain_band(decisive[positive], decisive[~positive], alpha)
    assume(low < high)
    found = decide("probability", Wish("value", (low + high) / 2.0), alpha, decisive, positive)
    assert found.abstain == (low, high)
    with pytest.raises(UsageError, match="does not hold the threshold"):
        decide("probability", Wish("value", low / 2.0), alpha, decisive, positive)
    limits = Limits(found.threshold, found.abstain)
    outcomes = np.array([limits.outcome(float(value)) for value in decisive])
    assert (outcomes[positive] == Outcome.NEGATIVE).mean() <= alpha
    assert (outcomes[~positive] == Outcome.POSITIVE).mean() <= alpha


def test_band_goes_into_the_file_and_through_another_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    noisy = samples.with_features(samples.features + rng.normal(0.0, 3.0, samples.features.shape).astype(np.float32))
    fitted = fit_gate(noisy, clusters.model(), RobustRecipe(), FitOptions(wish=Wish("cost", 5.0), abstain=0.02))
    save_gate(tmp_path / "gate.npz", fitted.manifest, fitted.arrays)
    gate = load_gate(tmp_path / "gate.npz", features=clusters.model())
    assert gate.abstain is not None
    assert gate.abstain == fitted.manifest.decision.abstain
    assert gate.manifest.options["threshold"] == "cost:5 where 0.02 of frames are positive"
    assert gate.manifest.options["abstain"] == 0.02
    again = refit(gate, noisy, clusters.model()).manifest.decision
    assert (again.threshold, again.abstain) == (gate.threshold, gate.abstain)


def test_gate_without_a_band_is_one_that_older_workers_read() -> None:
    assert Decision(by="probability", threshold=0.5).model_dump(mode="json") == {"by": "probability", "threshold": 0.5}
    with pytest.raises(ValueError, match="holds the threshold"):
        Decision(by="probability", threshold=0.5, abstain=(0.6, 0.7))
