"""The engine thread's work, without the thread: batches judged, and each frame's end handed to the courier."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from edge.config import Config
from edge.courier import Courier
from edge.delivery import Outgoing
from edge.health import Health
from edge.pace import Pace
from edge.parts import Parts
from edge.pipeline import Flight
from edge.records import Frame, Outcome, Verdict
from edge.unchanged import Unchanged
from edge.verdict import encode
from edge.wire import Topics
from engines import DeviceLostError, EngineRunError

log = logging.getLogger(__name__)

ENGINE_FAILURES = 3  # in a row, before the process gives up and asks to be restarted
SNAPSHOT_EVERY_S = 1.0  # per camera
LATENCIES_KEPT = 4096


class Judge:
    """Begins and finishes flights with the parts that it was given last. Used by one thread at a time.

    Args:
        courier: takes verdicts and dead letters.
        health: whom to tell.
        topics: this worker's topics.
        clock: monotonic seconds.
    """

    def __init__(
        self, courier: Courier, health: Health, topics: Topics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._courier, self._health, self._topics = courier, health, topics
        self._clock = clock
        self._snapshots = Pace(SNAPSHOT_EVERY_S)
        self._failures = 0
        self.latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.inferences = 0

    def take_over(self, parts: Parts, config: Config) -> None:
        """Judge with ``parts`` from now on; what was begun before is still finished by what began it."""
        self._cascade = parts.cascade
        self._publications = config.publish
        self._unchanged = Unchanged() if config.skip_unchanged else None

    def begin(self, frames: list[Frame]) -> Flight:
        """Put a batch on its way. Raises DeviceLostError."""
        return Flight(frames, self._cascade, self._unchanged)

    def finish(self, flight: Flight) -> None:
        """Conclude a batch; its frames alone where the engine fails on it, unless it does so again and again.

        Raises:
            EngineRunError: only a new process helps. Frames without an end are left with the broker.
        """
        try:
            self.conclude(flight)
            self._failures = 0
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._failures += 1
            if self._failures >= ENGINE_FAILURES:
                raise
            log.error("batch of %d failed, trying its frames alone: %s", len(flight.frames), error)
            for frame in flight.frames:
                self._judge_alone(frame, flight)

    def conclude(self, flight: Flight) -> None:
        """Hand out a batch's verdicts and dead letters.

        Raises:
            EngineRunError: the engine failed on it; none of its frames has its end.
        """
        pairs = flight.verdicts()
        for frame in [frame for frame in flight.frames if frame.poison]:
            self._dead_letter(frame, flight)
        for frame, verdict in pairs:
            self.inferences += "features" in verdict.latency_ms
            self.latencies.append(verdict.latency_ms["total"])
            self._publish(frame, verdict)

    def _judge_alone(self, frame: Frame, flight: Flight) -> None:
        try:
            self.conclude(Flight([frame], flight.cascade, flight.unchanged))
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._publish(frame, flight.cascade.error(frame, f"inference failed: {error}"))

    def _dead_letter(self, frame: Frame, flight: Flight) -> None:
        reason = frame.error or "the picture cannot be decoded"
        key = flight.cascade.error(frame, reason).id
        self._courier.dead_letter(frame.raw.camera, reason, [frame.raw.ticket], key)

    def _publish(self, frame: Frame, verdict: Verdict) -> None:
        raw = frame.raw
        self._courier.deliver(
            Outgoing(
                key=verdict.id,
                kind="verdict",
                topic=self._topics.of_camera(raw.camera, "verdict"),
                payload=encode(verdict),
                tickets=[raw.ticket],
                camera=raw.camera,
            )
        )
        if verdict.verdict is Outcome.POSITIVE:
            self._publish_positive(frame, verdict)
        shown = frame.image if frame.content_type is not None else None
        self._health.verdict(verdict, shown, frame.content_type)

    def _publish_positive(self, frame: Frame, verdict: Verdict) -> None:
        camera = frame.raw.camera
        if verdict.species and self._publications.species:
            topic = self._topics.of_camera(camera, "species")
            self._courier.notice(topic, verdict.species[0].label.encode(), retain=True)
        wanted = self._publications.snapshot and frame.content_type == "image/jpeg"
        if wanted and self._snapshots.is_due(camera, self._clock()):
            self._courier.notice(self._topics.of_camera(camera, "snapshot"), frame.image, retain=True)
