"""The box's numpy gate against scikit-learn's own answers, on random features and on real ones.

float64: 1e-6 relative or 1e-9 absolute. float32: log-likelihood 1e-3, probability 1e-5, no decision other.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from calibrate.bench_gate import pooled_features, seed_gate
from calibrate.fit import FitOptions, fit_gate
from calibrate.members import (
    LOGISTIC_C,
    Covariance,
    fit_ledoit_wolf,
    fit_logistic,
    fit_mixture_chain,
    fit_ppca,
    fold_mixture,
)
from calibrate.recipes import make_recipe
from calibrate.samples import Samples
from edge.gate import Gate, unit_rows
from edge.gate_file import load_gate, save_gate
from edge.gate_math import build_member
from engines import ModelSpec
from tests.calibrate import clusters

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def close(found: Float64, expected: Float64) -> None:
    """1e-6 relative or 1e-9 absolute."""
    assert (np.abs(found - expected) <= np.maximum(1e-6 * np.abs(expected), 1e-9)).all()


def both_precisions(path: Path, gate: tuple) -> tuple[Gate, Gate]:
    save_gate(path, *gate)
    return load_gate(path), load_gate(path, precision="float64")


def compare_seed(
    x: Float32, positive: npt.NDArray[np.bool_], covariance: Covariance, components: int, path: Path
) -> None:
    wide = x.astype(np.float64)
    chain = fit_mixture_chain(wide[positive], components, 3, covariance, seed=0)
    scores = chain.score_samples(wide)
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(scores, positive.astype(np.float64))
    golden = x[np.argsort(scores)[np.linspace(0, len(x) - 1, 16).astype(int)]]
    fast, exact = both_precisions(path, seed_gate(chain, isotonic, golden))
    expected = isotonic.predict(scores)
    judged = exact.judge(x)
    close(judged.score, scores)
    close(judged.probability, expected)
    judged = fast.judge(x)
    assert np.abs(judged.score - scores).max() <= 1e-3
    assert np.abs(judged.probability - expected).max() <= 1e-5
    for threshold in (0.05, 0.3, 0.5, 0.7, 0.95):
        accepted = fast.with_threshold(threshold).judge(x).accepted
        wrong = accepted != (expected >= threshold)
        assert not wrong.any(), (threshold, expected[wrong], judged.probability[wrong], scores[wrong])
    alone = [fast.judge(row[None]) for row in x]
    assert np.abs(np.concatenate([one.score for one in alone]) - scores).max() <= 1e-3
    assert np.abs(np.concatenate([one.probability for one in alone]) - expected).max() <= 1e-5
    np.testing.assert_array_equal(np.concatenate([one.accepted for one in alone]), expected >= fast.threshold)


@pytest.mark.parametrize("covariance", get_args(Covariance))
def test_seed_gate_equals_scikit_learn_on_random_features(covariance: Covariance, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    x = pooled_features(rng, 900, 256)
    positive = np.arange(900) < 600
    x[~positive] *= 1.3
    compare_seed(x, positive, covariance, 24, tmp_path / "gate.npz")


@pytest.mark.parametrize("covariance", get_args(Covariance))
def test_seed_gate_equals_scikit_learn_on_real_features(
    covariance: Covariance, real_samples: Samples, tmp_path: Path
) -> None:
    compare_seed(real_samples.features, real_samples.positive, covariance, 16, tmp_path / "gate.npz")


def test_float32_loses_nothing_to_a_mean_far_above_the_spread(tmp_path: Path) -> None:
    """The member alone, without the second look that the gate takes at doubtful rows."""
    rng = np.random.default_rng(8)
    x = pooled_features(rng, 900, 256) * np.float32(0.01) + np.float32(1000.0)
    positive = np.arange(900) < 600
    x[~positive] += np.float32(0.002)
    compare_seed(x, positive, "spherical", 24, tmp_path / "gate.npz")
    chain = fit_mixture_chain(x[positive].astype(np.float64), 24, 3, "spherical", seed=0)
    fast = build_member("mixture", "spherical", fold_mixture(chain).arrays, np.float32)
    assert np.abs(fast.score(x) - chain.score_samples(x.astype(np.float64))).max() <= 1e-3


def compare_members(samples: Samples) -> None:
    x = unit_rows(samples.features.astype(np.float64))
    positives = x[samples.positive]
    reference = LedoitWolf().fit(positives)
    log_det = np.linalg.slogdet(reference.covariance_)[1]
    expected = -0.5 * (reference.mahalanobis(x) + log_det + x.shape[1] * np.log(2.0 * np.pi))
    close(fit_ledoit_wolf(positives).score(x), expected)
    components = len(positives) // 5
    pca = PCA(components, svd_solver="full").fit(positives)
    close(fit_ppca(positives, components).score(x), pca.score_samples(x))
    centre = x.mean(axis=0)
    scale = np.sqrt(np.square(x - centre).sum(axis=1).mean())
    logistic = LogisticRegression(C=LOGISTIC_C, class_weight="balanced", max_iter=1000)
    logistic.fit((x - centre) / scale, samples.positive)
    close(fit_logistic(x, samples.positive).score(x), logistic.decision_function((x - centre) / scale))


def test_robust_members_equal_scikit_learn_on_random_features() -> None:
    compare_members(clusters.samples(clusters.PARROTS, clusters.OTHERS))


def test_robust_members_equal_scikit_learn_on_real_features(real_samples: Samples) -> None:
    compare_members(real_samples.with_features(real_samples.features[:, :320]))


def compare_precisions(samples: Samples, model: ModelSpec, covariance: str, path: Path) -> None:
    fitted = fit_gate(samples, model, make_recipe("robust", None, covariance, 0), FitOptions())
    fast, exact = both_precisions(path, (fitted.manifest, fitted.arrays))
    a, b = fast.judge(samples.features), exact.judge(samples.features)
    assert np.abs(a.score - b.score).max() <= 1e-3
    assert np.abs(a.decisive - b.decisive).max() <= 1e-5
    np.testing.assert_array_equal(a.accepted, b.accepted)
    for member, exact_member in zip(fast._fast.members, exact._exact.members, strict=True):
        u = unit_rows(samples.features)
        difference = np.abs(member.score(u) - exact_member.score(unit_rows(samples.features.astype(np.float64))))
        assert difference.max() <= 1e-3


@pytest.mark.parametrize("covariance", ["ledoit-wolf", "ppca"])
def test_robust_gate_decides_alike_in_both_precisions_on_random_features(covariance: str, tmp_path: Path) -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    compare_precisions(samples, clusters.model(), covariance, tmp_path / "gate.npz")


@pytest.mark.parametrize("covariance", ["ledoit-wolf", "ppca"])
def test_robust_gate_decides_alike_in_both_precisions_on_real_features(
    covariance: str, real_samples: Samples, tmp_path: Path
) -> None:
    compare_precisions(real_samples, clusters.model(real_samples.features.shape[1]), covariance, tmp_path / "gate.npz")
