"""Rows 8, 10 and 15: a partition with verdicts going on, a disk that is full, a link that is slow."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.courier import Courier
from edge.delivery import Outgoing
from edge.health import Health
from edge.keeper import Keeper
from edge.link import Link
from edge.link_handler import LinkSettings
from edge.records import RawFrame
from edge.spool import Spool
from edge.spool_file import Disk
from edge.wire import Topics
from tests.edge.worker_process import Verdicts, client, wait_for
from tests.mosquitto import Broker
from tests.soak.ledger import Effort, Outcome
from tests.soak.proxy import Proxy

TOPICS = Topics("cameras", "box")
RECEIVE_MAXIMUM = 5  # what the broker allows in flight
SPOOL_BYTES = 64_000_000
PER_SECOND = 100.0


class Nowhere:
    """A sink: no frame comes in these runs."""

    def put(self, frame: RawFrame) -> list[RawFrame]:
        del frame
        return []

    def renew(self, frame: RawFrame) -> bool:
        del frame
        return False


class Sender:
    """The delivering half of a worker: courier, link and spool; verdicts of QoS 0 frames come from the test."""

    def __init__(self, port: int, folder: Path, disk: Disk | None = None) -> None:
        self.health = Health("box")
        self.spool = Spool(folder, SPOOL_BYTES, 86_400, disk=disk)
        self._keeper = Keeper(self.spool, self.health.spool_failed)
        self.courier = Courier(TOPICS, Nowhere(), self.health, 1 << 20, "mqtt://proxy", keeper=self._keeper)
        settings = LinkSettings("127.0.0.1", port, "box", keepalive_s=5, session_expiry_s=300)
        self.link = Link(settings, self.courier, ())
        self.courier.attach(self.link)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self.link.run, daemon=True),
            threading.Thread(target=lambda: self._keeper.flush_until(self._over.wait), daemon=True),
        ]

    def __enter__(self) -> Sender:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.link.connected, 10, "the connection")
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def verdict(self, number: int) -> None:
        """One of about a kilobyte, as real ones are."""
        name = f"{number:06d}"
        verdict = {"id": name, "camera": "a", "frame_id": name, "verdict": "negative", "note": "x" * 700}
        self.courier.deliver(Outgoing(name, "verdict", "cameras/a/verdict", json.dumps(verdict).encode(), camera="a"))


@contextmanager
def scene(folder: Path, disk: Disk | None = None) -> Iterator[tuple[Proxy, Sender, Verdicts]]:
    """A broker that allows five in flight, a proxy before it, a sender behind that, and a reader at the broker."""
    broker = Broker(folder / "broker", ("persistence false", f"max_inflight_messages {RECEIVE_MAXIMUM}"))
    broker.start()
    try:
        with (
            Verdicts(client(broker, "reader")) as verdicts,
            Proxy(broker.port) as proxy,
            Sender(proxy.port, folder / "spool", disk) as sender,
        ):
            yield proxy, sender, verdicts
    finally:
        broker.kill()


def blackhole(effort: Effort, per_second: float = PER_SECOND) -> Outcome:
    """Row 8: nothing passes while ``effort.count`` verdicts come, then the path is open again."""
    outcome = Outcome()
    with scene(effort.folder) as (proxy, sender, verdicts):
        proxy.swallow = True
        began = time.monotonic()
        while effort.goes_on(outcome.done):
            sender.verdict(outcome.done)
            outcome.done += 1
            time.sleep(max(0.0, began + outcome.done / per_second - time.monotonic()))
        outcome.see("blackhole s", round(time.monotonic() - began, 1))
        outcome.see("spool MB", round(sender.spool.size / 1e6, 2))
        outcome.demand(sender.spool.size <= SPOOL_BYTES, f"{sender.spool.size} bytes on disk")
        proxy.swallow = False
        opened = time.monotonic()
        _wait_all(verdicts, outcome.done, 90)
        waited = time.monotonic() - opened
        outcome.see("drained after s", round(waited, 1))
        outcome.demand(waited <= 60, f"drained after {waited:.0f} s")
        _account(outcome, verdicts, outcome.done)
        outcome.see("in flight", proxy.wire.most)
        outcome.demand(proxy.wire.most <= RECEIVE_MAXIMUM, f"{proxy.wire.most} in flight, allowed {RECEIVE_MAXIMUM}")
        wait_for(lambda: len(sender.spool) == 0, 10, "an empty spool")
    return outcome


def _wait_all(verdicts: Verdicts, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while len(verdicts.by_frame) < count and time.monotonic() < deadline:
        time.sleep(0.05)


def _account(outcome: Outcome, verdicts: Verdicts, count: int) -> None:
    lost = count - len(verdicts.by_frame)
    first = [names[0]["frame_id"] for names in list(verdicts.by_frame.values())]
    outcome.add("lost", lost)
    outcome.add("raw duplicates", len(verdicts.all) - len(verdicts.by_frame))
    outcome.demand(lost == 0, f"{lost} of {count} verdicts lost")
    outcome.demand(first == sorted(first), "verdicts came out of order")


def blackhole_control(effort: Effort) -> str:
    """Paho by itself, with as many waiting."""
    broker = Broker(effort.folder / "broker", ("persistence false", f"max_inflight_messages {RECEIVE_MAXIMUM}"))
    broker.start()
    try:
        with Proxy(broker.port) as proxy:
            plain = mqtt.Client(CallbackAPIVersion.VERSION2, "plain", protocol=mqtt.MQTTv5)
            plain.connect_async("127.0.0.1", proxy.port)
            for n in range(500):
                plain.publish("cameras/a/verdict", b"%d" % n, qos=1)
            plain.loop_start()
            wait_for(lambda: proxy.wire.most > RECEIVE_MAXIMUM, 10, "too many in flight")
            plain.disconnect()
            plain.loop_stop()
            return f"paho's own queue has {proxy.wire.most} in flight where the broker allows {RECEIVE_MAXIMUM}"
    finally:
        broker.kill()


class FailingNow(Disk):
    """A disk whose writes fail with ``code`` while it is set."""

    code: int | None = None

    def write(self, file: int, data: bytes) -> int:
        if self.code is not None:
            raise OSError(self.code, os.strerror(self.code))
        return super().write(file, data)

    def create(self, path: Path) -> int:
        if self.code is not None:
            raise OSError(self.code, os.strerror(self.code))
        return super().create(path)

    def sync(self, path: Path) -> None:
        if self.code is not None:
            raise OSError(self.code, os.strerror(self.code))
        super().sync(path)


def failing_disk(effort: Effort) -> Outcome:
    """Row 10: the disk is full, read-only, broken, one after the other, in a partition; nothing may be lost."""
    outcome, number = Outcome(), 0
    for code in (errno.ENOSPC, errno.EROFS, errno.EIO):
        disk = FailingNow()
        folder = effort.folder / errno.errorcode[code]
        with scene(folder, disk) as (proxy, sender, verdicts):
            proxy.swallow = True
            for phase in (None, code, None):
                disk.code = phase
                changed = time.monotonic()
                for _ in range(100):
                    sender.verdict(number)
                    number += 1
                    time.sleep(0.02)
                    if phase is None and changed and sender.spool._open is not None:
                        outcome.see("recovered after s", round(time.monotonic() - changed, 2))
                        changed = 0.0
            proxy.swallow = False
            _wait_all(verdicts, 300, 30)
            _account(outcome, verdicts, 300)
            failures = sender.health.snapshot()["counters"]["spool_failures"]
            outcome.add("failures seen", failures)
            outcome.demand(failures > 0, "the disk did not fail")
            wait_for(lambda spool=sender.spool: len(spool) == 0, 5, "an empty spool")
    outcome.demand(outcome.worst["recovered after s"] <= 5, "recovered too late")
    outcome.done = 1
    return outcome


def failing_disk_control(effort: Effort) -> str:
    """A keeper that takes the disk's word: the verdict leaves the memory before it is written."""
    disk = FailingNow()
    with scene(effort.folder, disk) as (proxy, sender, verdicts):
        disk.code = errno.ENOSPC
        proxy.swallow = True
        real = sender.courier._keeper.keep

        def careless(outgoing: Outgoing) -> list[str]:
            dropped = real(outgoing)
            outgoing.stored, outgoing.payload = True, b""
            return dropped

        sender.courier._keeper.keep = careless  # type: ignore[method-assign]
        for number in range(20):
            sender.verdict(number)
        proxy.swallow = False
        _wait_all(verdicts, 20, 15)
        lost = 20 - len(verdicts.by_frame)
    assert lost, "nothing was lost although nothing was written"
    return f"payloads dropped before they are written: {lost} of 20 verdicts lost"


