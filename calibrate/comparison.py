"""Recipes and single members on the same held-out pictures, with nested folds.

A picture is judged by a fit that saw neither it nor its folder; join, calibrator, mixtures and covariance of that fit
come from folds within its training pictures. A folder of negatives that is too large to stay in one fold is held out
whole in a round of its own, so that every family has figures of fits that never saw any of it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from calibrate.contenders import Contender, contenders
from calibrate.decision import DEFAULT, Wish
from calibrate.fit import MIN_CALIBRATION
from calibrate.folds import Split, split
from calibrate.metrics import (
    against,
    difference,
    measure,
    negative_sources,
    probability_difference,
    rate,
)
from calibrate.mixture_choice import Candidate, mixture_candidates
from calibrate.samples import Booleans, Float64, Samples
from edge.gate import unit_rows
from engines import UsageError
from engines.console import track

log = logging.getLogger(__name__)

FOLDS = 5
PLAIN = Wish("value", DEFAULT["probability"])


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe or member and its held-out figures, JSON-able.

    ``figures`` are :func:`calibrate.metrics.measure`'s, ``kinds`` the recall of each folder of positives,
    ``families`` AUROC, FPR95 and false accepts of each folder of negatives held out whole, ``worst_family`` and
    ``worst_kind`` their worst.
    """

    name: str
    figures: dict[str, Any]
    kinds: dict[str, Any] = field(default_factory=dict)
    families: dict[str, Any] = field(default_factory=dict)
    worst_kind: str = ""
    worst_family: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows on the folds that ``folds`` describes, accepted at the ``threshold`` that was wished for; ``mixtures``
    the candidates of the Gaussian mixture on all positives, the chosen one first; ``paired`` the first row less the
    second, with paired intervals."""

    folds: str
    threshold: str
    rows: list[Row]
    mixtures: list[Candidate]
    paired: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Scores, probabilities and what was accepted, each (n,)."""

    score: Float64
    probability: Float64
    accepted: Booleans

    @classmethod
    def empty(cls, n: int) -> _Judgement:
        return cls(np.empty(n), np.empty(n), np.zeros(n, np.bool_))


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """How every picture was judged, and how against each family that was held out apart: that holds where the
    picture is positive or of that family."""

    whole: _Judgement
    apart: dict[str, _Judgement]


def compare(samples: Samples, seed: int = 0, names: Sequence[str] = (), wish: Wish = PLAIN) -> Comparison:
    """A row for each recipe and member (or those of ``names``), all on the same folds.

    Each fit takes the threshold that its own training pictures give to ``wish``.

    Raises:
        UsageError: without at least five negatives: nothing could be told apart; or ``wish`` cannot be had.
    """
    if samples.negatives < FOLDS or samples.positives < 2 * FOLDS:
        raise UsageError(
            f"a comparison needs at least {2 * FOLDS} positives and {FOLDS} negatives; "
            f"found {samples.positives} and {samples.negatives}"
        )
    chosen = _chosen(contenders(seed, wish), names)
    raw = samples.with_features(samples.features.astype(np.float64))
    unit = samples.with_features(np.asarray(unit_rows(raw.features), np.float64))
    folds = split(unit, seed)
    spread = _spread(samples, folds)
    log.info("held-out scores from %s; each fit is calibrated on folds of its own", folds.description)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        verdicts = {
            c.name: _verdicts(unit if c.normalise else raw, c, folds, spread) for c in track(chosen, "comparison")
        }
        mixtures = mixture_candidates(unit, seed) if "Gaussian mixture" in verdicts else []
    rows = [_row(name, samples, found, spread, seed) for name, found in verdicts.items()]
    pair = list(verdicts.values())[:2]
    paired = _paired(samples, pair[0], pair[1], seed) if len(pair) == 2 else {}
    return Comparison(folds.description, str(wish), rows, mixtures, paired)


