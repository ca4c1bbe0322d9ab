"""Row 13: a thousand cameras within the mailbox's bytes, and a hundred thousand names beyond the bound."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from edge.courier import Courier
from edge.health import Health
from edge.link import Link
from edge.link_handler import Message
from edge.mailbox import Mailbox
from edge.records import RawFrame
from edge.wire import Topics
from tests.soak.ledger import Effort, Outcome

CAP_BYTES = 64 << 20
FRAME = 100_000  # bytes; a thousand of them do not fit the cap
CAMERAS = 1000
NEW_CAMERA = 50_000  # bytes that a new camera may add, frames aside


class Answering:
    """A link whose broker confirms everything at once."""

    rival = None

    def __init__(self) -> None:
        self.acknowledged, self.handler, self._mid = 0, cast(Any, None), 0
        self._open: list[int] = []

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int:
        del topic, payload, retain
        self._mid += 1
        self._open.append(self._mid)
        return self._mid

    def confirm(self) -> None:
        while self._open:
            self.handler.link_confirmed(self._open.pop(), None)

    def acknowledge(self, mid: int) -> None:
        del mid
        self.acknowledged += 1

    def wake(self) -> None:
        """Nobody sleeps."""


class Box(Mailbox):
    """The mailbox as the courier's sink, which remembers how full it ever was."""

    most = 0

    def put(self, frame: RawFrame) -> list[RawFrame]:
        dropped = super().put(frame)
        self.most = max(self.most, self.bytes)
        return dropped


def _resident() -> int:
    """Resident memory of this process, bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(found.group(1)) if found else 0


def cameras(effort: Effort, most: int = CAMERAS) -> Outcome:
    """Three frames of each of a thousand cameras, then ``effort.count`` frames of as many further names."""
    outcome, link, box = Outcome(), Answering(), Box("latest", 65_535, CAP_BYTES)
    courier = Courier(Topics("cameras", "box"), box, Health("box"), 8 << 20, "mqtt://x", max_cameras=most)
    link.handler = courier
    courier.attach(cast(Link, link))
    courier.link_up(False, 10, None)
    sent = _send(courier, link, [f"camera-{n}" for n in range(CAMERAS)] * 3, b"x" * FRAME, 0)
    outcome.see("mailbox MB", round(box.most / 1e6, 1))
    outcome.demand(box.most <= CAP_BYTES, f"{box.most} bytes wait, allowed {CAP_BYTES}")
    while (frame := box.take()) is not None:
        courier.settle(frame.ticket)
    courier.link_turn()
    before = _resident()
    sent = _send(courier, link, (f"bomb-{n}" for n in range(effort.count)), b"x", sent)
    outcome.see("growth kB", max(0, _resident() - before) // 1000)
    taken = len(box)
    outcome.done = effort.count
    outcome.add("topics taken", taken)
    outcome.add("topics refused", effort.count - taken)
    outcome.demand(taken == 0, f"{taken} names beyond the bound were taken")
    outcome.demand(_resident() - before <= 32e6, f"grew by {(_resident() - before) / 1e6:.0f} MB")
    return outcome


def _send(courier: Courier, link: Answering, names: Any, payload: bytes, mid: int) -> int:
    for name in names:
        mid = mid % 65535 + 1
        courier.link_message(Message(f"cameras/{name}/frame", payload[:], mid, 1, False, False, {}))
        courier.link_turn()
        link.confirm()
    return mid


def cameras_control(effort: Effort) -> str:
    """Without a bound on cameras."""
    outcome = cameras(Effort(effort.seed, 5000, effort.deadline, effort.folder), most=10**9)
    assert outcome.failures, "without a bound the names were refused too"
    return f"without a bound: {outcome.failures[0]}"
