"""Which views a gate takes: a second one must prove that it is worth its inference on pictures that no member knew."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from calibrate.ablation import Idea, judged, log_losses, paired_gain
from calibrate.recipes import Recipe
from calibrate.samples import Float64, Samples

log = logging.getLogger(__name__)

Views = tuple[str, ...]

CHEAPEST: Views = ("full",)
CANDIDATES: tuple[Views, ...] = (CHEAPEST, ("full", "hflip"), ("full", "centre"))
MIN_NEGATIVES = 20  # below which probabilities are too coarse to compare
SPLITS = 3


def choose_views(tried: Mapping[Views, Samples], recipe: Recipe, seed: int) -> Views:
    """The candidate with the largest gain in held-out log-loss whose 95 % interval over families lies above nought;
    ``full`` where none has one.

    ``tried`` maps each of ``CANDIDATES`` to the same pictures in the same order. Held-out probabilities come from
    ``SPLITS`` group-aware splits, in which no member, join or calibrator knows the picture's kind.
    """
    full = tried[CHEAPEST]
    if full.negatives < MIN_NEGATIVES or full.positives < MIN_NEGATIVES:
        log.info("views full: too few pictures to prove that a second view is worth twice the inference")
        return CHEAPEST
    with threadpool_limits(limits=1):
        losses = {views: _held_out_losses(tried[views], recipe, seed) for views in CANDIDATES}
    chosen, best = CHEAPEST, 0.0
    for views in CANDIDATES[1:]:
        mean, low, high = paired_gain(losses[CHEAPEST] - losses[views], full.family, seed)
        verdict = "gain" if low > 0.0 else "do not prove their worth with a gain of"
        name = ",".join(views)
        log.info("views %s %s %+.4f [%+.4f, %+.4f] nats a picture over full", name, verdict, mean, low, high)
        if low > 0.0 and mean > best:
            chosen, best = views, mean
    cost = "each frame costs twice the inference" if chosen != CHEAPEST else "a second view would cost twice as much"
    log.info("views %s: %s", ",".join(chosen), cost)
    return chosen


def _held_out_losses(samples: Samples, recipe: Recipe, seed: int) -> Float64:
    """Log-loss (n,) of every picture in nats, averaged over ``SPLITS`` splits."""
    found = [log_losses(samples, judged(Idea("", recipe), samples, seed + n)[1]) for n in range(SPLITS)]
    return np.asarray(np.mean(found, axis=0))
