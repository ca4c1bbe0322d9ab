"""What a worker tells about itself on ``edge/<worker>/stats``: counters and latencies, without its cameras."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_KEPT = ("worker", "now", "uptime_s", "state", "fps", "counters", "dropped", "refused", "waiting", "latency_ms")


def encode_stats(snapshot: Mapping[str, Any]) -> bytes:
    """The part of ``Health.snapshot`` that is published, as strict JSON."""
    return json.dumps({key: snapshot[key] for key in _KEPT}, allow_nan=False).encode()
