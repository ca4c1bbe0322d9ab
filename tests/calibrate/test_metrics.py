"""Metrics against scikit-learn and against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from calibrate.curves import average_precision, log_loss, recall_at_fpr
from calibrate.metrics import auroc, clopper_pearson, ece, fpr_at_recall, measure
from calibrate.resampling import Losses, Ranking
from tests.calibrate import clusters

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30).map(np.array)


@given(scores, scores)
def test_auroc_is_scikit_learns_with_ties_and_all(positive: np.ndarray, negative: np.ndarray) -> None:
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    expected = roc_auc_score(labels, np.concatenate((positive, negative)))
    assert auroc(positive, negative) == pytest.approx(expected)


def test_fpr_at_recall_keeps_at_least_that_recall() -> None:
    positive = np.arange(100.0)
    assert fpr_at_recall(positive, np.array([4.9, 5.0, 50.0, -1.0])) == 0.5
    assert fpr_at_recall(np.arange(10.0), np.array([-0.1, 0.0])) == 0.5


def test_ece_of_probabilities_that_are_all_off_by_a_tenth() -> None:
    positive = np.arange(1000) % 10 < 3
    assert ece(np.full(1000, 0.4), positive, bins=1) == pytest.approx(0.1)
    assert ece(np.full(1000, 0.3), positive, bins=1) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 50, 0.0, 0.0711), (190, 200, 0.910, 0.976), (50, 50, 0.9289, 1.0)]
)
def test_clopper_pearson_gives_the_published_intervals(hits: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, n) == pytest.approx((low, high), abs=1e-3)


def test_measure_counts_each_source_and_family_apart() -> None:
    samples = clusters.samples({"macaw": 10, "amazon": 10}, {"birds/owl": 5, "birds/wren": 5, "ducks": 10})
    score = samples.positive.astype(float)
    accepted = samples.positive | (samples.family == "birds/owl")
    figures = measure(samples, score, accepted, score, seed=0)
    assert figures["recall"]["value"] == 1.0
    assert figures["sources"]["birds"]["false_accepts"]["hits"] == 5
    assert figures["sources"]["ducks"]["false_accepts"]["hits"] == 0
    assert figures["sources"]["all"]["auroc"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert figures["families"]["birds/owl"]["value"] == 1.0
    assert figures["families"]["birds/wren"]["value"] == 0.0
    assert figures["ece"]["value"] == 0.0


def test_bootstrap_over_folders_is_wider_where_pictures_of_a_folder_are_alike() -> None:
    rng = np.random.default_rng(1)
    samples = clusters.samples({f"k{i}": 20 for i in range(8)}, {f"birds/b{i}": 20 for i in range(8)})
    alike = rng.normal(0, 1, 16).repeat(20)
    apart = rng.permutation(alike[samples.positive]), rng.permutation(alike[~samples.positive])
    widths = []
    for score in (alike, np.concatenate(apart)):
        low, high = measure(samples, score, samples.positive, None, 0)["sources"]["all"]["auroc"]["ci95"]
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]


@settings(deadline=None)  # the first draw imports and warms up; a busy machine is no fault
@given(st.data(), scores, scores)
def test_weighted_figures_are_those_of_the_pictures_repeated(
    data: st.DataObject, positive: np.ndarray, negative: np.ndarray
) -> None:
    w1, w0 = (data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(any))
              for n in (len(positive), len(negative)))  # fmt: skip
    one, zero = np.repeat(positive, w1), np.repeat(negative, w0)
    found = Ranking(positive, negative).figures(np.array([w1], float), np.array([w0], float))
    assert found["auroc"][0] == pytest.approx(auroc(one, zero))
    assert found["fpr95"][0] == pytest.approx(fpr_at_recall(one, zero))
    assert found["tpr_at_fpr_1"][0] == pytest.approx(recall_at_fpr(one, zero))
    assert found["average_precision"][0] == pytest.approx(average_precision(one, zero))
    probability = np.sort(np.concatenate((positive, negative)) / 10.0 + 0.5)
    label, weights = np.arange(len(probability)) < len(positive), np.array([*w1, *w0])
    losses = Losses(probability, label, bins=4).figures(weights[None].astype(float))
    repeated = np.repeat(probability, weights), np.repeat(label, weights)
    assert losses["log_loss"][0] == pytest.approx(log_loss(*repeated))
    assert losses["ece"][0] == pytest.approx(ece(*repeated, bins=4))


def test_interval_of_no_false_accept_is_no_point() -> None:
    samples = clusters.samples({"macaw": 10, "amazon": 10}, {"ducks": 10})
    score = samples.positive.astype(float)
    assert measure(samples, score, samples.positive, None, 0)["sources"]["ducks"]["fpr95"]["ci95"][1] > 0.3
