"""``edge bench``: the whole path through a real broker, a bare loop without one, and the engine alone, in one run.

The three take turns, so that a noisy machine disturbs them alike; what counts are their ratios. The loop is the
worker's own intake, batching and cascade over frames in memory: what is missing from it is the broker, the link,
the verdicts' publication and the acknowledgements.
"""

from __future__ import annotations

import json
import resource
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.bench_life import measure_life
from edge.config import Config
from edge.mailbox import Mailbox
from edge.parts import Parts, decode_ahead, decode_threads, fills_the_device, link_settings, load_parts
from edge.pipeline import Flight, Pipeline
from edge.pool import Intake, start_module
from edge.records import RawFrame, Ticket
from edge.worker import Worker
from engines import ParrotgateError, UsageError

MAX_ROUNDS = 5  # of each of the three; at least two
SECONDS_A_ROUND = 6.0
WARM_UP_S = 1.5
AHEAD = 4  # unanswered frames of each camera


@dataclass(slots=True)
class Report:
    """Frames a second of each side (best and per round), the path's latencies, and where the time goes.

    ``ratio`` is the median over rounds of path / loop, each pair measured one after the other.
    ``latency_ms`` is from receipt to judgement; ``stages_ms`` are medians per frame or, for the engine, per batch.
    """

    path_fps: float = 0.0
    loop_fps: float = 0.0
    engine_fps: float = 0.0
    ratio: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    stages_ms: dict[str, float] = field(default_factory=dict)
    rss_mib: float = 0.0
    frames: int = 0
    inferences: int = 0
    rounds: list[dict[str, float]] = field(default_factory=list)
    life: dict[str, float] = field(default_factory=dict)


