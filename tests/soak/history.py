"""What passed between a worker and its broker, packet by packet, checked against the rules while it grows.

The rules: a frame is acknowledged only in the connection that delivered it, once, and only after the broker has
confirmed its verdict. A verdict's confirmation is taken down just before it is passed on to the worker and an
acknowledgement after the worker has sent it, so that what is cause on the wire comes first here too.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PUBLISH, PUBACK = 3, 4
Key = tuple[str, str | None]  # camera and frame id


@dataclass
class _Connection:
    delivered: dict[int, Key] = field(default_factory=dict)  # frames by packet identifier, not yet acknowledged
    published: dict[int, Key] = field(default_factory=dict)  # verdicts by packet identifier, not yet confirmed


class History:
    """Give ``tap`` to a proxy. ``confirmed``: when the broker last confirmed a frame's verdict, monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.violations: list[str] = []
        self.confirmed: dict[Key, float] = {}
        self.acknowledged = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: dict[int, _Connection] = {}

    def tap(self, connection: int, outward: bool, kind: int, flags: int, body: bytes) -> None:
        """A packet passes; ``outward`` is from the worker to the broker."""
        if kind == PUBLISH and flags & 6:
            topic, mid, payload, frame_id = _read_publish(body)
            with self._lock:
                self._publish(self._of(connection), outward, topic, mid, payload, frame_id)
        elif kind == PUBACK:
            mid, refused = int.from_bytes(body[:2], "big"), len(body) > 2 and body[2] >= 0x80
            with self._lock:
                if outward:
                    self._acknowledge(connection, mid)
                elif not refused:
                    self._confirm(self._of(connection), mid)

    def _of(self, connection: int) -> _Connection:
        return self._connections.setdefault(connection, _Connection())

    def _publish(
        self, wire: _Connection, outward: bool, topic: str, mid: int, payload: bytes, frame_id: str | None
    ) -> None:
        if not outward:
            wire.delivered[mid] = (topic.split("/")[-2], frame_id)
        elif topic.endswith("/verdict"):
            verdict = json.loads(payload)
            wire.published[mid] = (verdict["camera"], verdict["frame_id"])

    def _confirm(self, wire: _Connection, mid: int) -> None:
        key = wire.published.pop(mid, None)
        if key is not None:
            self.confirmed[key] = self._clock()

    def _acknowledge(self, connection: int, mid: int) -> None:
        key = self._of(connection).delivered.pop(mid, None)
        if key is None:
            self.violations.append(f"connection {connection}: packet {mid} acknowledged, which is none of its frames")
        elif not key[0].startswith("_"):  # a canary has no verdict
            self.acknowledged += 1
            if key not in self.confirmed:
                self.violations.append(f"connection {connection}: {key} acknowledged before its verdict was confirmed")


def _read_publish(body: bytes) -> tuple[str, int, bytes, str | None]:
    """Topic, packet identifier, payload and the user property ``frame_id`` of an MQTT 5 PUBLISH of QoS 1."""
    end = 2 + int.from_bytes(body[:2], "big")
    topic, mid = body[2:end].decode(), int.from_bytes(body[end : end + 2], "big")
    properties, length = Properties(PacketTypes.PUBLISH).unpack(body[end + 2 :])  # type: ignore[no-untyped-call]
    pairs = dict(getattr(properties, "UserProperty", None) or ())
    return topic, mid, body[end + 2 + length :], pairs.get("frame_id")
