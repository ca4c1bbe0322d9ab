"""What the worker knows about itself: counters, progress, and whether it is alive and ready.

The worker's threads call the small methods as things happen; the status server reads snapshots. Every update is
O(1) under one lock, no update raises, and everything kept is bounded.

Alive means progress, never ``is_connected()``: a paho client whose network thread died says it is connected for
ever. A worker is not alive when a fault was reported, when a part that once gave a sign of life stopped giving
it, or when frames wait and no verdict comes.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, get_args

from edge.camera import CameraLog, Truth, describe
from edge.meters import Latency, Rate, Tally
from edge.pictures import Pictures
from edge.progress import Part, Patience, Progress
from edge.records import Outcome, Verdict

State = Literal["starting", "ready", "not-ready", "draining", "stopped"]
STATES: tuple[State, ...] = get_args(State)
SCHEMA = "parrotgate.status/1"
STAGES_KEPT = 16
VISIT_GAP_S = 10.0
_COUNTERS = (
    *("received", "received_bytes", "dropped", "refused", "deadletters", "published", "publish_failures", "acked"),
    *(outcome.value for outcome in Outcome),
    *("reused", "evicted_cameras", "spool_failures", "reloads", "reload_failures"),
)
_USERINFO = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True)
class Limits:
    """When the worker counts as stuck, and how much is remembered: the other fields bound the memory."""

    patience: Patience = field(default_factory=Patience)
    cameras: int = 1000
    picture_bytes: int = 64 * 1024 * 1024
    positives: int = 12


@dataclass(slots=True)
class _Broker:
    url: str | None = None
    connected: bool = False
    reason: str = "not connected yet"
    since_s: float = 0.0
    connects: int = 0
    session_present: bool = False


class Health:
    """The worker's own state; safe to call from any thread.

    ``clock`` gives monotonic seconds and times everything, ``wall`` epoch seconds that are only shown.
    """

    def __init__(
        self,
        worker: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        *,
        limits: Limits | None = None,
    ) -> None:
        now = clock()
        self.worker = worker
        self._clock, self._wall = clock, wall
        self._limits = limits or Limits()
        self._lock = Lock()
        self._started_s, self._started_at = now, wall()
        self._state: tuple[State, str, float] = ("starting", "starting", now)
        self._reload_fault: str | None = None
        self._broker = _Broker(since_s=now)
        self._progress = Progress(now)
        self._rate = Rate(now)
        self._latency: dict[str, Latency] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._cameras: OrderedDict[str, CameraLog] = OrderedDict()
        self._pictures = Pictures(self._limits.picture_bytes)
        self._positives: deque[tuple[float, dict[str, Any]]] = deque()
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._drops, self._refusals, self._publish_failures = Tally(), Tally(), Tally()
        self._last_deadletter: str | None = None

    # What happens to frames

    def received(self, camera: str, nbytes: int) -> None:
        """A message of ``nbytes`` bytes was taken as a frame of ``camera``."""
        with self._lock:
            log = self._camera(camera)
            log.received += 1
            log.received_bytes += nbytes
            self._counts["received"] += 1
            self._counts["received_bytes"] += nbytes

    def dropped(self, camera: str, why: str) -> None:
        """A frame gave way, unjudged; ``why`` is one of a few short words."""
        with self._lock:
            self._camera(camera).dropped.add(why)
            self._drops.add(why)
            self._counts["dropped"] += 1

    def refused(self, why: str) -> None:
        """A message was not taken as a frame at all; ``why`` is one of a few short words."""
        with self._lock:
            self._refusals.add(why)
            self._counts["refused"] += 1

    def deadletter(self, camera: str, why: str) -> None:
        """A message went to the dead letters, of ``camera`` if that is one; of the reasons the last is kept."""
        with self._lock:
            if camera in self._cameras:
                self._cameras[camera].deadletters += 1
            self._counts["deadletters"] += 1
            self._last_deadletter = f"{camera}: {why}"[:500]
            self._progress.judged_s = self._clock()

    def verdict(self, verdict: Verdict, image: bytes | None, content_type: str | None) -> None:
        """A frame was judged; ``image`` is its encoded picture as it came (JPEG, PNG or WebP), if it may be shown."""
        with self._lock:
            now = self._clock()
            log = self._camera(verdict.camera)
            log.judge(verdict, now)
            self._pictures.release(log.picture)
            log.picture = self._pictures.add(image, content_type)
            self._counts[verdict.verdict.value] += 1
            self._counts["reused"] += verdict.reused
            self._progress.judged_s = now
            self._rate.add(now)
            self._time(verdict.latency_ms)
            if verdict.verdict is Outcome.POSITIVE:
                self._remember_positive(verdict, log, now)

    def truth(self, camera: str, text: str, positive: bool, frame_id: str | None = None) -> None:
        """What the camera's newest frame shows, told before it is published (simulated cameras)."""
        with self._lock:
            self._camera(camera).expect(Truth(text, positive), frame_id)

    def published(self) -> None:
        """The broker has confirmed a verdict."""
        with self._lock:
            self._counts["published"] += 1

    def publish_failed(self, reason: str) -> None:
        """The broker has refused a verdict; ``reason`` is one of a few short words."""
        with self._lock:
            self._publish_failures.add(reason)
            self._counts["publish_failures"] += 1

    def acked(self) -> None:
        """A frame was acknowledged to the broker."""
        with self._lock:
            self._counts["acked"] += 1

    def spool_failed(self, _sentence: str) -> None:
        """The disk of the verdict spool did not take or give a verdict; its sentence is in the log."""
        with self._lock:
            self._counts["spool_failures"] += 1

    # What happens to the worker

    def connected(self, url: str, session_present: bool) -> None:
        """The broker at ``url`` has accepted the connection; a password in ``url`` is not kept."""
        with self._lock:
            now = self._clock()
            connects = self._broker.connects + 1
            clean = _USERINFO.sub("//", url)
            self._broker = _Broker(clean, True, "connected", now, connects, session_present)
            self._progress.beat("link", now)
            self._progress.hold(0, now)

    def disconnected(self, reason: str) -> None:
        """The connection to the broker has ended, or could not be made."""
        with self._lock:
            if self._broker.connected:
                self._broker.since_s = self._clock()
            self._broker.connected = False
            self._broker.reason = reason

    def set_state(self, name: State, reason: str) -> None:
        """What the worker does now, with a sentence for people."""
        with self._lock:
            since = self._state[2] if self._state[0] == name else self._clock()
            self._state = (name, reason, since)

    def set_models(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """The loaded artifacts by role (``features``, ``species``, ``gate``), JSON-able, as the page lists them."""
        with self._lock:
            self._models = {role: dict(facts) for role, facts in models.items()}

    def reloaded(self, fault: str | None) -> None:
        """A configuration was taken while running, or refused with ``fault``; the last fault stays until one is."""
        with self._lock:
            self._counts["reloads" if fault is None else "reload_failures"] += 1
            self._reload_fault = fault

    def beat(self, part: Part) -> None:
        """The thread that owns ``part`` gives a sign of life."""
        with self._lock:
            self._progress.beat(part, self._clock())

    def waiting(self, frames: int, nbytes: int, oldest_s: float) -> None:
        """How many frames wait or are being judged, their bytes, and the age of the oldest in seconds."""
        with self._lock:
            self._progress.wait(frames, nbytes, oldest_s, self._clock())

    def unconfirmed(self, publications: int) -> None:
        """How many publications have left and have no answer of the broker yet."""
        with self._lock:
            self._progress.hold(publications, self._clock())

    def fault(self, text: str) -> None:
        """Something that only a new process can mend has happened; the first fault is kept."""
        with self._lock:
            self._progress.fault = self._progress.fault or text

    # What others ask

    def live(self) -> tuple[bool, str]:
        """Whether the worker is alive and making progress, with a sentence."""
        with self._lock:
            return self._is_live(self._clock())

    def ready(self) -> tuple[bool, str]:
        """Whether the worker judges frames now (state ``ready``, connected, alive), with a sentence."""
        with self._lock:
            return self._is_ready(self._clock())

    def camera_image(self, camera: str, serial: int | None = None) -> tuple[bytes, str] | None:
        """The last picture of ``camera`` and its content type; with ``serial``, that one while it is held."""
        with self._lock:
            log = self._cameras.get(camera)
            if log is None:
                return None
            wanted = serial if serial is not None and serial == log.pinned else log.picture
            picture = self._pictures.get(wanted)
            return (picture.data, picture.content_type) if picture else None

    def positive_image(self, serial: int) -> tuple[bytes, str] | None:
        """The picture of one of the latest positives and its content type, while it is held."""
        with self._lock:
            picture = (
                self._pictures.get(serial) if any(row["picture"] == serial for _, row in self._positives) else None
            )
            return (picture.data, picture.content_type) if picture else None

    def snapshot(self, *, pin: bool = False) -> dict[str, Any]:
        """Everything as strict-JSON data; ``pin`` keeps the pictures that it names until the next pinning."""
        with self._lock:
            now = self._clock()
            if pin:
                self._pin_pictures()
            return {
                "schema": SCHEMA,
                "worker": self.worker,
                "now": self._wall(),
                "started_at": self._started_at,
                "uptime_s": round(now - self._started_s, 1),
                "state": self._state_row(now),
                "broker": self._broker_row(now),
                "fps": round(self._rate.per_second(now), 2),
                "counters": dict(self._counts),
                "dropped": self._drops.counts(),
                "refused": self._refusals.counts(),
                "publish_failures": self._publish_failures.counts(),
                "last_deadletter": self._last_deadletter,
                "waiting": dict(zip(("frames", "bytes", "oldest_s"), self._progress.waiting, strict=True)),
                "latency_ms": {stage: latency.summary() for stage, latency in self._latency.items()},
                "beats": {part: round(now - beat, 1) for part, beat in self._progress.beats.items()},
                "models": self._models,
                "reload_fault": self._reload_fault,
                "cameras": [self._cameras[name].row(now) for name in sorted(self._cameras)],
                "positives": [{**row, "age_s": round(now - at, 1)} for at, row in reversed(self._positives)],
            }

    # Inside, with the lock held

    def _camera(self, name: str) -> CameraLog:
        log = self._cameras.get(name)
        if log is None:
            log = self._cameras[name] = CameraLog(name, Rate(self._clock()))
            if len(self._cameras) > self._limits.cameras:
                self._forget(self._cameras.popitem(last=False)[1])
        self._cameras.move_to_end(name)
        return log

    def _forget(self, log: CameraLog) -> None:
        self._pictures.release(log.picture)
        self._pictures.release(log.pinned)
        self._counts["evicted_cameras"] += 1

    def _pin_pictures(self) -> None:
        for log in self._cameras.values():
            if log.pinned != log.picture:
                self._pictures.release(log.pinned)
                log.pinned = self._pictures.share(log.picture)

    def _time(self, latency_ms: Mapping[str, float]) -> None:
        for stage, ms in latency_ms.items():
            if stage not in self._latency and len(self._latency) >= STAGES_KEPT:
                continue
            self._latency.setdefault(stage, Latency()).add(ms)

    def _remember_positive(self, verdict: Verdict, log: CameraLog, now: float) -> None:
        """One row a visit: positives of one camera and species in close succession keep the first one's picture."""
        label = verdict.species[0].label if verdict.species else None
        for index, (at, row) in enumerate(self._positives):
            same = row["camera"] == verdict.camera and row["label"] == label
            if same and now - at < VISIT_GAP_S:
                self._positives[index] = (now, {**row, "frames": row["frames"] + 1})
                return
        row = {"camera": verdict.camera, "label": label, "frames": 1, "truth": log.truth_row()}
        row["picture"] = self._pictures.share(log.picture)
        self._positives.append((now, {**row, **describe(verdict)}))
        while len(self._positives) > self._limits.positives:
            self._pictures.release(self._positives.popleft()[1]["picture"])

    def _is_live(self, now: float) -> tuple[bool, str]:
        return self._progress.is_live(now, self._broker.connected, self._limits.patience)

    def _is_ready(self, now: float) -> tuple[bool, str]:
        name, reason, _ = self._state
        live, why_not = self._is_live(now)
        if not live:
            return False, why_not
        if name != "ready":
            return False, reason
        if not self._broker.connected:
            return False, f"no connection to the broker: {self._broker.reason}"
        return True, reason

    def _state_row(self, now: float) -> dict[str, Any]:
        name, reason, since = self._state
        live, live_reason = self._is_live(now)
        ready, ready_reason = self._is_ready(now)
        return {
            "name": name,
            "reason": reason,
            "since_s": round(now - since, 1),
            "live": live,
            "live_reason": live_reason,
            "ready": ready,
            "ready_reason": ready_reason,
        }

    def _broker_row(self, now: float) -> dict[str, Any]:
        broker = self._broker
        return {
            "url": broker.url,
            "connected": broker.connected,
            "reason": broker.reason,
            "since_s": round(now - broker.since_s, 1),
            "connects": broker.connects,
            "session_present": broker.session_present,
        }
