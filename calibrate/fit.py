"""From samples to a gate: members, held-out scores, join, calibration, honest figures, golden rows."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import sklearn
from threadpoolctl import threadpool_limits

from calibrate.blocks import blocks, fits_whole
from calibrate.calibrators import Calibration, Kind, choose_kind, fit_calibrator
from calibrate.decision import DEFAULT, By, Wish, decide
from calibrate.folds import Split, split
from calibrate.joins import Factor, FittedJoin, fit_join
from calibrate.metrics import measure
from calibrate.recipes import Recipe, wants_discriminative
from calibrate.samples import Booleans, Float64, Samples
from edge.gate import conformal, unit_rows
from edge.gate_manifest import FORMAT, GOLDEN_ROWS, FeatureModel, GateManifest, Training
from edge.gate_math import Floats
from engines import ModelSpec, UsageError

log = logging.getLogger(__name__)

MIN_POSITIVES = 10
MIN_CALIBRATION = 5  # negatives below which no probability can be learnt


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What the user may choose; ``wish`` None means 0.5 on the probability, 0.05 on the p-value. ``abstain`` is the
    share of either side that may lie beyond a band of uncertain verdicts, None: no band."""

    views: tuple[str, ...] = ("full",)
    wish: Wish | None = None
    seed: int = 0
    abstain: float | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What was found of pictures that the scoring members were not fitted on: each member's score (m, n), the joined
    score (n,), and what decides (n,), where join and calibrator of a fold's pictures come from the other folds."""

    members: Float64
    score: Float64
    probability: Float64 | None
    decisive: Float64


@dataclass(frozen=True, slots=True)
class FittedGate:
    """``manifest`` and ``arrays`` as :func:`edge.gate_file.save_gate` takes them; ``samples`` is what was fitted on
    with the features as the gate sees them, ``held_out`` and ``folds`` say how each of its n pictures fared."""

    manifest: GateManifest
    arrays: dict[str, npt.NDArray[Any]]
    samples: Samples
    held_out: HeldOut
    folds: Split


def fit_gate(
    samples: Samples,
    model: ModelSpec,
    recipe: Recipe,
    options: FitOptions,
    begin: Callable[[str], None] = lambda _: None,
) -> FittedGate:
    """Fit ``recipe`` on ``samples``, whose features are those of ``model``, its views already joined.

    Many rows stay in float32: memory beyond ``samples`` is at most three times theirs, and what D x D matrices take.
    ``begin`` is told each phase as it begins.

    Raises:
        UsageError: the samples cannot give the gate that was asked for.
    """
    samples = _with_enough_negatives(samples)
    _check(samples, recipe, options)
    begin("unit rows")
    seen = samples.with_features(_as_the_gate_sees(samples.features, normalise=recipe.normalise))
    # One thread: sums over threads come in any order, and the same pictures must give the same bytes.
    with threadpool_limits(limits=1):
        return _fit(samples, seen, model, recipe, options, begin)


def _fit(
    original: Samples,
    samples: Samples,
    model: ModelSpec,
    recipe: Recipe,
    options: FitOptions,
    begin: Callable[[str], None],
) -> FittedGate:
    discriminative = wants_discriminative(recipe, samples)
    begin("near-duplicates and folds")
    folds = split(samples, options.seed)
    log.info("held-out scores from %s", folds.description)
    begin("members")
    recipe = recipe.planned(samples, folds.fold)
    members = recipe.fit(samples, discriminative=discriminative)
    begin("members of the folds, calibration")
    held_out, join, calibration = hold_out(samples, recipe, folds, discriminative)
    by: By = "p_value" if calibration is None else "probability"
    decision = decide(by, options.wish, options.abstain, held_out.decisive, samples.positive)
    accepted = held_out.decisive >= decision.threshold
    begin("figures and their intervals")
    figures = measure(samples, held_out.score, accepted, held_out.probability, options.seed)
    manifest = GateManifest(
        format=FORMAT,
        name=f"{_positive_name(samples)}-{recipe.name}",
        recipe=recipe.name,
        positive=_positive_name(samples),
        features=FeatureModel(name=model.name, origin=model.origin, size=model.output.size, input=model.input),
        views=options.views,
        normalise=recipe.normalise,
        members=tuple(fitted.member for fitted in members),
        join=join.kind,
        calibration="none" if calibration is None else calibration.kind,
        decision=decision,
        training=_training(samples, folds, options.seed),
        metrics=figures,
        options={**recipe.options(samples), **_left_out(samples), **_wished(options)},
        versions={"python": platform.python_version(), **{m.__name__: m.__version__ for m in (np, scipy, sklearn)}},
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{fitted.member.name}.{key}": array for fitted in members for key, array in fitted.arrays.items()
    }
    arrays |= join.arrays | (calibration.arrays if calibration else {})
    arrays["conformal.scores"] = np.sort(held_out.score[samples.positive])
    arrays["golden.features"] = original.features[_golden_rows(held_out.score)].astype(np.float32)
    return FittedGate(manifest, arrays, samples, held_out, folds)


def _as_the_gate_sees(features: Floats, *, normalise: bool) -> Floats:
    """In float64; where that would be a large copy, in float32, and without one where nothing is normalised."""
    precision = np.float64 if fits_whole(features) else np.float32
    if not normalise:
        return features.astype(precision, copy=False)
    seen = np.empty(features.shape, precision)
    for rows in blocks(features):
        seen[rows] = unit_rows(features[rows].astype(np.float64))
    return seen


