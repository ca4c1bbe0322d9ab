"""Row 3: everything goes wrong at once, by a seed; what came of each frame is compared with what had to come.

The worker is the real one with the demo's networks, behind a proxy that cuts, delays and swallows. The broker is a
real mosquitto that saves on change; 2.0.11 confirms a moment before it saves, so what it confirmed within ``MOMENT_S``
before a kill may be gone with it. Such frames and verdicts are told apart by time and counted on their own.
"""

from __future__ import annotations

import json
import random
import signal
import struct
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.demo.simulator import Simulator
from edge.publish import Item
from tests.edge.worker_process import Camera, Noting, Verdicts, client, demo_config
from tests.soak.clock import build
from tests.soak.fleet import Forked, Yard, Zygote, must_fail
from tests.soak.history import History, Key
from tests.soak.ledger import Effort, Outcome
from tests.soak.oracle import Oracle, lasting
from tests.soak.proxy import Proxy

FPS = 5.0  # of each of two cameras
MOMENT_S = 0.25
BEHIND, CATCH_UP_S = 100, 20.0  # a broker that saves all it holds for each change is slow with many frames waiting
PAUSE_S = (0.2, 3.0)
MAILBOX, WINDOW = 64, 10
MOST_MIB = 400.0
SETTLE_S, QUIET_S = 120.0, 20.0
BROKEN = b"\xff\xd8 not a picture"


