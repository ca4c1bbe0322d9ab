"""Recipes and single members on the same held-out pictures, in one table.

Every score is that of a member that saw neither the picture nor its family; join and calibrator of a picture come from
the other folds, and a member's own settings (mixtures, covariance) from its training folds alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.neighbors import KernelDensity
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from calibrate.calibrators import choose_kind, cross_fit
from calibrate.curves import average_precision, log_loss, recall_at_fpr
from calibrate.fit import hold_out
from calibrate.folds import Split, split
from calibrate.members import fit_ledoit_wolf, fit_logistic, fit_ppca
from calibrate.metrics import measure
from calibrate.recipes import Recipe, make_recipe, wants_discriminative
from calibrate.samples import Float64, Samples
from edge.gate import unit_rows
from engines import UsageError
from engines.console import track

log = logging.getLogger(__name__)

NEIGHBOURS = 2
MIXTURES = (1, 2, 4)
MIXTURE_COMPONENTS = 40
FOLDS = 5

Scorer = Callable[[Samples, Float64], Float64]


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe or member, its held-out ``figures`` (JSON-able) and what it chose for itself."""

    name: str
    figures: dict[str, Any]
    note: str = ""


def compare(samples: Samples, seed: int = 0) -> list[Row]:
    """A row for each recipe and member, all on the same folds.

    Raises :class:`UsageError` without at least five negatives: nothing could be told apart.
    """
    if samples.negatives < FOLDS or samples.positives < 2 * FOLDS:
        raise UsageError(
            f"a comparison needs at least {2 * FOLDS} positives and {FOLDS} negatives; "
            f"found {samples.positives} and {samples.negatives}"
        )
    raw = samples.with_features(samples.features.astype(np.float64))
    unit = samples.with_features(np.asarray(unit_rows(raw.features), np.float64))
    folds = split(samples, seed)
    log.info("held-out scores from %s", folds.description)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows = [_recipe_row(make_recipe(name, None, None, seed), raw, unit, folds, seed) for name in ("robust", "seed")]
        for name, scorer in track(_scorers(seed).items(), "members"):
            score = _held_out(unit, folds, scorer)
            rows.append(_row(name, samples, score, folds, seed))
    return rows


def comparison_table(rows: list[Row]) -> Table:
    """All negatives together, then each source's AUROC and FPR95, then the family that fares worst."""
    sources = [name for name in rows[0].figures["sources"] if name != "all"]
    table = Table(title="Held-out figures; 95 % intervals over families in brackets")
    table.add_column("recipe or member")
    for column in ("AUROC", "FPR95", "TPR at 1 % FPR", "AP", "Brier", "log-loss", "ECE", "recall"):
        table.add_column(column, justify="right")
    for source in sources:
        table.add_column(f"{source}: AUROC / FPR95 / accepted", justify="right")
    table.add_column("worst family")
    for row in rows:
        table.add_row(row.name, *_cells(row.figures), *(_source(row.figures, s) for s in sources), _worst(row.figures))
    return table


def _cells(figures: dict[str, Any]) -> list[str]:
    everything = figures["sources"]["all"]
    plain = [f"{figures[name]:.3f}" for name in ("tpr_at_fpr_1", "average_precision", "brier", "log_loss")]
    return [_figure(everything["auroc"]), _figure(everything["fpr95"]), *plain, _figure(figures["ece"]),
            _figure(figures["recall"])]  # fmt: skip


def _figure(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.3f} [{figure['ci95'][0]:.3f}, {figure['ci95'][1]:.3f}]"


def _source(figures: dict[str, Any], name: str) -> str:
    found = figures["sources"][name]
    return f"{found['auroc']['value']:.3f} / {found['fpr95']['value']:.3f} / {found['false_accepts']['value']:.3f}"


def _worst(figures: dict[str, Any]) -> str:
    name, rate = max(figures["families"].items(), key=lambda item: item[1]["value"])
    return f"{name} {rate['hits']}/{rate['n']}"


