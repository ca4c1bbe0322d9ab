"""Row 2: the broker killed, with the configuration that is shipped and with mosquitto's own defaults."""

from __future__ import annotations

import random
import time

from tests.edge.worker_process import ROOT
from tests.soak.fleet import Yard
from tests.soak.ledger import Effort, Outcome

FPS = 20.0  # of each of two cameras: the shipped configuration writes its store after every change
OURS = ("listener", "password_file", "acl_file", "allow_anonymous", "persistence_location", "log_")
DEFAULTS = ("autosave_interval 1800", "autosave_on_changes false", "max_queued_messages 100000")


def shipped() -> tuple[str, ...]:
    """``deploy/mosquitto.conf`` without what is a container's own: paths, rights and the listener."""
    lines = (ROOT / "deploy" / "mosquitto.conf").read_text().splitlines()
    return tuple(line for line in lines if line.strip() and not line.startswith(("#", *OURS)))


def kill_broker(effort: Effort, lines: tuple[str, ...] | None = None, patience_s: float = 40.0) -> Outcome:
    """SIGKILL after 0.3 to 2 s of service, and a new start; cameras, worker and reader come back by themselves."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    with Yard(effort.folder, *(lines or shipped())) as yard:
        worker = yard.worker()
        worker.start()
        worker.wait_connected()
        cameras = [yard.camera(name, FPS) for name in "ab"]
        while effort.goes_on(outcome.done):
            before = sum(camera.confirmed for camera in cameras)
            while sum(camera.confirmed for camera in cameras) < before + 3:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 1.5))
            yard.broker.kill()
            time.sleep(rng.uniform(0.0, 0.3))
            yard.broker.start()
            outcome.done += 1
        yard.settle(outcome, patience_s)
    return outcome


def kill_broker_control(effort: Effort) -> str:
    """Mosquitto's defaults: a store that is saved every half hour."""
    outcome = kill_broker(Effort(effort.seed, 3, effort.deadline, effort.folder), DEFAULTS, patience_s=12.0)
    assert outcome.failures, "the broker's defaults lost nothing"
    return f"autosave_interval 1800, three kills: {outcome.failures[0]}"
