"""The benchmark's cameras, a process of their own: ``python -m edge.bench_cameras SETTINGS`` (JSON).

Closed loop: each camera keeps a fixed number of frames unanswered, and sends the next one when a verdict comes. So the
worker always has work, and the broker's queue never overflows.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from edge.link import Link
from edge.link_handler import LinkSettings, Message, QuietHandler
from edge.process import prepare_process


class Cameras(QuietHandler):
    """A ``LinkHandler`` that plays ``names`` cameras on one connection until ``until`` (monotonic seconds).

    ``ahead`` frames of each camera are unanswered at a time; a frame whose verdict never comes is replaced after
    ``patience_s``, so that a restarted worker is not starved.
    """

    patience_s = 10.0

    def __init__(
        self, settings: LinkSettings, prefix: str, names: list[str], images: list[bytes], ahead: int, until: float
    ) -> None:
        self._prefix = prefix
        self._names = names
        self._images = cycle(images)
        self._ahead = ahead
        self._until = until
        self._subscribed = False
        self._unanswered = dict.fromkeys(names, 0)
        self._last_verdict = time.monotonic()
        self._link = Link(settings, self, (f"{prefix}/+/verdict",))

    def run(self) -> None:
        """Send frames until the time is over."""
        self._link.run()

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        del session_present, window, max_packet
        self._unanswered = dict.fromkeys(self._names, 0)

    def link_subscribed(self, refused: list[str]) -> None:
        self._subscribed = not refused

    def link_down(self, reason: str) -> None:
        del reason
        self._subscribed = False

    def link_message(self, message: Message) -> None:
        self._link.acknowledge(message.mid)
        camera = message.topic[len(self._prefix) + 1 : -len("/verdict")]
        self._last_verdict = time.monotonic()
        if self._unanswered.get(camera, 0) > 0:
            self._unanswered[camera] -= 1

    def link_turn(self) -> float | None:
        now = time.monotonic()
        if now > self._until:
            self._link.stop()
            return None
        if self._subscribed and now - self._last_verdict > self.patience_s:
            self._last_verdict = now
            self._unanswered = dict.fromkeys(self._names, 0)
        for camera in self._names if self._subscribed else ():
            while self._unanswered[camera] < self._ahead:
                if self._link.publish(f"{self._prefix}/{camera}/frame", next(self._images)) is None:
                    return 0.05
                self._unanswered[camera] += 1
        return 0.2


def main(argument: str) -> None:
    """Play the cameras that ``argument`` describes."""
    prepare_process()
    given: dict[str, Any] = json.loads(argument)
    images = [path.read_bytes() for path in sorted(Path(given["images"]).iterdir())]
    settings = LinkSettings(**given["settings"])
    until = time.monotonic() + given["seconds"]
    Cameras(settings, given["prefix"], given["names"], images, given["ahead"], until).run()


if __name__ == "__main__":
    main(sys.argv[1])
