"""Rows 12 and 13: one noisy camera among quiet ones, and more cameras than a worker takes."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from edge.link import Link
from edge.link_handler import QuietHandler
from tests.edge.worker_process import client, small_pictures, wait_for
from tests.soak import ideal
from tests.soak.fleet import QUICK, Forked, Yard, must_fail
from tests.soak.ledger import Effort, Outcome

SERVICE_S = 0.01  # a hundred frames a second can be judged
QUIET_SHARE = 0.35  # of the worker's capacity, over all quiet cameras
SLACK_MS = 50.0
LOADS = [(4, 8), (20, 8), (4, 256), (20, 256)]


class Crowd(QuietHandler):
    """Many cameras over one connection: a plan of (second, camera), each frame sent when its time has come."""

    def __init__(self, broker: Any, plan: list[tuple[float, str]]) -> None:
        self.accepted: list[str] = []
        self.lags_ms: list[float] = []  # from publishing a frame to reading the broker's confirmation
        self._plan = plan
        self._pictures = small_pictures()
        self._next = 0
        self._waiting: dict[int, tuple[str, float]] = {}
        self._window = 1
        self._began: float | None = None
        self._link = Link(client(broker, "crowd"), self)
        self._thread = threading.Thread(target=self._link.run, daemon=True)

    def run(self, within_s: float) -> None:
        """Send the whole plan; returns when the broker has confirmed it."""
        self._thread.start()
        wait_for(lambda: len(self.accepted) == len(self._plan), within_s, "the broker's confirmations")
        self._link.stop()
        self._thread.join(5)

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        del session_present, max_packet
        self._window, self._began = 50 if window else 1, time.monotonic()

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        assert failure is None
        camera, sent = self._waiting.pop(mid)
        self.accepted.append(camera)
        self.lags_ms.append(1000 * (time.monotonic() - sent))

    def link_turn(self) -> float | None:
        if self._began is None:
            return None
        while self._next < len(self._plan) and len(self._waiting) < self._window:
            due, camera = self._plan[self._next]
            if time.monotonic() < self._began + due:
                return self._began + due - time.monotonic()
            name = f"{self._next:07d}"
            picture = self._pictures[self._next % len(self._pictures)]
            sent = time.monotonic()
            facts = {"frame_id": name, "captured_at": f"{time.time():.4f}"}
            mid = self._link.publish(f"cameras/{camera}/frame", picture, properties=facts)
            assert mid is not None
            self._waiting[mid] = (camera, sent)
            self._next += 1
        return 0.01


def plan(
    effort: Effort, factor: float, cameras: int, seconds: float, service_s: float = SERVICE_S
) -> list[tuple[float, str]]:
    """Frames that together are ``factor`` times what the worker can judge: one noisy camera, the others quiet."""
    rng, capacity = random.Random(effort.seed), 1 / service_s
    quiet, noisy = QUIET_SHARE * capacity, (factor - QUIET_SHARE) * capacity
    frames = [(n / noisy, "noisy") for n in range(int(seconds * noisy))]
    period = (cameras - 1) / quiet
    for number in range(cameras - 1):
        due = rng.uniform(0, period)
        while due < seconds:
            frames.append((due, f"quiet-{number}"))
            due += period * rng.uniform(0.7, 1.3)
    return sorted(frames)


def overload(effort: Effort, policy: str = "latest", seconds: float = 30.0) -> Outcome:
    """Row 12: each load for ``seconds``."""
    outcome = Outcome()
    first = effort.seed % 1000  # a run that resumes goes on behind the loads that were measured
    for number, (factor, cameras) in enumerate(LOADS[first:]):
        if effort.goes_on(outcome.done):
            folder = effort.folder / str(number)
            one_load(outcome, folder, plan(effort, factor, cameras, seconds), policy, seconds)
            outcome.done += 1
    return outcome


def one_load(
    outcome: Outcome,
    folder: Path,
    frames: list[tuple[float, str]],
    policy: str,
    seconds: float,
    service_s: float = SERVICE_S,
    in_flight: int = 1,
) -> None:
    """Send ``frames`` to a worker and account for each of them."""
    with Yard(folder, *QUICK) as yard:
        sections = {"mailbox": {"policy": policy}, "batch": {"max": 1}, "status": {"port": 0}}
        worker = yard.worker(service_s=service_s, in_flight=in_flight, **sections)
        worker.start()
        worker.wait_ready()
        crowd = Crowd(yard.broker, frames)
        crowd.run(seconds + 20)
        counters = _settled(worker, len(frames))
        verdicts = list(yard.verdicts.all)
    _judge_ages(outcome, verdicts, crowd.lags_ms, 3000 * service_s + SLACK_MS)
    ideal_ms = _p99([1000 * age for age in ideal.ages(frames, service_s)])
    outcome.see("p99 of a worker that loses no time ms", round(ideal_ms))
    offered = sum(camera != "noisy" for _, camera in frames)
    served = sum(verdict["camera"] != "noisy" for verdict in verdicts)
    outcome.add("quiet frames", offered)
    outcome.add("quiet frames judged", served)
    outcome.demand(served >= 0.999 * offered, f"{served} of {offered} quiet frames judged")
    _account(outcome, counters, len(frames))


def _judge_ages(outcome: Outcome, verdicts: list[dict[str, Any]], lags_ms: list[float], allowed_ms: float) -> None:
    """Ages from the camera's publishing to the judgement.

    What a busy machine adds to the stand-in for an engine and to the cameras' way to the broker is in them: both are
    told beside them, and get no allowance.
    """
    age = _p99([1000 * (verdict["judged_at"] - verdict["captured_at"]) for verdict in verdicts])
    service, lag = _p99([verdict["latency_ms"]["features"] for verdict in verdicts]), _p99(lags_ms)
    outcome.see("p99 age ms", round(age))
    outcome.see("p99 of the service itself ms", round(service, 1))
    outcome.see("p99 from camera to broker and back ms", round(lag, 1))
    outcome.demand(age <= allowed_ms, f"99th percentile age {age / 1000:.3f} s, allowed {allowed_ms / 1000:.3f} s")


def _p99(values: list[float]) -> float:
    return float(np.percentile(values, 99))


def _settled(worker: Forked, sent: int) -> dict[str, int]:
    """The worker's counters once it has taken all and nothing waits.

    A frame is acknowledged and counted by two threads, so that the last one's end may be told a moment later.
    """
    page = worker.log().partition("status page url=")[2].split()[0]

    def look() -> dict[str, int]:
        with urllib.request.urlopen(f"{page.rstrip('/')}/api/status", timeout=5) as answer:  # noqa: S310 - our own page
            found: dict[str, Any] = json.load(answer)
        counters: dict[str, int] = found["counters"]
        return counters

    deadline = time.monotonic() + 120
    while (counters := look())["received"] < sent or counters["acked"] < counters["received"]:
        assert time.monotonic() < deadline, "the worker does not finish"
        time.sleep(0.2)
    deadline = time.monotonic() + 5
    while _ends(counters) != counters["received"] and time.monotonic() < deadline:
        time.sleep(0.2)
        counters = look()
    return counters


def _ends(counters: dict[str, int]) -> int:
    """Frames that were counted as a verdict, an error, a drop or a dead letter."""
    verdicts = sum(counters[name] for name in ("positive", "negative", "uncertain", "error"))
    return verdicts + counters["dropped"] + counters["deadletters"]


def _account(outcome: Outcome, counters: dict[str, int], sent: int) -> None:
    ends, dropped = _ends(counters), counters["dropped"]
    verdicts = ends - dropped - counters["deadletters"]
    for name, count in (("in", counters["received"]), ("verdicts", verdicts), ("dropped", dropped)):
        outcome.add(name, count)
    outcome.demand(counters["received"] == sent, f"{counters['received']} received of {sent}")
    outcome.demand(ends == counters["received"], f"{counters['received']} in, {ends} ended")


def overload_control(effort: Effort) -> str:
    """First in, first out."""

    def measure(outcome: Outcome) -> None:
        one = Effort(effort.seed, 1, effort.deadline, effort.folder)
        outcome.failures += overload(one, "every", 6.0).failures

    return f"first in, first out: {must_fail(measure)}"
