"""Bootstrap over whole groups: draws as weights of pictures, and the statistics of weighted pictures.

A draw takes as many groups as there are, with replacement; a picture's weight is how often its group was taken.
Positives and negatives are drawn apart, each from its own stream of the same seed, so that two scores of the same
pictures meet the same draws and their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from calibrate.samples import Booleans, Float64, Strings

DRAWS = 1000
CHUNK = 2_000_000  # weights held at a time, whatever the number of pictures

Replicates = Mapping[str, Float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """n pictures of one class in ``count`` groups, ``index`` (n,) naming each one's."""

    index: np.ndarray[tuple[int], np.dtype[np.intp]]
    count: int

    def weights(self, draws: int, rng: np.random.Generator) -> Float64:
        """How often each picture is drawn (draws, n)."""
        times = np.empty((draws, self.count))
        for row in times:
            row[:] = np.bincount(rng.integers(0, self.count, self.count), minlength=self.count)
        return np.asarray(times[:, self.index])


def groups_of(names: Strings) -> Groups:
    """Groups by name; pictures that all bear the same one are drawn singly, since one group would never vary."""
    known, index = np.unique(names, return_inverse=True)
    if len(known) < 2:
        return Groups(np.arange(len(names), dtype=np.intp), len(names))
    return Groups(index.astype(np.intp), len(known))


def draws(positive: Groups, negative: Groups, seed: int) -> Iterator[tuple[Float64, Float64]]:
    """Weights (b, n1) and (b, n0), ``DRAWS`` rows in all, a bounded number at a time."""
    streams = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 0])
    step = max(1, CHUNK // max(1, len(positive.index) + len(negative.index)))
    for start in range(0, DRAWS, step):
        rows = min(step, DRAWS - start)
        yield positive.weights(rows, streams[0]), negative.weights(rows, streams[1])


class Ranking:
    """Scores of positives (n1,) and negatives (n0,) sorted once; every statistic takes weights (b, n1), (b, n0)."""

    def __init__(self, positive: Float64, negative: Float64) -> None:
        score = np.concatenate((positive, negative))
        self._order = np.argsort(-score, kind="stable")
        ordered = score[self._order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last of each score
        self._n1 = len(positive)

    def figures(self, w1: Float64, w0: Float64) -> dict[str, Float64]:
        """``auroc`` (ties half), ``fpr95``, ``tpr_at_fpr_1``, ``tpr_at_fpr_0``, ``average_precision``, each (b,)."""
        p, n = self._accepted(w1, w0)
        return {
            "auroc": _area(p, n),
            "fpr95": _fpr_at(p, n, 0.95),
            "tpr_at_fpr_1": _tpr_at(p, n, 0.01),
            "tpr_at_fpr_0": _tpr_at(p, n, 0.0),
            "average_precision": _average_precision(p, n),
        }

    def _accepted(self, w1: Float64, w0: Float64) -> tuple[Float64, Float64]:
        """Positives and negatives (b, cuts) at or above each distinct score, the highest first."""
        weights = np.concatenate((w1, w0), axis=1)[:, self._order]
        own = self._order < self._n1
        p = np.cumsum(np.where(own, weights, 0.0), axis=1)[:, self._ends]
        n = np.cumsum(np.where(own, 0.0, weights), axis=1)[:, self._ends]
        return p, n


def ranked(positive: Float64, g1: Strings, negative: Float64, g0: Strings, seed: int) -> tuple[Replicates, Replicates]:
    """The figures of :class:`Ranking` of these scores, each (1,), and of ``DRAWS`` draws of their groups (DRAWS,)."""
    ranking = Ranking(positive, negative)
    parts = [ranking.figures(w1, w0) for w1, w0 in draws(groups_of(g1), groups_of(g0), seed)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ranking.figures(np.ones((1, len(positive))), np.ones((1, len(negative)))), drawn


def judged(
    probability: Float64, label: Booleans, groups: Strings, seed: int, bins: int
) -> tuple[Replicates, Replicates]:
    """``ece``, ``brier`` and ``log_loss`` of probabilities (n,) as they are (1,) and in the draws (DRAWS,)."""
    order = np.concatenate((np.flatnonzero(label), np.flatnonzero(~label)))
    p, y = probability[order], label[order]
    losses = Losses(p, y, bins)
    one, zero = groups_of(groups[label]), groups_of(groups[~label])
    parts = [losses.figures(np.concatenate(pair, axis=1)) for pair in draws(one, zero, seed)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return losses.figures(np.ones((1, len(p)))), drawn


class Losses:
    """Probabilities (n,) against labels (n,); every statistic takes weights (b, n)."""

    def __init__(self, probability: Float64, label: Booleans, bins: int) -> None:
        safe = np.clip(probability, 1e-6, 1.0 - 1e-6)
        self._square = np.square(probability - label)
        self._log = -np.where(label, np.log(safe), np.log1p(-safe))
        self._order = np.argsort(probability, kind="stable")
        self._gap = (probability - label)[self._order]
        self._bins = bins

    def figures(self, weights: Float64) -> dict[str, Float64]:
        """``ece`` over bins of equal mass, ``brier`` and ``log_loss`` (nats, kept 1e-6 from certainty), each (b,)."""
        total = weights.sum(axis=1)
        return {
            "ece": np.array([self._ece(row) for row in weights]),
            "brier": weights @ self._square / total,
            "log_loss": weights @ self._log / total,
        }

    def _ece(self, weights: Float64) -> float:
        gaps = np.repeat(self._gap, weights[self._order].astype(np.intp))
        parts = np.array_split(gaps, min(self._bins, len(gaps)))
        return sum(abs(float(part.sum())) for part in parts) / len(gaps)


def _area(p: Float64, n: Float64) -> Float64:
    before = np.pad(p, ((0, 0), (1, 0)))[:, :-1]
    pairs = (np.diff(n, axis=1, prepend=0.0) * (p + before) / 2.0).sum(axis=1)
    return np.asarray(pairs / (p[:, -1] * n[:, -1]))


def _fpr_at(p: Float64, n: Float64, recall: float) -> Float64:
    """The share of negatives accepted at the highest cut that keeps ``recall`` of the positives."""
    total = p[:, -1:]
    enough = p >= total - np.floor((1.0 - recall) * total + 1e-9) - 1e-9
    first = np.argmax(enough, axis=1)
    return np.asarray(n[np.arange(len(n)), first] / n[:, -1])


def _tpr_at(p: Float64, n: Float64, fpr: float) -> Float64:
    """The largest recall whose cut accepts at most ``fpr`` of the negatives; 0 where none does."""
    allowed = (n <= fpr * n[:, -1:] + 1e-9).sum(axis=1)
    recall = np.pad(p, ((0, 0), (1, 0)))[np.arange(len(p)), allowed]
    return np.asarray(recall / p[:, -1])


def _average_precision(p: Float64, n: Float64) -> Float64:
    steps = np.diff(p, axis=1, prepend=0.0)
    precision = np.divide(p, p + n, out=np.zeros_like(p), where=p + n > 0)
    return np.asarray((steps * precision).sum(axis=1) / p[:, -1])
