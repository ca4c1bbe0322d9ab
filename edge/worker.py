"""The worker: all threads, and their beginning and end.

link thread      broker <-> courier; nothing slow happens there
decoder threads  the intake's (edge.pool)
engine thread    takes batches, judges them, hands the verdicts to the courier; the caller's thread in ``run``
page thread      the status server; a thread ``spool`` waits for the disk, where there is a spool
watchdog thread  ends the process when the others hang (edge.watchdog); in ``run`` alone
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

from edge.config import Config
from edge.courier import Courier
from edge.health import Health
from edge.health import Limits as HealthLimits
from edge.judge import Judge
from edge.keeper import Keeper
from edge.link import Link
from edge.link_handler import Will
from edge.mailbox import Mailbox
from edge.parts import (
    Parts,
    decode_ahead,
    decode_threads,
    fills_the_device,
    frame_filter,
    link_settings,
    load_parts,
    open_spool,
    patience,
    stale_filters,
)
from edge.pipeline import Pipeline
from edge.plan_build import logged
from edge.pool import Intake, spawn
from edge.records import Frame
from edge.stats import encode_stats
from edge.swap import Successor, load_successor
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
FAILED_S = 0.5  # how long a worker that failed waits for its threads: its successor is to start


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
        self._lost = False  # the device: the libraries' clean-up may hang or crash on it
        self._threads: list[threading.Thread] = []
        self._serving = False
        self._watchdog = Watchdog(self.health.live, config.watchdog.stall_s, bites=config.watchdog.end)
        self._server: StatusServer | None = None
        self._parts: Parts | None = None
        self._built = False
        self._held = ExitStack()  # what must be given back, however this ends
        self._read = read
        self._reload = threading.Event()
        self._loading: threading.Thread | None = None
        self._successor: Successor | None = None
        self._bringing = threading.Lock()

    @property
    def url(self) -> str | None:
        """Where the status page is, once started."""
        return self._server.url if self._server is not None else None

    def latencies_ms(self) -> list[float]:
        """Milliseconds from receipt to judgement of the latest frames."""
        return list(self._judge.latencies)

    @property
    def inferences(self) -> int:
        """Frames whose features were computed."""
        return self._judge.inferences

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
        self._guarded("engine", self._serve)
        notify("STOPPING=1")
        self._finish()
        self._leave_a_load_behind()
        self._raise_failure()

    def _serve(self) -> None:
        try:
            self._begin()
        except BuildStoppedError:
            log.info("stopped while the engine was being built; the next start begins it anew")
            return
        self._watch_from_here()
        self._engine_loop()

    def reload(self) -> None:
        """Load the configuration anew and change over to it; returns at once, ``health`` and log tell how it went."""
        self._reload.set()

    def start(self) -> None:
        """Begin in the background; returns when engines are loaded and the threads run. What it raises has ended it."""
        try:
            self._begin()
        except BaseException as error:
            self._lost = self._lost or isinstance(error, DeviceLostError)
            self._failure = self._failure or error
            self._stop.set()
            self._finish()
            raise
        self._spawn("engine", self._engine_loop)

    def stop(self) -> None:
        """End what ``start`` began: drain, disconnect, and raise what went wrong if anything did."""
        self._stop.set()
        for thread in self._threads:
            if thread.name == "engine":
                thread.join(STOP_S)
        self._finish()
        self._raise_failure()

    def _begin(self) -> None:
        status = self.config.status
        if status is not None:
            self._server = build_server(create_app(self.health), status.host, status.port)
            self._spawn("page", self._server.run)
            log.info("status page url=%s", self._server.url)
        self._keeper = Keeper(open_spool(self.config), self.health.spool_failed)
        self._held.callback(self._close_keeper)
        self._held.callback(self._close_parts)  # GPU libraries do not survive modules taken apart in any order
        self._parts = load_parts(self.config, logged(self._starting, lambda: not self._stop.is_set()))
        self._build(self._parts)
        self._intake.start()
        self._spawn("spool", lambda: self._keeper.flush_until(self._stop.wait))
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
        self._intake = Intake(mailbox, parts.decoder, decode_threads(config), ahead=decode_ahead(config, parts))
        self._courier = Courier(
            self._topics,
            self._intake,
            self.health,
            box.max_bytes,
            config.mqtt.url,
            keeper=self._keeper,
            max_cameras=box.max_cameras,
        )
        subscriptions = (frame_filter(config), self._topics.canary)
        will = Will(self._topics.status, b"offline")
        self._link = Link(settings, self._courier, subscriptions, will, stale=stale_filters(config))
        self._courier.attach(self._link)
        self._judge = Judge(self._courier, self.health, self._topics)
        self._judge.take_over(parts, config)
        self._pipeline = Pipeline(self._intake, self._judge.begin, self._judge.finish, fill=fills_the_device(config))
        self._built = True

    def _finish(self) -> None:
        """End the threads and give everything back; after a failure at once, and the broker publishes the will."""
        began = time.monotonic()
        if self._built and self._failure is None:
            self._guarded("engine", lambda: self._drain(began + DRAIN_S))
        until = began + (STOP_S if self._failure is None else FAILED_S)
        if self._built:
            self._link.stop(will=self._failure is not None)
        if self._server is not None:
            self._server.should_exit = True
        loading = [] if self._loading is None else [self._loading]
        for thread in [*self._threads, *loading]:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._held.close()
        self.health.set_state("stopped", "stopped")
        log.info("stopped after=%.1fs", time.monotonic() - began)

    def _close_parts(self) -> None:
        with self._bringing:
            successor = self._successor
        for parts in (None if successor is None else successor.parts, self._parts):
            if parts is not None and not self._lost:
                parts.close()

    def _close_keeper(self) -> None:
        if not self._lost:
            self._keeper.close()
            return
        closing = threading.Thread(target=self._keeper.close, name="spool-end", daemon=True)
        closing.start()
        closing.join(FAILED_S)

    def _leave_a_load_behind(self) -> None:
        """A library that is loading a network does not survive the interpreter's end, nor does one without its device.

        What is raised for a lost device ends the process as abruptly (``engines.console``).
        """
        loads = self._loading is not None and self._loading.is_alive()
        if loads or (self._lost and self._failure is None):
            if self._failure is not None:
                log.critical("%s", self._failure)
            end_now(EXIT_OK if self._failure is None else getattr(self._failure, "exit_code", 1) or 1)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _drain(self, deadline: float) -> None:
        self._courier.drain()
        frames = self._intake.close(timeout_s=1.0)
        for batch in self._batches(frames):
            self._judge_at_the_end(batch)
        self._courier.notice(self._topics.status, b"stopped", retain=True)
        while self._courier.pending() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _judge_at_the_end(self, batch: list[Frame]) -> None:
        try:
            self._judge.conclude(self._judge.begin(batch))
        except EngineRunError as error:
            self._lost = self._lost or isinstance(error, DeviceLostError)
            log.error("batch of %d failed at the end, its frames are left with the broker: %s", len(batch), error)

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guarded, args=(name, target), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, name: str, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - a dead thread must end the process, not hide
            self._fail(name, error)

    def _fail(self, name: str, error: BaseException) -> None:
        if not isinstance(error, ParrotgateError):
            log.error("thread %s ended", name, exc_info=error)
        self._lost = self._lost or isinstance(error, DeviceLostError)
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
            self._pipeline.turn(batch.max, batch.wait_ms / 1000, IDLE_S)
            if time.monotonic() >= next_stats:
                next_stats += STATS_EVERY_S
                self._publish_stats()
        self._pipeline.settle()

    def _change_over(self) -> None:
        """Begin to load a successor when one is asked for; take it when it is there."""
        if self._reload.is_set() and self._loading is None and self._read is not None:
            self._reload.clear()
            self._loading = threading.Thread(target=self._load_aside, args=(self._read,), name="reload", daemon=True)
            self._loading.start()
        if self._loading is None or self._loading.is_alive():
            return
        self._loading = None
        if self._successor is not None:
            self._take_over(self._successor)

    def _load_aside(self, read: Callable[[], Config]) -> None:
        try:
            journal = None if self._parts is None else self._parts.journal
            self._bring(load_successor(self.config, read, journal))
        except ParrotgateError as error:
            self.health.reloaded(str(error))
            log.error("reload refused, what runs stays: %s", error)
        except Exception as error:  # what runs must not end for what was to come
            self.health.reloaded(f"reload failed: {type(error).__name__}; see the log")
            log.exception("reload failed, what runs stays")

    def _bring(self, successor: Successor) -> None:
        with self._bringing:  # so that what comes after the stop is closed here, and all else in ``_close_parts``
            if not self._stop.is_set():
                self._successor = successor
                return
        if not self._lost:
            successor.parts.close()

    def _take_over(self, successor: Successor) -> None:
        old = self._parts
        self._pipeline.settle()
        ahead = decode_ahead(successor.config, successor.parts)
        frames = self._intake.exchange(successor.parts.decoder, ahead, lambda: not self._stop.is_set())
        if frames is None:
            return
        for batch in self._batches(frames):
            self._judge.finish(self._judge.begin(batch))
        with ExitStack() as replaced:
            if old is not None:
                replaced.callback(old.close)
            self.config, self._parts, self._successor = successor.config, successor.parts, None
            self._judge.take_over(self._parts, self.config)
            self.health.set_models(self._parts.describe())
            self.health.reloaded(None)
            log.info("reloaded gate=%s", self._parts.gate.name)

    def _batches(self, frames: list[Frame]) -> list[list[Frame]]:
        most = self.config.batch.max
        return [frames[first : first + most] for first in range(0, len(frames), most)]

    def _look_around(self) -> None:
        self.health.beat("engine")
        frames, held, oldest = self._intake.backlog()
        flying = [frame.raw for frame in self._pipeline.frames]
        times = [raw.received_s for raw in flying] + ([] if oldest is None else [oldest])
        age = time.monotonic() - min(times) if times else 0.0
        self.health.waiting(frames + len(flying), held + sum(len(raw.payload) for raw in flying), age)

    def _publish_stats(self) -> None:
        self._courier.notice(self._topics.stats, encode_stats(self.health.snapshot()))
