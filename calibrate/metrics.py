"""How good held-out scores are, with 95 % confidence intervals.

Intervals of AUROC, FPR95 and ECE are percentile bootstraps over whole folders, positives and negatives drawn apart:
pictures of one folder are alike, and drawing pictures would feign certainty. Rates carry Clopper and Pearson's
interval, which stays honest at no error seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, rankdata

from calibrate.samples import Booleans, Float64, Samples

BOOTSTRAPS = 500
ECE_BINS = 10
Interval = tuple[float, float]


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

    ``sources`` holds them for each folder of negatives and for ``all``, ``families`` the false accepts of each.
    """
    pos = samples.positive
    figures: dict[str, Any] = {"recall": _rate(accepted[pos])}
    if probability is not None:
        figures["ece"] = _ece_figure(samples, probability, seed)
        figures["brier"] = round(float(np.square(probability - pos).mean()), 6)
    if samples.negatives:
        sources = {str(s): ~pos & (samples.source == s) for s in dict.fromkeys(samples.source[~pos])}
        figures["sources"] = {
            name: _against(samples, rows, score, accepted, seed) for name, rows in {"all": ~pos, **sources}.items()
        }
        figures["families"] = {
            name: _rate(accepted[~pos & (samples.family == name)]) for name in samples.counts(positive=False)
        }
    return figures


def _against(samples: Samples, rows: Booleans, score: Float64, accepted: Booleans, seed: int) -> dict[str, Any]:
    pos = samples.positive
    s1, g1 = score[pos], samples.family[pos]
    s0, g0 = score[rows], samples.family[rows]
    return {
        "auroc": _figure(auroc(s1, s0), _bootstrap(auroc, s1, g1, s0, g0, seed)),
        "fpr95": _figure(fpr_at_recall(s1, s0), _bootstrap(fpr_at_recall, s1, g1, s0, g0, seed)),
        "false_accepts": _rate(accepted[rows]),
    }


def _bootstrap(
    statistic: Callable[[Float64, Float64], float],
    s1: Float64,
    g1: npt.NDArray[np.str_],
    s0: Float64,
    g0: npt.NDArray[np.str_],
    seed: int,
) -> Interval:
    rng = np.random.default_rng(seed)
    positives, negatives = _by_group(s1, g1), _by_group(s0, g0)
    values = [statistic(_resample(positives, rng), _resample(negatives, rng)) for _ in range(BOOTSTRAPS)]
    return _percentiles(values)


def _by_group(values: Float64, groups: npt.NDArray[np.str_]) -> list[Float64]:
    parts = [values[groups == group] for group in np.unique(groups)]
    return parts if len(parts) > 1 else [part.reshape(1) for part in values]


def _resample(parts: list[Float64], rng: np.random.Generator) -> Float64:
    return np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))])


def _ece_figure(samples: Samples, probability: Float64, seed: int) -> dict[str, Any]:
    pos = samples.positive
    rng = np.random.default_rng(seed)
    p1, p0 = _by_group(probability[pos], samples.family[pos]), _by_group(probability[~pos], samples.family[~pos])
    values = []
    for _ in range(BOOTSTRAPS):
        ones, zeros = _resample(p1, rng), _resample(p0, rng)
        labels = np.repeat([True, False], [len(ones), len(zeros)])
        values.append(ece(np.concatenate((ones, zeros)), labels))
    return {**_figure(ece(probability, pos), _percentiles(values)), "bins": ECE_BINS}


def _percentiles(values: list[float]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _figure(value: float, interval: Interval) -> dict[str, Any]:
    return {"value": round(value, 6), "ci95": [round(end, 6) for end in interval]}


def _rate(hits: Booleans) -> dict[str, Any]:
    count, n = int(hits.sum()), len(hits)
    return {**_figure(count / n, clopper_pearson(count, n)), "hits": count, "n": n}
