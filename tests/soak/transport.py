"""Row 11: how many frames a second go through broker, worker and back when judging costs nothing.

The pictures are not decoded and the engine answers at once; everything else is the worker's own: link, mailbox,
SHA-256 of each picture, verdicts, acknowledgements, health. The camera and the reader are one process on bare sockets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.edge.worker_process import ROOT
from tests.soak.broker_kills import shipped
from tests.soak.fleet import Yard, must_fail
from tests.soak.ledger import Effort, Outcome

LOADS = ((30_000, 2000.0), (200_000, 700.0))  # bytes a frame, frames a second
SECONDS = 300.0  # of each load: ten minutes together
MOST_MS = 3.0
SHARE = 0.98  # of the wanted rate counts as held
SAVED_S = 15.0  # what a broker that saves carries is told, and demanded of nobody
SAVE_AFTER = (1, 20)  # changes


def transport(effort: Effort, seconds: float = SECONDS, **faults: Any) -> Outcome:
    """Offer both loads, each for ``seconds`` or half of what is left."""
    outcome = Outcome()
    for number, (size, rate) in enumerate(LOADS):
        left = (effort.deadline - time.monotonic() - 30.0) / (len(LOADS) - number)
        one_load(outcome, effort.folder / str(number), size, rate, min(seconds, max(5.0, left)), **faults)
        outcome.done = number + 1
        if not effort.goes_on(outcome.done):
            break
    return outcome


def transport_and_saving(effort: Effort) -> Outcome:
    """:func:`transport`, and what a broker carries that saves after each change, as shipped, or after twenty."""
    outcome = transport(effort)
    for changes in SAVE_AFTER:
        told = Outcome()
        lines = tuple(line for line in shipped() if not line.startswith("autosave_interval"))
        folder = effort.folder / f"saving-{changes}"
        one_load(told, folder, *LOADS[0], SAVED_S, lines=(*lines, f"autosave_interval {changes}"))
        outcome.see(f"saved after {changes}: frames/s", told.worst["30 kB: frames/s"])
        outcome.demand(told.sums["lost"] == 0, f"saved after {changes}: {told.sums['lost']} frames lost")
    return outcome


def one_load(
    outcome: Outcome,
    folder: Path,
    size: int,
    rate: float,
    seconds: float,
    lines: tuple[str, ...] = (),
    **faults: Any,
) -> None:
    """Frames of ``size`` bytes, ``rate`` a second, for ``seconds``, over a broker with ``lines``, into ``outcome``."""
    with Yard(folder, *lines) as yard:
        worker = yard.worker(mailbox={"policy": "every", "max_frames": 256, "max_mib": 256})
        worker.start(no_decode=True, **faults)
        worker.wait_ready()
        before = cpu_s(worker.pid)
        found = flood(yard.broker.port, size, rate, seconds)
        used = cpu_s(worker.pid) - before
    load = f"{size // 1000} kB"
    lost = int(found["confirmed"] - found["answered"])
    outcome.add(f"frames of {load}", int(found["answered"]))
    outcome.add("lost", lost)
    outcome.see(f"{load}: frames/s", round(found["frames/s"]))
    outcome.see(f"{load}: p99 ms", round(found["p99 ms"], 1))
    outcome.see(f"{load}: worker's CPU us a frame", round(1e6 * used / max(1.0, found["answered"])))
    outcome.demand(lost == 0, f"{load}: {lost} of {found['confirmed']:.0f} frames lost")
    outcome.demand(found["frames/s"] >= SHARE * rate, f"{load}: {found['frames/s']:.0f} of {rate:.0f} frames/s")
    outcome.demand(found["p99 ms"] <= MOST_MS, f"{load}: 99th percentile {found['p99 ms']:.1f} ms")


def flood(port: int, size: int, rate: float, seconds: float) -> dict[str, float]:
    """What ``tests.soak.flood`` found in a process of its own."""
    command = [sys.executable, "-m", "tests.soak.flood", *map(str, (port, size, rate, seconds))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=seconds + 60)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def transport_control(effort: Effort) -> str:
    """A worker that takes 4 ms for each frame."""

    def measure(outcome: Outcome) -> None:
        slow = Effort(effort.seed, 1, effort.deadline, effort.folder)
        outcome.failures += transport(slow, 4.0, service_s=0.004).failures

    return f"with 4 ms for each frame: {must_fail(measure)}"
