"""How good held-out scores are, with 95 % confidence intervals.

Intervals are percentile bootstraps over whole folders (:mod:`calibrate.resampling`): pictures of one folder are alike,
and drawing pictures would feign certainty. Rates carry Clopper and Pearson's interval, which stays honest at no error
seen; FPR95 and the recall at 1 % FPR carry the wider end of both. The recall at no false accept has that of a rate
among the positives: it speaks of these very negatives, of which every draw would hold fewer and raise it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta, rankdata

from calibrate.resampling import Replicates, judged, ranked
from calibrate.samples import Booleans, Float64, Samples

ECE_BINS = 10
Interval = tuple[float, float]
Figure = dict[str, Any]


def auroc(positive: Float64, negative: Float64) -> float:
    """P(positive score > negative score), ties counted half."""
    ranks = rankdata(np.concatenate((positive, negative)))
    n1, n0 = len(positive), len(negative)
    return float((ranks[:n1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def fpr_at_recall(positive: Float64, negative: Float64, recall: float = 0.95) -> float:
    """The share of negatives accepted at the highest threshold that keeps ``recall`` of the positives."""
    rejected = int(np.floor((1.0 - recall) * len(positive) + 1e-9))
    threshold = np.sort(positive)[rejected]
    return float((negative >= threshold).mean())


def ece(probability: Float64, positive: Booleans, bins: int = ECE_BINS) -> float:
    """Expected calibration error over bins of equal mass: sum |B|/n |mean p - mean y|."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    for chunk in np.array_split(order, min(bins, len(order))):
        total += len(chunk) * abs(float(probability[chunk].mean()) - float(positive[chunk].mean()))
    return total / len(order)


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> Interval:
    """The exact binomial interval of hits / n."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1.0 - tail, hits + 1, n - hits))
    return low, high


def measure(
    samples: Samples, score: Float64, accepted: Booleans, probability: Float64 | None, seed: int
) -> dict[str, Any]:
    """The figures of held-out ``score``, ``accepted`` and ``probability`` (n,), as the manifest stores them.

    ``sources`` holds AUROC, FPR95, recall at 1 % FPR and at none, average precision and false accepts against each
    folder of negatives and against ``all``, ``families`` the false accepts of each.
    """
    pos = samples.positive
    figures: dict[str, Any] = {"recall": rate(accepted[pos])}
    if probability is not None and samples.negatives:
        figures |= probability_figures(samples, probability, seed)
    if samples.negatives:
        figures["sources"] = {
            name: against(samples, rows, score, seed) | {"false_accepts": rate(accepted[rows])}
            for name, rows in negative_sources(samples).items()
        }
        figures["families"] = {
            name: rate(accepted[~pos & (samples.family == name)]) for name in samples.counts(positive=False)
        }
    return figures


def negative_sources(samples: Samples) -> dict[str, Booleans]:
    """The rows (n,) of all negatives under ``all``, and those of each of their folders."""
    rest = ~samples.positive
    named = {str(s): rest & (samples.source == s) for s in dict.fromkeys(samples.source[rest])}
    return {"all": rest, **named}


def probability_figures(samples: Samples, probability: Float64, seed: int) -> dict[str, Figure]:
    """``ece`` with its bins, ``brier`` and ``log_loss`` of probabilities (n,) at these pictures' share of positives.

    Draws of few pictures are calibrated worse than their source, so the interval of ``ece`` may lie above its value.
    """
    value, drawn = judged(probability, samples.positive, samples.family, seed, ECE_BINS)
    figures = {name: _figure(float(value[name][0]), percentiles(drawn[name])) for name in value}
    figures["ece"]["bins"] = ECE_BINS
    return figures


def against(samples: Samples, rows: Booleans, score: Float64, seed: int) -> dict[str, Figure]:
    """How ``score`` (n,) ranks the positives above the negatives at ``rows``."""
    pos = samples.positive
    value, drawn = ranked(score[pos], samples.family[pos], score[rows], samples.family[rows], seed)
    return ranking_figures(value, drawn, int(pos.sum()), int(rows.sum()))


def ranking_figures(value: Replicates, drawn: Replicates, n1: int, n0: int) -> dict[str, Figure]:
    """Values and draws of :func:`calibrate.resampling.ranked` as figures with their intervals."""
    figures = {name: _figure(float(value[name][0]), percentiles(drawn[name])) for name in value}
    for name, n in (("fpr95", n0), ("tpr_at_fpr_1", n1)):
        share = float(value[name][0])
        figures[name] = _figure(share, _wider(percentiles(drawn[name]), clopper_pearson(round(share * n), n)))
    none = float(value["tpr_at_fpr_0"][0])
    figures["tpr_at_fpr_0"] = _figure(none, clopper_pearson(round(none * n1), n1))
    return figures


def rate(hits: Booleans) -> Figure:
    """The share of true ``hits`` (n,) with Clopper and Pearson's interval, the count and n."""
    count, n = int(hits.sum()), len(hits)
    return {**_figure(count / n, clopper_pearson(count, n)), "hits": count, "n": n}


def percentiles(values: Float64) -> Interval:
    """The middle 95 % of bootstrap ``values``."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _wider(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), max(a[1], b[1])


def _figure(value: float, interval: Interval) -> Figure:
    return {"value": round(value, 6), "ci95": [round(end, 6) for end in interval]}


def difference(samples: Samples, rows: Booleans, scores: tuple[Float64, Float64], seed: int) -> dict[str, Figure]:
    """The figures of the first of ``scores`` (n,) less the second's against the negatives at ``rows``; both meet the
    same draws of folders, so that an interval without 0 is a difference."""
    pos = samples.positive
    found = [ranked(s[pos], samples.family[pos], s[rows], samples.family[rows], seed) for s in scores]
    return _less(*found)


def probability_difference(samples: Samples, probabilities: tuple[Float64, Float64], seed: int) -> dict[str, Figure]:
    """:func:`difference` for ``ece``, ``brier`` and ``log_loss``."""
    found = [judged(p, samples.positive, samples.family, seed, ECE_BINS) for p in probabilities]
    return _less(*found)


def _less(a: tuple[Replicates, Replicates], b: tuple[Replicates, Replicates]) -> dict[str, Figure]:
    compared = [name for name in a[0] if name != "tpr_at_fpr_0"]  # its draws are no draws
    return {
        name: _figure(float(a[0][name][0] - b[0][name][0]), percentiles(a[1][name] - b[1][name])) for name in compared
    }
