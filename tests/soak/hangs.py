"""Row 17: workers that hang in the engine, a decoder, the link, with Python's lock held, or are stopped; and hours of
simulated life with jumping clocks in which nothing may be taken for a hang."""

from __future__ import annotations

import random
import re
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from edge.health import Health, Limits
from edge.progress import Patience
from edge.watchdog import Watchdog
from tests.edge.status import verdict
from tests.edge.worker_process import Camera, Verdicts, client, wait_for
from tests.soak.fleet import Forked, Yard, must_fail, wait_for_verdicts
from tests.soak.ledger import PATIENCE_S, Effort, Outcome

STALL_S = 5  # the shortest that may be configured
CASES = {
    "engine": ("before judge", False, 75),
    "decoder": ("before decode", False, 75),
    "publish": ("before publish", False, 75),
    "acknowledge": ("before acknowledge", False, 75),
    "with Python's lock": ("before judge", True, 1),
}


class Hanging:
    """A worker under a prefix of its own, with a camera and a reader of its verdicts."""

    def __init__(self, yard: Yard, case: str, **watchdog: object) -> None:
        self.case = case
        self.moment, self.lock, self.code = CASES.get(case, ("", False, 0))
        prefix = re.sub(r"\W+", "-", case)
        self.worker: Forked = yard.worker(
            prefix, mqtt={"prefix": prefix}, watchdog={"stall_s": STALL_S, **watchdog}, decode={"workers": 1}
        )
        self.verdicts = yard.enter_context(Verdicts(client(yard.broker, f"reader-{prefix}"), prefix))
        self._yard, self._prefix = yard, prefix
        self._camera: Camera | None = None
        self.ended: float | None = None

    def start(self, rng: random.Random) -> None:
        """First a quick start and end, so that session and subscription are there; then the run that will hang."""
        self.worker.start()
        self.worker.wait_ready()
        self.worker.kill()
        self._camera = Camera(client(self._yard.broker, f"cam-{self._prefix}-{rng.random()}"), "a", 20, self._prefix)
        self._yard.enter_context(self._camera)
        self.ended = None
        self.worker.start(hang_at=self.moment, nth=rng.randint(2, 12), lock=self.lock)

    def look(self) -> bool:
        """Whether it has ended; notes when."""
        if self.ended is None and not self.worker.is_running():
            self.ended = time.monotonic()
        return self.ended is not None

    def end(self, outcome: Outcome) -> None:
        """How it ended; start a successor, account for the frames."""
        if self.ended is None:
            self.worker.send(signal.SIGKILL)
        code, ended = self.worker.wait(), self.ended or time.monotonic()
        began = float(re.findall(r"planted: hangs at ([\d.]+)", self.worker.log())[0])
        outcome.see(f"{self.case} ended after s", round(ended - began, 1))
        outcome.demand(code == self.code, f"{self.case}: ended with {code} instead of {self.code}")
        outcome.demand(ended - began <= 2 * STALL_S, f"{self.case}: ended only {ended - began:.1f} s after the hang")
        self.worker.start()
        self.worker.wait_connected()
        assert self._camera is not None
        self._camera.finish()
        accepted = [("a", frame) for frame in self._camera.accepted]
        lost = wait_for_verdicts(self.verdicts, accepted, PATIENCE_S)
        self.worker.send(signal.SIGTERM)
        outcome.demand(self.worker.wait() == 0, f"{self.case}: the successor does not end with 0")
        outcome.add("frames", len(accepted))
        outcome.add("lost", len(lost))
        outcome.demand(not lost, f"{self.case}: {len(lost)} accepted frames lost")


