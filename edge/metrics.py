"""The worker's counters in Prometheus' and OpenMetrics' text formats; the only file that imports prometheus_client.

Label values are bounded: at most ``Limits.cameras`` cameras, four verdicts, and a few reasons (``edge.meters.Tally``).
A camera that is forgotten and comes back starts its counters at zero, which ``rate()`` takes for a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edge.health import STATES, Health
from edge.meters import LATENCY_BOUNDS_MS

PREFIX = "parrotgate"
Snapshot = dict[str, Any]
_BOUNDS = (*(f"{bound / 1000:g}" for bound in LATENCY_BOUNDS_MS), "+Inf")


class HealthCollector(Collector):
    """Turns one snapshot of a ``Health`` into metric families at every scrape."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order in which a frame meets them."""
        snapshot = self._health.snapshot()
        yield from _camera_families(snapshot["cameras"])
        yield from _worker_counters(snapshot)
        yield from _worker_gauges(snapshot)
        yield _latency(snapshot["latency_ms"])
        yield from _identity(snapshot)


class Exposition:
    """The metrics of one worker: its ``Health``, and its process where the system tells (memory, CPU, files)."""

    def __init__(self, health: Health) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(HealthCollector(health))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type, in the format that the ``Accept`` header prefers."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _camera_families(cameras: list[Snapshot]) -> Iterator[Metric]:
    received = CounterMetricFamily(f"{PREFIX}_frames_received", "Messages taken as frames.", labels=["camera"])
    nbytes = CounterMetricFamily(f"{PREFIX}_received_bytes", "Payload bytes of those messages.", labels=["camera"])
    verdicts = CounterMetricFamily(f"{PREFIX}_verdicts", "Frames judged.", labels=["camera", "verdict"])
    dropped = CounterMetricFamily(
        f"{PREFIX}_frames_dropped", "Frames that gave way, unjudged.", labels=["camera", "reason"]
    )
    dead = CounterMetricFamily(f"{PREFIX}_deadletters", "Frames sent to the dead letters.", labels=["camera"])
    reused = CounterMetricFamily(
        f"{PREFIX}_verdicts_reused", "Verdicts repeated for an unchanged frame.", labels=["camera"]
    )
    for row in cameras:
        camera = row["camera"]
        received.add_metric([camera], row["received"])
        nbytes.add_metric([camera], row["received_bytes"])
        dead.add_metric([camera], row["deadletters"])
        reused.add_metric([camera], row["reused"])
        for verdict, count in row["verdicts"].items():
            verdicts.add_metric([camera, verdict], count)
        for reason, count in row["dropped"].items():
            dropped.add_metric([camera, reason], count)
    yield from (received, nbytes, verdicts, dropped, dead, reused)


def _worker_counters(snapshot: Snapshot) -> Iterator[Metric]:
    counters = snapshot["counters"]
    yield _by_reason("messages_refused", "Messages that were not taken as frames.", snapshot["refused"])
    yield _by_reason("publish_failures", "Verdicts that the broker refused.", snapshot["publish_failures"])
    for name, help_text, value in (
        ("verdicts_published", "Verdicts that the broker confirmed.", counters["published"]),
        ("frames_acknowledged", "Frames acknowledged to the broker.", counters["acked"]),
        ("cameras_forgotten", "Cameras forgotten to stay within the bound.", counters["evicted_cameras"]),
        ("spool_failures", "Failed reads and writes of the verdict spool.", counters["spool_failures"]),
        ("reloads", "Configurations taken while running.", counters["reloads"]),
        ("reload_failures", "Configurations refused while running.", counters["reload_failures"]),
        ("broker_connects", "Connections that the broker accepted.", snapshot["broker"]["connects"]),
    ):
        yield CounterMetricFamily(f"{PREFIX}_{name}", help_text, value=value)


def _by_reason(name: str, help_text: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", help_text, labels=["reason"])
    for reason, count in counts.items():
        family.add_metric([reason], count)
    return family


def _worker_gauges(snapshot: Snapshot) -> Iterator[Metric]:
    state, waiting = snapshot["state"], snapshot["waiting"]
    for name, help_text, value in (
        ("live", "1 while the worker is alive and makes progress.", state["live"]),
        ("ready", "1 while the worker judges frames.", state["ready"]),
        ("broker_connected", "1 while the connection to the broker stands.", snapshot["broker"]["connected"]),
        ("frames_waiting", "Frames that wait or are being judged.", waiting["frames"]),
        ("waiting_bytes", "Payload bytes of those frames.", waiting["bytes"]),
        ("oldest_waiting_seconds", "Age of the oldest of those frames.", waiting["oldest_s"]),
        ("cameras", "Cameras that the worker remembers.", len(snapshot["cameras"])),
    ):
        yield GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=float(value))
    beats = GaugeMetricFamily(
        f"{PREFIX}_sign_of_life_age_seconds", "Time since a part gave a sign of life.", labels=["part"]
    )
    for part, age_s in snapshot["beats"].items():
        beats.add_metric([part], age_s)
    yield beats


def _latency(stages: dict[str, Snapshot]) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}_latency_seconds", "Time that a frame spent in a stage.", labels=["stage"])
    for stage, summary in stages.items():
        buckets = list(zip(_BOUNDS, summary["buckets"], strict=True))
        family.add_metric([stage], buckets=buckets, sum_value=summary["sum"] / 1000)
    return family


def _identity(snapshot: Snapshot) -> Iterator[Metric]:
    yield InfoMetricFamily(f"{PREFIX}_build", "The running release.", {"version": release()})
    states = GaugeMetricFamily(f"{PREFIX}_state", "1 for what the worker does now.", labels=["state"])
    for name in STATES:
        states.add_metric([name], float(name == snapshot["state"]["name"]))
    yield states
    models = InfoMetricFamily(f"{PREFIX}_model", "The loaded artifacts.", labels=["role"])
    for role, facts in snapshot["models"].items():
        models.add_metric([role], {key: str(facts.get(key) or "") for key in ("name", "sha256", "device", "engine")})
    yield models


def release() -> str:
    """The installed version of parrotgate, ``unknown`` when it runs from a bare source tree."""
    try:
        return version("parrotgate")
    except PackageNotFoundError:
        return "unknown"
