"""The end of a worker: what is decoded is judged, what is open is closed, whatever ends it and wherever."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from edge.config import Config
from edge.config_file import load_config
from edge.errors import LinkRefused
from edge.keeper import Keeper
from edge.parts import Parts, open_spool
from edge.swap import Successor
from edge.worker import FAILED_S, Worker
from engines import DeviceLostError, EngineRunError
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
    assert allocated > 0
    worker.reload()
    assert worker._stop.wait(30)
    with pytest.raises(PlantedError):
        worker.stop()
    assert device.allocated() == 0


def test_worker_that_fails_right_after_the_change_over_gives_back_both(
    on_plans: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = import_module("standin_device").device

    def fail(*_: object) -> None:
        raise PlantedError("planted")

    monkeypatch.setenv("PYTHONPATH", standin.environment()["PYTHONPATH"])
    worker = Worker(on_plans, read=lambda: on_plans)
    worker.start()
    assert device.allocated() > 0
    monkeypatch.setattr(worker._judge, "take_over", fail)
    worker.reload()
    assert worker._stop.wait(30)
    with pytest.raises(PlantedError):
        worker.stop()
    assert device.allocated() == 0


class Brought(list[str]):
    """The parts of a successor that never runs."""

    def close(self) -> None:
        self.append("closed")


def test_what_a_reload_brings_after_the_stop_is_closed(on_plans: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    brought, asked, given = Brought(), threading.Event(), threading.Event()

    def load(*_: object) -> Successor:
        asked.set()
        assert given.wait(30)
        return Successor(on_plans, cast(Parts, brought))

    monkeypatch.setattr("edge.worker.load_successor", load)
    monkeypatch.setattr("edge.worker.STOP_S", 0.5)
    worker = Worker(on_plans, read=lambda: on_plans)
    worker.start()
    worker.reload()
    assert asked.wait(10)
    worker.stop()
    assert brought == []
    given.set()
    wait_for(lambda: brought == ["closed"], 10, "the end of what came too late")


@pytest.mark.parametrize("live", [run, start_and_stop])
@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.usefixtures("signals")
def test_lost_device_is_left_alone_and_its_worker_ends_at_once(
    on_plans: Config, monkeypatch: pytest.MonkeyPatch, hangs: bool, live: Callable[[Worker], None]
) -> None:
    flushed, ended = threading.Event(), threading.Event()
    close = Keeper.close

    def end_of_spool(keeper: Keeper) -> None:
        flushed.set()
        if hangs:
            ended.wait(30)
        close(keeper)

    def lose(*_: object) -> None:
        raise DeviceLostError("planted")

    monkeypatch.setattr(Keeper, "close", end_of_spool)
    monkeypatch.setattr(Parts, "close", lambda _: pytest.fail("the libraries' clean-up may hang"))
    monkeypatch.setattr("edge.pipeline.Pipeline.turn", lose)
    worker = Worker(on_plans)
    began: list[float] = []
    fault = worker.health.fault
    monkeypatch.setattr(worker.health, "fault", lambda why: (began.append(time.monotonic()), fault(why)))
    with pytest.raises(DeviceLostError):
        live(worker)
    assert time.monotonic() - began[0] < 2 * FAILED_S + 0.7, "its successor waits"
    assert flushed.is_set()
    ended.set()


def test_device_that_is_lost_in_the_drain_is_left_alone(on_plans: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> None:
        raise DeviceLostError("planted")

    monkeypatch.setattr(Parts, "close", lambda _: pytest.fail("the libraries' clean-up may hang"))
    worker = Worker(on_plans)
    worker.start()
    monkeypatch.setattr(worker._judge, "begin", lose)
    monkeypatch.setattr(worker._intake, "close", lambda timeout_s: [object()])
    worker.stop()


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
