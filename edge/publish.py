"""Be a camera: publish pictures at a pace, each one until the broker has confirmed it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge.link import Link
from edge.link_handler import LinkSettings, QuietHandler
from edge.sources import Picture


@dataclass(slots=True)
class Sent:
    """What was done: ``frames`` confirmed by the broker, ``refused`` by it, over ``seconds``."""

    frames: int = 0
    refused: int = 0
    seconds: float = 0.0


class Publisher(QuietHandler):
    """A ``LinkHandler`` that sends ``pictures`` to ``topic``, ``fps`` a second, and then stops its link.

    Frames without a confirmation are sent again in the next connection. ``fps`` None sends as fast as the broker
    confirms. ``report`` is called after each confirmed frame.
    """

    def __init__(
        self,
        settings: LinkSettings,
        topic: str,
        pictures: Iterator[Picture],
        fps: float | None,
        report: Callable[[Sent], None] = lambda _: None,
    ) -> None:
        self.sent = Sent()
        self._topic = topic
        self._pictures = pictures
        self._period = 0.0 if fps is None else 1.0 / fps
        self._report = report
        self._window = 1
        self._waiting: dict[int, tuple[Picture, float]] = {}
        self._again: list[tuple[Picture, float]] = []
        self._next_at = 0.0
        self._up = self._done = False
        self._link = Link(settings, self)

    def run(self) -> Sent:
        """Send everything; raises LinkRefused when the broker does not want us."""
        began = time.monotonic()
        self._link.run()
        self.sent.seconds = time.monotonic() - began
        return self.sent

    def stop(self) -> None:
        """Send no more."""
        self._link.stop()

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        del session_present, max_packet
        self._up, self._window = True, window
        self._again = [*self._waiting.values(), *self._again]
        self._waiting.clear()
        self._next_at = time.monotonic()

    def link_down(self, reason: str) -> None:
        del reason
        self._up = False

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        if self._waiting.pop(mid, None) is None:
            return
        if failure is None:
            self.sent.frames += 1
        else:
            self.sent.refused += 1
        self._report(self.sent)

    def link_turn(self) -> float | None:
        now = time.monotonic()
        while self._up and len(self._waiting) < self._window and now >= self._next_at:
            item = self._next_item()
            if item is None:
                break
            self._send(*item)
            self._next_at = max(self._next_at + self._period, now - 1.0) if self._period else now
        if self._done and not self._waiting and not self._again:
            self._link.stop()
        return max(0.0, self._next_at - time.monotonic()) if self._period else 0.5

    def _next_item(self) -> tuple[Picture, float] | None:
        if self._again:
            return self._again.pop(0)
        picture = None if self._done else next(self._pictures, None)
        if picture is None:
            self._done = True
            return None
        return picture, time.time()

    def _send(self, picture: Picture, captured_at: float) -> None:
        properties = {"frame_id": picture.name[:256], "captured_at": f"{captured_at:.3f}"}
        mid = self._link.publish(self._topic, picture.data, properties=properties)
        if mid is None:
            self._again.insert(0, (picture, captured_at))
            self._up = False
        else:
            self._waiting[mid] = (picture, captured_at)
