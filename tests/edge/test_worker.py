"""The worker as a process, on a real broker with the demo's networks: frames in, verdicts out, kills and stops."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.demo.simulator import Simulator
from edge.verdict import verdict_schema
from tests.edge.worker_process import Camera, Verdicts, WorkerProcess, client, demo_config, wait_for
from tests.mosquitto import Broker

DURABLE = ("max_queued_messages 100000",)


@pytest.fixture
def prefix() -> str:
    """A topic prefix of this test's own."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def worker(mosquitto: Broker, tmp_path: Path, prefix: str) -> Any:
    """A running worker under its own prefix, ready."""
    name = f"worker-{prefix}"
    process = WorkerProcess(
        tmp_path, demo_config(mosquitto.url, worker=name, mqtt={"url": mosquitto.url, "prefix": prefix})
    )
    process.start().wait_ready()
    yield process
    if process.is_running():
        process.kill()


@pytest.fixture
def worker_on(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], WorkerProcess]]:
    """Makes worker processes that are gone when the test is over, however it ends."""
    made: list[WorkerProcess] = []

    def make(config: dict[str, Any]) -> WorkerProcess:
        made.append(WorkerProcess(tmp_path, config))
        return made[-1]

    yield make
    for process in made:
        if process.is_running():
            process.kill()


def pub(broker: Broker, topic: str, payload: bytes) -> None:
    """Publish with mosquitto_pub, as a camera's firmware would."""
    command = ["mosquitto_pub", "-p", str(broker.port), "-q", "1", "-t", topic, "-s" if payload else "-n"]
    subprocess.run(command, check=True, timeout=20, input=payload)


def test_frames_with_mosquitto_pub_get_verdicts_that_keep_the_schema(
    mosquitto: Broker, worker: WorkerProcess, prefix: str
) -> None:
    simulator, parrots, others = Simulator("feeder", 5), 0, 0
    validator = jsonschema.Draft202012Validator(verdict_schema())
    with Verdicts(client(mosquitto, prefix), prefix, (f"{prefix}/+/species", f"{prefix}/+/snapshot")) as verdicts:
        right = []
        while parrots < 4 or others < 4:
            drawn = simulator.next()
            parrots, others = parrots + drawn.positive, others + (not drawn.positive)
            expected = len(verdicts.all) + 1
            pub(mosquitto, f"{prefix}/feeder/frame", drawn.jpeg)
            wait_for(lambda count=expected: len(verdicts.all) >= count, 10, "a verdict")
            verdict = verdicts.all[-1]
            validator.validate(verdict)
            right.append((verdict["verdict"] == "positive") == drawn.positive)
        wait_for(lambda: {t.rpartition("/")[2] for t, _ in verdicts.other} >= {"species", "snapshot"}, 5, "retained")
    assert sum(right) >= 0.8 * len(right)
    assert worker.terminate() == 0


