"""``edge demo``: broker, cameras, worker and status page in one command."""

from __future__ import annotations

import asyncio
import logging
import time
from importlib.resources import as_file, files
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edge.config import Config
from edge.demo.broker import EmbeddedBroker
from edge.demo.cameras import Truths, camera_names, make_camera
from edge.demo.score import Scorer, summary
from edge.link_handler import LinkSettings
from edge.pool import call_on_signal, spawn
from edge.publish import Publisher
from edge.worker import Worker
from engines import ParrotgateError
from engines.console import stderr, stdout

PREFIX = "cameras"
PORT = 8088
SEED = 7
READY_TIMEOUT_S = 30.0


def run_demo(seconds: float, cameras: int, fps: float, port: int | None) -> None:
    """Run the demo for ``seconds`` (0: until interrupted), print the summary, and leave nothing behind.

    Args:
        seconds: how long the cameras run.
        cameras: how many.
        fps: frames a second for each.
        port: of the status page; None takes 8088, or any free one where that is taken.

    Raises:
        ParrotgateError: the worker did not become ready, or no verdict came.
    """
    logging.getLogger().setLevel(logging.WARNING)
    with as_file(files("edge.demo").joinpath("models")) as models:
        asyncio.run(_demo(models, seconds, cameras, fps, port))


async def _demo(models: Path, seconds: float, cameras: int, fps: float, port: int | None) -> None:
    async with EmbeddedBroker() as broker:
        worker = _start_worker(models, broker.url, port)
        truths = Truths(worker.health)
        scorer = Scorer(_settings(broker, "scorer"), PREFIX, truths)
        publishers: list[Publisher] = []
        spawn("scorer", scorer.run)
        try:
            await _until_ready(worker)
            _introduce(worker.url, broker.url)
            for number, name in enumerate(camera_names(cameras)):
                camera = make_camera(_settings(broker, f"camera-{name}"), name, PREFIX, SEED + number, fps, truths)
                publishers.append(camera)
                spawn(f"camera-{name}", camera.run)
            began = time.monotonic()
            await _let_run(seconds, worker, scorer)
            ran = time.monotonic() - began
        finally:
            for camera in publishers:
                camera.stop()
            await asyncio.sleep(0.5)  # the last frames are judged, the last verdicts counted
            await asyncio.to_thread(worker.stop)
            scorer.stop()
            await asyncio.sleep(0.1)
    stdout.print(summary(scorer.tally, worker.health.snapshot()["counters"], ran))
    if scorer.tally.judged == 0:
        raise ParrotgateError("no verdict came; see the log above")


def _introduce(page: str | None, broker: str) -> None:
    stdout.print(f"Status page: [bold]{page}[/]", soft_wrap=True)
    stdout.print(f"Broker:      {broker} (embedded, MQTT 3.1.1)", soft_wrap=True)
    stdout.print("Simulated:   cameras, animals and networks; the networks know drawings only", soft_wrap=True)


def _start_worker(models: Path, url: str, port: int | None) -> Worker:
    try:
        worker = Worker(_config(models, url, PORT if port is None else port))
        worker.start()
    except ParrotgateError:
        if port is not None:
            raise
        worker = Worker(_config(models, url, 0))
        worker.start()
    return worker


def _config(models: Path, url: str, port: int) -> Config:
    return Config.model_validate(
        {
            "worker": "demo",
            "mqtt": {"url": url, "version": "3.1.1", "prefix": PREFIX},
            "features": {"model": models / "features.onnx"},
            "gate": {"file": models / "gate.npz"},
            "species": {"model": models / "species.onnx"},
            "status": {"port": port},
        }
    )


def _settings(broker: EmbeddedBroker, client_id: str) -> LinkSettings:
    return LinkSettings("127.0.0.1", broker.port, client_id, version=4, clean_start=True)


async def _until_ready(worker: Worker) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not (answer := worker.health.ready())[0]:
        if time.monotonic() > deadline:
            raise ParrotgateError(f"the worker did not become ready within {READY_TIMEOUT_S:g} s: {answer[1]}")
        await asyncio.sleep(0.05)


async def _let_run(seconds: float, worker: Worker, scorer: Scorer) -> None:
    stop = asyncio.Event()
    call_on_signal(stop.set)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("cameras run", total=seconds or None)
        began = time.monotonic()
        while not stop.is_set() and (not seconds or time.monotonic() - began < seconds):
            await asyncio.sleep(0.2)
            judged, parrots = scorer.tally.judged, scorer.tally.recalled
            ran = time.monotonic() - began
            progress.update(task, completed=ran, description=f"{judged} verdicts, {parrots} parrots")
            if not worker.health.live()[0]:
                raise ParrotgateError(f"the worker is not alive: {worker.health.live()[1]}")
