"""The end of a worker: what is decoded is judged, what is open is closed, whatever ends it and wherever."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.config import Config
from edge.config_file import load_config
from edge.errors import LinkRefused
from edge.parts import open_spool
from edge.worker import Worker
from engines import EngineRunError
from tests import standin
from tests.edge.worker_process import MODELS, Verdicts, client, demo_config, wait_for
from tests.engines import plans
from tests.mosquitto import Broker

STATUS = "edge/test-worker/status"


@pytest.mark.mosquitto
def test_engine_that_fails_on_the_last_batch_does_not_keep_the_worker_from_saying_that_it_stopped(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump(demo_config(mosquitto.url, mqtt={"url": mosquitto.url, "prefix": "drain"})))
    worker = Worker(load_config(path, {}))
    worker.start()
    with Verdicts(client(mosquitto, "reader"), "drain", (STATUS,)) as seen:
        try:
            wait_for(lambda: worker.health.ready()[0], 30, "readiness")
            tried: list[int] = []

            def fail(batch: list[Any]) -> None:
                tried.append(len(batch))
                raise EngineRunError("the device is gone")

            monkeypatch.setattr(worker._judge, "begin", fail)
            monkeypatch.setattr(worker._intake, "close", lambda timeout_s: [object()] * (worker.config.batch.max + 1))
        finally:
            worker.stop()
        assert tried == [worker.config.batch.max, 1]
        wait_for(lambda: (STATUS, b"stopped") in seen.other, 10, "its last word")


class PlantedError(Exception):
    """What the tests let a worker's parts raise."""


ENDS: dict[str, tuple[str, type[Exception]]] = {
    "the engine's loop": ("edge.pipeline.Pipeline.turn", PlantedError),
    "warming up": ("edge.parts.Parts.warm_up", EngineRunError),
    "joining the parts": ("edge.worker.Link", LinkRefused),
    "draining": ("edge.worker.Worker._drain", PlantedError),
}


@pytest.fixture
def on_plans(tmp_path: Path, standin: None) -> Config:
    """A worker's configuration with both networks as plans, a spool, and a broker that is not there."""
    models = plans.beside(MODELS, tmp_path)
    named = {role: {"model": str(models / f"{role}.plan")} for role in ("features", "species")}
    spool = {"folder": str(tmp_path / "spool")}
    config = demo_config("mqtt://127.0.0.1:1", **named, status=None, spool=spool, watchdog={"end": False})
    return Config.model_validate(config)


@pytest.fixture
def signals() -> Iterator[None]:
    """A worker in this process takes the signals over."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def run(worker: Worker) -> None:
    worker.run()


def start_and_stop(worker: Worker) -> None:
    worker.start()
    worker._stop.wait(0.5)
    worker.stop()


@pytest.mark.parametrize("live", [run, start_and_stop])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.usefixtures("signals")
def test_worker_that_fails_gives_the_gpu_and_its_spool_back(
    on_plans: Config, monkeypatch: pytest.MonkeyPatch, end: str, live: Callable[[Worker], None]
) -> None:
    device = import_module("standin_device").device
    target, error = ENDS[end]

    def fail(*_arguments: object, **_named: object) -> None:
        raise error("planted")

    monkeypatch.setattr(target, fail)
    if end == "draining":
        monkeypatch.setattr("edge.worker.Worker._engine_loop", lambda _: None)
    worker = Worker(on_plans)
    with pytest.raises(error, match="planted"):
        live(worker)
    assert next(device.addresses) > 1, "nothing was ever open"
    assert device.allocated() == 0
    wait_for(lambda: not any(thread.is_alive() for thread in worker._threads), 5, "the end of its threads")
    again = open_spool(on_plans)  # its lock is free
    assert again is not None
    again.close()


def test_worker_that_fails_while_it_changes_over_gives_back_what_ran_and_what_was_to_run(
    on_plans: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = import_module("standin_device").device

    def fail(*_: object) -> None:
        assert device.allocated() == allocated * 2
        raise PlantedError("planted")

    monkeypatch.setenv("PYTHONPATH", standin.environment()["PYTHONPATH"])  # plans are tried in a child process
    monkeypatch.setattr("edge.pool.Intake.exchange", fail)
    worker = Worker(on_plans, read=lambda: on_plans)
    worker.start()
    allocated = device.allocated()
    worker.reload()
    assert worker._stop.wait(30)
    with pytest.raises(PlantedError):
        worker.stop()
    assert device.allocated() == 0


@pytest.mark.mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_worker_that_fails_leaves_its_will_at_the_broker(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    name = f"fails-{version[0]}"
    mqtt = {"url": mosquitto.url, "prefix": name, "version": version}
    worker = Worker(Config.model_validate(demo_config(mosquitto.url, worker=name, mqtt=mqtt, status=None)))
    status = f"edge/{name}/status"
    with Verdicts(client(mosquitto, f"{name}-reader"), name, (status,)) as seen:
        worker.start()
        wait_for(lambda: (status, b"online") in seen.other, 20, "its first word")
        monkeypatch.setattr(worker._pipeline, "turn", lambda *_: [][0])
        wait_for(lambda: not worker.health.live()[0], 10, "its end")
        with pytest.raises(IndexError):
            worker.stop()
        wait_for(lambda: (status, b"offline") in seen.other, 5, "its will")
