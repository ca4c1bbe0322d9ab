"""The worker on TensorRT plans, as a process on the stand-in device: what it tells, how it checks, how it dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.config import Config
from edge.worker import Worker
from engines import load_spec
from tests import standin
from tests.edge.worker_process import MODELS, Camera, Verdicts, WorkerProcess, client, demo_config, wait_for
from tests.engines import plans
from tests.mosquitto import Broker
from tests.soak import swaps
from tests.soak.ledger import Effort

SOAK_S = float(os.environ.get("PARROTGATE_SOAK_MINUTES", "10")) * 60


@pytest.fixture
def models(tmp_path: Path, standin: None) -> Path:
    """The demo's networks with a plan beside each."""
    return plans.beside(MODELS, tmp_path)


@pytest.fixture
def worker_on(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Makes worker processes that meet the stand-in and are gone when the test is over, however it ends."""
    made: list[WorkerProcess] = []

    def make(config: dict[str, Any], **settings: str) -> WorkerProcess:
        made.append(WorkerProcess(tmp_path, config, standin.environment(STANDIN_TELL="1", **settings)))
        return made[-1]

    yield make
    for process in made:
        if process.is_running():
            process.kill()


def config_of(url: str, models: Path, suffix: str = ".onnx", **changes: Any) -> dict[str, Any]:
    named = {
        "features": {"model": str(models / f"features{suffix}")},
        "species": {"model": str(models / f"species{suffix}")},
        "mailbox": {"policy": "every"},
    }
    return demo_config(url, **{**named, **changes})


def lost_frames(camera: Camera, verdicts: Verdicts, within_s: float = 30.0) -> set[str]:
    """Frames that the broker confirmed and that never got a verdict."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        missing = {frame for frame in camera.accepted if (camera.name, frame) not in verdicts.by_frame}
        if not missing:
            return set()
        time.sleep(0.1)
    return missing


def test_worker_tells_what_computes_in_log_metrics_and_verdict(
    mosquitto: Broker, models: Path, worker_on: Callable[[dict[str, Any]], WorkerProcess]
) -> None:
    url, prefix = mosquitto.url, "gpu-tells"
    process = worker_on(config_of(url, models, worker=prefix, mqtt={"url": url, "prefix": prefix}))
    process.start().wait_ready()
    with Verdicts(client(mosquitto, "gpu-reader"), prefix) as verdicts:
        with Camera(client(mosquitto, "gpu-camera"), "a", 20, prefix):
            wait_for(lambda: any(one["species"] for one in verdicts.all), 20, "a positive verdict")
        told = {verdict["models"]["features"] for verdict in verdicts.all}
    assert told == {f"sha256:{load_spec(models / 'features.plan').sha256}"}
    (line,) = [
        one for one in process.get("/metrics")[1].splitlines() if "model_info{" in one and 'role="features"' in one
    ]
    assert 'device="cuda"' in line
    assert 'engine="TensorRT 10.3.0 on Orin, fp32 plan"' in line
    assert process.terminate() == 0
    log = process.log.read_text()
    assert "features.onnx device=cuda" in log
    assert "left aside" not in log
    assert "standin: 0 blocks left at exit" in log


@pytest.mark.parametrize(
    ("code", "at"),
    [(700, 9), *(pytest.param(code, at, marks=pytest.mark.soak) for code in (700, 714, 718, 719) for at in (3, 9, 40))],
)
@pytest.mark.timeout(120)
def test_sticky_error_ends_the_worker_with_75_within_a_second_and_its_successor_loses_no_frame(
    broker_with: Callable[..., Broker],
    models: Path,
    worker_on: Callable[[dict[str, Any]], WorkerProcess],
    code: int,
    at: int,
) -> None:
    broker = broker_with("max_queued_messages 100000")
    process = worker_on(config_of(broker.url, models))
    process.start().wait_ready()  # its session exists from here on
    assert process.terminate() == 0
    process.environment["STANDIN_FAIL"] = f"{code}@{at}"
    with Verdicts(client(broker, "reader")) as verdicts:
        process.start()
        with Camera(client(broker, "cam-a"), "a", 20) as camera:
            assert process.wait(30) == 75
            ended = time.monotonic()
            del process.environment["STANDIN_FAIL"]
            process.start().wait_ready()
            time.sleep(1.0)
        lost = lost_frames(camera, verdicts)
    assert process.terminate() == 0
    log = process.log.read_text()
    failed = float(re.findall(rf"CUDA error {code} at ([\d.]+)", log)[0])
    assert ended - failed < 1.0
    assert not lost
    assert "the GPU is lost to this process" in log


@pytest.mark.timeout(120)
def test_sigterm_and_a_sticky_error_with_two_batches_in_flight_lose_no_frame(
    broker_with: Callable[..., Broker], models: Path, worker_on: Callable[..., WorkerProcess]
) -> None:
    """Every frame keeps the device busy for longer than frames come apart."""
    broker = broker_with("max_queued_messages 100000")
    process = worker_on(config_of(broker.url, models, batch={"max": 1}, species=None), STANDIN_MS="60")
    with Verdicts(client(broker, "reader")) as verdicts:
        process.start().wait_ready()
        with Camera(client(broker, "cam-a"), "a", 20) as camera:
            wait_for(lambda: len(verdicts.all) > 8, 20, "verdicts")
            began = time.monotonic()
            assert process.terminate() == 0
            assert time.monotonic() - began < 5.0
            stopped = len(verdicts.all)
            process.environment["STANDIN_FAIL"] = "700@20"
            process.start()
            assert process.wait(30) == 75
            ended = time.monotonic()
            judged = len(verdicts.all) - stopped
        for name in ("STANDIN_FAIL", "STANDIN_MS"):
            del process.environment[name]
        process.start()
        lost = lost_frames(camera, verdicts)
    assert process.terminate() == 0
    log = process.log.read_text()
    assert "0 blocks left at exit, at most 2 inferences in flight" in log
    failed, flying = re.findall(r"CUDA error 700 at ([\d.]+), (\d) in flight", log)[0]
    assert (int(flying), ended - float(failed) < 1.0) == (2, True)
    assert judged > 5
    assert not lost
    assert "error" not in {verdict["verdict"] for verdict in verdicts.all}
    order = [int(verdict["frame_id"]) for verdict in verdicts.all if not verdict["redelivered"]]
    assert order == sorted(order)


def test_stop_finishes_every_batch_that_was_begun(
    broker_with: Callable[..., Broker], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = import_module("standin_device")
    monkeypatch.setattr(device, "INFERENCE_S", 0.1)
    broker = broker_with("max_queued_messages 100000")
    config = config_of(broker.url, models, batch={"max": 1}, species=None, status=None)
    worker = Worker(Config.model_validate(config))
    worker.start()
    warm_up = device.device.given
    with Camera(client(broker, "cam-a"), "a", 20):
        wait_for(lambda: device.device.most_in_flight == 2, 20, "two batches in flight")
        time.sleep(0.5)
        worker.stop()
    assert worker.inferences == device.device.given - warm_up > 2


@pytest.mark.timeout(120)
def test_reload_with_batches_in_flight_mixes_nothing_and_loses_nothing(
    broker_with: Callable[..., Broker], models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", standin.environment()["PYTHONPATH"])  # a reload tries plans in a child process
    device = import_module("standin_device")
    monkeypatch.setattr(device, "INFERENCE_S", 0.01)
    outcome = swaps.swap(Effort(3, 2, time.monotonic() + 60, tmp_path / "swaps"), models)
    assert outcome.failures == []
    assert outcome.sums["swaps"] == 2
    assert device.device.most_in_flight >= 2


def check(config: dict[str, Any], folder: Path, **settings: str) -> tuple[int, str]:
    """Exit code and output of ``edge check`` on the stand-in."""
    path = folder / "check.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "edge", "check", "--config", str(path)]
    environment = {**standin.environment(**settings), "COLUMNS": "1000"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def crash(plan: Path) -> None:
    """Make ``plan`` one that kills the process which loads it; its manifest knows nothing of it."""
    common = import_module("tensorrt")
    header, model = common.read_plan(plan.read_bytes())
    plans.rewrite(plan, common.write_plan({**header, "crash": True}, model))


def test_check_loads_plans_in_a_child_first(mosquitto: Broker, models: Path, tmp_path: Path) -> None:
    code, said = check(config_of(mosquitto.url, models, ".plan", worker="gpu-check"), tmp_path)
    assert code == 0, said
    assert said.count("loads in a child process") == 2
    assert "TensorRT 10.3.0 on Orin, fp32 plan" in said


@pytest.mark.parametrize("suffix", [".plan", pytest.param(".onnx", marks=pytest.mark.soak)])
def test_check_outlives_a_plan_that_crashes_the_library(
    mosquitto: Broker, models: Path, tmp_path: Path, suffix: str
) -> None:
    crash(models / "species.plan")
    code, said = check(config_of(mosquitto.url, models, suffix, worker="gpu-check"), tmp_path)
    assert code == 78
    assert "crashed while it loaded this plan (signal 11)" in said
    assert "species.plan" in said


def test_check_on_another_machine_refuses_a_named_plan_and_warns_of_one_that_lies_beside(
    mosquitto: Broker, models: Path, tmp_path: Path
) -> None:
    code, said = check(
        config_of(mosquitto.url, models, ".plan", worker="gpu-check"), tmp_path, STANDIN_TENSORRT="10.7.0"
    )
    assert code == 78
    assert "built with TensorRT 10.3.0, and here is 10.7.0; rebuild it here: engines build" in said
    code, said = check(
        config_of(mosquitto.url, models, ".onnx", worker="gpu-check"), tmp_path, STANDIN_TENSORRT="10.7.0"
    )
    assert code == 0, said
    assert "and here is 10.7.0" in said
    assert "on cpu" in said


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 300)
def test_soak_on_the_stand_in_loses_nothing_and_grows_not(
    broker_with: Callable[..., Broker], models: Path, worker_on: Callable[[dict[str, Any]], WorkerProcess]
) -> None:
    broker = broker_with("max_queued_messages 100000")
    process = worker_on(config_of(broker.url, models))
    resident: list[float] = []
    with Verdicts(client(broker, "reader")) as verdicts:
        process.start().wait_ready()
        with Camera(client(broker, "cam-a"), "a", 10) as one, Camera(client(broker, "cam-b"), "b", 7) as other:
            end = time.monotonic() + SOAK_S
            while time.monotonic() < end:
                time.sleep(min(5.0, SOAK_S / 10))
                assert process.is_running(), process.log.read_text()[-2000:]
                resident.append(rss_mib(process.pid))
        lost = lost_frames(one, verdicts) | lost_frames(other, verdicts)
    assert process.terminate() == 0
    assert not lost
    assert not [verdict for verdict in verdicts.all if verdict["verdict"] == "error"]
    settled = resident[len(resident) // 5]
    assert max(resident[-3:]) < settled + 24, resident


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
