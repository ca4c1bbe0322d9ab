"""The members of a gate, fitted by scikit-learn and folded into the arrays of ``edge.gate_math``.

Each function returns a :class:`FittedMember`, whose arrays the numpy runtime evaluates; that the two agree is held by
tests/calibrate/test_parity.py for every kind and covariance type.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from calibrate.samples import Booleans, Float64, Floats
from edge.gate_manifest import Member
from edge.gate_math import build_member

Covariance = Literal["spherical", "diag", "tied", "full"]

# Inverse strength of the logistic member's L2 penalty, for features of unit total variance; flat from 100 to 4000.
LOGISTIC_C = 1000.0


@dataclass(frozen=True, slots=True)
class FittedMember:
    """``member`` and its arrays (float64). ``forgives`` is the quantile of held-out positives from which on a member
    has nothing against a picture, when several are joined."""

    member: Member
    arrays: dict[str, npt.NDArray[np.float64]]
    forgives: float = 0.5

    def score(self, x: Floats) -> Float64:
        """Scores (n,) of features (n, D), by the box's own formulas in float64."""
        return build_member(self.member.kind, self.member.covariance, self.arrays, np.float64).score(x)


@dataclass(frozen=True, slots=True)
class MixtureChain:
    """The classic chain as scikit-learn evaluates it: scaler, whitened PCA, mixture."""

    scaler: Any
    pca: Any
    mixture: Any

    def score_samples(self, x: Floats) -> Float64:
        """Log-likelihoods (n,) of features (n, D)."""
        return np.asarray(self.mixture.score_samples(self.pca.transform(self.scaler.transform(x))))


def fit_mixture_chain(
    x: Floats, components: int, mixtures: int, covariance: Covariance, seed: int, max_iter: int = 100
) -> MixtureChain:
    """StandardScaler -> PCA(components, whiten) -> GaussianMixture(mixtures) on features (n, D)."""
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    pca = PCA(components, whiten=True, svd_solver="full").fit(scaled)
    mixture = GaussianMixture(mixtures, covariance_type=covariance, random_state=seed, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred rounds are the recipe, converged or not
        mixture.fit(pca.transform(scaled))
    return MixtureChain(scaler, pca, mixture)


def fold_mixture(chain: MixtureChain, name: str = "density") -> FittedMember:
    """Scaler, PCA and whitening as one projection, the mixture's own numbers beside it."""
    whitening = chain.pca.components_.T / np.sqrt(chain.pca.explained_variance_)
    covariance = chain.mixture.covariance_type
    spread = {"variances": chain.mixture.covariances_}
    if covariance in ("tied", "full"):
        spread = {"precision_factors": chain.mixture.precisions_cholesky_}
    arrays = {
        "centre": chain.scaler.mean_,
        "projection": whitening / chain.scaler.scale_[:, None],
        "offset": -chain.pca.mean_ @ whitening,
        "weights": chain.mixture.weights_,
        "means": chain.mixture.means_,
        **spread,
    }
    member = Member(name=name, kind="mixture", covariance=covariance)
    return FittedMember(member, {key: np.ascontiguousarray(array, np.float64) for key, array in arrays.items()})


def fit_ledoit_wolf(x: Floats, name: str = "density", forgives: float = 0.5) -> FittedMember:
    """Gaussian with Ledoit and Wolf's shrunk covariance, without the D x D matrix.

    S = (1 - d) C + d mu I has the eigenvalues (1 - d) l_i + d mu along C's eigenvectors and d mu everywhere else.
    """
    centre = x.mean(axis=0)
    centred = x - centre
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    eigenvalues = np.square(singular) / len(x)
    floor = max(shrinkage * float(eigenvalues.sum()) / x.shape[1], np.finfo(np.float64).tiny)
    return _gaussian(name, centre, axes, (1.0 - shrinkage) * eigenvalues + floor, floor, forgives)


def fit_ppca(x: Floats, components: int, name: str = "density", forgives: float = 0.5) -> FittedMember:
    """Probabilistic PCA: the log-likelihood of scikit-learn's ``PCA(components).score_samples``."""
    pca = PCA(components, svd_solver="full").fit(x)
    floor = float(pca.noise_variance_)
    return _gaussian(name, pca.mean_, pca.components_, np.maximum(pca.explained_variance_, floor), floor, forgives)


def fit_logistic(
    x: Floats,
    positive: Booleans,
    name: str = "discriminative",
    forgives: float = 0.5,
    strength: float = LOGISTIC_C,
) -> FittedMember:
    """Balanced logistic regression, ``strength`` being its inverse L2 penalty C; its log odds."""
    centre = x.mean(axis=0)
    scale = float(np.sqrt(np.square(x - centre).sum(axis=1).mean())) or 1.0
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    model.fit((x - centre) / scale, positive)
    arrays = {"centre": centre, "weights": model.coef_[0] / scale, "intercept": np.asarray(model.intercept_[0])}
    return FittedMember(Member(name=name, kind="linear"), arrays, forgives)


def _gaussian(
    name: str, centre: Float64, axes: Float64, variances: Float64, floor: float, forgives: float
) -> FittedMember:
    """A Gaussian with ``variances`` (r,) along ``axes`` (r, D) and ``floor`` in every other direction."""
    size = len(centre)
    kept = variances > floor
    axes, variances = axes[kept], variances[kept]
    log_det = float(np.log(variances).sum() + (size - len(variances)) * np.log(floor))
    arrays = {
        "centre": centre,
        "basis": np.ascontiguousarray(axes.T * np.sqrt(1.0 / floor - 1.0 / variances)),
        "residual_variance": np.asarray(floor),
        "log_norm": np.asarray(-0.5 * (log_det + size * np.log(2.0 * np.pi))),
    }
    return FittedMember(Member(name=name, kind="gaussian"), arrays, forgives)
