"""A worker's mailbox, decoders, pipeline and judge on the stand-in device, turned by hand; no broker, no loop."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from edge.config import Config
from edge.delivery import Outgoing
from edge.health import Health
from edge.judge import Judge
from edge.mailbox import Mailbox
from edge.parts import decode_ahead, fills_the_device, load_parts
from edge.pipeline import Flight, Pipeline
from edge.pool import Intake
from edge.records import Ticket
from edge.wire import Topics
from tests.edge.frames import raw_frame
from tests.edge.worker_process import small_pictures, wait_for

MOST = 2  # frames of a batch
PICTURES = small_pictures()


def device() -> Any:
    """The stand-in's device: its counters and faults."""
    return import_module("standin_device").device


class Post:
    """A courier that keeps what it is given, in order: frames' serials and their verdicts' payloads."""

    def __init__(self) -> None:
        self.verdicts: list[tuple[int, bytes]] = []
        self.letters: list[int] = []

    def deliver(self, outgoing: Outgoing) -> None:
        (ticket,) = outgoing.tickets
        self.verdicts.append((ticket.serial, outgoing.payload))

    def notice(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """States are of no interest here."""

    def dead_letter(self, camera: str, reason: str, tickets: list[Ticket], key: str) -> None:
        self.letters.append(tickets[0].serial)


class Line:
    """Mailbox, decoders, pipeline and judge of a worker, without its threads' loop: a test makes each turn."""

    def __init__(self, config: Config, *, ahead: int | None = None, wait_ms: float = 0.0) -> None:
        self.config, self.wait_s = config, wait_ms / 1000
        self.parts = load_parts(config)
        self.parts.warm_up(MOST)
        self.post = Post()
        self.judge = Judge(self.post, Health("w"), Topics("cameras", "w"))  # type: ignore[arg-type]
        self.judge.take_over(self.parts, config)
        ahead = decode_ahead(config, self.parts) if ahead is None else ahead
        self.intake = Intake(Mailbox("every", 1000, 1 << 26), self.parts.decoder, workers=2, ahead=ahead)
        self.pipeline = Pipeline(self.intake, self.judge.begin, self._finish, fill=fills_the_device(config))
        self.put: list[int] = []
        self.intake.start()

    def send(self, count: int, pictures: list[bytes] | None = None) -> None:
        """Let ``count`` frames wait; returns when as many as may be are decoded."""
        for _ in range(count):
            picture = (pictures or PICTURES)[len(self.put) % len(pictures or PICTURES)]
            frame = raw_frame(f"camera-{len(self.put) % 3}", picture, at=time.monotonic())
            self.put.append(frame.ticket.serial)
            self.intake.put(frame)
        self.settled()

    def settled(self) -> None:
        """Wait until the decoders have nothing to do."""
        intake = self.intake
        wait_for(lambda: intake._done() == min(intake._ahead, intake.backlog()[0]), 10, "decoded frames")

    def turn(self) -> None:
        self.settled()
        self.pipeline.turn(MOST, self.wait_s, 0.0)

    def run(self) -> None:
        """Turn until nothing waits and nothing flies."""
        while self.intake.backlog()[0] or self.pipeline.frames:
            self.turn()

    @property
    def judged(self) -> list[int]:
        return [serial for serial, _ in self.post.verdicts]

    def errors(self) -> list[int]:
        return [serial for serial, payload in self.post.verdicts if b'"verdict":"error"' in payload]

    def _finish(self, flight: Flight) -> None:
        device().timeline.append(("finished", len(self.judged) // MOST + 1))
        self.judge.finish(flight)

    def close(self) -> None:
        self.intake.close()
        self.parts.close()
