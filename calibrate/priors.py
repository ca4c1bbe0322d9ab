"""The share of positives where a gate is used: estimated from its probabilities, and probabilities moved to it."""

from __future__ import annotations

import numpy as np

from calibrate.metrics import Interval, clopper_pearson
from calibrate.samples import Float64
from engines import UsageError

MAX_ITERATIONS = 10_000
TOLERANCE = 1e-9


def shift_prior(probability: Float64, fitted: float, deployed: float) -> Float64:
    """Probabilities (n,) calibrated at the prior ``fitted``, as they are at the prior ``deployed``.

    odds' = odds [pi' / (1 - pi')] / [pi / (1 - pi)]; valid where the two classes look as they did in calibration.
    """
    for prior in (fitted, deployed):
        if not 0.0 < prior < 1.0:
            raise UsageError(f"a prior must lie between 0 and 1, not {prior:g}")
    up = probability * (deployed / fitted)
    return np.asarray(up / (up + (1.0 - probability) * ((1.0 - deployed) / (1.0 - fitted))))


def estimate_prior(probability: Float64, fitted: float) -> float:
    """The deployed prior by expectation-maximisation (Saerens, Latinne, Decaestecker 2002) from probabilities (n,).

    ``probability`` is calibrated at ``fitted``; each step is pi' <- mean of the probabilities shifted to pi'.
    """
    if not len(probability):
        raise UsageError("no probability to estimate a prior from")
    prior = fitted
    for _ in range(MAX_ITERATIONS):
        before, prior = prior, float(shift_prior(probability, fitted, prior).mean())
        if not 0.0 < prior < 1.0 or abs(prior - before) < TOLERANCE:
            break
    return prior


def rogan_gladen(accepted: int, n: int, recall: float, false_accepts: float) -> tuple[float, Interval]:
    """The prior (accept rate - FPR) / (TPR - FPR), in [0, 1], with the accept rate's interval carried over.

    Raises :class:`UsageError` where the gate accepts negatives as often as positives.
    """
    if recall <= false_accepts:
        raise UsageError(f"a recall of {recall:g} at {false_accepts:g} false accepts says nothing about the prior")

    def corrected(rate: float) -> float:
        return float(np.clip((rate - false_accepts) / (recall - false_accepts), 0.0, 1.0))

    low, high = clopper_pearson(accepted, n)
    return corrected(accepted / n), (corrected(low), corrected(high))
