"""The gate's numpy runtime against the scikit-learn chain it was folded from, taken in turns in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from rich.table import Table
from sklearn.isotonic import IsotonicRegression
from threadpoolctl import threadpool_limits

from calibrate.members import MixtureChain, fit_mixture_chain, fold_mixture
from edge.gate import Gate
from edge.gate_file import load_gate, save_gate
from edge.gate_manifest import FORMAT, GOLDEN_ROWS, Decision, FeatureModel, GateManifest, Training
from engines import InputSpec

Floats = npt.NDArray[np.float32]
FEATURES, COMPONENTS, MIXTURES = 2048, 512, 18
SAMPLES = 1200
BLOCK = 20  # calls of one side before the other's turn: turn by turn, each would measure the other's cache misses


@dataclass(frozen=True, slots=True)
class Timing:
    """Median microseconds a call at one batch size."""

    batch: int
    sklearn_us: float
    float64_us: float
    float32_us: float

    @property
    def ratio(self) -> float:
        """How many times faster the float32 runtime is than the scikit-learn chain."""
        return self.sklearn_us / self.float32_us


def bench_gate(batches: Sequence[int], rounds: int, seed: int = 0) -> list[Timing]:
    """Time recipe ``seed``, 2048 features to 512 components, 18 spherical Gaussians, isotonic, on one BLAS thread."""
    rng = np.random.default_rng(seed)
    features = pooled_features(rng, SAMPLES + 400)
    with threadpool_limits(limits=1):
        chain, isotonic = _fit(features, seed)
        with TemporaryDirectory() as folder:
            path = Path(folder, "gate.npz")
            save_gate(path, *seed_gate(chain, isotonic, features[SAMPLES - GOLDEN_ROWS // 2 :][:GOLDEN_ROWS]))
            fast, exact = load_gate(path), load_gate(path, precision="float64")
        return [_time(batch, rounds, features, (chain, isotonic), exact, fast) for batch in batches]


def pooled_features(rng: np.random.Generator, n: int, size: int = FEATURES) -> Floats:
    """Features (n, size) float32 with the looks of a pooled ReLU layer: not negative, correlated."""
    latent = rng.standard_normal((n, max(8, size // 8)))
    loading = rng.standard_normal((latent.shape[1], size)) * (2.0 / np.sqrt(latent.shape[1]))
    rectified: Floats = np.maximum(latent @ loading + 0.5 * rng.standard_normal((n, size)), 0.0).astype(np.float32)
    return rectified


def seed_gate(
    chain: MixtureChain, isotonic: IsotonicRegression, golden: Floats
) -> tuple[GateManifest, dict[str, npt.NDArray[np.generic]]]:
    """Manifest and arrays of the gate that ``chain`` and ``isotonic`` amount to, for comparing the two."""
    fitted = fold_mixture(chain)
    arrays: dict[str, npt.NDArray[np.generic]] = {f"density.{key}": array for key, array in fitted.arrays.items()}
    arrays["calibration.x"] = np.asarray(isotonic.X_thresholds_, np.float64)
    arrays["calibration.y"] = np.asarray(isotonic.y_thresholds_, np.float64)
    arrays["conformal.scores"] = np.sort(chain.score_samples(golden.astype(np.float64)))
    arrays["golden.features"] = golden
    size = golden.shape[1]
    spec = InputSpec(layout="NCHW", height=224, width=224)
    manifest = GateManifest(
        format=FORMAT,
        name="bench-seed",
        recipe="seed",
        positive="drawn at random",
        features=FeatureModel(name="random", origin="0" * 64, size=size, input=spec),
        views=("full",),
        normalise=False,
        members=(fitted.member,),
        join="single",
        calibration="isotonic",
        decision=Decision(by="probability", threshold=0.5),
        training=Training(digest="0" * 64, positives=1, negatives={}, groups={}, folds="none", seed=0),
        metrics={},
        options={},
        versions={},
    )
    return manifest, arrays


def timings_table(timings: Sequence[Timing]) -> Table:
    """Batch sizes side by side."""
    table = Table(title=f"Recipe seed, {FEATURES} -> {COMPONENTS}, {MIXTURES} spherical Gaussians; median µs a call")
    for column in ("batch", "scikit-learn", "numpy float64", "numpy float32", "times faster (float32)"):
        table.add_column(column, justify="right")
    for t in timings:
        row = (t.sklearn_us, t.float64_us, t.float32_us)
        table.add_row(str(t.batch), *(f"{value:.0f}" for value in row), f"{t.ratio:.1f}")
    return table


def _fit(features: Floats, seed: int) -> tuple[MixtureChain, IsotonicRegression]:
    wide = features.astype(np.float64)
    chain = fit_mixture_chain(wide[:SAMPLES], COMPONENTS, MIXTURES, "spherical", seed, max_iter=10)
    positive = np.arange(len(wide)) < SAMPLES
    return chain, IsotonicRegression(out_of_bounds="clip").fit(chain.score_samples(wide), positive.astype(np.float64))


def _time(
    batch: int,
    rounds: int,
    features: Floats,
    reference: tuple[MixtureChain, IsotonicRegression],
    exact: Gate,
    fast: Gate,
) -> Timing:
    chain, isotonic = reference
    calls: list[Callable[[Floats], object]] = [
        lambda x: isotonic.predict(chain.score_samples(x.astype(np.float64))),
        exact.judge,
        fast.judge,
    ]
    taken: list[list[float]] = [[] for _ in calls]
    rng = np.random.default_rng(batch)
    for _ in range(max(1, rounds // BLOCK)):
        inputs = [np.ascontiguousarray(features[rng.integers(0, len(features), batch)]) for _ in range(BLOCK)]
        for call, times in zip(calls, taken, strict=True):
            for x in inputs:
                began = time.perf_counter()
                call(x)
                times.append(1e6 * (time.perf_counter() - began))
    sklearn_us, float64_us, float32_us = (float(np.median(times)) for times in taken)
    return Timing(batch, sklearn_us, float64_us, float32_us)
