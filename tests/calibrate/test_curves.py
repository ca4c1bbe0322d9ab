from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from calibrate.chooser import (
    Rules,
    Use,
    choose,
    implied,
    negatives_needed,
    proof_of_precision,
    proof_of_promise,
    proof_of_refusal,
)
from calibrate.curves import (
    MAX_POINTS,
    MAX_STEPS,
    average_precision,
    log_loss,
    precision_recall,
    recall_at_fpr,
    reliability,
    roc,
    steps,
)
from calibrate.samples import Float64
from calibrate.thresholds import rejected_with_confidence

SCORES = st.lists(st.integers(0, 12), min_size=1, max_size=40)


def as_scores(values: list[int]) -> Float64:
    return np.asarray(values, dtype=np.float64) / 12.0


@given(SCORES, SCORES)
def test_area_under_the_drawn_roc_is_sklearns_auroc_ties_included(ones: list[int], zeros: list[int]) -> None:
    s1, s0 = as_scores(ones), as_scores(zeros)
    x, y = np.array(roc(s1, s0)).T
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    labels = np.repeat([1, 0], [len(s1), len(s0)])
    assert area == pytest.approx(roc_auc_score(labels, np.concatenate((s1, s0))))


@given(SCORES, SCORES)
def test_average_precision_is_sklearns(ones: list[int], zeros: list[int]) -> None:
    s1, s0 = as_scores(ones), as_scores(zeros)
    labels = np.repeat([1, 0], [len(s1), len(s0)])
    expected = average_precision_score(labels, np.concatenate((s1, s0)))
    assert average_precision(s1, s0) == pytest.approx(expected)


def test_log_loss_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.uniform(0.01, 0.99, 50), rng.uniform(size=50) < 0.4
    assert log_loss(p, y) == pytest.approx(sklearn_log_loss(y, p))


def test_recall_at_one_percent_counts_no_step_beyond_it() -> None:
    negative = np.linspace(0.0, 1.0, 200)
    positive = np.array([0.5, 0.992, 0.9995, 1.5])
    assert recall_at_fpr(positive, negative) == 0.75  # two of 200 negatives lie at or above 0.992


def test_precision_falls_with_the_prior() -> None:
    s1, s0 = np.array([0.4, 0.8, 0.9]), np.array([0.1, 0.5, 0.6, 0.7])
    here, rare = precision_recall(s1, s0), precision_recall(s1, s0, 0.01)
    assert here[-1] == (1.0, 0.5)
    assert rare[-1][1] == pytest.approx(0.01 / (0.01 + 0.99 * 0.75))


def test_curves_and_steps_of_many_pictures_stay_small() -> None:
    rng = np.random.default_rng(1)
    s1, s0 = rng.normal(1.0, 1.0, 20_000), rng.normal(0.0, 1.0, 20_000)
    assert len(roc(s1, s0)) <= MAX_POINTS
    p = 1.0 / (1.0 + np.exp(-np.concatenate((s1, s0))))
    assert len(steps(p, np.arange(40_000) < 20_000, 0.5)) <= MAX_STEPS + 1


def test_reliability_of_a_calibrated_score_lies_within_its_intervals() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(size=4000)
    rows = reliability(p, rng.uniform(size=4000) < p)
    assert sum(row["n"] for row in rows) == 4000
    assert sum(row["ci95"][0] <= row["probability"] <= row["ci95"][1] for row in rows) >= 8


def ladder() -> tuple[Float64, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    positive = np.arange(30) < 10
    return np.concatenate((np.linspace(0.45, 0.99, 10), np.linspace(0.01, 0.6, 20))), positive


def test_every_step_counts_what_its_threshold_accepts() -> None:
    decisive, positive = ladder()
    for step in steps(decisive, positive, 0.5):
        accepted = decisive >= step.threshold
        assert step.true_accepts == int((accepted & positive).sum())
        assert step.false_count == int((accepted & ~positive).sum())


def test_chosen_thresholds_keep_what_was_wanted_and_their_neighbours_do_not() -> None:
    decisive, positive = ladder()
    rungs = steps(decisive, positive, 0.5)
    rules, use = Rules(recall=0.9, precision=0.5, false_a_day=500.0, cost_ratio=5.0), Use(0.1, 10_000.0)
    chosen = choose(rungs, rules, use)
    place = {step.threshold: i for i, step in enumerate(rungs)}
    at = {rule: place[cut] for rule, cut in chosen.items() if cut is not None}
    assert rungs[at["recall"]].recall >= 0.9 > rungs[at["recall"] + 1].recall
    assert implied(rungs[at["precision"]], use)["precision"] >= 0.5
    assert implied(rungs[at["precision"] - 1], use)["precision"] < 0.5
    assert implied(rungs[at["false_a_day"]], use)["false_a_day"] <= 500.0
    assert implied(rungs[at["false_a_day"] - 1], use)["false_a_day"] > 500.0

    def cost(i: int) -> float:
        numbers = implied(rungs[i], use)
        return float(5.0 * numbers["missed_a_day"] + numbers["false_a_day"])

    assert cost(at["cost"]) == min(map(cost, range(len(rungs))))


def test_promised_recall_misses_what_the_order_statistic_allows() -> None:
    rng = np.random.default_rng(0)
    decisive, positive = rng.random(400), np.arange(400) < 300
    rungs = steps(decisive, positive, 0.5)
    chosen = choose(rungs, Rules(recall=0.9), Use())
    step = next(step for step in rungs if step.threshold == chosen["promise"])
    missable = rejected_with_confidence(300, 0.1) - 1
    assert 300 - step.true_accepts <= missable
    assert step.threshold <= np.sort(decisive[positive])[missable]
    assert choose(rungs[:], Rules(recall=0.995), Use())["promise"] is None
    assert f"misses at most {missable} of these 300" in proof_of_promise(300, Rules(recall=0.9))
    assert "at least 598 are needed" in proof_of_promise(300, Rules(recall=0.995))


def test_wish_that_no_threshold_keeps_has_none() -> None:
    decisive = np.array([0.2, 0.9, 0.95])
    chosen = choose(steps(decisive, np.array([True, True, False]), 0.5), Rules(precision=0.99), Use(0.02))
    assert chosen["precision"] is None


def test_implied_numbers_add_up() -> None:
    decisive, positive = ladder()
    numbers = implied(steps(decisive, positive, 0.5)[9], Use(0.02, 10_000.0))
    assert numbers["true_a_day"] + numbers["missed_a_day"] == pytest.approx(200.0)
    assert numbers["accepted_a_day"] == pytest.approx(numbers["true_a_day"] + numbers["false_a_day"])
    low, high = numbers["precision_ci95"]
    assert low < numbers["precision"] < high


def test_negatives_needed_for_a_precision_are_those_of_the_literature() -> None:
    assert negatives_needed(prior=0.01, recall=0.95, precision=0.9) == 2809  # log(0.05) / log1p(-0.0010662) = 2808.2
    assert "2,809 negatives" in proof_of_precision(300, Use(0.01), Rules())
    assert "cannot prove it" in proof_of_precision(2808, Use(0.01), Rules())
    assert "cannot prove it" not in proof_of_precision(2809, Use(0.01), Rules())


def test_no_error_among_few_is_said_to_prove_little() -> None:
    assert "7.11%" in proof_of_refusal("ducks", 0, 50)