def test_bad_input_each_gets_an_error_verdict_and_the_worker_goes_on(
    mosquitto: Broker, worker: WorkerProcess, prefix: str
) -> None:
    jpeg = Simulator("feeder", 5).next().jpeg
    bad = {
        "empty": b"", "garbage": secrets.token_bytes(5000), "truncated": jpeg[: len(jpeg) // 2],
        "broken-json": b'{"image": ',
        "deep-json": b"[" * 200_000, "bad-base64": b'{"image": "%%%"}', "no-image": b"{}", "bomb": _bomb(jpeg),
        "oversized": b"\xff\xd8" + bytes(9 << 20),
    }  # fmt: skip
    with Verdicts(client(mosquitto, prefix), prefix) as verdicts:
        for camera, payload in bad.items():
            pub(mosquitto, f"{prefix}/{camera}/frame", payload)
        pub(mosquitto, f"{prefix}/good/frame", jpeg)
        wait_for(lambda: len(verdicts.all) >= len(bad) + 1, 20, f"{len(bad) + 1} verdicts, got {verdicts.all}")
    answers = {verdict["camera"]: verdict for verdict in verdicts.all}
    assert all(answers[camera]["verdict"] == "error" and answers[camera]["error"] for camera in bad)
    assert answers["good"]["verdict"] in ("positive", "negative")
    assert worker.get("/healthz")[0] == 200


def test_hostile_and_reserved_names_are_counted_and_never_judged(
    mosquitto: Broker, worker: WorkerProcess, prefix: str
) -> None:
    jpeg = Simulator("feeder", 5).next().jpeg
    letters = f"edge/worker-{prefix}/deadletter"
    with Verdicts(client(mosquitto, prefix), prefix, (letters,)) as verdicts:
        for name in ("a b", "ä", "x" * 65, "..", "_secret"):
            pub(mosquitto, f"{prefix}/{name}/frame", jpeg)
        pub(mosquitto, f"{prefix}/good/frame", jpeg)
        wait_for(lambda: verdicts.all and len(verdicts.other) == 4, 10, "one verdict and four dead letters")
    assert [verdict["camera"] for verdict in verdicts.all] == ["good"]
    refused = json.loads(worker.get("/api/status")[1])["refused"]
    assert refused == {"bad topic": 4, "reserved name": 1}


def test_sigterm_under_load_ends_with_0_in_time_and_loses_nothing(
    broker_with: Callable[..., Broker], worker_on: Callable[[dict[str, Any]], WorkerProcess]
) -> None:
    broker = broker_with(*DURABLE)
    process = worker_on(demo_config(broker.url, mailbox={"policy": "every"}))
    with Verdicts(client(broker, "reader")) as verdicts:
        process.start().wait_ready()
        with Camera(client(broker, "cam-a"), "a", 25) as camera:
            for _ in range(3):
                time.sleep(1.0)
                began = time.monotonic()
                assert process.terminate() == 0
                assert time.monotonic() - began < 5.0
                process.start().wait_ready()
        lost = _lost(camera, verdicts)
    assert process.terminate() == 0
    assert not lost


@pytest.mark.parametrize("kills", [6, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.timeout(300)
def test_kill_9_under_load_loses_no_accepted_frame(
    broker_with: Callable[..., Broker], worker_on: Callable[[dict[str, Any]], WorkerProcess], kills: int
) -> None:
    broker = broker_with(*DURABLE)
    process = worker_on(demo_config(broker.url, mailbox={"policy": "every"}))
    rng = random.Random(kills)
    with Verdicts(client(broker, "reader")) as verdicts:
        process.start().wait_ready()
        with Camera(client(broker, "cam-a"), "a", 12) as camera, Camera(client(broker, "cam-b"), "b", 12) as other:
            for _ in range(kills):
                time.sleep(rng.uniform(0.05, 1.5))
                process.kill()
                process.start().wait_ready()
        lost = _lost(camera, verdicts) + _lost(other, verdicts)
    assert process.terminate() == 0
    assert len(camera.accepted) > 5 * kills
    assert not lost
    for answers in verdicts.by_frame.values():
        assert len({answer["id"] for answer in answers}) == 1, "duplicates must share their id"


def test_kill_9_with_a_session_that_is_not_kept_loses_frames(
    broker_with: Callable[..., Broker], worker_on: Callable[[dict[str, Any]], WorkerProcess]
) -> None:
    """The control of the test above: it does see a loss where there is one."""
    broker = broker_with(*DURABLE)
    mqtt = {"url": broker.url, "session_expiry_s": 0}
    process = worker_on(demo_config(broker.url, mailbox={"policy": "every"}, mqtt=mqtt))
    with Verdicts(client(broker, "reader")) as verdicts:
        process.start().wait_ready()
        with Camera(client(broker, "cam-a"), "a", 20) as camera:
            time.sleep(0.5)
            process.kill()
            time.sleep(0.5)
            process.start().wait_ready()
        lost = _lost(camera, verdicts, within_s=3.0)
    process.kill()
    assert lost


def test_share_group_set_later_does_not_bring_each_frame_twice(
    broker_with: Callable[..., Broker], worker_on: Callable[[dict[str, Any]], WorkerProcess]
) -> None:
    broker = broker_with()
    alone, shared = {"url": broker.url}, {"url": broker.url, "share_group": "yard"}
    jpeg = Simulator("feeder", 5).next().jpeg
    with Verdicts(client(broker, "reader")) as verdicts:
        for mqtt in (alone, shared):
            process = worker_on(demo_config(broker.url, mqtt=mqtt))
            process.start().wait_ready()
            pub(broker, "cameras/yard/frame", jpeg)
            time.sleep(0.7)
            assert process.terminate() == 0
    assert len(verdicts.all) == 2


def _lost(camera: Camera, verdicts: Verdicts, within_s: float = 60.0) -> list[str]:
    def missing() -> list[str]:
        return [frame_id for frame_id in camera.accepted if not verdicts.by_frame.get((camera.name, frame_id))]

    deadline = time.monotonic() + within_s
    while missing() and time.monotonic() < deadline:
        time.sleep(0.1)
    return missing()


def _bomb(jpeg: bytes) -> bytes:
    """``jpeg`` with a header that claims 30000 x 30000 pixels."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + (30000).to_bytes(2, "big") * 2 + jpeg[at + 9 :]


@pytest.mark.parametrize("moment", ["first modules loaded", "connecting to a host that drops packets"])
def test_sigterm_at_an_odd_moment_ends_with_0_in_time(tmp_path: Path, moment: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, contextlib.ExitStack() as stack:
        for _ in range(3):  # once the backlog is full a connection neither succeeds nor fails
            pending = stack.enter_context(socket.socket())
            pending.setblocking(False)
            pending.connect_ex(silent.getsockname())
        process = WorkerProcess(tmp_path, demo_config(f"mqtt://127.0.0.1:{silent.getsockname()[1]}")).start()
        if moment == "first modules loaded":
            wait_for(lambda: _catches_sigterm(process.pid), 30, "a handler")
            assert process.page() is None
        else:
            wait_for(process.page, 30, "the status page")
            time.sleep(1.0)
        began = time.monotonic()
        assert process.terminate() == 0, process.log.read_text()
        assert time.monotonic() - began < 5.0


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))