def run_bench(
    config: Config,
    images: Path | None,
    cameras: int,
    seconds: float,
    report: Callable[[str], None] = lambda _: None,
    *,
    size: tuple[int, int] = (1920, 1080),
    life: bool = False,
) -> Report:
    """Measure ``config`` for about ``seconds`` with ``cameras`` simulated cameras.

    Args:
        config: a worker's configuration; its topics are replaced by a fresh random prefix, nothing is dropped,
            unchanged frames are judged like all others, and nothing is kept on disk: the spool is the running worker's.
        images: folder of pictures to send; None draws JPEGs, of about 300 KB at 1920 x 1080.
        size: (width, height) in pixels of drawn pictures.
        cameras: how many cameras send.
        seconds: of the whole measurement, shared among the rounds.
        report: told what is going on.
        life: also start the worker as a process of its own and measure start-up, memory and idle CPU.

    Raises:
        ParrotgateError: the worker did not become ready, or frames and inferences do not match.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _collect(images, size, Path(scratch))
        pictures = [path.read_bytes() for path in sorted(folder.iterdir())]
        rounds = max(2, min(MAX_ROUNDS, int(seconds / SECONDS_A_ROUND)))
        bench = _Bench(_benched(config), folder, pictures, cameras, seconds / (2.5 * rounds))
        result = bench.run(rounds, report)
        if life:
            report("starting a worker of its own: start-up, memory, idle CPU")
            result.life = asdict(measure_life(_benched(config), bench.cameras))
        return result


class _Bench:
    def __init__(self, config: Config, folder: Path, pictures: list[bytes], cameras: int, slice_s: float) -> None:
        self._config = config
        self._folder = folder
        self._pictures = pictures
        self._names = [f"camera-{n}" for n in range(cameras)]
        self._slice_s = slice_s
        self._latencies: list[float] = []

    def run(self, rounds: int, report: Callable[[str], None]) -> Report:
        result = Report()
        with closing(load_parts(self._config)) as parts:
            parts.warm_up(self._config.batch.max)
            for number in range(rounds):
                row = {"path_fps": self._path(result)}
                row["loop_fps"] = self._loop(parts)
                row["engine_fps"] = self._engine(parts)
                report(f"round {number + 1} of {rounds}: " + ", ".join(f"{k} {v:.1f}" for k, v in row.items()))
                result.rounds.append(row)
            self._conclude(result)
        return result

    def _conclude(self, result: Report) -> None:
        for side in ("path_fps", "loop_fps", "engine_fps"):
            setattr(result, side, round(float(np.median([row[side] for row in result.rounds])), 2))
        result.ratio = round(float(np.median([row["path_fps"] / row["loop_fps"] for row in result.rounds])), 4)
        p50, p99 = np.percentile(self._latencies, [50, 99])
        result.latency_ms = {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}
        result.rss_mib = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

    def _path(self, result: Report) -> float:
        """Frames a second through broker and worker, counted by the verdicts that the broker confirmed."""
        prefix = f"bench-{secrets.token_hex(6)}"
        mqtt = self._config.mqtt.model_copy(update={"prefix": prefix, "client_id": prefix, "session_expiry_s": 0})
        worker = Worker(self._config.model_copy(update={"mqtt": mqtt, "worker": prefix}))
        worker.start()
        try:
            _wait(lambda: worker.health.ready()[0], 20.0, lambda: worker.health.ready()[1])
            with self.cameras(prefix):
                _wait(lambda: _published(worker) > 2 * self._config.batch.max, 30.0, lambda: "no verdicts came")
                time.sleep(WARM_UP_S)
                before, began = _published(worker), time.monotonic()
                time.sleep(self._slice_s)
                fps = (_published(worker) - before) / (time.monotonic() - began)
        finally:
            worker.stop()
        self._account(worker, result)
        return fps

    def _account(self, worker: Worker, result: Report) -> None:
        snapshot = worker.health.snapshot()
        counters = snapshot["counters"]
        judged = counters["positive"] + counters["negative"] + counters["uncertain"]
        if counters["error"] or counters["reused"] or worker.inferences != judged:
            raise ParrotgateError(
                f"frames and inferences do not match: {judged} judged, {worker.inferences} inferred, "
                f"{counters['error']} errors, {counters['reused']} reused"
            )
        result.frames += judged
        result.inferences += worker.inferences
        latency = snapshot["latency_ms"]
        self._latencies += worker.latencies_ms()
        result.stages_ms = {stage: latency[stage]["p50"] for stage in latency}

    @contextmanager
    def cameras(self, prefix: str) -> Iterator[None]:
        """The cameras as a child process, sending under ``prefix`` until the block ends."""
        settings = link_settings(self._config, client_id=f"{prefix}-cameras")
        given = {
            "settings": asdict(settings),
            "prefix": prefix,
            "names": self._names,
            "images": str(self._folder),
            "ahead": AHEAD,
            "seconds": self._slice_s + 60.0,
        }
        child = start_module("edge.bench_cameras", json.dumps(given))
        try:
            yield
        finally:
            child.terminate()
            child.wait(5.0)

    def _loop(self, parts: Parts) -> float:
        """Frames a second of decode, engine and gate with frames in memory, by the worker's own intake."""
        most = self._config.batch.max
        mailbox = Mailbox("every", 4 * most, 1 << 30)
        intake = Intake(mailbox, parts.decoder, decode_threads(self._config), ahead=decode_ahead(self._config, parts))
        frames = self._frames_in_memory()
        intake.start()
        done, began = 0, 0.0

        def finish(flight: Flight) -> None:
            nonlocal done
            done += len(flight.verdicts())

        pipeline = Pipeline(
            intake, lambda batch: Flight(batch, parts.cascade), finish, fill=fills_the_device(self._config)
        )
        started = time.monotonic()
        while not began or time.monotonic() - began < self._slice_s:
            while intake.backlog()[0] < 3 * most:
                intake.put(next(frames))
            pipeline.turn(most, 0.0, 1.0)
            if not began and time.monotonic() - started > WARM_UP_S:
                done, began = 0, time.monotonic()
        fps = done / (time.monotonic() - began)
        pipeline.settle()
        intake.close()
        return fps

    def _frames_in_memory(self) -> Iterator[RawFrame]:
        names, pictures = cycle(self._names), cycle(self._pictures)
        for serial in count():
            yield RawFrame(next(names), next(pictures), Ticket(0, serial, 0, 0), time.monotonic())

    def _engine(self, parts: Parts) -> float:
        """Rows a second of the feature engine on a full batch that is ready."""
        spec = parts.features.spec.input
        batch = np.zeros((self._config.batch.max, *spec.shape), dtype=spec.numpy_dtype)
        done, began = 0, time.monotonic()
        while time.monotonic() - began < self._slice_s / 2:
            parts.features.infer(batch)
            done += len(batch)
        return done / (time.monotonic() - began)


def _benched(config: Config) -> Config:
    mailbox = config.mailbox.model_copy(update={"policy": "every"})
    publish = config.publish.model_copy(update={"species": False, "snapshot": False})
    changed = {"mailbox": mailbox, "publish": publish, "spool": config.spool.model_copy(update={"folder": None})}
    return config.model_copy(update=changed | {"skip_unchanged": False, "status": None, "cameras": {}})


def _published(worker: Worker) -> int:
    counters: dict[str, Any] = worker.health.snapshot()["counters"]
    return int(counters["published"])


def _wait(condition: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ParrotgateError(f"waited {seconds:g} s in vain: {why()}")
        time.sleep(0.02)


def _collect(images: Path | None, size: tuple[int, int], scratch: Path) -> Path:
    if images is None:
        return _draw(scratch, size)
    found = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise UsageError(f"{images} holds no JPEG")
    for number, path in enumerate(found[:64]):
        (scratch / f"{number:04d}.jpg").symlink_to(path.absolute())
    return scratch


def _draw(folder: Path, size: tuple[int, int]) -> Path:
    """Sixteen seeded JPEGs of ``size`` (width, height): soft shapes under sensor noise, as a camera gives them."""
    rng = np.random.default_rng(0)
    for number in range(16):
        soft = cv2.resize(rng.integers(0, 256, (18, 32, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
        noise = 5 * rng.standard_normal(soft.shape, dtype=np.float32)
        noisy = np.clip(soft + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), noisy, (cv2.IMWRITE_JPEG_QUALITY, 80))
    return folder
