"""Balanced logistic regression over more rows than can be copied: scikit-learn's loss, its gradient by blocks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from calibrate.blocks import blocks
from calibrate.samples import Booleans, Float64, Floats

TOLERANCE, ROUNDS = 1e-4, 1000  # scikit-learn's own tolerance on the gradient; the rounds of the small fit


def fit_blocked_logistic(x: Floats, positive: Booleans, strength: float) -> tuple[Float64, Float64, float]:
    """Centre (D,), weights (D,) and intercept of log odds (x - centre) . weights + intercept, x (n, D) not copied.

    Minimises the mean of the balanced log-loss and |w|^2 / (2 C n) by L-BFGS, C being ``strength``: the objective of
    ``LogisticRegression(C, class_weight="balanced")`` on rows of unit total variance. Products are in x's own
    precision, their sums in float64.
    """
    centre, scale = _centre_and_scale(x)
    n = len(x)
    share = np.where(positive, 0.5 / positive.sum(), 0.5 / (n - positive.sum()))
    target, penalty = positive.astype(np.float64), 1.0 / (strength * n)

    def loss(parameters: Float64) -> tuple[float, Float64]:
        weights, intercept = parameters[:-1] / scale, parameters[-1]
        narrow = weights.astype(x.dtype)
        shift = float(intercept - centre @ weights)
        value, gradient, total = 0.0, np.zeros_like(weights), 0.0
        for rows in blocks(x):
            t = (x[rows] @ narrow).astype(np.float64) + shift
            value += float(share[rows] @ (np.logaddexp(0.0, t) - target[rows] * t))
            residual = share[rows] * (np.exp(-np.logaddexp(0.0, -t)) - target[rows])
            gradient += x[rows].T @ residual.astype(x.dtype)
            total += float(residual.sum())
        gradient = (gradient - total * centre) / scale + penalty * parameters[:-1]
        value += 0.5 * penalty * float(parameters[:-1] @ parameters[:-1])
        return value, np.append(gradient, total)

    options = {"maxiter": ROUNDS, "maxls": 50, "gtol": TOLERANCE, "ftol": 64 * np.finfo(np.float64).eps}
    best = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options=options).x
    return centre, best[:-1] / scale, float(best[-1])


def _centre_and_scale(x: Floats) -> tuple[Float64, float]:
    centre, squared = np.zeros(x.shape[1]), 0.0
    for rows in blocks(x):
        centre += x[rows].sum(axis=0, dtype=np.float64)
    centre /= len(x)
    for rows in blocks(x):
        centred = x[rows] - centre
        squared += float(np.vecdot(centred, centred).sum())
    return centre, float(np.sqrt(squared / len(x))) or 1.0
