"""The worker: all threads, and their beginning and end.

link thread      broker <-> courier; nothing slow happens there
decoder threads  the intake's (edge.pool)
engine thread    takes a batch, judges it, hands the verdicts to the courier; the caller's thread in ``run``
page thread      the status server
watchdog thread  ends the process when the others hang (edge.watchdog); in ``run`` alone
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from edge.cascade import Cascade
from edge.config import Config
from edge.courier import Courier
from edge.delivery import Outgoing
from edge.health import Health
from edge.health import Limits as HealthLimits
from edge.keeper import Keeper
from edge.link import Link
from edge.link_handler import Will
from edge.mailbox import Mailbox
from edge.pace import Pace
from edge.parts import (
    Parts,
    decode_workers,
    frame_filter,
    link_settings,
    load_parts,
    open_spool,
    patience,
    stale_filters,
)
from edge.plan_build import logged
from edge.pool import Intake, spawn
from edge.records import Frame, Outcome, Verdict
from edge.stats import encode_stats
from edge.swap import Successor, load_successor
from edge.unchanged import Unchanged
from edge.verdict import encode
from edge.watchdog import TURN_S, Watchdog, end_now, notify
from edge.web import StatusServer, build_server, create_app
from edge.wire import Topics
from engines import DeviceLostError, EngineRunError, ParrotgateError
from engines.errors import EXIT_OK, BuildStoppedError

log = logging.getLogger(__name__)

STATS_EVERY_S = 30.0
IDLE_S = 0.25  # how long an idle engine thread sleeps before it looks at the clock
DRAIN_S = 3.5  # how long a stop waits for the broker to confirm what was judged
STOP_S = 4.0  # how long a stop takes at most, threads that hang in a call included: supervisors wait 5 s
ENGINE_FAILURES = 3  # in a row, before the process gives up and asks to be restarted
SNAPSHOT_EVERY_S = 1.0  # per camera
LATENCIES_KEPT = 4096


class Worker:
    """One worker. ``run`` for a process of its own; ``start``, ``stop`` inside another program.

    Args:
        config: checked configuration.
        health: kept by the caller where it wants to look inside.
        read: reads the configuration anew; given, a SIGHUP (``reload``) loads it beside the running one and changes
            over between two batches, or stays with what runs where anything is wrong with it.
    """

    def __init__(
        self, config: Config, health: Health | None = None, *, read: Callable[[], Config] | None = None
    ) -> None:
        self.config = config
        self.health = health or Health(config.worker, limits=HealthLimits(patience(config)))
        self._topics = Topics(config.mqtt.prefix, config.worker)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._unchanged = Unchanged() if config.skip_unchanged else None
        self._snapshots = Pace(SNAPSHOT_EVERY_S)
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._failures = 0
        self.inferences = 0
        self._serving = False
        self._watchdog = Watchdog(self.health.live, config.watchdog.stall_s, bites=config.watchdog.end)
        self._server: StatusServer | None = None
        self._parts: Parts | None = None
        self._read = read
        self._reload = threading.Event()
        self._loading: threading.Thread | None = None
        self._successor: Successor | None = None

    @property
    def url(self) -> str | None:
        """Where the status page is, once started."""
        return self._server.url if self._server is not None else None

    def latencies_ms(self) -> list[float]:
        """Milliseconds from receipt to judgement of the latest frames."""
        return list(self._latencies)

    # -- life --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; raises what ended the worker if it was not a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._read is not None and hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda _number, _frame: self.reload())
        if self.config.mqtt.version != 5:
            log.warning("MQTT 3.1.1 has no reason codes: a verdict that the broker's access list denies is lost unseen")
        spawn("watchdog", self._watch)
        try:
            self._begin()
        except BuildStoppedError:
            log.info("stopped while the engine was being built; the next start begins it anew")
        else:
            self._watch_from_here()
            self._engine_loop()
        notify("STOPPING=1")
        self._finish()
        if self._loading is not None and self._loading.is_alive():
            end_now(EXIT_OK)  # a library that is loading a network does not survive the interpreter's end

    def reload(self) -> None:
        """Load the configuration anew and change over to it; returns at once, ``health`` and log tell how it went."""
        self._reload.set()

    def start(self) -> None:
        """Begin in the background; returns when engines are loaded and the threads run."""
        self._begin()
        self._spawn("engine", self._engine_loop)

    def stop(self) -> None:
        """End what ``start`` began: drain, disconnect, and raise what went wrong if anything did."""
        self._stop.set()
        for thread in self._threads:
            if thread.name == "engine":
                thread.join(STOP_S)
        self._finish()

    def _begin(self) -> None:
        status = self.config.status
        if status is not None:
            self._server = build_server(create_app(self.health), status.host, status.port)
            self._spawn("page", self._server.run)
            log.info("status page url=%s", self._server.url)
        self._parts = load_parts(self.config, logged(self._starting, lambda: not self._stop.is_set()))
        self._build(self._parts)
        self._intake.start()
        self._spawn("link", self._link.run)
        self._parts.warm_up(self.config.batch.max)
        self.health.set_models(self._parts.describe())
        self._courier.set_warm()

    def _starting(self, doing: str) -> None:
        self.health.set_state("starting", doing)

    def _build(self, parts: Parts) -> None:
        config, box = self.config, self.config.mailbox
        settings = link_settings(config)
        mailbox = Mailbox(box.policy, box.max_frames, box.max_bytes)
        self._intake = Intake(mailbox, parts.decoder, decode_workers(config), ahead=config.batch.max)
        keeper = Keeper(open_spool(config), self.health.spool_failed)
        self._courier = Courier(
            self._topics,
            self._intake,
            self.health,
            box.max_bytes,
            config.mqtt.url,
            keeper=keeper,
            max_cameras=box.max_cameras,
        )
        subscriptions = (frame_filter(config), self._topics.canary)
        will = Will(self._topics.status, b"offline")
        self._link = Link(settings, self._courier, subscriptions, will, stale=stale_filters(config))
        self._courier.attach(self._link)

    def _finish(self) -> None:
        began = time.monotonic()
        if self._parts is not None and self._failure is None:
            self._drain(began + DRAIN_S)
        if self._parts is not None:
            self._link.stop()
        if self._server is not None:
            self._server.should_exit = True
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, began + STOP_S - time.monotonic()))
        if self._loading is not None:
            self._loading.join(max(0.0, began + STOP_S - time.monotonic()))
        if self._successor is not None:
            self._successor.parts.close()
        if self._parts is not None:
            self._parts.close()  # GPU libraries do not survive that the interpreter takes modules apart in any order
        self.health.set_state("stopped", "stopped")
        log.info("stopped after=%.1fs", time.monotonic() - began)
        if self._failure is not None:
            raise self._failure

    def _drain(self, deadline: float) -> None:
        self._courier.drain()
        frames = self._intake.close(timeout_s=1.0)
        if frames:
            self._judge(frames)
        self._courier.notice(self._topics.status, b"stopped", retain=True)
        while self._courier.pending() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - a dead thread must end the process, not hide
                self._fail(name, error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fail(self, name: str, error: BaseException) -> None:
        if not isinstance(error, ParrotgateError):
            log.error("thread %s ended", name, exc_info=error)
        self._failure = self._failure or error
        self.health.fault(f"the {name} thread ended: {error}")
        self._stop.set()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def _watch_from_here(self) -> None:
        """Loading a network may hold Python's lock for long; from now on nothing may."""
        self._serving = True
        self._watchdog.arm()
        notify("READY=1")

    def _watch(self) -> None:
        while True:
            self._watchdog.turn()
            if self._serving:
                self._watchdog.arm()
            time.sleep(TURN_S)

    # -- the engine's thread -----------------------------------------------------------------------------------

    def _engine_loop(self) -> None:
        next_stats = time.monotonic() + STATS_EVERY_S
        while not self._stop.is_set():
            self._look_around()
            self._change_over()
            batch = self.config.batch
            frames = self._intake.next_batch(batch.max, batch.wait_ms / 1000, IDLE_S)
            if frames:
                self._serve(frames)
            if time.monotonic() >= next_stats:
                next_stats += STATS_EVERY_S
                self._publish_stats()

    def _serve(self, frames: list[Frame]) -> None:
        """Judge a batch; its frames alone where the engine fails on it, unless it does so again and again."""
        try:
            self._judge(frames)
            self._failures = 0
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._failures += 1
            if self._failures >= ENGINE_FAILURES:
                raise
            self._judge_one_by_one(frames, error)

    def _change_over(self) -> None:
        """Begin to load a successor when one is asked for; take it when it is there."""
        if self._reload.is_set() and self._loading is None and self._read is not None:
            self._reload.clear()
            self._loading = threading.Thread(target=self._load_aside, args=(self._read,), name="reload", daemon=True)
            self._loading.start()
        if self._loading is None or self._loading.is_alive():
            return
        successor, self._successor, self._loading = self._successor, None, None
        if successor is not None:
            self._take_over(successor)

    def _load_aside(self, read: Callable[[], Config]) -> None:
        try:
            journal = None if self._parts is None else self._parts.journal
            self._successor = load_successor(self.config, read, journal)
        except ParrotgateError as error:
            self.health.reloaded(str(error))
            log.error("reload refused, what runs stays: %s", error)
        except Exception as error:  # what runs must not end for what was to come
            self.health.reloaded(f"reload failed: {type(error).__name__}; see the log")
            log.exception("reload failed, what runs stays")

    def _take_over(self, successor: Successor) -> None:
        old = self._parts
        ahead = successor.config.batch.max
        frames = self._intake.exchange(successor.parts.decoder, ahead, lambda: not self._stop.is_set())
        if frames is None:
            successor.parts.close()
            return
        if frames:
            self._serve(frames)
        self.config, self._parts = successor.config, successor.parts
        self._unchanged = Unchanged() if self.config.skip_unchanged else None
        self.health.set_models(self._parts.describe())
        self.health.reloaded(None)
        log.info("reloaded gate=%s", self._parts.gate.name)
        if old is not None:
            old.close()

    def _look_around(self) -> None:
        self.health.beat("engine")
        frames, held, oldest = self._intake.backlog()
        self.health.waiting(frames, held, 0.0 if oldest is None else time.monotonic() - oldest)

    def _judge(self, frames: list[Frame]) -> None:
        sound = [frame for frame in frames if not frame.poison]
        verdicts = self._verdicts(sound)
        for frame in [frame for frame in frames if frame.poison]:
            self._dead_letter(frame)
        for frame, verdict in zip(sound, verdicts, strict=True):
            self.inferences += "features" in verdict.latency_ms
            self._latencies.append(verdict.latency_ms["total"])
            self._publish(frame, verdict)

    def _dead_letter(self, frame: Frame) -> None:
        reason = frame.error or "the picture cannot be decoded"
        key = self._cascade.error(frame, reason).id
        self._courier.dead_letter(frame.raw.camera, reason, [frame.raw.ticket], key)

    def _judge_one_by_one(self, frames: list[Frame], error: EngineRunError) -> None:
        log.error("batch of %d failed, trying its frames alone: %s", len(frames), error)
        for frame in frames:
            self._judge_alone(frame)

    def _judge_alone(self, frame: Frame) -> None:
        try:
            self._judge([frame])
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._publish(frame, self._cascade.error(frame, f"inference failed: {error}"))

    def _verdicts(self, frames: list[Frame]) -> list[Verdict]:
        if self._unchanged is None:
            return self._cascade.judge(frames)
        recalled = [self._unchanged.recall(frame) for frame in frames]
        fresh = [frame for frame, old in zip(frames, recalled, strict=True) if old is None]
        judged = iter(self._cascade.judge(fresh) if fresh else [])
        verdicts = []
        for frame, old in zip(frames, recalled, strict=True):
            verdict = next(judged) if old is None else self._cascade.reuse(frame, old)
            if old is None:
                self._unchanged.remember(frame, verdict)
            verdicts.append(verdict)
        return verdicts

    @property
    def _cascade(self) -> Cascade:
        if self._parts is None:
            raise RuntimeError("the worker has not begun")
        return self._parts.cascade

    def _publish(self, frame: Frame, verdict: Verdict) -> None:
        raw = frame.raw
        self._courier.deliver(
            Outgoing(
                key=verdict.id,
                kind="verdict",
                topic=self._topics.of_camera(raw.camera, "verdict"),
                payload=encode(verdict),
                tickets=[raw.ticket],
                camera=raw.camera,
            )
        )
        if verdict.verdict is Outcome.POSITIVE:
            self._publish_positive(frame, verdict)
        shown = frame.image if frame.content_type is not None else None
        self.health.verdict(verdict, shown, frame.content_type)

    def _publish_positive(self, frame: Frame, verdict: Verdict) -> None:
        camera = frame.raw.camera
        if verdict.species and self.config.publish.species:
            topic = self._topics.of_camera(camera, "species")
            self._courier.notice(topic, verdict.species[0].label.encode(), retain=True)
        wanted = self.config.publish.snapshot and frame.content_type == "image/jpeg"
        if wanted and self._snapshots.is_due(camera, time.monotonic()):
            self._courier.notice(self._topics.of_camera(camera, "snapshot"), frame.image, retain=True)

    def _publish_stats(self) -> None:
        self._courier.notice(self._topics.stats, encode_stats(self.health.snapshot()))
