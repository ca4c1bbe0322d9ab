"""Row 2: the broker killed, with the configuration that is shipped and with mosquitto's own defaults."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from edge.publish import MOMENT_S
from tests.edge.worker_process import ROOT, wait_for
from tests.soak.fleet import Yard
from tests.soak.ledger import Effort, Outcome

FPS = 20.0  # of each of two cameras: the shipped configuration writes its store after every change
# From a confirmation to the end of the save that follows it: fsync and rename took 4 to 25 ms on a busy machine.
SAVE_S = 0.25
OURS = ("listener", "password_file", "acl_file", "allow_anonymous", "persistence_location", "log_")
DEFAULTS = ("autosave_interval 1800", "autosave_on_changes false", "max_queued_messages 100000")


@dataclass(frozen=True)
class Kill:
    """When the broker was killed and when it was back, monotonic; whether a worker was connected."""

    at_s: float
    back_s: float
    served: bool


def shipped() -> tuple[str, ...]:
    """``deploy/mosquitto.conf`` without what is a container's own: paths, rights and the listener."""
    lines = (ROOT / "deploy" / "mosquitto.conf").read_text().splitlines()
    return tuple(line for line in lines if line.strip() and not line.startswith(("#", *OURS)))


def kill_broker(effort: Effort, lines: tuple[str, ...] | None = None) -> Outcome:
    """SIGKILL after 0.3 to 2 s of service, and a new start; cameras, worker and reader come back by themselves.

    Camera a is any camera, and may lose what was confirmed in the broker's last moment, before it saved; camera b is
    ``edge publish``, which sends that again.
    """
    outcome, rng, kills = Outcome(), random.Random(effort.seed), list[Kill]()
    with Yard(effort.folder, *(lines or shipped())) as yard:
        worker = yard.worker()
        worker.start()
        worker.wait_ready()
        cameras = [yard.camera("a", FPS), yard.camera("b", FPS, moment_s=MOMENT_S)]
        while effort.goes_on(outcome.done):
            before = sum(camera.confirmed for camera in cameras)
            while sum(camera.confirmed for camera in cameras) < before + 3:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 1.5))
            killed, served = time.monotonic(), worker.is_connected()
            yard.broker.kill()
            time.sleep(rng.uniform(0.0, 0.3))
            yard.broker.start()
            kills.append(Kill(killed, time.monotonic(), served))
            outcome.done += 1
        lost = yard.settle(outcome, effort.patience_s)
        for camera, kind in zip(cameras, ("a plain camera", "edge publish"), strict=True):
            outcome.add(f"frames of {kind}", len(camera.accepted))
            outcome.add(f"lost of {kind}", sum(name == camera.name for name, _ in lost))
        _judge_losses(outcome, lost, kills)
    return outcome


def _judge_losses(outcome: Outcome, lost: list[tuple[str, float]], kills: list[Kill]) -> None:
    """What was confirmed is ``lost`` by the next kill."""
    outcome.add("kills while a worker was connected", sum(kill.served for kill in kills))
    for camera, confirmed in lost:
        kill = next((kill for kill in kills if confirmed < kill.back_s), Kill(math.inf, math.inf, True))
        before_s = max(0.0, kill.at_s - confirmed)
        outcome.add("lost while a worker was connected", kill.served)
        outcome.see("lost one's confirmation, ms before the kill", round(1000 * before_s, 1))
        outcome.demand(before_s <= SAVE_S and camera == "a", f"{camera}: lost, {before_s:.3f} s after its confirmation")


def kill_during_burst(folder: Path, burst: int = 6, service_s: float = 0.2) -> Outcome:
    """SIGKILL while a slow worker holds a burst that the broker has confirmed and handed out, and saved none of.

    Mosquitto does not count a frame that goes straight to a connected worker as a change: until the first
    acknowledgement its store knows nothing of the burst, and it delivers none of it again.
    """
    outcome = Outcome()
    with Yard(folder, *shipped()) as yard:
        worker = yard.worker(service_s=service_s, batch={"max": 1})
        worker.start()
        worker.wait_ready()
        camera = yard.camera("a", 500.0, frames=burst)
        wait_for(lambda: camera.confirmed == burst, 5, "the broker's confirmations")
        outcome.add("verdicts before the kill", len(yard.verdicts.all))
        yard.broker.kill()
        yard.broker.start()
        outcome.done = 1
        yard.settle(outcome, patience_s=10.0)
    return outcome


def kill_broker_control(effort: Effort) -> str:
    """Mosquitto's defaults: a store that is saved every half hour."""
    outcome = kill_broker(replace(effort, count=3, patience_s=12.0), DEFAULTS)
    assert outcome.failures, "the broker's defaults lost nothing"
    return f"autosave_interval 1800, three kills: {outcome.failures[0]}"
