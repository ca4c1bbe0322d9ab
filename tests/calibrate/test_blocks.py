"""Rows too many to be copied: members by blocks equal those of scikit-learn on the whole, and memory stays bounded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from calibrate import blocks, duplicates
from calibrate.bench_fit import drawn_samples
from calibrate.bench_gate import pooled_features
from calibrate.fit import FitOptions, fit_gate
from calibrate.members import fit_ledoit_wolf, fit_logistic, fit_mixture_chain, fit_ppca, fold_mixture
from calibrate.recipes import make_recipe
from calibrate.samples import Float64
from edge.gate import unit_rows
from edge.gate_file import save_gate
from tests.calibrate import clusters

SIZE = 96


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that every sum crosses their borders."""
    monkeypatch.setattr(blocks, "BLOCK", 40 * SIZE + 7)


def close(found: Float64, expected: Float64) -> None:
    """1e-6 relative or 1e-9 absolute."""
    assert (np.abs(found - expected) <= np.maximum(1e-6 * np.abs(expected), 1e-9)).all()


@pytest.fixture(scope="module")
def x() -> Float64:
    """Unit rows that float32 holds exactly: both paths then work on the same numbers."""
    return unit_rows(pooled_features(np.random.default_rng(3), 700, SIZE)).astype(np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("small_blocks")
def test_ledoit_wolf_by_blocks_equals_scikit_learn(x: Float64, dtype: type[np.floating]) -> None:
    reference = LedoitWolf().fit(x)
    log_det = np.linalg.slogdet(reference.covariance_)[1]
    expected = -0.5 * (reference.mahalanobis(x) + log_det + SIZE * np.log(2.0 * np.pi))
    assert not blocks.fits_whole(x)
    close(fit_ledoit_wolf(x.astype(dtype)).score(x), expected)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 400), size=st.integers(2, 60), seed=st.integers(0, 9), block=st.integers(1, 5000))
def test_shrinkage_and_covariance_do_not_depend_on_the_blocks(n: int, size: int, seed: int, block: int) -> None:
    x = pooled_features(np.random.default_rng(seed), n, size).astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        found = blocks.moments(x)
    np.testing.assert_allclose(found.covariance, np.cov(x.T, bias=True), rtol=1e-9, atol=1e-12)
    assert found.shrinkage() == pytest.approx(ledoit_wolf_shrinkage(x), rel=1e-9, abs=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_ppca_by_blocks_equals_scikit_learn(x: Float64) -> None:
    reference = PCA(20, svd_solver="full").fit(x)
    close(fit_ppca(x.astype(np.float32), 20).score(x), reference.score_samples(x))


@pytest.mark.usefixtures("small_blocks")
def test_classic_chain_by_blocks_has_the_axes_and_likelihoods_of_the_whole(x: Float64) -> None:
    chain = fit_mixture_chain(x.astype(np.float32), 12, 1, "full", seed=0)
    scaler = StandardScaler().fit(x)
    pca = PCA(12, whiten=True, svd_solver="full").fit(scaler.transform(x))
    np.testing.assert_allclose(chain.pca.explained_variance_, pca.explained_variance_, rtol=1e-9)
    turned = np.abs(chain.pca.components_ @ pca.components_.T)
    np.testing.assert_allclose(turned, np.eye(12), atol=1e-7)
    close(fold_mixture(chain).score(x), chain.score_samples(x))


@pytest.mark.parametrize("strength", [10.0, 1000.0])
@pytest.mark.usefixtures("small_blocks")
def test_logistic_by_blocks_reaches_scikit_learns_minimum(x: Float64, strength: float) -> None:
    positive = x[:, :5].sum(axis=1) > np.quantile(x[:, :5].sum(axis=1), 0.7)
    positive[:40] = ~positive[:40]
    centre = x.mean(axis=0)
    scale = np.sqrt(np.square(x - centre).sum(axis=1).mean())
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000, tol=1e-10)
    expected = model.fit((x - centre) / scale, positive).decision_function((x - centre) / scale)
    found = fit_logistic(x.astype(np.float32), positive, strength=strength).score(x)
    assert np.corrcoef(found, expected)[0, 1] > 0.995
    assert _balanced_loss(found, positive) < 1.005 * _balanced_loss(expected, positive) + 1e-4


def _balanced_loss(t: Float64, positive: np.ndarray) -> float:
    losses = np.logaddexp(0.0, np.where(positive, -t, t))
    return 0.5 * float(losses[positive].mean() + losses[~positive].mean())


@pytest.mark.parametrize("recipe", ["robust", "seed"])
def test_gate_by_blocks_decides_as_the_gate_of_the_whole(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = clusters.samples(dict.fromkeys("abcde", 60), {"birds/x": 60, "birds/y": 60, "objects": 80})

    def decisive() -> Float64:
        fitted = fit_gate(samples, clusters.model(), make_recipe(recipe, 8, None, 0) if recipe == "seed" else
                          make_recipe(recipe, None, None, 0), FitOptions())  # fmt: skip
        return fitted.held_out.decisive

    whole = decisive()
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    by_blocks = decisive()
    assert (np.abs(by_blocks - whole) < 0.05).mean() > 0.95
    assert np.corrcoef(by_blocks, whole)[0, 1] > 0.99


@pytest.mark.parametrize("recipe", ["robust", "seed"])
def test_fit_by_blocks_gives_the_same_file_twice(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    hashes = set()
    for _ in range(2):
        samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
        fitted = fit_gate(samples, clusters.model(), make_recipe(recipe, None, None, 0), FitOptions())
        save_gate(tmp_path / "gate.npz", fitted.manifest, fitted.arrays)
        hashes.add(hashlib.sha256((tmp_path / "gate.npz").read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("recipe", ["robust", "seed"])
def test_fit_takes_at_most_four_times_the_rows_beside_a_few_blocks(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2**16)
    monkeypatch.setattr(duplicates, "BLOCK", 256)
    monkeypatch.setattr("calibrate.resampling.DRAWS", 5)
    samples = drawn_samples(12_000, 128, seed=0)
    rows = samples.features.nbytes
    tracemalloc.start()
    try:
        chosen = make_recipe(recipe, 16 if recipe == "seed" else None, None, 0)
        fit_gate(samples, clusters.model(128), chosen, FitOptions())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * rows, f"{peak / rows:.1f} times the rows beside them"


@pytest.mark.soak
@pytest.mark.parametrize("recipe", ["robust", "seed"])
def test_a_hundred_thousand_pictures_are_fitted_within_4_gib(recipe: str) -> None:
    words = ["bench-fit", "--rows", "100000", "--size", "2048", "--recipe", recipe, "--json"]
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, "-m", "calibrate", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert used.ru_maxrss < (4 << 20), f"{used.ru_maxrss} KiB"
