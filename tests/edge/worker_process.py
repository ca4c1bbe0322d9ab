"""A worker as a process of its own on the demo's networks, cameras that keep a ledger, and a reader of verdicts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from edge.demo.simulator import Simulator
from edge.link import Link
from edge.link_handler import LinkSettings, Message, QuietHandler
from edge.publish import Publisher
from edge.sources import Picture

MODELS = Path(str(files("edge.demo").joinpath("models")))
ROOT = Path(__file__).resolve().parents[2]
NO_SUBSCRIBERS = 0x10  # a PUBACK's reason in MQTT 5: nobody's session has subscribed to the topic


def demo_config(url: str, **changes: Any) -> dict[str, Any]:
    """A configuration on the demo's networks; ``changes`` replace whole sections."""
    config: dict[str, Any] = {
        "worker": "test-worker",
        "mqtt": {"url": url},
        "features": {"model": str(MODELS / "features.onnx")},
        "gate": {"file": str(MODELS / "gate.npz")},
        "species": {"model": str(MODELS / "species.onnx")},
        "status": {"port": 0},
    }
    return {**config, **changes}


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of ``condition``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


class WorkerProcess:
    """``edge run`` as a child, with its log in a file; ``environment`` is added to ours at every start."""

    def __init__(self, folder: Path, config: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.config = folder / "edge.yaml"
        self.log = folder / "worker.log"
        self.config.write_text(yaml.safe_dump(config))
        self.environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> WorkerProcess:
        """Start it; does not wait."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge", "run", "--config", str(self.config)],
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=environment,
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self, within_s: float = 10.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(within_s)

    def wait(self, within_s: float) -> int:
        """The exit code of a worker that ends by itself."""
        assert self._process is not None
        return self._process.wait(within_s)

    def is_running(self) -> bool:
        assert self._process is not None
        return self._process.poll() is None

    def page(self) -> str | None:
        """Where its latest status page is."""
        lines = [line for line in self.log.read_text().splitlines() if "status page url=" in line]
        return lines[-1].partition("url=")[2] if lines else None

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a request to its status server; (0, "") while nobody answers."""
        page = self.page()
        if page is None:
            return 0, ""
        try:
            with urllib.request.urlopen(page.rstrip("/") + path, timeout=5) as answer:  # noqa: S310 - our own page
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, seconds: float = 30.0) -> None:
        wait_for(lambda: self.get("/readyz")[0] == 200, seconds, f"readiness; log:\n{self.log.read_text()}")


class Verdicts(QuietHandler):
    """A subscriber that collects every verdict under a prefix, from ``start`` to ``stop``."""

    def __init__(self, settings: LinkSettings, prefix: str = "cameras", more: tuple[str, ...] = ()) -> None:
        self.by_frame: dict[tuple[str, str | None], list[dict[str, Any]]] = defaultdict(list)
        self.all: list[dict[str, Any]] = []
        self.other: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self._link = Link(settings, self, (f"{prefix}/+/verdict", *more))
        self._thread = threading.Thread(target=self._link.run, daemon=True)

    def __enter__(self) -> Verdicts:
        self._thread.start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()
        self._thread.join(5)

    def link_subscribed(self, refused: list[str]) -> None:
        assert not refused
        self._subscribed.set()

    def link_message(self, message: Message) -> None:
        if message.qos:
            self._link.acknowledge(message.mid)
        if message.topic.endswith("/verdict"):
            verdict = json.loads(message.payload)
            self.all.append(verdict)
            self.by_frame[verdict["camera"], verdict["frame_id"]].append(verdict)
        else:
            self.other.append((message.topic, message.payload))


class Noting(Publisher):
    """Writes down when (monotonic seconds) each picture was first confirmed, and which of them for nobody."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.confirmed_at: dict[str, float] = {}
        self.for_nobody: set[str] = set()
        self._confirm = self._link._client.on_publish
        self._link._client.on_publish = self._note

    def _note(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        item = self._waiting.get(mid)
        if item is not None and reason.value == NO_SUBSCRIBERS:
            self.for_nobody.add(item.picture.name)
        self._confirm(client, userdata, mid, reason, properties)  # type: ignore[misc, call-arg, arg-type]

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        item = self._waiting.get(mid)
        super().link_confirmed(mid, failure)
        if item is not None and failure is None:
            self.confirmed_at.setdefault(item.picture.name, time.monotonic())


class Camera:
    """A camera with a ledger: ``accepted`` holds the ids of the frames that the broker has confirmed.

    It is any camera, and sends nothing again that was confirmed; with ``moment_s`` it is ``edge publish``, which does.
    """

    def __init__(
        self,
        settings: LinkSettings,
        name: str,
        fps: float,
        prefix: str = "cameras",
        pictures: list[bytes] | None = None,
        publisher: type[Noting] = Noting,
        most: int | None = None,
        moment_s: float = 0.0,
    ) -> None:
        self.name = name
        self._most = most
        self.accepted: list[str] = []
        self._pictures = pictures or small_pictures()
        self._stop = threading.Event()
        self._publisher = publisher(settings, f"{prefix}/{name}/frame", self._frames(), fps, moment_s=moment_s)
        self._thread = threading.Thread(target=self._publisher.run, daemon=True)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    @property
    def confirmed(self) -> int:
        """Frames that the broker has confirmed so far."""
        return self._publisher.sent.frames

    @property
    def confirmed_at(self) -> dict[str, float]:
        """Monotonic seconds of each frame's confirmation."""
        return self._publisher.confirmed_at

    @property
    def for_nobody(self) -> set[str]:
        """Frames that the broker confirmed and kept for nobody, and said so."""
        return self._publisher.for_nobody

    def finish(self) -> None:
        """Send no more, and wait until all that was sent is confirmed: then the ledger is complete."""
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.accepted = sorted(self.confirmed_at)

    def _frames(self) -> Iterator[Picture]:
        serial = 0
        while not self._stop.is_set() and serial != self._most:
            yield Picture(f"{serial:06d}", self._pictures[serial % len(self._pictures)])
            serial += 1


def small_pictures() -> list[bytes]:
    """A few drawn JPEGs of 160 x 120."""
    simulator = Simulator("feeder", 3, 160, 120)
    return [simulator.next().jpeg for _ in range(24)]


def client(broker: Any, name: str) -> LinkSettings:
    """Settings of a short-lived client at ``broker``."""
    return LinkSettings("127.0.0.1", broker.port, name, clean_start=True)
