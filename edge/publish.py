"""Be a camera: publish pictures at a pace, each one until the broker has confirmed it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge.link import Link
from edge.link_handler import LinkSettings, QuietHandler
from edge.sources import Picture

log = logging.getLogger(__name__)

# A broker confirms before it saves, so that one that is killed may forget what it confirmed in its last moment.
MOMENT_S, MOMENT_FRAMES = 2.0, 256
OVERHEAD = 1024  # bytes of a PUBLISH beside topic and picture, generously


@dataclass(slots=True)
class Sent:
    """What was done: ``frames`` confirmed by the broker, ``refused`` by it, over ``seconds``."""

    frames: int = 0
    refused: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Item:
    """A picture on its way, captured at epoch seconds; ``confirmed_s`` is monotonic, None before the first time."""

    picture: Picture
    captured_at: float
    confirmed_s: float | None = None


class Publisher(QuietHandler):
    """A ``LinkHandler`` that sends ``pictures`` to ``topic``, ``fps`` a second, and then stops its link.

    Frames without a confirmation are sent again in the next connection, and so are those that were confirmed in the
    last ``moment_s`` seconds of one that was lost: unchanged, so that verdicts that come twice have one id. A frame
    over the broker's maximum packet size counts as refused, since the broker would hang up on it each time. ``fps``
    None sends as fast as the broker confirms. ``report`` is called after each confirmed frame.
    """

    def __init__(
        self,
        settings: LinkSettings,
        topic: str,
        pictures: Iterator[Picture],
        fps: float | None,
        report: Callable[[Sent], None] = lambda _: None,
        moment_s: float = MOMENT_S,
    ) -> None:
        self.sent = Sent()
        self._topic = topic
        self._pictures = pictures
        self._period = 0.0 if fps is None else 1.0 / fps
        self._report = report
        self._window = 1
        self._waiting: dict[int, Item] = {}
        self._again: list[Item] = []
        self._moment_s = moment_s
        self._confirmed: deque[Item] = deque(maxlen=MOMENT_FRAMES)
        self._next_at = 0.0
        self._up = self._done = self._stopped = False
        self._max_packet: int | None = None
        self._link = Link(settings, self)

    def run(self) -> Sent:
        """Send everything; raises LinkRefused when the broker does not want us."""
        began = time.monotonic()
        self._link.run()
        self.sent.seconds = time.monotonic() - began
        return self.sent

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._link.stop()

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        del session_present
        self._up, self._window, self._max_packet = True, window, max_packet
        self._next_at = time.monotonic()

    def link_down(self, reason: str) -> None:
        now = time.monotonic()
        doubtful = [item for item in self._confirmed if self._is_doubtful(item, now)]
        self._again = [*doubtful, *self._waiting.values(), *self._again]
        self._confirmed.clear()
        self._waiting.clear()
        self._up = False
        if not self._done and not self._stopped:
            log.warning("not connected, trying again: %s", reason)

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        item = self._waiting.pop(mid, None)
        if item is None:
            return
        first = item.confirmed_s is None
        if failure is None:
            self.sent.frames += first
            item.confirmed_s = now = time.monotonic()
            self._confirmed.append(item)
            while self._confirmed and not self._is_doubtful(self._confirmed[0], now):
                self._confirmed.popleft()  # and its picture
        else:
            self.sent.refused += first
        self._report(self.sent)

    def link_turn(self) -> float | None:
        now = time.monotonic()
        while self._up and self._again and len(self._waiting) < self._window:
            self._send(self._again.pop(0))
        while self._up and len(self._waiting) < self._window and now >= self._next_at and not self._again:
            item = self._next_item()
            if item is None:
                break
            self._send(item)
            self._next_at = max(self._next_at + self._period, now - 1.0) if self._period else now
        if self._done and not self._waiting and not self._again:
            self._link.stop()
        return max(0.0, self._next_at - time.monotonic()) if self._period else 0.5

    def _is_doubtful(self, item: Item, now: float) -> bool:
        return (item.confirmed_s or 0.0) > now - self._moment_s

    def _next_item(self) -> Item | None:
        picture = None if self._done else next(self._pictures, None)
        if picture is None:
            self._done = True
            return None
        return Item(picture, time.time())

    def _send(self, item: Item) -> None:
        picture = item.picture
        if self._max_packet is not None and len(picture.data) + len(self._topic) + OVERHEAD > self._max_packet:
            log.error("%s is over the broker's maximum packet size of %d bytes", picture.name, self._max_packet)
            self.sent.refused += 1
            return
        properties = {"frame_id": picture.name[:256], "captured_at": f"{item.captured_at:.3f}"}
        mid = self._link.publish(self._topic, picture.data, properties=properties)
        if mid is None:
            self._again.insert(0, item)
            self._up = False
        else:
            self._waiting[mid] = item