def slow_link(effort: Effort, size: int = 1_500_000, rate: float = 50_000) -> Outcome:
    """Row 15: one large frame over a slow link at the shortest keepalive."""
    outcome = Outcome()
    broker = Broker(effort.folder / "broker", ("persistence false",))
    broker.start()
    try:
        with Proxy(broker.port, rate) as proxy:
            settings = replace(client(broker, "box"), port=proxy.port, keepalive_s=5, clean_start=False)
            with Verdicts(settings) as verdicts:
                began = time.monotonic()
                payload = json.dumps({"camera": "a", "frame_id": "1", "id": "1", "note": "x" * size})
                _publish_directly(broker, payload.encode())
                wait_for(lambda: verdicts.all, 1.5 * size / rate + 10, "the large message")
                outcome.see("delivered after s", round(time.monotonic() - began, 1))
                outcome.see("connections", proxy.wire.connections)
                outcome.demand(proxy.wire.connections == 1, f"{proxy.wire.connections} connections")
    finally:
        broker.kill()
    outcome.done = 1
    return outcome


def _publish_directly(broker: Broker, payload: bytes) -> None:
    plain = mqtt.Client(CallbackAPIVersion.VERSION2, "camera", protocol=mqtt.MQTTv5)
    plain.connect("127.0.0.1", broker.port)
    plain.loop_start()
    plain.publish("cameras/a/verdict", payload, qos=1).wait_for_publish(20)
    plain.disconnect()
    plain.loop_stop()


def slow_link_control(effort: Effort) -> str:
    """A link whose keepalive is not held off by what is still coming."""
    real = Link._turn

    def impatient(self: Link, selector: Any, sock: Any) -> None:
        real(self, selector, sock)
        self._client._last_bytes_received = min(self._client._last_bytes_received, getattr(self, "born", 1e18))
        self.born = getattr(self, "born", time.monotonic())  # type: ignore[attr-defined]
        if time.monotonic() - self.born > 7.5 and self.connected:  # type: ignore[attr-defined]
            self.born = time.monotonic()  # type: ignore[attr-defined]
            sock.shutdown(2)

    Link._turn = impatient  # type: ignore[method-assign]
    try:
        slow_link(effort, size=600_000)
    except AssertionError as error:
        return f"leaving after 1.5 keepalives of one download: {str(error)[:60]}"
    finally:
        Link._turn = real  # type: ignore[method-assign]
    raise AssertionError("the large message came although the link gave up on it")
