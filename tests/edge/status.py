"""A worker's health filled by hand, and the real status server around it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge.health import Health
from edge.records import Outcome, Species, Verdict
from edge.web import StatusServer, build_server, create_app

MACAW = Species("Ara macao (Scarlet Macaw)", 0.77)


class Clock:
    """Monotonic seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def verdict(camera: str = "feeder", outcome: Outcome = Outcome.POSITIVE, **more: Any) -> Verdict:
    """A verdict as the cascade makes them."""
    values: dict[str, Any] = {"probability": 0.97, "threshold": 0.5, "latency_ms": {"queue": 1.0, "total": 20.0}}
    if outcome is Outcome.POSITIVE:
        values["species"] = (MACAW,)
    if outcome is Outcome.ERROR:
        values |= {"error": "no image", "probability": None}
    fixed = {"id": "b1946ac9", "judged_at": 1.0, "gate": "sha256:1f", "models": {}, "worker": "orin-07"}
    return Verdict(camera=camera, verdict=outcome, **{**fixed, **values, **more})


def ready_health(**options: Any) -> Health:
    """The health of a worker that is connected and ready."""
    health = Health("orin-07", **options)
    health.connected("mqtt://localhost:1883", False)
    health.set_state("ready", "ready: engines warm, subscribed, canary seen")
    return health


@contextmanager
def serving(health: Health) -> Iterator[StatusServer]:
    """The status server on a free loopback port, in a thread of its own."""
    server = build_server(create_app(health), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def get(server: StatusServer, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """One request over a connection of its own; the response and its whole body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()
