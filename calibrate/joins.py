"""From the scores of several members to one: what the joins of ``edge.gate_calibration`` learn from held-out scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calibrate.calibrators import bounded_logistic, smoothed_targets
from calibrate.samples import Booleans, Float64
from edge.gate_calibration import build_join

Kind = Literal["single", "clipped_sum", "product"]


@dataclass(frozen=True, slots=True)
class Factor:
    """One probability of a product: ``members`` say of pictures (n,) at ``rows`` whether they are ``among``."""

    members: tuple[int, ...]
    rows: Booleans
    among: Booleans

    def take(self, kept: Booleans) -> Factor:
        """The factor as the pictures ``kept`` (n,) teach it."""
        return Factor(self.members, self.rows[kept], self.among[kept])


@dataclass(frozen=True, slots=True)
class FittedJoin:
    """``kind`` and its arrays for the gate file."""

    kind: Kind
    arrays: dict[str, Float64]

    def __call__(self, scores: Sequence[Float64] | Float64) -> Float64:
        """One score (n,) of those of every member, each (n,)."""
        return build_join(self.kind, self.arrays, len(scores))(list(scores))


def fit_join(
    scores: Float64, positive: Booleans, forgives: Sequence[float], factors: Sequence[Factor] = ()
) -> FittedJoin:
    """The join of held-out ``scores`` (m, n) of pictures that are ``positive`` (n,) or not.

    ``forgives`` are the quantiles of the positives from which on a member has nothing against a picture. ``factors``
    make a product of conditional probabilities, each fitted by a logistic regression with weights >= 0 in which both
    sides count alike; without them deviations from the positives are summed.
    """
    if len(scores) == 1:
        return FittedJoin("single", {})
    own = scores[:, positive]
    centre = np.array([np.quantile(row, q) for row, q in zip(own, forgives, strict=True)])
    median = np.median(own, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(own - median), axis=1)  # the MAD, in standard deviations of a normal
    scale = np.where(spread > 0, spread, 1.0)
    if not factors:
        return FittedJoin("clipped_sum", {"join.centre": centre, "join.scale": scale})
    against = np.minimum((scores - centre[:, None]) / scale[:, None], 0.0)
    weights, intercept = np.zeros((len(factors), len(scores))), np.zeros(len(factors))
    for k, factor in enumerate(factors):
        among = factor.among[factor.rows]
        share = np.where(among, 0.5 / among.sum(), 0.5 / (~among).sum())
        members = list(factor.members)
        *found, intercept[k] = bounded_logistic(
            against[members][:, factor.rows].T, smoothed_targets(among), len(members), share
        )
        weights[k, members] = np.array(found) / scale[members]
    return FittedJoin("product", {"join.centre": centre, "join.weights": weights, "join.intercept": intercept})
