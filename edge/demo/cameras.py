"""The demo's cameras: each draws frames at its pace and publishes them; the truth about each frame is kept aside."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock

from edge.demo.simulator import Drawn, Simulator
from edge.health import Health
from edge.link_handler import LinkSettings
from edge.publish import Publisher
from edge.sources import Picture

NAMES = (
    "feeder",
    "orchard",
    "terrace",
    "aviary",
    "canopy",
    "pond",
    "window",
    "harbour",
    "meadow",
    "roof",
    "gate",
    "barn",
)
KEPT = 20_000


class Truths:
    """What each published frame truly shows, by camera and frame id; safe to share between threads."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._lock = Lock()
        self._drawn: OrderedDict[tuple[str, str], Drawn] = OrderedDict()

    def tell(self, camera: str, frame_id: str, drawn: Drawn) -> None:
        """Remember the frame, and let the status page know."""
        with self._lock:
            self._drawn[camera, frame_id] = drawn
            if len(self._drawn) > KEPT:
                self._drawn.popitem(last=False)
        self._health.truth(camera, drawn.truth, drawn.positive, frame_id)

    def of(self, camera: str, frame_id: str | None) -> Drawn | None:
        """What the frame shows, None for a frame that is none of ours."""
        with self._lock:
            return self._drawn.get((camera, frame_id or ""))


def camera_names(count: int) -> list[str]:
    """Names for ``count`` cameras."""
    return [NAMES[n] if n < len(NAMES) else f"camera-{n + 1}" for n in range(count)]


def make_camera(settings: LinkSettings, name: str, prefix: str, seed: int, fps: float, truths: Truths) -> Publisher:
    """A camera that publishes for ever; MQTT 3.1.1 has no user properties, so the frame id travels in the envelope."""
    return Publisher(settings, f"{prefix}/{name}/frame", _frames(name, seed, truths), fps)


def _frames(name: str, seed: int, truths: Truths) -> Iterator[Picture]:
    simulator = Simulator(name, seed)
    serial = 0
    while True:
        drawn = simulator.next()
        frame_id = f"{serial:06d}"
        truths.tell(name, frame_id, drawn)
        envelope = {"image": base64.b64encode(drawn.jpeg).decode("ascii"), "frame_id": frame_id}
        yield Picture(frame_id, json.dumps(envelope).encode("ascii"))
        serial += 1
