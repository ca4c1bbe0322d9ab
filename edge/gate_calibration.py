"""From a member's score to a probability: the joins and calibrators of a gate, in numpy alone.

- ``clipped_sum``: sum_j min((s_j - centre_j) / scale_j, 0). No member can buy forgiveness for another; the best
  score is 0. Centre and scale are quantiles of held-out positives.
- ``product``: the log odds of prod_k sigmoid(sum_j w_kj min(s_j - centre_j, 0) + b_k), w >= 0: the chain rule, each
  factor the probability of a narrower class given the wider one. No factor can buy forgiveness for another.

  Where a member's score is no finite number neither is the joined one: it is NaN, whatever the others say.
- ``isotonic``: linear between knots, constant outside them: scikit-learn's ``IsotonicRegression(clip)``.
- ``platt``: p = sigmoid(a s + b), a >= 0.
- ``beta``: logit p = alpha log q - beta log(1 - q) + c on q = sigmoid(a s + b), alpha, beta >= 0 (Kull et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge.errors import GateError
from edge.gate_math import Arrays, Float64

MAX_FACTORS = 16  # of a product; each takes memory for every frame of a batch

Join = Callable[[Sequence[Float64]], Float64]
Calibrator = Callable[[Float64], Float64]
Booleans = npt.NDArray[np.bool_]


def sigmoid(t: Float64) -> Float64:
    """1 / (1 + exp(-t)) without overflow."""
    result: Float64 = np.exp(-np.logaddexp(0.0, -t))
    return result


def build_join(kind: str, arrays: Arrays, members: int) -> Join:
    """The join of ``members`` scores; raises :class:`GateError` when its arrays do not fit."""
    if kind == "single":
        return lambda scores: scores[0]
    return _product(arrays, members) if kind == "product" else _clipped_sum(arrays, members)


def _clipped_sum(arrays: Arrays, members: int) -> Join:
    centre = _vector(arrays, "join.centre", members)
    scale = _vector(arrays, "join.scale", members)
    if not (scale > 0).all():
        raise GateError("array 'join.scale' must be positive throughout")

    def clipped_sum(scores: Sequence[Float64]) -> Float64:
        rows, finite = _finite(scores)
        return np.where(finite, np.minimum((rows - centre[:, None]) / scale[:, None], 0.0).sum(axis=0), np.nan)

    return clipped_sum


def _product(arrays: Arrays, members: int) -> Join:
    centre = _vector(arrays, "join.centre", members)
    weights = arrays.get("join.weights")
    if weights is None or weights.dtype != np.float64 or weights.ndim != 2 or weights.shape[1] != members:
        found = "nothing" if weights is None else f"{weights.dtype} {weights.shape}"
        raise GateError(f"array 'join.weights' must be float64 of shape (factors, {members}); found {found}")
    if not 1 <= len(weights) <= MAX_FACTORS:
        raise GateError(f"array 'join.weights' must hold 1 to {MAX_FACTORS} factors; found {len(weights)}")
    if (weights < 0).any():
        raise GateError("array 'join.weights' must not be negative: a member's liking may not count against a picture")
    intercept = _vector(arrays, "join.intercept", len(weights))

    def product(scores: Sequence[Float64]) -> Float64:
        rows, finite = _finite(scores)
        log_odds = weights @ np.minimum(rows - centre[:, None], 0.0) + intercept[:, None]
        # -log p of the product; of p so near to 1 that nothing is left, the smallest number stands.
        loss = np.maximum(np.logaddexp(0.0, -log_odds).sum(axis=0), np.finfo(np.float64).tiny)
        return np.where(finite, -(loss + np.log(-np.expm1(-loss))), np.nan)

    return product


def _finite(scores: Sequence[Float64]) -> tuple[Float64, Booleans]:
    """Scores (members, n), zero where one of a picture's is no finite number, and (n,) where all of them are."""
    rows = np.stack(scores)
    finite: Booleans = np.asarray(np.isfinite(rows).all(axis=0))
    return (rows if finite.all() else np.where(finite, rows, 0.0)), finite


def build_calibrator(kind: str, arrays: Arrays) -> Calibrator | None:
    """Scores (n,) to probabilities (n,), monotone; None for a gate without calibration."""
    if kind == "none":
        return None
    if kind == "isotonic":
        x, y = knots(arrays)
        return lambda scores: np.interp(scores, x, y)
    parameters = _vector(arrays, "calibration.parameters", 2 if kind == "platt" else 5)
    if parameters[0] < 0 or (kind == "beta" and (parameters[2:4] < 0).any()):
        raise GateError("array 'calibration.parameters' must not let the probability fall as the score grows")
    return platt(parameters) if kind == "platt" else beta(parameters)


def platt(parameters: Float64) -> Calibrator:
    """``platt`` with parameters (a, b)."""
    a, b = map(float, parameters)
    return lambda scores: sigmoid(a * scores + b)


def beta(parameters: Float64) -> Calibrator:
    """``beta`` with parameters (a, b, alpha, beta, c)."""
    a, b, alpha, beta_, c = map(float, parameters)

    def calibrate(scores: Float64) -> Float64:
        t = a * scores + b
        return sigmoid(-alpha * np.logaddexp(0.0, -t) + beta_ * np.logaddexp(0.0, t) + c)

    return calibrate


def knots(arrays: Arrays) -> tuple[Float64, Float64]:
    """Scores and probabilities (n,) of an ``isotonic`` calibration; raises :class:`GateError` unless they rise."""
    x = _vector(arrays, "calibration.x")
    y = _vector(arrays, "calibration.y", len(x))
    if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any() or y[0] < 0 or y[-1] > 1:
        raise GateError("the isotonic knots must rise strictly in score and not fall in probability, within [0, 1]")
    return x, y


def _vector(arrays: Arrays, name: str, size: int | None = None) -> Float64:
    array = arrays.get(name)
    if (
        array is None
        or array.dtype != np.float64
        or array.ndim != 1
        or (len(array) < 1 or size not in (None, len(array)))
    ):
        found = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise GateError(f"array {name!r} must be float64 with {size or 'some'} numbers; found {found}")
    return array
