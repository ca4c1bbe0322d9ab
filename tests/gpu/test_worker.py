"""The worker as a process on a real GPU, with ONNX Runtime: what it tells, and how it ends when the GPU is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edge.link_handler import LinkSettings
from tests.edge.worker_process import Camera, Verdicts, WorkerProcess, client, demo_config, wait_for
from tests.embedded import Embedded
from tests.gpu.test_backends import needs_cuda, needs_pycuda

pytestmark = [pytest.mark.gpu, needs_cuda]


def mqtt3(broker: Embedded, name: str) -> LinkSettings:
    return replace(client(broker, name), version=4)


def config_of(broker: Embedded, name: str) -> dict[str, object]:
    mqtt = {"url": broker.url, "version": "3.1.1", "prefix": name}
    return demo_config(broker.url, worker=name, mqtt=mqtt, mailbox={"policy": "every"})


def test_worker_computes_on_cuda_and_says_so(embedded: Embedded, tmp_path: Path) -> None:
    name = "on-cuda"
    process = WorkerProcess(tmp_path, config_of(embedded, name))
    process.start().wait_ready(60)
    try:
        with Verdicts(mqtt3(embedded, "reader-cuda"), name) as verdicts:
            with Camera(mqtt3(embedded, "camera-cuda"), "a", 20, name) as camera:
                time.sleep(3)
            sent = len(camera.accepted)  # MQTT 3.1.1 carries no frame_id, so that they are counted
            wait_for(lambda: len(verdicts.all) >= sent, 20, f"{sent} verdicts")
            assert sent > 20
            assert {verdict["verdict"] for verdict in verdicts.all} <= {"positive", "negative"}
        (line,) = [
            one for one in process.get("/metrics")[1].splitlines() if "model_info{" in one and 'role="features"' in one
        ]
        assert 'device="cuda"' in line
        assert 'engine="ONNX Runtime on CUDA"' in line
        assert process.terminate(20) == 0
    finally:
        if process.is_running():
            process.kill()


@needs_pycuda
def test_lost_gpu_ends_the_worker_with_75(embedded: Embedded, tmp_path: Path) -> None:
    name, signal, config = "loses-gpu", tmp_path / "now", tmp_path / "edge.yaml"
    config.write_text(yaml.safe_dump(config_of(embedded, name)))
    command = [sys.executable, "-m", "tests.gpu.crashing_worker", str(signal), "run", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    try:
        with (
            Verdicts(mqtt3(embedded, "reader-lost"), name) as verdicts,
            Camera(mqtt3(embedded, "camera-lost"), "a", 20, name),
        ):
            deadline = time.monotonic() + 60
            while not verdicts.all and time.monotonic() < deadline:
                time.sleep(0.1)
            assert verdicts.all, (tmp_path / "log").read_text()
            signal.touch()
            assert process.wait(20) == 75, (tmp_path / "log").read_text()
    finally:
        process.kill()
    assert "the GPU is lost to this process" in (tmp_path / "log").read_text()
