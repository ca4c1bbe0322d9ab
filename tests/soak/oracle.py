"""What the worker must say of a picture: the same networks and gate in a process to which nothing happens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from edge.config import Config
from edge.parts import load_parts
from edge.records import Frame, RawFrame, Ticket
from edge.verdict import encode
from tests.soak.history import Key

PASSING = ("judged_at", "latency_ms", "redelivered", "dropped_before", "reused")  # may differ between deliveries


def lasting(verdict: dict[str, Any]) -> dict[str, Any]:
    """What of a verdict is the same whenever and however often its frame is judged."""
    return {name: value for name, value in verdict.items() if name not in PASSING}


class Oracle:
    """Judges frames one at a time, each picture once."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._parts = load_parts(Config.model_validate(config))
        self._known: dict[bytes, tuple[Frame, dict[str, Any]]] = {}

    def verdict(self, key: Key, picture: bytes, captured_at: float) -> dict[str, Any]:
        """The lasting part of the verdict on ``picture`` as frame ``key``, taken at ``captured_at`` epoch seconds."""
        camera, frame_id = key
        raw = RawFrame(camera, picture, Ticket(0, 0, 0, 0), 0.0, False, frame_id, captured_at)
        if picture not in self._known:
            decoded = self._parts.decoder(raw)
            self._known[picture] = decoded, json.loads(encode(self._parts.cascade.judge([decoded])[0]))
        decoded, answer = self._known[picture]
        own = replace(decoded, raw=raw, frame_id=frame_id, captured_at=captured_at)
        named = {"id": self._parts.cascade.error(own, "").id, "camera": camera}
        return lasting({**answer, **named, "frame_id": frame_id, "captured_at": captured_at})