def _chosen(known: list[Contender], names: Sequence[str]) -> list[Contender]:
    by_name = {contender.name: contender for contender in known}
    for name in names:
        if name not in by_name:
            raise UsageError(f"--only {name}: there is no such recipe or member; there are {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)] or known


def _spread(samples: Samples, folds: Split) -> dict[str, Booleans]:
    """The rows of each family of negatives that lies in several folds and can be spared in training."""
    families = {name: ~samples.positive & (samples.family == name) for name in samples.counts(positive=False)}
    in_several = {name: rows for name, rows in families.items() if len(np.unique(folds.fold[rows])) > 1}
    enough = MIN_CALIBRATION * folds.count
    kept = {name: rows for name, rows in in_several.items() if samples.negatives - int(rows.sum()) >= enough}
    for name in in_several.keys() - kept.keys():
        log.warning("%s cannot be held out whole: hardly a negative lies outside it; give more families", name)
    return kept


def _verdicts(samples: Samples, contender: Contender, folds: Split, spread: dict[str, Booleans]) -> _Verdicts:
    n = len(samples.positive)
    whole, apart = _Judgement.empty(n), {}
    if not contender.one_class:
        apart = {name: _Judgement.empty(n) for name in spread}
    for fold in range(folds.count):
        rows = folds.fold == fold
        _judge(samples, contender, ~rows, rows, whole)
        for name, into in apart.items():
            _judge(samples, contender, ~rows & ~spread[name], rows & (samples.positive | spread[name]), into)
    return _Verdicts(whole, apart)


def _judge(samples: Samples, contender: Contender, train: Booleans, fresh: Booleans, into: _Judgement) -> None:
    judged = contender.judge(samples.take(train), np.asarray(samples.features[fresh], np.float64))
    into.score[fresh] = judged.score
    into.probability[fresh] = np.nan if judged.probability is None else judged.probability
    into.accepted[fresh] = False if judged.accepted is None else judged.accepted


def _row(name: str, samples: Samples, found: _Verdicts, spread: Collection[str], seed: int) -> Row:
    whole = found.whole
    accepted = whole.accepted
    figures = measure(samples, whole.score, accepted, whole.probability, seed)
    kinds = {kind: rate(accepted[_of(samples, kind, positive=True)]) for kind in samples.counts(positive=True)}
    families = {
        family: _family(samples, family, *_apart(found, family, spread), seed)
        for family in samples.counts(positive=False)
    }
    worst_kind = min(kinds, key=lambda kind: (kinds[kind]["value"], -kinds[kind]["n"]))
    worst = max(families, key=lambda f: (families[f]["fpr95"]["value"], -families[f]["auroc"]["value"]))
    return Row(name, figures, kinds, families, worst_kind, worst)


def _family(samples: Samples, name: str, score: Float64, accepted: Booleans | None, seed: int) -> dict[str, Any]:
    rows = _of(samples, name, positive=False)
    figures = against(samples, rows, score, seed)
    found = {"n": int(rows.sum()), "auroc": figures["auroc"], "fpr95": figures["fpr95"]}
    return found if accepted is None else found | {"false_accepts": rate(accepted[rows])}


def _apart(found: _Verdicts, family: str, spread: Collection[str]) -> tuple[Float64, Booleans | None]:
    """Scores, and what was accepted, of fits that never saw ``family``; a one-class member's score never does, but a
    family in several folds has taught its probability."""
    if family in found.apart:
        return found.apart[family].score, found.apart[family].accepted
    return found.whole.score, None if family in spread else found.whole.accepted


def _of(samples: Samples, family: str, *, positive: bool) -> Booleans:
    return np.asarray((samples.family == family) & (samples.positive == positive))


def _paired(samples: Samples, first: _Verdicts, second: _Verdicts, seed: int) -> dict[str, Any]:
    """Figures of ``first`` less those of ``second``, in the same draws of folders."""
    scores = first.whole.score, second.whole.score
    sources = {name: difference(samples, rows, scores, seed) for name, rows in negative_sources(samples).items()}
    probabilities = first.whole.probability, second.whole.probability
    return {"sources": sources, **probability_difference(samples, probabilities, seed)}
