"""The recipes and single members that ``calibrate compare`` lets compete, each nested: all they choose, they choose
on folds within their training pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KernelDensity
from sklearn.svm import OneClassSVM

from calibrate.calibrators import choose_kind, fit_calibrator
from calibrate.decision import Wish
from calibrate.fit import hold_out
from calibrate.folds import Split, split
from calibrate.members import fit_ledoit_wolf, fit_logistic, fit_ppca
from calibrate.mixture_choice import fit_chosen, mixture_candidates
from calibrate.recipes import Recipe, make_recipe, wants_discriminative
from calibrate.samples import Booleans, Float64, Samples
from engines import UsageError

NEIGHBOURS = 2

Scorer = Callable[[Samples, Float64], Float64]
Judge = Callable[[Samples, Float64], "Judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """Fresh pictures: ``score`` (n,) in robust deviations from the median of the training positives held out within
    training, which lets scores of several fits be ranked together; ``probability`` (n,) and whether it reaches the
    threshold that training's held-out pictures gave, ``accepted`` (n,), both None without negatives."""

    score: Float64
    probability: Float64 | None
    accepted: Booleans | None


@dataclass(frozen=True, slots=True)
class Contender:
    """``judge`` fits on training samples and judges features (n, D). ``normalise`` says that both are unit rows,
    ``one_class`` that negatives in training change the probability alone."""

    name: str
    judge: Judge
    normalise: bool = True
    one_class: bool = False


def contenders(seed: int, wish: Wish) -> list[Contender]:
    """The recipes, then the members; each takes the threshold that is wished for."""
    recipes = [make_recipe(name, None, None, seed) for name in ("robust", "seed")]
    members = _scorers(seed).items()

    def mixture(train: Samples) -> Scorer:
        return _mixture_scorer(train, seed)

    return [
        *(Contender(r.name, _recipe_judge(r, seed, wish), r.normalise, r.name == "seed") for r in recipes),
        *(Contender(n, _member_judge(n, _always(s), seed, wish), one_class=n not in _TWO_CLASS) for n, s in members),
        Contender("Gaussian mixture", _member_judge("Gaussian mixture", mixture, seed, wish), one_class=True),
    ]


def _always(scorer: Scorer) -> Callable[[Samples], Scorer]:
    return lambda _: scorer


def _recipe_judge(recipe: Recipe, seed: int, wish: Wish) -> Judge:
    def judge(train: Samples, x: Float64) -> Judged:
        inner = split(train, seed)
        planned, discriminative = recipe.planned(train, inner.fold), wants_discriminative(recipe, train)
        held_out, join, calibration = hold_out(train, planned, inner, discriminative)
        members = planned.fit(train, discriminative=discriminative)
        score = join([member.score(x) for member in members])
        judged = standard(score, held_out.score[train.positive])
        if calibration is None:
            return Judged(judged, None, None)
        probability = calibration(score)
        return Judged(judged, probability, probability >= _threshold(wish, recipe.name, held_out.decisive, train))

    return judge


def _member_judge(name: str, plan: Callable[[Samples], Scorer], seed: int, wish: Wish) -> Judge:
    def judge(train: Samples, x: Float64) -> Judged:
        scorer, inner = plan(train), split(train, seed)
        known, score = _held_out(train, inner, scorer), scorer(train, x)
        judged = standard(score, known[train.positive])
        if not train.negatives:
            return Judged(judged, None, None)
        calibration = fit_calibrator(choose_kind(known, train.positive, inner.fold), known, train.positive)
        probability = calibration(score)
        return Judged(judged, probability, probability >= _threshold(wish, name, calibration(known), train))

    return judge


def _threshold(wish: Wish, name: str, decisive: Float64, train: Samples) -> float:
    try:
        return wish.threshold(decisive, train.positive)
    except UsageError as error:
        raise UsageError(f"{name}, in a fold: {error}. Name those to compare with --only, or ask for less") from error


def standard(score: Float64, positive: Float64) -> Float64:
    """``score`` (n,) in robust deviations from the median of held-out ``positive`` scores."""
    median = float(np.median(positive))
    # Where most positives have the best score there is, they do not deviate at all: their spread then.
    scale = 1.4826 * float(np.median(np.abs(positive - median))) or float(positive.std()) or 1.0
    return np.asarray((score - median) / scale)


def _held_out(samples: Samples, folds: Split, scorer: Scorer) -> Float64:
    score = np.empty(len(samples.positive))
    for fold in range(folds.count):
        rows = folds.fold == fold
        if rows.any():
            score[rows] = scorer(samples.take(~rows), np.asarray(samples.features[rows], np.float64))
    return score


_TWO_CLASS = ("kNN difference", "density ratio", "logistic")


def _scorers(seed: int) -> dict[str, Scorer]:
    """Members by name: training samples and test features (n, D), unit rows both, to scores (n,)."""
    return {
        "Ledoit-Wolf": lambda train, x: fit_ledoit_wolf(_own(train)).score(x),
        "PPCA": lambda train, x: fit_ppca(_own(train), max(1, len(_own(train)) // 5)).score(x),
        "kNN": lambda train, x: _nearest(_own(train), x),
        "KDE": _kernel_density,
        "one-class SVM": lambda train, x: np.asarray(OneClassSVM(nu=0.08).fit(_own(train)).score_samples(x)),
        "isolation forest": lambda train, x: np.asarray(
            IsolationForest(random_state=seed).fit(_own(train)).score_samples(x)
        ),
        "kNN difference": lambda train, x: _nearest(_own(train), x) - _nearest(_others(train), x),
        "density ratio": lambda train, x: (
            fit_ledoit_wolf(_own(train)).score(x) - fit_ledoit_wolf(_others(train)).score(x)
        ),
        "logistic": lambda train, x: fit_logistic(train.features, train.positive, strength=10.0).score(x),
    }


def _mixture_scorer(train: Samples, seed: int) -> Scorer:
    chosen = mixture_candidates(train, seed)[0]
    return lambda part, x: fit_chosen(part, chosen, seed).score(x)


def _own(train: Samples) -> Float64:
    return np.asarray(train.features[train.positive], np.float64)


def _others(train: Samples) -> Float64:
    return np.asarray(train.features[~train.positive], np.float64)


def _nearest(known: Float64, x: Float64) -> Float64:
    return np.asarray(np.sort(x @ known.T, axis=1)[:, -min(NEIGHBOURS, len(known))])


def _kernel_density(train: Samples, x: Float64) -> Float64:
    own = _own(train)
    inner = np.sqrt(np.maximum(2.0 - 2.0 * _nearest(own, own), 0.0))  # each one's nearest neighbour but itself
    width = max(float(np.median(inner)), 1e-3)
    # Without the normaliser -D log(width), in which folds would differ by more than pictures do.
    density = np.asarray(KernelDensity(bandwidth=width).fit(own).score_samples(x))
    return np.asarray(density + x.shape[1] * float(np.log(width)))
