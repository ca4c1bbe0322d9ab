"""Real workers on a real broker for the long runs: started, killed, stopped, and every accepted frame accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.edge.worker_process import ROOT, Camera, Verdicts, client, demo_config, wait_for
from tests.mosquitto import Broker
from tests.soak.ledger import Outcome

# The broker of a test of workers need not write to disk for each frame; what it holds in memory outlives them.
QUICK = ("persistence false", "max_queued_messages 200000", "max_queued_bytes 0")
START_S = 60.0  # for a worker on a busy machine


class Zygote:
    """The process that forks workers; ``environment`` is added to its own and to theirs."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment or {}

    def __enter__(self) -> Zygote:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Forked:
    """One worker that may be started again and again; its log grows beside its configuration."""

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        config: dict[str, Any],
        service_s: float = 0.0,
        in_flight: int = 1,
        **always: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._zygote = zygote
        self._config = folder / f"{config['worker']}.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._log = Path(f"{self._config}.log")
        self._order = {"config": str(self._config), "service_s": service_s, "in_flight": in_flight, **always}
        self._pid: int | None = None
        self._read_from = 0

    def start(self, **faults: Any) -> None:
        """Start it; ``kill_at`` or ``hang_at`` with ``nth``, or ``raise_in``, as ``tests.soak.zygote`` says."""
        self._read_from = self._log.stat().st_size if self._log.exists() else 0
        self._pid = self._zygote.ask({**self._order, **faults})

    def log(self) -> str:
        """What it has written since its last start."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._read_from)
            return file.read().decode(errors="replace")

    def wait_connected(self) -> None:
        """Until it has a connection, which may not have subscribed yet: for a successor in the same session."""
        wait_for(lambda: "connected broker=" in self.log(), START_S, f"a connection {self._log}")

    def is_connected(self) -> bool:
        """Whether it says so, and has not said since that it lost the connection."""
        log = self.log()
        return log.rfind(" connected broker=") > log.rfind(" disconnected broker=")

    def wait_ready(self) -> None:
        """Until the broker keeps what cameras publish for it, subscriptions and all."""
        wait_for(lambda: "ready: 'judging'" in self.log(), START_S, f"readiness {self._log}")

    def wait(self) -> int:
        """Its exit code; -9 where it was killed."""
        assert self._pid is not None
        code = self._zygote.ask({"wait": self._pid})
        self._pid = None
        return code

    @property
    def pid(self) -> int:
        assert self._pid is not None
        return self._pid

    def is_running(self) -> bool:
        """Whether it has not ended yet; one that has ended is a zombie until ``wait``."""
        status = Path(f"/proc/{self._pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"

    def send(self, number: int) -> None:
        assert self._pid is not None
        os.kill(self._pid, number)

    def kill(self) -> None:
        if self._pid is not None:
            self.send(signal.SIGKILL)
            self.wait()


class Yard(ExitStack):
    """A broker, a reader of verdicts, cameras, and workers made on demand. Close it to stop all of them."""

    def __init__(self, folder: Path, *lines: str) -> None:
        super().__init__()
        self.folder = folder
        self.broker = Broker(folder / "broker", lines or QUICK)
        self.cameras: list[Camera] = []

    def __enter__(self) -> Yard:
        super().__enter__()
        self.broker.start()
        self.callback(self.broker.kill)
        self.zygote = self.enter_context(Zygote())
        self.verdicts = self.enter_context(Verdicts(self.reader()))
        return self

    def reader(self) -> Any:
        """A reader whose session outlives the broker."""
        return replace(client(self.broker, "reader"), clean_start=False, session_expiry_s=3600)

    def worker(self, name: str = "box", service_s: float = 0.0, in_flight: int = 1, **changes: Any) -> Forked:
        """A worker, not yet started; killed at the end."""
        mqtt = {"url": self.broker.url, **changes.pop("mqtt", {})}
        sections = {"mailbox": {"policy": "every"}, "batch": {"max": 8}, "status": None, **changes}
        config = demo_config(self.broker.url, worker=name, mqtt=mqtt, **sections)
        forked = Forked(self.zygote, self.folder, config, service_s, in_flight=in_flight)
        self.callback(forked.kill)
        return forked

    def camera(self, name: str, fps: float, frames: int | None = None, moment_s: float = 0.0) -> Camera:
        """A camera that publishes until it is told to finish, or ``frames`` frames."""
        settings = client(self.broker, f"cam-{name}")
        camera = self.enter_context(Camera(settings, name, fps, most=frames, moment_s=moment_s))
        self.cameras.append(camera)
        return camera

    def settle(self, outcome: Outcome, patience_s: float) -> list[tuple[str, float]]:
        """Stop the cameras, wait until no verdict has come for ``patience_s``, and account for every accepted frame.

        Returns the camera of each lost one, and when it was confirmed, monotonic seconds.
        """
        for camera in self.cameras:
            camera.finish()
        accepted = [(camera.name, frame) for camera in self.cameras for frame in camera.accepted]
        lost = wait_for_verdicts(self.verdicts, accepted, patience_s)
        answers = self.verdicts.by_frame
        raw = sum(len(answers[key]) - 1 for key in accepted if answers.get(key))
        different = sum(len({v["id"] for v in answers[key]}) - 1 for key in accepted if answers.get(key))
        outcome.add("frames", len(accepted))
        outcome.add("lost", len(lost))
        outcome.add("raw duplicates", raw)
        outcome.add("duplicates after equal ids", different)
        for_nobody = {camera.name: camera.for_nobody for camera in self.cameras}
        nobody = sum(frame in for_nobody[name] for name, frame in lost)
        told = f", {nobody} of which the broker said to keep for nobody" if nobody else ""
        outcome.demand(not lost, f"{len(lost)} accepted frames lost{told}, such as {lost[:3]}")
        outcome.demand(not different, f"{different} duplicates with another id")
        confirmed_at = {camera.name: camera.confirmed_at for camera in self.cameras}
        return [(name, confirmed_at[name][frame]) for name, frame in lost]


def wait_for_verdicts(verdicts: Verdicts, accepted: list[tuple[str, str]], patience_s: float) -> list[tuple[str, str]]:
    """Those of ``accepted`` (camera, frame) that have no verdict when none at all has come for ``patience_s``."""
    seen, since = -1, time.monotonic()
    while (lost := [key for key in accepted if not verdicts.by_frame.get(key)]) and (
        len(verdicts.all) != seen or time.monotonic() < since + patience_s
    ):
        if len(verdicts.all) != seen:
            seen, since = len(verdicts.all), time.monotonic()
        time.sleep(0.2)
    return lost


def must_fail(measure: Callable[[Outcome], None]) -> str:
    """The first failure of something broken; raises when it passes."""
    outcome = Outcome()
    measure(outcome)
    assert outcome.failures, "the broken thing passed: this measurement sees nothing"
    return outcome.failures[0]
