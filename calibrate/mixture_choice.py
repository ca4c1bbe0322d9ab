"""How many mixtures, and which covariance: by the likelihood of left-out kinds, BIC beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from calibrate.folds import Folds, split
from calibrate.members import Covariance
from calibrate.samples import Float64, Samples

MIXTURES = (1, 2, 4)
COVARIANCES: tuple[Covariance, ...] = ("spherical", "diag", "tied")
COMPONENTS = 40
FOLDS = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mixture's size and covariance, the mean log-likelihood (nats) of left-out positives, and its BIC (the less
    the better) on all of them."""

    mixtures: int
    covariance: Covariance
    left_out: float
    bic: float


@dataclass(frozen=True, slots=True)
class FittedMixture:
    """Principal components and the mixture of ``chosen`` on them."""

    pca: PCA
    model: GaussianMixture
    chosen: Candidate

    def score(self, x: Float64) -> Float64:
        """Log-likelihoods (n,) of features (n, D) within the components."""
        return np.asarray(self.model.score_samples(self.pca.transform(x)))


def mixture_candidates(train: Samples, seed: int) -> list[Candidate]:
    """Every candidate on the positives of ``train``, the likeliest on left-out folders of them first.

    Likelihood on pictures left out decides: BIC counts parameters as if there were more pictures than features
    (gate.md 2.3), and is there to be compared.
    """
    positives = train.take(train.positive)
    own, fold = np.asarray(positives.features, np.float64), split(positives, seed, FOLDS).fold
    found = [
        _candidate(own, fold, mixtures, covariance, seed)
        for covariance in COVARIANCES
        for mixtures in MIXTURES
        if mixtures == 1 or 10 * mixtures <= len(own)
    ]
    return sorted(found, key=lambda candidate: -candidate.left_out)


def fit_chosen(train: Samples, chosen: Candidate, seed: int) -> FittedMixture:
    """``chosen`` on the positives of ``train``."""
    own = np.asarray(train.features[train.positive], np.float64)
    pca = _components(own)
    return FittedMixture(pca, _mixture(pca.transform(own), chosen.mixtures, chosen.covariance, seed), chosen)


def _candidate(own: Float64, fold: Folds, mixtures: int, covariance: Covariance, seed: int) -> Candidate:
    total = 0.0
    for left_out in np.unique(fold):
        rows = fold == left_out
        pca = _components(own[~rows])
        model = _mixture(pca.transform(own[~rows]), mixtures, covariance, seed)
        total += float(model.score_samples(pca.transform(own[rows])).sum())
    known = _components(own).transform(own)
    bic = float(_mixture(known, mixtures, covariance, seed).bic(known))
    return Candidate(mixtures, covariance, total / len(own), bic)


def _components(own: Float64) -> PCA:
    return PCA(max(1, min(COMPONENTS, len(own) // 5, own.shape[1])), svd_solver="full").fit(own)


def _mixture(known: Float64, mixtures: int, covariance: Covariance, seed: int) -> GaussianMixture:
    model = GaussianMixture(mixtures, covariance_type=covariance, random_state=seed, reg_covar=1e-6)
    return model.fit(known)
