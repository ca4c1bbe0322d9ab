"""The members of a gate, fitted by scikit-learn and folded into the arrays of ``edge.gate_math``.

Rows too many to be copied (``calibrate.blocks``) go through their covariance instead. Each function returns a
:class:`FittedMember`, whose arrays the numpy runtime evaluates; that the two agree is held by
tests/calibrate/test_parity.py for every kind and covariance type, and by test_blocks.py for many rows.
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

from calibrate.blocked_logistic import fit_blocked_logistic
from calibrate.blocks import Moments, blocks, fits_whole, moments, principal_axes
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
        member = build_member(self.member.kind, self.member.covariance, self.arrays, np.float64)
        return np.concatenate([member.score(x[rows]) for rows in blocks(x)])


@dataclass(frozen=True, slots=True)
class Whitening:
    """Whitened PCA from a covariance, with scikit-learn's names: ``components_`` (r, D), ``explained_variance_``."""

    mean_: Float64
    components_: Float64
    explained_variance_: Float64

    def transform(self, x: Floats) -> Float64:
        """Coordinates (n, r) of unit variance."""
        return np.asarray((x - self.mean_) @ (self.components_.T / np.sqrt(self.explained_variance_)))


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
    scaler, pca = _scaled_axes(x, components)
    latent = np.concatenate([pca.transform(scaler.transform(x[rows].astype(np.float64))) for rows in blocks(x)])
    mixture = GaussianMixture(mixtures, covariance_type=covariance, random_state=seed, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred rounds are the recipe, converged or not
        mixture.fit(latent)
    return MixtureChain(scaler, pca, mixture)


def _scaled_axes(x: Floats, components: int) -> tuple[Any, Any]:
    """A fitted StandardScaler, and a whitened PCA of what it gives."""
    scaler = StandardScaler()
    for rows in blocks(x):
        scaler.partial_fit(x[rows].astype(np.float64))
    if fits_whole(x):
        return scaler, PCA(components, whiten=True, svd_solver="full").fit(scaler.transform(x.astype(np.float64)))
    found = moments(x)
    variances, axes = principal_axes(found.covariance / np.outer(scaler.scale_, scaler.scale_), components)
    mean = (found.mean - scaler.mean_) / scaler.scale_
    return scaler, Whitening(mean, axes, variances * found.count / (found.count - 1))


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
    centre, shrinkage, eigenvalues, axes = _spectrum(x)
    floor = max(shrinkage * float(eigenvalues.sum()) / x.shape[1], np.finfo(np.float64).tiny)
    return _gaussian(name, centre, axes, (1.0 - shrinkage) * eigenvalues + floor, floor, forgives)


def _spectrum(x: Floats) -> tuple[Float64, float, Float64, Float64]:
    """Mean (D,), Ledoit and Wolf's shrinkage, and eigenvalues (r,) and axes (r, D) of the covariance."""
    if not fits_whole(x):
        found = moments(x)
        return found.mean, found.shrinkage(), *principal_axes(found.covariance)
    x = x.astype(np.float64, copy=False)
    centre = x.mean(axis=0)
    centred = x - centre
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    return centre, shrinkage, np.square(singular) / len(x), axes


def fit_ppca(x: Floats, components: int, name: str = "density", forgives: float = 0.5) -> FittedMember:
    """Probabilistic PCA: the log-likelihood of scikit-learn's ``PCA(components).score_samples``."""
    if not fits_whole(x):
        return _ppca_of(moments(x), components, name, forgives)
    pca = PCA(components, svd_solver="full").fit(x.astype(np.float64, copy=False))
    floor = float(pca.noise_variance_)
    return _gaussian(name, pca.mean_, pca.components_, np.maximum(pca.explained_variance_, floor), floor, forgives)


def _ppca_of(found: Moments, components: int, name: str, forgives: float) -> FittedMember:
    """PPCA of a covariance; what the kept axes leave of its trace is shared by the others."""
    unbiased = found.count / (found.count - 1)
    variances, axes = principal_axes(found.covariance, components)
    rest = max(float(np.trace(found.covariance)) - float(variances.sum()), 0.0)
    floor = max(unbiased * rest / max(1, len(found.mean) - components), np.finfo(np.float64).tiny)
    return _gaussian(name, found.mean, axes, np.maximum(unbiased * variances, floor), floor, forgives)


def fit_logistic(
    x: Floats,
    positive: Booleans,
    name: str = "discriminative",
    forgives: float = 0.5,
    strength: float = LOGISTIC_C,
) -> FittedMember:
    """Balanced logistic regression, ``strength`` being its inverse L2 penalty C; its log odds."""
    if fits_whole(x):
        x = x.astype(np.float64, copy=False)
        centre = x.mean(axis=0)
        scale = float(np.sqrt(np.square(x - centre).sum(axis=1).mean())) or 1.0
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        model.fit((x - centre) / scale, positive)
        weights, intercept = model.coef_[0] / scale, float(model.intercept_[0])
    else:
        centre, weights, intercept = fit_blocked_logistic(x, positive, strength)
    arrays = {"centre": centre, "weights": weights, "intercept": np.asarray(intercept)}
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