def _recipe_row(recipe: Recipe, raw: Samples, unit: Samples, folds: Split, seed: int) -> Row:
    samples = unit if recipe.normalise else raw
    planned = recipe.planned(samples, folds.fold)
    held_out, _, _ = hold_out(samples, planned, folds, wants_discriminative(recipe, samples))
    probability = held_out.decisive if held_out.probability is None else held_out.probability
    return Row(recipe.name, _figures(samples, held_out.score, probability, seed))


def _row(name: str, samples: Samples, score: Float64, folds: Split, seed: int) -> Row:
    kind = choose_kind(score, samples.positive, folds.fold)
    probability = cross_fit(kind, score, samples.positive, folds.fold)
    return Row(name, _figures(samples, score, probability, seed), kind)


def _figures(samples: Samples, score: Float64, probability: Float64, seed: int) -> dict[str, Any]:
    positive, negative = score[samples.positive], score[~samples.positive]
    return {
        **measure(samples, score, probability >= 0.5, probability, seed),
        "tpr_at_fpr_1": round(recall_at_fpr(positive, negative), 6),
        "average_precision": round(average_precision(positive, negative), 6),
        "log_loss": round(log_loss(probability, samples.positive), 6),
    }


def _held_out(samples: Samples, folds: Split, scorer: Scorer) -> Float64:
    score = np.empty(len(samples.positive))
    for fold in range(folds.count):
        rows = folds.fold == fold
        score[rows] = scorer(samples.take(~rows), np.asarray(samples.features[rows], np.float64))
    return score


def _scorers(seed: int) -> dict[str, Scorer]:
    """Members by name: training samples and test features (n, D), unit rows both, to scores (n,)."""
    return {
        "Ledoit-Wolf": lambda train, x: fit_ledoit_wolf(_own(train)).score(x),
        "PPCA": lambda train, x: fit_ppca(_own(train), max(1, len(_own(train)) // 5)).score(x),
        "kNN": lambda train, x: _nearest(_own(train), x),
        "kNN difference": lambda train, x: _nearest(_own(train), x) - _nearest(_others(train), x),
        "KDE": _kernel_density,
        "Gaussian mixture": lambda train, x: _mixture(_own(train), x, seed),
        "one-class SVM": lambda train, x: np.asarray(OneClassSVM(nu=0.08).fit(_own(train)).score_samples(x)),
        "isolation forest": lambda train, x: np.asarray(
            IsolationForest(random_state=seed).fit(_own(train)).score_samples(x)
        ),
        "density ratio": lambda train, x: (
            fit_ledoit_wolf(_own(train)).score(x) - fit_ledoit_wolf(_others(train)).score(x)
        ),
        "logistic": lambda train, x: fit_logistic(train.features, train.positive, strength=10.0).score(x),
    }


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


def _mixture(own: Float64, x: Float64, seed: int) -> Float64:
    """Mixtures and covariance by the likelihood of left-out training positives; BIC is in the log."""
    pca = PCA(max(1, min(MIXTURE_COMPONENTS, len(own) // 5)), svd_solver="full").fit(own)
    known, fresh = pca.transform(own), pca.transform(x)
    scored = {}
    for covariance in ("spherical", "diag", "tied"):
        for k in (k for k in MIXTURES if 10 * k <= len(own)):
            model = GaussianMixture(k, covariance_type=covariance, random_state=seed, reg_covar=1e-6)
            parts = KFold(3, shuffle=True, random_state=seed).split(known)
            likelihood = float(np.mean([model.fit(known[a]).score(known[b]) for a, b in parts]))
            scored[covariance, k] = likelihood
    covariance, k = max(scored, key=scored.__getitem__)
    best = GaussianMixture(k, covariance_type=covariance, random_state=seed, reg_covar=1e-6).fit(known)
    log.info("Gaussian mixture: %d %s by left-out likelihood %.2f, BIC %.0f", k, covariance, scored[covariance, k],
             best.bic(known))  # fmt: skip
    return np.asarray(best.score_samples(fresh)) - scored[covariance, k]  # folds differ in what they call likely