class Chronicler(Noting):
    """A publisher that remembers what it sent and when the broker confirmed it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.given: dict[str, tuple[bytes, float]] = {}  # frame id -> picture, capture time as sent

    def _send(self, item: Item) -> None:
        self.given[item.picture.name] = (item.picture.data, float(f"{item.captured_at:.3f}"))
        super()._send(item)


class Chaos(Yard):
    """A yard with a proxy before the worker, a clock that can be moved, and a history of all that passes."""

    def __init__(self, folder: Path, seed: int, **faults: Any) -> None:
        super().__init__(folder, "autosave_interval 1")
        self.rng, self._faults = random.Random(seed), faults
        self.history, self.outcome = History(), Outcome()
        self.kills: list[float] = []

    def __enter__(self) -> Chaos:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._offset = self.folder / "offset"
        self._offset.write_bytes(struct.pack("<q", 0))
        super().__enter__()
        preload = {"LD_PRELOAD": str(build(self.folder)), "OFFSET_FILE": str(self._offset)}
        self.zygote = self.enter_context(Zygote(preload))
        self.proxy = self.enter_context(Proxy(self.broker.port, tap=self.history.tap))
        self.config = demo_config(
            self.broker.url,
            worker="box",
            mqtt={"url": f"mqtt://127.0.0.1:{self.proxy.port}", "keepalive_s": 5},
            mailbox={"policy": "every", "max_frames": MAILBOX},
            batch={"max": 1},  # the last bit of a network's answer depends on its batch
        )
        self.box = Forked(self.zygote, self.folder, self.config, real_engines=True, **self._faults)
        self.callback(self.box.kill)
        self.box.start()
        self.box.wait_ready()
        drawn = Simulator("feeder", 3, 96, 72)
        pictures = [*(drawn.next().jpeg for _ in range(24)), BROKEN]
        for name in "ab":
            settings = client(self.broker, f"cam-{name}")
            self.cameras.append(
                self.enter_context(Camera(settings, name, FPS, pictures=pictures, publisher=Chronicler))
            )
        return self

    # -- what may go wrong -------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        self.box.kill()
        self.box.start()

    def stop_worker(self) -> None:
        self._signal(signal.SIGTERM)
        code = self.box.wait()
        self.outcome.demand(code in (0, -signal.SIGTERM), f"SIGTERM: exit code {code}")  # -15: before it had begun
        self.box.start()

    def freeze_worker(self) -> None:
        self._signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.2, 9.0))
        self._signal(signal.SIGCONT)

    def kill_broker(self) -> None:
        self.kills.append(time.monotonic())
        self.broker.kill()
        time.sleep(self.rng.uniform(0.0, 0.5))
        self.broker.start()

    def stop_broker(self) -> None:
        self.broker.stop()
        time.sleep(self.rng.uniform(0.0, 0.5))
        self.broker.start()

    def blackhole(self) -> None:
        self.proxy.swallow = True
        time.sleep(self.rng.uniform(0.2, 9.0))
        self.proxy.swallow = False

    def reset(self) -> None:
        self.proxy.reset()

    def slow(self) -> None:
        self.proxy.rate = 50_000
        time.sleep(self.rng.uniform(0.5, 4.0))
        self.proxy.rate = None

    def limit_data(self) -> None:
        self.proxy.limit = self.rng.randrange(20_000)

    def move_clock(self) -> None:
        with self._offset.open("r+b") as file:  # in place: the worker has mapped it
            file.write(struct.pack("<q", self.rng.choice((-7200, 0, 7200))))

    # -- the course of it --------------------------------------------------------------------------------------

    def event(self) -> None:
        """One of them, a pause, and a look at the worker, which first may catch up."""
        self._catch_up()
        chosen = self.rng.choice(EVENTS)
        chosen(self)
        self.outcome.add(chosen.__name__.replace("_", " "))
        time.sleep(self.rng.uniform(*PAUSE_S))
        self._look()

    def _catch_up(self) -> None:
        deadline = time.monotonic() + CATCH_UP_S
        while self._behind() > BEHIND and time.monotonic() < deadline:
            time.sleep(0.2)
            self._look()

    def _behind(self) -> int:
        return sum(camera.confirmed for camera in self.cameras) - len(self.verdicts.by_frame)

    def _signal(self, number: int) -> None:
        if self.box.is_running():
            self.box.send(number)

    def _look(self) -> None:
        """Start a worker anew that has ended itself, as a supervisor does; see what it holds."""
        if not self.box.is_running():
            code = self.box.wait()
            self.outcome.demand(code == 75, f"the worker ended by itself with {code}: {self.box.log()[-400:]}")
            self.outcome.add("restarts asked for")
            self.box.start()
            return
        rss = [line for line in Path(f"/proc/{self.box.pid}/status").read_text().splitlines() if "VmRSS" in line]
        self.outcome.see("resident MiB", int(rss[0].split()[1]) // 1024 if rss else 0)
        self.outcome.see("frames waiting", waiting(self.box.log()))

    def end(self) -> None:
        """Let all that is left come, and compare."""
        for camera in self.cameras:
            camera.finish()
        account = Account(self.cameras, self.verdicts, self.history, self.kills)
        self.broker.stop()
        self.broker.lines = ["autosave_interval 1800", "autosave_on_changes false"]  # nothing more goes wrong
        self.broker.start()
        began = changed = time.monotonic()
        seen = 0
        while account.missing() and time.monotonic() < min(began + SETTLE_S, changed + QUIET_S):
            time.sleep(0.5)
            self._look()
            if len(self.verdicts.all) > seen:
                seen, changed = len(self.verdicts.all), time.monotonic()
        account.settle(self.outcome, Oracle(self.config))
        self.outcome.see("verdicts in flight", self.proxy.wire.most)
        bounds = {"resident MiB": MOST_MIB, "frames waiting": MAILBOX + 2, "verdicts in flight": WINDOW}
        for name, most in bounds.items():
            self.outcome.demand(self.outcome.worst.get(name, 0.0) <= most, f"{name}: {self.outcome.worst.get(name)}")


EVENTS: list[Callable[[Chaos], None]] = [
    *(Chaos.kill_worker, Chaos.stop_worker, Chaos.freeze_worker, Chaos.kill_broker, Chaos.stop_broker),
    *(Chaos.blackhole, Chaos.reset, Chaos.slow, Chaos.limit_data, Chaos.move_clock),
]


def waiting(log: str) -> int:
    """Frames that wait in the worker whose page stands in ``log``; 0 while it does not answer."""
    page = log.rpartition("status page url=")[2].split()
    try:
        with urllib.request.urlopen(page[0].rstrip("/") + "/api/status", timeout=2) as answer:  # noqa: S310 - our own
            return int(json.loads(answer.read())["waiting"]["frames"])
    except (OSError, IndexError):
        return 0


class Account:
    """What cameras and reader know, put beside the history."""

    def __init__(self, cameras: list[Camera], verdicts: Verdicts, history: History, kills: list[float]) -> None:
        self.given: dict[Key, tuple[bytes, float]] = {}
        self.accepted: dict[Key, float] = {}
        for camera in cameras:
            chronicle = camera._publisher
            assert isinstance(chronicle, Chronicler)
            self.given |= {(camera.name, name): sent for name, sent in chronicle.given.items()}
            self.accepted |= {(camera.name, name): at for name, at in chronicle.confirmed_at.items()}
        self._verdicts, self._history, self._kills = verdicts, history, kills

    def missing(self) -> list[Key]:
        """Accepted frames without a verdict, but for those that a broker's kill may have taken."""
        return [key for key in self._silent() if self._fate(key) == "lost"]

    def settle(self, outcome: Outcome, oracle: Oracle) -> None:
        """All six rules into ``outcome``."""
        for key in self._silent():
            outcome.add(self._fate(key))
        lost = self.missing()
        outcome.sums.setdefault("lost", 0)
        outcome.demand(not lost, f"{len(lost)} accepted frames without an end, such as {lost[:3]}")
        outcome.add("frames", len(self.accepted))
        answers = self._verdicts.by_frame
        outcome.add("raw duplicates", sum(len(found) - 1 for found in list(answers.values()) if found))
        for key, found in list(answers.items()):
            self._compare(outcome, oracle, key, found)
        outcome.add("acknowledgements on the wire", self._history.acknowledged)
        outcome.add("wrong acknowledgements", len(self._history.violations))
        outcome.failures += self._history.violations[:5]

    def _compare(self, outcome: Outcome, oracle: Oracle, key: Key, found: list[dict[str, Any]]) -> None:
        if key not in self.given:
            if found:
                outcome.failures.append(f"a verdict for {key}, which no camera has sent")
            return
        picture, captured_at = self.given[key]
        expected = oracle.verdict(key, picture, captured_at)
        outcome.demand(len({verdict["id"] for verdict in found}) <= 1, f"{key} has verdicts of several ids")
        wrong = [verdict for verdict in found if lasting(verdict) != expected]
        outcome.add("verdicts compared", len(found))
        outcome.demand(not wrong, f"{key}: {wrong[:1]} instead of {expected}")

    def _silent(self) -> list[Key]:
        return [key for key in self.accepted if not self._verdicts.by_frame.get(key)]

    def _fate(self, key: Key) -> str:
        if self._is_moment(self.accepted[key]):
            return "frames lost in a broker's last moment"
        confirmed = self._history.confirmed.get(key)
        if confirmed is not None and self._is_moment(confirmed):
            return "verdicts lost in a broker's last moment"
        return "lost"

    def _is_moment(self, at: float) -> bool:
        """Whether the broker was killed within ``MOMENT_S`` after ``at``; a confirmation may be read after the kill."""
        return any(kill - MOMENT_S <= at <= kill + MOMENT_S for kill in self._kills)


def chaos(effort: Effort, **faults: Any) -> Outcome:
    """Events until ``effort.count`` or its deadline, and what came of it."""
    with Chaos(effort.folder, effort.seed, **faults) as yard:
        while effort.goes_on(yard.outcome.done):
            yard.event()
            yard.outcome.done += 1
        yard.end()
        return yard.outcome


def chaos_control(effort: Effort) -> str:
    """A worker that acknowledges a frame when its verdict is handed over, before the broker has it."""

    def measure(outcome: Outcome) -> None:
        broken = replace(effort, count=3)
        outcome.failures += [found for found in chaos(broken, early_acks=True).failures if "before" in found]

    return f"with early acknowledgements: {must_fail(measure)}"
