"""Thresholds by intention, on held-out scores; each says what n pictures can prove.

gate.md 3.8-3.9: a promise "at least this recall with this confidence" is an order statistic of the held-out
positives, since the share of fresh positives below the k-th smallest of n scores is Beta(k, n + 1 - k).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import beta

from calibrate.samples import Float64
from engines import UsageError


def rejected_with_confidence(n: int, share: float, confidence: float = 0.95) -> int:
    """The largest k with P(Beta(k, n + 1 - k) <= ``share``) >= ``confidence``; 0 where n scores cannot promise it.

    Accepting from the k-th smallest of n held-out scores on then rejects at most ``share`` of fresh, exchangeable
    positives, in ``confidence`` of all draws of the held-out set.
    """
    low, high = 0, n
    while low < high:
        k = (low + high + 1) // 2
        if beta.ppf(confidence, k, n + 1 - k) <= share:
            low = k
        else:
            high = k - 1
    return low


def positives_needed(recall: float, confidence: float = 0.95) -> int:
    """The fewest positives that can promise ``recall`` with ``confidence``: recall^n <= 1 - confidence."""
    if not (0.0 < recall < 1.0 and 0.0 < confidence < 1.0):
        raise UsageError(f"recall and confidence must lie between 0 and 1, not {recall:g} and {confidence:g}")
    return int(np.ceil(np.log1p(-confidence) / np.log(recall)))


def conformal_threshold(positive: Float64, alpha: float, of: str = "positives") -> float:
    """The score from which on the conformal p-value among held-out positives (n,) exceeds ``alpha``.

    Rejecting below it rejects a fresh, exchangeable positive with probability at most ``alpha``, on average over
    draws of the held-out set. Raises :class:`UsageError` where no p-value among n + 1 is that small.
    """
    k = int(np.floor((len(positive) + 1) * alpha + 1e-9))
    if k < 1:
        raise UsageError(
            f"{len(positive)} {of} know no p-value as small as {alpha:g}: at least "
            f"{int(np.ceil(1.0 / alpha)) - 1} are needed"
        )
    return float(np.partition(positive, k - 1)[k - 1])


def abstain_band(positive: Float64, negative: Float64, alpha: float) -> tuple[float, float]:
    """Scores (low, high): below ``low`` at most ``alpha`` of the positives lie, from ``high`` on at most ``alpha`` of
    the negatives, both conformal. ``low == high`` where the two do not overlap: nothing needs a person's eye."""
    low = conformal_threshold(positive, alpha)
    high = float(np.nextafter(-conformal_threshold(-negative, alpha, "negatives"), np.inf))
    return (low, high) if low < high else (low, low)
