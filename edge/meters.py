"""Small counters of bounded size: rates, percentiles, histograms and tallies, each update O(1)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque

LATENCY_BOUNDS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)
OTHER = "other"


class Tally:
    """Counts by name for at most ``limit`` names; what comes beyond them is counted as ``other``."""

    __slots__ = ("_counts", "_limit")

    def __init__(self, limit: int = 16) -> None:
        self._counts: dict[str, int] = {}
        self._limit = limit

    def add(self, name: str) -> None:
        """Count one ``name``, cut to 120 characters."""
        name = name[:120]
        if name not in self._counts and len(self._counts) >= self._limit:
            name = OTHER
        self._counts[name] = self._counts.get(name, 0) + 1

    def total(self) -> int:
        """The sum over all names."""
        return sum(self._counts.values())

    def counts(self) -> dict[str, int]:
        """A copy of the counts by name."""
        return dict(self._counts)


class Rate:
    """Events per second over the last ``window_s`` whole seconds (at least one), from one bucket a second."""

    __slots__ = ("_buckets", "_newest", "_start", "_window_s")

    def __init__(self, now: float, window_s: int = 10) -> None:
        self._window_s = window_s
        self._buckets = [0] * (window_s + 1)
        self._start = now
        self._newest = math.floor(now)

    def add(self, now: float) -> None:
        """Count one event at ``now``, in monotonic seconds."""
        self._advance(now)
        self._buckets[self._newest % len(self._buckets)] += 1

    def per_second(self, now: float) -> float:
        """Events per second; the window is as long as the meter is old while that is less than ``window_s``."""
        self._advance(now)
        partial = now - self._newest
        return sum(self._buckets) / max(1.0, min(now - self._start, self._window_s + partial))

    def _advance(self, now: float) -> None:
        second = math.floor(now)
        for passed in range(self._newest + 1, min(second, self._newest + len(self._buckets)) + 1):
            self._buckets[passed % len(self._buckets)] = 0
        if second - self._newest > len(self._buckets):
            self._buckets = [0] * len(self._buckets)
        self._newest = max(self._newest, second)


class Latency:
    """Durations of one stage in milliseconds: percentiles of the last ``window``, a histogram of all."""

    __slots__ = ("_buckets", "_recent", "_sum_ms")

    def __init__(self, window: int = 512) -> None:
        self._recent: deque[float] = deque(maxlen=window)
        self._buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self._sum_ms = 0.0

    def add(self, ms: float) -> None:
        """Note one duration; what is negative or not finite is no duration and is left out."""
        if not (math.isfinite(ms) and ms >= 0.0):
            return
        self._recent.append(ms)
        self._sum_ms += ms
        self._buckets[bisect_left(LATENCY_BOUNDS_MS, ms)] += 1

    def summary(self) -> dict[str, object]:
        """``p50``, ``p99`` (null while empty), ``count``, ``sum`` and the cumulative counts per upper bound."""
        ordered = sorted(self._recent)
        cumulative = [sum(self._buckets[: i + 1]) for i in range(len(self._buckets))]
        return {
            "p50": percentile(ordered, 0.50),
            "p99": percentile(ordered, 0.99),
            "count": cumulative[-1],
            "sum": round(self._sum_ms, 3),
            "buckets": cumulative,
        }


def percentile(ordered: list[float], q: float) -> float | None:
    """The nearest-rank percentile of ascending values, ``q`` in (0, 1]; ``None`` of nothing."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(q * len(ordered)) - 1)], 3)