def hangs(effort: Effort, cases: tuple[str, ...] = tuple(CASES), hours: float = 24.0, *, stop: bool = True) -> Outcome:
    """All hangs at once, again and again; a stopped process; a simulated day."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    false_alarms(outcome, rng, hours)
    with Yard(effort.folder) as yard:
        workers = [Hanging(yard, case) for case in cases]
        while effort.goes_on(outcome.done):
            for worker in workers:
                worker.start(rng)
            deadline = time.monotonic() + 4 * STALL_S
            while sum(worker.look() for worker in workers) < len(workers) and time.monotonic() < deadline:
                time.sleep(0.02)
            for worker in workers:
                worker.end(outcome)
            outcome.add("hangs", len(workers))
            if stop:
                stopped(outcome, yard)
            outcome.done += 1
    return outcome


def stopped(outcome: Outcome, yard: Yard) -> None:
    """SIGSTOP: a supervisor that listens for signs of life misses them; after SIGCONT the worker goes on."""
    with ExitStack() as stack:
        path = Path(yard.folder / "notify")
        path.unlink(missing_ok=True)
        supervisor = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        supervisor.bind(str(path))
        supervisor.settimeout(STALL_S)
        worker = yard.worker("stopped", watchdog={"stall_s": STALL_S})
        worker.start(environment={"NOTIFY_SOCKET": str(path)})
        said = {supervisor.recv(100) for _ in range(4)}
        outcome.demand(said >= {b"READY=1", b"WATCHDOG=1"}, f"systemd is told {said}")
        worker.send(signal.SIGSTOP)
        began = time.monotonic()
        try:
            while time.monotonic() < began + 3 * STALL_S:
                supervisor.recv(100)
            outcome.failures.append("signs of life of a stopped process")
        except TimeoutError:
            took = time.monotonic() - began
            outcome.see("SIGSTOP found after s", round(took, 1))
            outcome.demand(took <= 2 * STALL_S, f"SIGSTOP found only after {took:.1f} s")
        worker.send(signal.SIGCONT)
        time.sleep(2.5)
        worker.send(signal.SIGTERM)
        outcome.demand(worker.wait() == 0, "stopped and continued: the worker does not end with 0 at SIGTERM")


def false_alarms(outcome: Outcome, rng: random.Random, hours: float, *, hang: bool = False) -> None:
    """Simulated life second by second: bursts and quiet, the broker away, SIGSTOP, the wall clock jumping by hours.

    With ``hang``, the engine's thread falls silent in the middle: the watchdog has to bite then.
    """
    now, wall, ends = 0.0, 0.0, list[int]()
    health = Health("w", lambda: now, lambda: wall, limits=Limits(Patience(stall_s=30.0)))
    watchdog = Watchdog(health.live, 30.0, ends.append)
    turns, connected, service_s, judged = int(3600 * hours), True, 1.0, 0.0
    health.connected("mqtt://b", True)
    for turn in range(turns):
        step = rng.uniform(30, 4000) if rng.random() < 0.001 else 1.0  # SIGSTOP, else a second
        now, wall = now + step, wall + step + rng.choice((0.0, 0.0, 0.0, 7200.0, -7200.0, 1.77e9))
        watchdog.turn()  # before any other thread has had its turn
        if ends:
            break
        if rng.random() < 0.002:
            connected = not connected
            health.connected("mqtt://b", True) if connected else health.disconnected("away")
        if rng.random() < 0.001:
            service_s = rng.choice((0.01, 1.0, 20.0))
        health.beat("link")
        if hang and turn > turns / 2:
            continue
        if now - judged >= service_s:
            health.beat("engine")
            health.waiting(rng.choice((0, 0, 5)), 0, 0.0)
            health.verdict(verdict(), None, None)
            judged = now
        health.unconfirmed(rng.choice((0, 3, 10)) if connected else 0)
    outcome.see("simulated h", round(now / 3600, 1))
    outcome.demand(not ends, f"the watchdog bit after {now / 3600:.1f} simulated hours: {health.live()[1]}")


def hangs_control(effort: Effort) -> str:
    """The same hang with ``watchdog.end: false``, and a simulated hang that the watchdog may not miss."""
    simulated = Outcome()
    false_alarms(simulated, random.Random(effort.seed), 1.0, hang=True)
    assert simulated.failures, "a simulated hang was not seen"

    def measure(outcome: Outcome) -> None:
        with Yard(effort.folder) as yard:
            hanging = Hanging(yard, "engine", end=False)
            hanging.start(random.Random(1))
            wait_for(lambda: "planted: hangs" in hanging.worker.log(), 20, "the hang")
            time.sleep(2 * STALL_S)
            outcome.demand(not hanging.worker.is_running(), f"the worker still hangs after {2 * STALL_S} s")

    return f"with watchdog.end false: {must_fail(measure)}; {simulated.failures[0]}"
