"""Row 32: the worker's wall clock jumps by hours and by half a century; nothing may notice but labels.

``wall_clock.c``, preloaded, moves the wall clock alone, as a time server does. libfaketime 0.9.10 does not serve here:
when its offset changes, waits that are timed by the monotonic clock end at once or hours late.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.edge.worker_process import (
    ROOT,
    Camera,
    Verdicts,
    WorkerProcess,
    client,
    demo_config,
    small_pictures,
)
from tests.mosquitto import Broker
from tests.soak.fleet import must_fail, wait_for_verdicts
from tests.soak.ledger import PATIENCE_S, Effort, Outcome

PHASE_S = 3.0
STALL_S = 5


def build(folder: Path) -> Path:
    """The library that moves the clock."""
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("mosquitto_pub") is None:
        pytest.skip("a C compiler (cc) and mosquitto_pub are needed")
    library = folder / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    return library


def jumps() -> list[float]:
    """Offsets of the wall clock in seconds: now, two hours on, two hours back, 1970, and now again."""
    return [0.0, 7200.0, -7200.0, 60.0 - time.time(), 0.0]


def clock(effort: Effort, *, told: bool = False) -> Outcome:
    """Jump again and again under load. ``told``: the still camera tells the time, which then is part of the ``id``."""
    outcome, folder = Outcome(), effort.folder
    folder.mkdir(parents=True, exist_ok=True)
    offset, still = folder / "offset", folder / "still.jpg"
    offset.write_bytes(struct.pack("<q", 0))
    still.write_bytes(small_pictures()[0])
    preload = {"LD_PRELOAD": str(build(folder)), "OFFSET_FILE": str(offset)}
    broker = Broker(folder / "broker")
    broker.start()
    mqtt = {"url": broker.url, "keepalive_s": 5}
    config = demo_config(broker.url, mailbox={"policy": "every"}, watchdog={"stall_s": STALL_S}, mqtt=mqtt)
    worker = WorkerProcess(folder, config, {**os.environ, "PYTHONPATH": str(ROOT), **preload})
    try:
        worker.start().wait_ready()
        with Verdicts(client(broker, "reader")) as verdicts, Camera(client(broker, "cam"), "a", 10) as camera:
            while effort.goes_on(outcome.done):
                for seconds in jumps():
                    _move(offset, seconds)
                    time.sleep(PHASE_S)
                    _send(broker, still, told)
                outcome.add("jumps", len(jumps()))
                outcome.done += 1
            camera.finish()
            _account(outcome, camera, verdicts)
        outcome.demand(worker.terminate() == 0, "the worker does not end with 0")
        log = worker.log.read_text()
        outcome.demand("not live" not in log, "a false alarm of the watchdog")
        outcome.demand(log.count(" connected broker=") == 1, "the connection was lost")
    finally:
        if worker.is_running():
            worker.kill()
        broker.kill()
    return outcome


def _move(offset: Path, seconds: float) -> None:
    with offset.open("r+b") as file:  # in place: the worker has mapped it
        file.write(struct.pack("<q", int(seconds)))


def _send(broker: Broker, still: Path, told: bool) -> None:
    command = ["mosquitto_pub", "-p", str(broker.port), "-V", "5", "-q", "1", "-t", "cameras/still/frame"]
    if told:
        command += ["-D", "publish", "user-property", "captured_at", str(time.time())]
    subprocess.run([*command, "-f", str(still)], check=True, timeout=20)


def _account(outcome: Outcome, camera: Camera, verdicts: Verdicts) -> None:
    sent = outcome.sums["jumps"]

    missing = wait_for_verdicts(verdicts, [("a", frame) for frame in camera.accepted], PATIENCE_S)
    stills = verdicts.by_frame[("still", None)]  # one that comes while the last one's verdict waits shares that one
    outcome.demand(not missing, f"{len(missing)} frames without a verdict")
    outcome.demand(len(stills) > 1, f"{len(stills)} verdicts on {sent} stills")
    years = {time.gmtime(float(str(verdict["judged_at"]))).tm_year for verdict in verdicts.all}
    outcome.add("frames", len(camera.accepted) + sent)
    outcome.add("lost", len(missing))
    ids = {verdict["id"] for verdict in stills}
    outcome.demand(len(ids) == 1, f"one picture has {len(ids)} ids")
    outcome.demand(1970 in years and len(years) > 1, f"the clock did not jump: years {sorted(years)}")


def clock_control(effort: Effort) -> str:
    def measure(outcome: Outcome) -> None:
        outcome.failures += clock(Effort(effort.seed, 1, effort.deadline, effort.folder), told=True).failures

    return f"with the wall clock's time as part of the frame: {re.sub('[0-9a-f]{32}', '…', must_fail(measure))}"
