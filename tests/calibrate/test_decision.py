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
from edge.gate import Gate
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
    one = 1.0 / (~positive).sum()
    recall, false = (decisive[positive] >= threshold).mean(), (decisive[~positive] >= threshold).mean()
    if wish.aim == "value":
        assert threshold == 0.7
    elif wish.aim in ("recall", "promise"):
        assert recall >= 0.9
    elif wish.aim == "precision":
        assert 0.1 * recall / (0.1 * recall + 0.9 * (false + one)) >= 0.8
    elif wish.aim == "false_a_day":
        assert 900.0 * (false + one) <= 50.0
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


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.05, 0.1]), st.sampled_from([0.1, 0.5, 0.9]))
def test_band_leaves_the_stated_share_on_either_side_and_holds_the_threshold(
    seed: int, alpha: float, at: float
) -> None:
    decisive, positive = scores(seed)
    low, high = abstain_band(decisive[positive], decisive[~positive], alpha)
    assume(low < high)
    found = decide("probability", Wish("value", at * (low + high)), alpha, decisive, positive)
    assert found.abstain is not None
    assert found.abstain[0] <= found.threshold <= found.abstain[1]
    if at == 0.5:
        assert found.abstain == (low, high)
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
    again = refit(gate, noisy, clusters.model()).manifest
    assert (again.decision, again.options) == (gate.manifest.decision, gate.manifest.options)
    fewer = noisy.take(np.arange(len(noisy.positive)) % 7 != 0)
    assert refit(gate, fewer, clusters.model()).manifest.decision.threshold != gate.threshold
    assert gate.manifest.options["threshold"] == "cost:5"
    assert (gate.manifest.options["prior"], gate.manifest.options["abstain"]) == (0.02, 0.02)


def test_number_stays_that_number_through_another_fit() -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    options = FitOptions(wish=Wish("value", 0.3125))
    fitted = fit_gate(samples, clusters.model(), RobustRecipe(), options)
    fewer = samples.take(np.arange(len(samples.positive)) % 7 != 0)
    assert refit(Gate(fitted.manifest, fitted.arrays), fewer, clusters.model()).manifest.decision.threshold == 0.3125


def test_negatives_that_are_sure_positives_keep_the_band_within_probabilities() -> None:
    decisive, positive = scores()
    decisive[~positive] = 1.0
    assert decide("probability", None, 0.1, decisive, positive).abstain == (pytest.approx(0.47, abs=0.1), 1.0)


def test_few_negatives_prove_no_precision() -> None:
    decisive = np.concatenate((np.linspace(0.8, 0.9, 20), np.linspace(0.1, 0.2, 5)))
    positive = np.arange(25) < 20
    for wish in (Wish("precision", 0.999, Use(prior=0.0001)), Wish("false_a_day", 0.001)):
        with pytest.raises(UsageError, match="no threshold gives"):
            wish.threshold(decisive, positive)


def test_what_accepts_everything_is_taken_and_told(caplog: pytest.LogCaptureFixture) -> None:
    decisive, positive = scores()
    found = Wish("false_a_day", 20_000.0).threshold(decisive, positive)
    assert (decisive >= found).all()
    assert "accepts every picture here" in caplog.text


def test_rare_positives_are_looked_at_one_by_one() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(60_000) < 300
    decisive = np.where(positive, rng.uniform(0.9, 1.0, 60_000), rng.uniform(0.0, 0.95, 60_000))
    recall = (decisive[positive] >= Wish("recall", 0.9).threshold(decisive, positive)).mean()
    assert 0.9 <= recall < 0.904


def test_gate_without_a_band_is_one_that_older_workers_read() -> None:
    assert Decision(by="probability", threshold=0.5).model_dump(mode="json") == {"by": "probability", "threshold": 0.5}
    with pytest.raises(ValueError, match="holds the threshold"):
        Decision(by="probability", threshold=0.5, abstain=(0.6, 0.7))
