"""From held-out scores to probabilities: Platt, beta and clipped isotonic; the runtime is ``edge.gate_calibration``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from calibrate.samples import Booleans, Float64
from edge.gate_calibration import Calibrator, build_calibrator

Kind = Literal["platt", "beta", "isotonic"]
ISOTONIC_FROM = 1000  # below about a thousand samples isotonic overfits (gate.md 2.5; scikit-learn's user guide)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted calibrator: its kind, its arrays for the gate file, and the function itself."""

    kind: Kind
    arrays: dict[str, npt.NDArray[np.float64]]

    def __call__(self, scores: Float64) -> Float64:
        """Probabilities (n,) in [0, 1] of scores (n,)."""
        return self._function()(scores)

    def _function(self) -> Calibrator:
        function = build_calibrator(self.kind, self.arrays)
        if function is None:
            raise ValueError(f"{self.kind} calibrates nothing")
        return function


def fit_calibrator(kind: Kind, scores: Float64, positive: Booleans) -> Calibration:
    """Fit ``kind`` on held-out scores (n,) and labels (n,); both labels must occur."""
    if kind == "isotonic":
        return _fit_isotonic(scores, positive)
    a, b = _fit_platt(scores, positive)
    if kind == "platt":
        return Calibration(kind, {"calibration.parameters": np.array([a, b])})
    return Calibration(kind, {"calibration.parameters": np.array([a, b, *_fit_beta(a * scores + b, positive)])})


def choose_kind(scores: Float64, positive: Booleans, fold: npt.NDArray[np.intp]) -> Kind:
    """Isotonic from a thousand samples on; below, Platt or beta, whichever has the lower cross-fitted log-loss."""
    if len(scores) >= ISOTONIC_FROM:
        return "isotonic"
    losses = {kind: _log_loss(cross_fit(kind, scores, positive, fold), positive) for kind in _SMALL}
    return "beta" if losses["beta"] < losses["platt"] else "platt"


def cross_fit(kind: Kind, scores: Float64, positive: Booleans, fold: npt.NDArray[np.intp]) -> Float64:
    """Probabilities (n,) of held-out scores, each fold calibrated on the others alone."""
    probability = np.empty(len(scores))
    for held_out in np.unique(fold):
        rest = fold != held_out
        if len(np.unique(positive[rest])) < 2:
            rest = np.ones(len(fold), dtype=np.bool_)
        probability[fold == held_out] = fit_calibrator(kind, scores[rest], positive[rest])(scores[fold == held_out])
    return probability


_SMALL: tuple[Kind, Kind] = ("platt", "beta")


def _log_loss(probability: Float64, positive: Booleans) -> float:
    p = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return float(-np.where(positive, np.log(p), np.log1p(-p)).mean())


def smoothed_targets(positive: Booleans) -> Float64:
    """Platt's targets: (n1 + 1) / (n1 + 2) and 1 / (n0 + 2)."""
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    return np.where(positive, (n1 + 1.0) / (n1 + 2.0), 1.0 / (n0 + 2.0))


def _fit_platt(scores: Float64, positive: Booleans) -> tuple[float, float]:
    """Slope a >= 0 and intercept b of sigmoid(a s + b), by maximum likelihood on smoothed targets."""
    centre, spread = float(np.median(scores)), float(scores.std()) or 1.0
    z = ((scores - centre) / spread)[:, None]
    slope, intercept = bounded_logistic(z, smoothed_targets(positive), positive_weights=1)
    return slope / spread, intercept - slope * centre / spread


def _fit_beta(t: Float64, positive: Booleans) -> tuple[float, float, float]:
    """alpha, beta >= 0 and c on log q and -log(1 - q), q = sigmoid(t)."""
    inputs = np.stack([-np.logaddexp(0.0, -t), np.logaddexp(0.0, t)], axis=1)
    alpha, beta_, c = bounded_logistic(inputs, smoothed_targets(positive), positive_weights=2)
    return alpha, beta_, c


def bounded_logistic(
    x: Float64, target: Float64, positive_weights: int, share: Float64 | None = None
) -> tuple[float, ...]:
    """Weights (>= 0) and intercept of a logistic regression of x (n, d) on soft targets (n,), by L-BFGS-B.

    ``share`` (n,) is how much of the loss each row makes up, summing to 1; None: all alike.
    """
    share = np.full(len(x), 1.0 / len(x)) if share is None else share

    def loss(w: Float64) -> tuple[float, Float64]:
        t = x @ w[:-1] + w[-1]
        residual = np.exp(-np.logaddexp(0.0, -t)) - target
        residual *= share
        value = float(share @ (np.logaddexp(0.0, t) - target * t))
        return value, np.append(residual @ x, residual.sum())

    bounds = [(0.0, None)] * positive_weights + [(None, None)]
    start = np.append(np.ones(positive_weights), 0.0)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12})
    return tuple(map(float, best.x))


def _fit_isotonic(scores: Float64, positive: Booleans) -> Calibration:
    """Pool adjacent violators, kept within [1/(n+2), 1 - 1/(n+2)]: n samples cannot prove certainty."""
    edge = 1.0 / (len(scores) + 2.0)
    fitted = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip").fit(
        scores.astype(np.float64), positive.astype(np.float64)
    )
    return Calibration("isotonic", {"calibration.x": fitted.X_thresholds_, "calibration.y": fitted.y_thresholds_})
