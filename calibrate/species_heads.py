"""Linear heads over fused features: shrinkage LDA, multinomial and one-vs-rest logistic regression, nearest mean.

Every head is ``logits = (x - centre) W + b`` with a softmax after it, so that all of them export alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Method = Callable[[Float64, Indices, int], "Head"]

LOGISTIC_C = 100.0  # inverse strength of the L2 penalty, for features of unit total variance
STRONG_SHRINKAGE = 0.9
_MAX_ITER = 300
_RANK = 1e-10  # eigenvalue, as a share of the largest, below which a direction is rounding
_FLOOR = 1e-9  # of the shrunk variance, for classes whose pictures are all the same
_TEMPERATURES = (1e-2, 1e2)


@dataclass(frozen=True, slots=True)
class Head:
    """``centre`` (D,), ``weights`` (D, K), ``bias`` (K,), all float64; K classes."""

    centre: Float64
    weights: Float64
    bias: Float64

    def logits(self, x: npt.NDArray[np.floating[Any]]) -> Float64:
        """Features (n, D) to logits (n, K)."""
        return (x.astype(np.float64) - self.centre) @ self.weights + self.bias

    def probabilities(self, x: npt.NDArray[np.floating[Any]]) -> Float64:
        """Features (n, D) to probabilities (n, K)."""
        return np.asarray(np.exp(log_softmax(self.logits(x), axis=1)))

    def tempered(self, temperature: float) -> Head:
        """The head whose logits are these divided by ``temperature`` > 0: the same answers, other certainty."""
        return replace(self, weights=self.weights / temperature, bias=self.bias / temperature)


def fit_lda(x: Float64, label: Indices, classes: int, shrinkage: float | None = None) -> Head:
    """Linear discriminant analysis with a shrunk covariance C within classes, equal priors.

    w_k = S^-1 m_k and b_k = -m_k' w_k / 2, with S = (1 - d) C + d tr(C) / D I and the means taken from the centre.
    The shrinkage d in [0, 1] is Ledoit and Wolf's where None is given.
    """
    centre, means = x.mean(axis=0), _means(x, label, classes)
    within = x - means[label]
    if shrinkage is None:
        shrinkage = float(ledoit_wolf_shrinkage(within, assume_centered=True)) if within.any() else 1.0
    covariance = within.T @ within / len(x)
    covariance *= 1.0 - shrinkage
    floor = max(shrinkage * float(np.square(within).sum()) / within.size, _FLOOR)
    covariance[np.diag_indices_from(covariance)] += floor
    offset = means - centre
    weights = np.linalg.solve(covariance, offset.T)
    return Head(centre, weights, -0.5 * np.einsum("kd,dk->k", offset, weights))


def fit_softmax(x: Float64, label: Indices, classes: int) -> Head:  # noqa: ARG001 - every fit takes the same
    """Multinomial logistic regression, classes balanced."""
    return _fit_linear(LogisticRegression(C=LOGISTIC_C, class_weight="balanced", max_iter=_MAX_ITER), x, label)


def fit_logistic(x: Float64, label: Indices, classes: int) -> Head:
    """One balanced logistic regression per class against all others, their log odds compared by a softmax."""
    model = LogisticRegression(C=LOGISTIC_C, class_weight="balanced", max_iter=_MAX_ITER)
    if classes == 2:
        return _fit_linear(model, x, label)
    centre, scale = _scaling(x)
    models = OneVsRestClassifier(model).fit((x - centre) / scale, label).estimators_
    weights = np.stack([one.coef_[0] for one in models], axis=1) / scale
    return Head(centre, weights, np.array([one.intercept_[0] for one in models]))


def fit_nearest_mean(x: Float64, label: Indices, classes: int) -> Head:
    """The baseline: the class whose mean is nearest, |x - m_k|^2 = const - 2 m_k' x + m_k' m_k."""
    centre = x.mean(axis=0)
    offset = _means(x, label, classes) - centre
    return Head(centre, offset.T, -0.5 * np.square(offset).sum(axis=1))


METHODS: Mapping[str, Method] = {
    "lda": fit_lda,
    # Views and bursts are no independent rows: Ledoit and Wolf's rule, which takes them for such, shrinks too little.
    "lda-strong": partial(fit_lda, shrinkage=STRONG_SHRINKAGE),
    "softmax": fit_softmax,
    "logistic": fit_logistic,
}


@dataclass(frozen=True, slots=True)
class Subspace:
    """Coordinates (n, r) of the training rows (n, D) along an orthonormal ``basis`` (D, r) of their span, r < n.

    Every head here depends on rows through their dot products alone, so that fitting in the span loses nothing; with
    few pictures and many features it saves most of the time.
    """

    centre: Float64
    basis: Float64
    rows: Float64

    @classmethod
    def of(cls, x: Float64) -> Subspace:
        """The span of the centred rows ``x`` (n, D)."""
        centre = x.mean(axis=0)
        centred = x - centre
        if len(x) > x.shape[1]:
            return cls(centre, np.eye(x.shape[1]), centred)
        values, vectors = np.linalg.eigh(centred @ centred.T)
        kept = values > max(values[-1], 0.0) * _RANK
        if not kept.any():
            kept[-1] = True
        vectors, lengths = vectors[:, kept], np.sqrt(np.maximum(values[kept], np.finfo(np.float64).tiny))
        return cls(centre, (centred.T @ vectors) / lengths, vectors * lengths)

    def fit(self, method: Method, label: Indices, classes: int) -> Head:
        """``method`` fitted on the rows, as a head over all D features."""
        head = method(self.rows, label, classes)
        return Head(self.centre + self.basis @ head.centre, self.basis @ head.weights, head.bias)


def log_loss(logits: Float64, label: Indices) -> float:
    """Mean of -log p of the right class, of logits (n, K) and labels (n,)."""
    return -float(log_softmax(logits, axis=1)[np.arange(len(label)), label].mean())


def best_temperature(logits: Float64, label: Indices) -> float:
    """The temperature with the least log-loss on held-out ``logits`` (n, K) (Guo et al. 2017), in 0.01 to 100."""
    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(lambda t: log_loss(logits / np.exp(t), label), bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def _means(x: Float64, label: Indices, classes: int) -> Float64:
    return np.stack([x[label == k].mean(axis=0) for k in range(classes)])


def _scaling(x: Float64) -> tuple[Float64, float]:
    centre = x.mean(axis=0)
    return centre, float(np.sqrt(np.square(x - centre).sum(axis=1).mean())) or 1.0


def _fit_linear(model: Any, x: Float64, label: Indices) -> Head:
    centre, scale = _scaling(x)
    model.fit((x - centre) / scale, label)
    weights, bias = model.coef_.T / scale, model.intercept_
    if weights.shape[1] == 1:  # two classes share one row: the log odds of the second
        weights, bias = np.hstack((np.zeros_like(weights), weights)), np.array([0.0, bias[0]])
    return Head(centre, np.ascontiguousarray(weights, np.float64), np.asarray(bias, np.float64))
