"""Row 35: one worker under steady load for minutes; its memory, descriptors, threads and latency may not grow."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.soak.fleet import Forked, Yard, must_fail
from tests.soak.ledger import TESTS, Effort, Outcome

PLOT = TESTS / "soak.svg"
CAMERAS, FPS = 4, 60.0
WARM_SHARE = 0.25  # of the run, left out of the fits
MOST_GROWTH_MIB = 2.0  # over the fitted part, however long it is
PLOT_FROM_S = 120.0  # shorter runs leave the plot as it is


@dataclass
class Samples:
    """A row a second: time, resident MiB, descriptors, threads, verdicts, median and 99th percentile latency in ms."""

    rows: list[tuple[float, ...]] = field(default_factory=list)

    def take(self, pid: int, seconds: float, verdicts: list[dict[str, Any]]) -> None:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        latencies = sorted(verdict["latency_ms"]["total"] for verdict in verdicts) or [float("nan")]
        self.rows.append(
            (
                seconds,
                int(status["VmRSS"].split()[0]) / 1024,
                len(os.listdir(f"/proc/{pid}/fd")),
                int(status["Threads"]),
                len(verdicts),
                statistics.median(latencies),
                latencies[int(0.99 * (len(latencies) - 1))],
            )
        )

    def warm(self) -> np.ndarray[Any, Any]:
        return np.array(self.rows[int(WARM_SHARE * len(self.rows)) :])


def soak(effort: Effort, **faults: object) -> Outcome:
    """Load a worker until ``effort.count`` frames are judged; fit lines through what it took."""
    outcome, samples = Outcome(), Samples()
    with Yard(effort.folder) as yard:
        worker: Forked = yard.worker()
        worker.start(**faults)
        worker.wait_ready()
        for n in range(CAMERAS):
            yard.camera(f"cam-{n}", FPS)
        began, seen = time.monotonic(), 0
        while effort.goes_on(len(yard.verdicts.all)):
            time.sleep(1.0)
            fresh, seen = yard.verdicts.all[seen:], len(yard.verdicts.all)
            samples.take(worker.pid, time.monotonic() - began, fresh)
        outcome.done = seen
        yard.settle(outcome, effort.patience_s)
    judge(outcome, samples)
    if samples.rows[-1][0] >= PLOT_FROM_S and not faults:
        plot(samples)
    return outcome


def judge(outcome: Outcome, samples: Samples) -> None:
    """The straight line through each series by least squares, without the warm-up."""
    seconds, rss, descriptors, threads, _, median, p99 = samples.warm().T
    span = float(seconds[-1] - seconds[0])
    slope = _slope(seconds, rss)
    outcome.see("seconds", round(span))
    outcome.see("resident MiB", round(float(rss.max()), 1))
    outcome.see("fitted growth MiB an hour", round(3600 * slope, 2))
    half = len(seconds) // 2
    outcome.see("of the last half alone", round(3600 * _slope(seconds[half:], rss[half:]), 2))
    outcome.see("descriptors at most", float(descriptors.max()))
    outcome.see("threads at most", float(threads.max()))
    outcome.demand(slope * span <= MOST_GROWTH_MIB, f"resident memory grew by {slope * span:.1f} MiB in {span:.0f} s")
    for name, series in (("descriptors", descriptors), ("threads", threads)):
        rising = all(after > before for before, after in pairwise(_thirds(series)))
        outcome.demand(not rising, f"{name} grew: {_thirds(series)}")
    first, _, last = _thirds(median)
    outcome.see("median latency, last third over first", round(last / first, 2))
    outcome.see("99th percentile ms, last third", round(_thirds(p99)[2], 1))
    outcome.demand(last <= max(2 * first, first + 5.0), f"median latency went from {first:.1f} to {last:.1f} ms")


def _slope(seconds: np.ndarray[Any, Any], series: np.ndarray[Any, Any]) -> float:
    return float(np.polyfit(seconds, series, 1)[0])


def _thirds(series: np.ndarray[Any, Any]) -> list[float]:
    return [float(np.nanmedian(part)) for part in np.array_split(series, 3)]


def plot(samples: Samples) -> None:
    """Memory, descriptors and threads, latency over the seconds of the run."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "soak"
    from matplotlib import pyplot as plt

    seconds, rss, descriptors, threads, _, median, p99 = np.array(samples.rows).T
    figure, axes = plt.subplots(3, 1, figsize=(8, 6), sharex=True, layout="constrained")
    axes[0].plot(seconds, rss)
    axes[0].set_ylabel("resident MiB")
    axes[1].plot(seconds, descriptors, label="descriptors")
    axes[1].plot(seconds, threads, label="threads")
    axes[2].plot(seconds, median, label="median")
    axes[2].plot(seconds, p99, label="99th percentile", linewidth=0.6)
    axes[2].set_yscale("log")
    axes[2].set_ylabel("latency, ms")
    axes[2].set_xlabel("seconds")
    for axis in axes:
        axis.grid(visible=True, alpha=0.3)
        axis.set_ylim(bottom=0 if axis is not axes[2] else None)
    for axis in axes[1:]:
        axis.legend(loc="upper right")
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


def soak_control(effort: Effort) -> str:
    """A worker that keeps a little of every frame."""

    def measure(outcome: Outcome) -> None:
        outcome.failures += soak(effort.broken(2500), leak_bytes=20_000).failures

    return f"with 20 kB kept of each frame: {must_fail(measure)}"
