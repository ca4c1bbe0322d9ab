"""Which views a gate takes: the flip must prove that it is worth its inference on pictures that no member knew."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from calibrate.ablation import Idea, judged, log_losses, paired_gain
from calibrate.recipes import Recipe
from calibrate.samples import Samples

log = logging.getLogger(__name__)

Views = tuple[str, ...]

CHEAPEST: Views = ("full",)
CANDIDATES: tuple[Views, ...] = (CHEAPEST, ("full", "hflip"))
MIN_NEGATIVES = 20  # below which probabilities are too coarse to compare
SPLITS = 3


def choose_views(tried: Mapping[Views, Samples], recipe: Recipe, seed: int) -> Views:
    """``full,hflip`` where its gain in held-out log-loss has a 95 % interval over families above nought, else ``full``.

    ``tried`` maps each of ``CANDIDATES`` to the same pictures in the same order. Held-out probabilities come from
    ``SPLITS`` group-aware splits, in which no member, join or calibrator knows the picture's kind.
    """
    full, flipped = (tried[views] for views in CANDIDATES)
    if full.negatives < MIN_NEGATIVES or full.positives < MIN_NEGATIVES:
        log.info("views full: too few pictures to prove that flips are worth twice the inference")
        return CHEAPEST
    with threadpool_limits(limits=1):
        loss, other = (
            np.mean([log_losses(one, judged(Idea("", recipe), one, seed + n)[1]) for n in range(SPLITS)], axis=0)
            for one in (full, flipped)
        )
    found = paired_gain(loss - other, full.family, seed)
    gain = "{:+.4f} [{:+.4f}, {:+.4f}] nats a picture".format(*found)
    if found[1] > 0.0:
        log.info("views full,hflip: flips gain %s on held-out pictures; each frame costs twice the inference", gain)
        return CANDIDATES[1]
    log.info("views full: flips would cost twice the inference and gain %s, which proves nothing", gain)
    return CHEAPEST
