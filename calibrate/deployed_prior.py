"""The share of positives where a gate is used, estimated from unlabelled pictures of there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibrate.chooser import Use
from calibrate.extract import extract
from calibrate.feature_cache import FeatureCache
from calibrate.folders import pictures_in
from calibrate.priors import estimate_prior, rogan_gladen
from calibrate.study import Study
from edge.gate import Gate
from engines import Engine, UsageError

LEAST = 1e-6  # a prior of 0 would make every frame a false alarm for certain


def use_from_pictures(
    gate: Gate, engine: Engine, folder: Path, study: Study, frames: float, cache: FeatureCache | None
) -> Use:
    """A use whose prior expectation-maximisation finds in the gate's probabilities of the pictures in ``folder``.

    The probabilities were calibrated at the share of positives in ``study``. Rogan and Gladen's estimate from the
    share accepted stands beside it with its interval.

    Raises:
        UsageError: no readable picture, or a gate or study without probabilities and negatives.
    """
    if study.probability is None or not study.samples.negatives:
        raise UsageError("--prior-from needs a gate that was fitted with negatives, and --negatives to calibrate by")
    extracted = extract(engine, list(pictures_in(folder)), gate.views, cache)
    if not len(extracted.rows):
        raise UsageError(f"--prior-from {folder}: no readable picture")
    scores = gate.judge(gate.join_views([extracted.views[view] for view in gate.views]))
    if scores.probability is None:
        raise UsageError("--prior-from needs a gate that was fitted with negatives: this one knows no probability")
    probability = np.asarray(scores.probability[scores.finite], np.float64)
    positive, accepted = study.samples.positive, int(scores.accepted.sum())
    recall, false = float(study.accepted[positive].mean()), float(study.accepted[~positive].mean())
    prior = float(np.clip(estimate_prior(probability, float(positive.mean())), LEAST, 1.0 - LEAST))
    value, interval = rogan_gladen(accepted, len(probability), recall, false)
    estimate = {
        "method": "expectation-maximisation",
        "pictures": len(probability),
        "accepted": accepted,
        "rogan_gladen": {"value": value, "ci95": list(interval)},
    }
    return Use(prior, frames, estimate)