def _with_enough_negatives(samples: Samples) -> Samples:
    if 0 < samples.negatives < MIN_CALIBRATION:
        few = "only one negative" if samples.negatives == 1 else f"only {samples.negatives} negatives"
        log.warning("%s: too few to learn a probability from, left out", few)
        return samples.take(samples.positive)
    return samples


def _check(samples: Samples, recipe: Recipe, options: FitOptions) -> None:
    if samples.positives < MIN_POSITIVES:
        torn = f" ({len(samples.torn)} more lie among the negatives too and were left out)" if samples.torn else ""
        raise UsageError(
            f"{samples.positives} readable, different positives are too few for a gate{torn}: "
            f"at least {MIN_POSITIVES}, better 200"
        )
    recipe.check(samples)
    wish = options.wish or Wish("value", DEFAULT["p_value"])
    alpha = wish.amount
    if not samples.negatives and wish.aim == "value" and alpha * (samples.positives + 1) < 1.0:
        raise UsageError(
            f"without negatives a p-value decides, and {samples.positives} positives know none below "
            f"{1.0 / (samples.positives + 1):.3f}: a threshold of {alpha:g} would accept everything; give at least "
            f"{int(np.ceil(1.0 / alpha)) - 1} positives, or negatives, or a higher --threshold"
        )


def hold_out(
    samples: Samples, recipe: Recipe, folds: Split, discriminative: bool
) -> tuple[HeldOut, FittedJoin, Calibration | None]:
    """What members of the other folds say of every picture; the join and the calibrator that these scores teach."""
    scores, forgives = _member_scores(samples, recipe, folds, discriminative)
    factors = recipe.factors(samples) if len(scores) > 1 else []
    join = fit_join(scores, samples.positive, forgives, factors)
    score = join(scores)
    if not samples.negatives:
        log.warning("no negatives: no probability can be learnt; a conformal p-value decides")
        p_value = _cross_p_values(score, folds)
        return HeldOut(scores, score, None, p_value), join, None
    kind = choose_kind(score, samples.positive, folds.fold)
    probability = _cross_probability(scores, samples.positive, forgives, factors, folds, kind)
    calibration = fit_calibrator(kind, score, samples.positive)
    return HeldOut(scores, score, probability, probability), join, calibration


def _member_scores(samples: Samples, recipe: Recipe, folds: Split, discriminative: bool) -> tuple[Float64, list[float]]:
    """Scores (m, n) of every picture by members that did not see its fold."""
    scores, forgives = np.empty((0, len(samples.positive))), list[float]()
    for fold in range(folds.count):
        rows = folds.fold == fold
        members = recipe.fit(samples.take(~rows), discriminative=discriminative)
        if not fold:
            scores = np.empty((len(members), len(rows)))
            forgives = [fitted.forgives for fitted in members]
        for j, fitted in enumerate(members):
            scores[j, rows] = fitted.score(samples.features[rows])
    return scores, forgives


def _cross_probability(
    scores: Float64,
    positive: Booleans,
    forgives: Sequence[float],
    factors: Sequence[Factor],
    folds: Split,
    kind: Kind,
) -> Float64:
    """Each fold's probabilities with join and calibrator of the other folds."""
    probability = np.empty(len(positive))
    for fold in range(folds.count):
        rest, rows = folds.fold != fold, folds.fold == fold
        join = fit_join(scores[:, rest], positive[rest], forgives, [factor.take(rest) for factor in factors])
        calibration = fit_calibrator(kind, join(scores[:, rest]), positive[rest])
        probability[rows] = calibration(join(scores[:, rows]))
    return probability


def _cross_p_values(score: Float64, folds: Split) -> Float64:
    p_value = np.empty(len(score))
    for fold in range(folds.count):
        rows = folds.fold == fold
        p_value[rows] = conformal(score[rows], np.sort(score[~rows]))
    return p_value


def _training(samples: Samples, folds: Split, seed: int) -> Training:
    return Training(
        digest=samples.digest(),
        positives=samples.positives,
        negatives=samples.counts(positive=False),
        groups=samples.counts(positive=True),
        folds=folds.description,
        seed=seed,
    )


def _wished(options: FitOptions) -> dict[str, Any]:
    """How the decision came about, beyond a plain threshold."""
    told: dict[str, Any] = {}
    if options.wish is not None and options.wish.aim != "value":
        told["threshold"] = options.wish.text
        told |= {"prior": options.wish.use.prior, "frames_a_day": options.wish.use.frames}
    return told if options.abstain is None else told | {"abstain": options.abstain}


def _left_out(samples: Samples) -> dict[str, int]:
    return {"left_out_on_both_sides": len(samples.torn)} if samples.torn else {}


def _positive_name(samples: Samples) -> str:
    return str(samples.source[samples.positive][0])


def _golden_rows(score: Float64) -> npt.NDArray[np.intp]:
    """Rows spread evenly over the held-out scores, from the worst to the best."""
    order = np.argsort(score, kind="stable")
    return order[np.linspace(0, len(order) - 1, GOLDEN_ROWS).round().astype(np.intp)]
