"""A fit on drawn features: seconds of each phase and the process's peak memory, at any number of rows."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from rich.table import Table

from calibrate.fit import FitOptions, fit_gate
from calibrate.recipes import Recipe
from calibrate.samples import Samples
from edge.gate_file import load_gate, save_gate
from engines import InputSpec, ModelSpec, OutputSpec

# Families of a source and the share of all rows that each has: kinds of the positives, near and far negatives.
SHARES = {
    **{f"positives/kind-{i}": 0.04 for i in range(10)},
    **{f"near/family-{i}": 0.04 for i in range(9)},
    **{f"far/family-{i}": 0.04 for i in range(6)},
}
DRAWN = 4096  # rows drawn at a time
LATENT = 64


@dataclass(frozen=True, slots=True)
class FitTiming:
    """``phases`` in seconds, in their order; ``peak_mib`` is the most memory that the whole process ever held."""

    recipe: str
    rows: int
    size: int
    phases: dict[str, float]
    peak_mib: float
    gate_mib: float
    auroc: float

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.phases.values())


def bench_fit(rows: int, size: int, recipe: Recipe, seed: int = 0) -> FitTiming:
    """Draw ``rows`` features of ``size`` numbers, fit ``recipe``, save the gate and load it again."""
    clock = _Phases()
    clock.begin("draw")
    samples = drawn_samples(rows, size, seed)
    fitted = fit_gate(samples, _model(size), recipe, FitOptions(seed=seed), clock.begin)
    clock.begin("save and load")
    with TemporaryDirectory() as folder:
        path = Path(folder, "gate.npz")
        save_gate(path, fitted.manifest, fitted.arrays)
        load_gate(path)
        gate_mib = path.stat().st_size / 2**20
    clock.end()
    auroc = float(fitted.manifest.metrics["sources"]["all"]["auroc"]["value"])
    return FitTiming(recipe.name, rows, size, clock.seconds, peak_mib(), gate_mib, auroc)


def drawn_samples(rows: int, size: int, seed: int) -> Samples:
    """``rows`` features (n, size) float32 as of a pooled ReLU layer: ten kinds, two sources of negative families."""
    rng = np.random.default_rng(seed)
    names = np.repeat(np.array(list(SHARES)), _counts(rows))
    source = np.array([str(name).partition("/")[0] for name in SHARES])
    sources, families = np.unique(source), list(SHARES)
    centre = {name: rng.standard_normal(size) for name in sources}
    own = np.stack([0.06 * centre[s] + 0.08 * rng.standard_normal(size) for s in source]).astype(np.float32)
    loading = rng.standard_normal((LATENT, size), dtype=np.float32) / np.float32(np.sqrt(LATENT))
    number = np.repeat(np.arange(len(families)), _counts(rows))
    features = np.empty((rows, size), np.float32)
    for start in range(0, rows, DRAWN):
        part = number[start : start + DRAWN]
        noise = rng.standard_normal((len(part), LATENT), dtype=np.float32) @ loading
        drawn = own[part] + 1.5 * noise + rng.standard_normal((len(part), size), dtype=np.float32)
        np.maximum(drawn, 0.0, out=features[start : start + DRAWN])
    digests = tuple(hashlib.sha256(b"%d" % i).hexdigest() for i in range(rows))
    return Samples(features, number < 10, names, source[number], digests)


def peak_mib() -> float:
    """The most resident memory that this process ever held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def fit_timings_table(timing: FitTiming) -> Table:
    """A row for each phase, then what the whole came to."""
    table = Table(title=f"Recipe {timing.recipe}, {timing.rows} rows of {timing.size} features, one BLAS thread")
    table.add_column("phase")
    table.add_column("", justify="right")
    for phase, seconds in timing.phases.items():
        table.add_row(phase, f"{seconds:.1f} s")
    table.add_section()
    table.add_row("all", f"{timing.total:.1f} s")
    table.add_row("peak memory of the process", f"{timing.peak_mib:.0f} MiB")
    table.add_row("gate file", f"{timing.gate_mib:.1f} MiB")
    table.add_row("held-out AUROC", f"{timing.auroc:.4f}")
    return table


class _Phases:
    """Seconds between one ``begin`` and the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._since = "", 0.0

    def begin(self, name: str) -> None:
        self.end()
        self._name, self._since = name, time.perf_counter()

    def end(self) -> None:
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + time.perf_counter() - self._since


def _counts(rows: int) -> npt.NDArray[np.intp]:
    edges = np.round(np.cumsum([0.0, *SHARES.values()]) * rows).astype(np.intp)
    return np.diff(edges)


def _model(size: int) -> ModelSpec:
    return ModelSpec(
        name="drawn",
        task="features",
        input=InputSpec(layout="NCHW", height=224, width=224),
        output=OutputSpec(kind="features", size=size),
        sha256="0" * 64,
        origin="0" * 64,
    )
