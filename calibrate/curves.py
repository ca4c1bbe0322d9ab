"""Curves of scores against labels: ROC, precision and recall, reliability, what each threshold implies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibrate.metrics import ECE_BINS, clopper_pearson
from calibrate.samples import Booleans, Float64

MAX_STEPS = 240  # thresholds kept for the chooser; more could not be told apart on a screen
MAX_POINTS = 400  # of a drawn curve

Curve = list[tuple[float, float]]
Rows = npt.NDArray[np.intp]


def roc(positive: Float64, negative: Float64) -> Curve:
    """(false accepts, recall) from (0, 0) to (1, 1), a step per distinct score."""
    cuts = np.unique(np.concatenate((positive, negative)))[::-1]
    recall = _share_at_least(positive, cuts)
    accepts = _share_at_least(negative, cuts)
    return _thinned([(0.0, 0.0), *zip(accepts.tolist(), recall.tolist(), strict=True)])


def precision_recall(positive: Float64, negative: Float64, prior: float | None = None) -> Curve:
    """(recall, precision) a step per distinct score; ``prior`` re-weights to another share of positives."""
    share = len(positive) / (len(positive) + len(negative)) if prior is None else prior
    cuts = np.unique(positive)[::-1]
    recall = _share_at_least(positive, cuts)
    true = share * recall
    false = (1.0 - share) * _share_at_least(negative, cuts)
    precision = (true / (true + false)).tolist()
    return _thinned([(0.0, precision[0]), *zip(recall.tolist(), precision, strict=True)])


def average_precision(positive: Float64, negative: Float64) -> float:
    """The sum over recall steps of step times precision, without interpolation, at this sample's share."""
    cuts = np.unique(positive)[::-1]
    true = _share_at_least(positive, cuts) * len(positive)
    precision = true / (true + _share_at_least(negative, cuts) * len(negative))
    return float((np.diff(true, prepend=0.0) * precision).sum() / len(positive))


def recall_at_fpr(positive: Float64, negative: Float64, fpr: float = 0.01) -> float:
    """The largest recall whose threshold accepts at most ``fpr`` of the negatives."""
    return max((recall for accepts, recall in roc_steps(positive, negative) if accepts <= fpr + 1e-12), default=0.0)


def roc_steps(positive: Float64, negative: Float64) -> Curve:
    """Every step of :func:`roc`, not thinned for drawing."""
    cuts = np.unique(np.concatenate((positive, negative)))[::-1]
    accepts, recall = _share_at_least(negative, cuts), _share_at_least(positive, cuts)
    return [(0.0, 0.0), *zip(accepts.tolist(), recall.tolist(), strict=True)]


def log_loss(probability: Float64, positive: Booleans) -> float:
    """Mean negative log-likelihood in nats, probabilities kept 1e-6 from 0 and 1."""
    p = np.clip(probability, 1e-6, 1.0 - 1e-6)
    return float(-np.where(positive, np.log(p), np.log1p(-p)).mean())


def reliability(probability: Float64, positive: Booleans, bins: int = ECE_BINS) -> list[dict[str, Any]]:
    """Bins of equal mass: mean ``probability``, observed ``share`` of positives, its ``ci95`` and ``n``."""
    rows = []
    for chunk in np.array_split(np.argsort(probability, kind="stable"), min(bins, len(probability))):
        hits, n = int(positive[chunk].sum()), len(chunk)
        interval = [round(end, 6) for end in clopper_pearson(hits, n)]
        rows.append(
            {"probability": round(float(probability[chunk].mean()), 6), "share": hits / n, "ci95": interval, "n": n}
        )
    return rows


@dataclass(frozen=True, slots=True)
class Step:
    """What one threshold does to the held-out pictures: shares with their 95 % intervals and counts.

    ``false_accepts`` and its interval are None where there are no negatives.
    """

    threshold: float
    recall: float
    recall_ci95: tuple[float, float]
    true_accepts: int
    false_accepts: float | None
    false_ci95: tuple[float, float] | None
    false_count: int

    def json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def steps(decisive: Float64, positive: Booleans, threshold: float | None, most: int = MAX_STEPS) -> list[Step]:
    """A :class:`Step` at ``threshold`` and at up to ``most`` others that differ in effect, ascending.

    Thresholds lie midway between neighbouring pictures, to nine decimals. Of more than ``most`` half are spread over
    the positives, however few of the pictures they are.
    """
    values = np.unique(decisive)
    cuts = np.concatenate((values[:1] / 2.0, (values[1:] + values[:-1]) / 2.0))
    if len(cuts) > most:
        below = np.searchsorted(values, np.unique(decisive[positive]))
        cuts = cuts[np.union1d(_evenly(below, most // 2), _evenly(np.arange(len(cuts)), most - most // 2))]
    cuts = np.unique(np.concatenate((cuts.round(9), [] if threshold is None else [threshold])))
    pos, neg = np.sort(decisive[positive]), np.sort(decisive[~positive])
    return [_step(float(cut), pos, neg) for cut in cuts]


def _evenly(rows: Rows, most: int) -> Rows:
    """At most ``most`` of ``rows``, its ends among them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.intp))]


def _step(cut: float, positive: Float64, negative: Float64) -> Step:
    true = len(positive) - int(np.searchsorted(positive, cut, side="left"))
    false = len(negative) - int(np.searchsorted(negative, cut, side="left"))
    n = len(negative)
    return Step(
        cut,
        true / len(positive),
        clopper_pearson(true, len(positive)),
        true,
        false / n if n else None,
        clopper_pearson(false, n) if n else None,
        false,
    )


def _share_at_least(values: Float64, cuts: Float64) -> Float64:
    ordered = np.sort(values)
    return np.asarray(1.0 - np.searchsorted(ordered, cuts, side="left") / len(ordered))


def _thinned(curve: Curve) -> Curve:
    """At most ``MAX_POINTS`` of a step curve's corners; points between two others of a straight line go first."""
    triples = zip(curve, curve[1:], curve[2:], strict=False)
    corners = [b for a, b, c in triples if not _straight(a, b, c)]
    kept = [curve[0], *corners, curve[-1]]
    return [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MAX_POINTS)).round().astype(int))]


def _straight(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> bool:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) < 1e-12
