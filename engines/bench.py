"""How fast an engine is: batch sizes side by side in one run, so that a busy moment hits them all alike."""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from engines.base import Batch, Engine
from engines.console import track
from engines.errors import UsageError
from engines.spec import InputSpec

_WARM_UP_CALLS = 3
_SLICE_S = 0.25


@dataclass(slots=True)
class _Samples:
    """One batch size: its input, the seconds of each call, and the peak memory after its warm-up in MiB."""

    batch: Batch
    peak_rss_mib: float
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One batch size. ``ms`` are milliseconds a call (not an image); ``peak_rss_mib`` is the whole process's peak
    once this size and all smaller ones had run."""

    batch: int
    calls: int
    images_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    peak_rss_mib: float


def bench(engine: Engine, sizes: Sequence[int], seconds: float, in_flight: int = 1) -> list[BenchRow]:
    """Measure ``engine`` for about ``seconds`` in each batch size of ``sizes``, in turns of a quarter second.

    The input is seeded noise: networks take the same time for every picture. With ``in_flight`` above 1 that many
    batches are kept submitted, and a call's milliseconds are those between two answers. Raises ``UsageError`` on sizes
    below 1.
    """
    if not sizes or min(sizes) < 1 or seconds <= 0 or in_flight < 1:
        raise UsageError(f"batch sizes, seconds and --in-flight must be positive, not {sizes}, {seconds}, {in_flight}")
    samples = [_warm_up(engine, size) for size in sorted(set(sizes))]
    for _ in track(range(max(1, round(seconds / _SLICE_S))), "measuring"):
        for sample in samples:
            _measure(engine, sample, in_flight)
    return [_row(sample) for sample in samples]


def peak_rss_mib() -> float:
    """The largest resident size that this process ever had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _warm_up(engine: Engine, size: int) -> _Samples:
    batch = noise(engine.spec.input, size)
    for _ in range(_WARM_UP_CALLS):
        engine.infer(batch)
    return _Samples(batch, peak_rss_mib())


def noise(spec: InputSpec, size: int) -> Batch:
    """A seeded batch (size, *spec.shape): uniform bytes, or standard normal float32."""
    rng = np.random.default_rng(0)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, (size, *spec.shape), dtype=np.uint8)
    return rng.standard_normal((size, *spec.shape), dtype=np.float32)


def _measure(engine: Engine, sample: _Samples, in_flight: int) -> None:
    end = time.perf_counter() + _SLICE_S
    pending = deque(engine.submit(sample.batch) for _ in range(in_flight - 1))
    while True:
        start = time.perf_counter()
        if start >= end:
            break
        pending.append(engine.submit(sample.batch))
        pending.popleft().result()
        sample.seconds.append(time.perf_counter() - start)
    for left in pending:
        left.result()


def _row(sample: _Samples) -> BenchRow:
    size, calls = len(sample.batch), len(sample.seconds)
    p50, p90, p99 = np.percentile(sample.seconds, (50, 90, 99)) * 1e3
    images_per_s = size * calls / sum(sample.seconds)
    return BenchRow(size, calls, images_per_s, float(p50), float(p90), float(p99), sample.peak_rss_mib)


def bench_report(engine: Engine, threads: int, rows: list[BenchRow]) -> dict[str, Any]:
    """The measurement as JSON-able values; ``engine`` may be closed by now."""
    return {
        "model": engine.spec.name,
        "sha256": engine.spec.sha256,
        "device": engine.device,
        "threads": threads,
        "batches": [{name: round(value, 3) for name, value in asdict(row).items()} for row in rows],
        "peak_rss_mib": round(peak_rss_mib(), 3),
    }


def bench_table(report: dict[str, Any]) -> Table:
    """``bench_report``'s answer for a terminal."""
    title = f"{report['model']} on {report['device']}, {report['threads']} threads"
    table = Table(title=title, title_justify="left")
    for heading in ("batch", "img/s", "× first", "p50 ms", "p90 ms", "p99 ms", "peak RSS MiB", "calls"):
        table.add_column(heading, justify="right")
    first = report["batches"][0]["images_per_s"]
    for row in report["batches"]:
        table.add_row(
            str(row["batch"]),
            f"{row['images_per_s']:.1f}",
            f"{row['images_per_s'] / first:.2f}",
            *(f"{row[name]:.2f}" for name in ("p50_ms", "p90_ms", "p99_ms")),
            f"{row['peak_rss_mib']:.0f}",
            str(row["calls"]),
        )
    return table
