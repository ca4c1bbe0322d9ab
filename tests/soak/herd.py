"""Row 14: many workers whose broker comes back."""

from __future__ import annotations

import itertools
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.link import Link
from edge.link_handler import QuietHandler
from tests.edge.worker_process import client, wait_for
from tests.mosquitto import Broker
from tests.soak.fleet import QUICK
from tests.soak.ledger import Effort, Outcome

AWAY_S, WINDOW_S, BACK_S = 10.0, 10.0, 15.0


class Member(QuietHandler):
    """Writes down when it was connected."""

    def __init__(self) -> None:
        self.ups: list[float] = []

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        self.ups.append(time.monotonic())


def herd(effort: Effort) -> Outcome:
    """``effort.count`` links, a broker that is away for ten seconds; when does each of them come back?"""
    outcome, broker = Outcome(), Broker(effort.folder / "broker", QUICK)
    broker.start()
    members = [Member() for _ in range(effort.count)]
    links = [Link(client(broker, f"box-{n}"), member) for n, member in enumerate(members)]
    threads = [threading.Thread(target=link.run, daemon=True) for link in links]
    try:
        for thread in threads:
            thread.start()
        wait_for(lambda: all(member.ups for member in members), 30, "all connections")
        broker.kill()
        time.sleep(AWAY_S)
        broker.start()
        back = time.monotonic()
        wait_for(lambda: all(len(member.ups) > 1 for member in members), 60, "all back")
        delays = sorted(member.ups[1] - back for member in members)
    finally:
        for link in links:
            link.stop()
        for thread in threads:
            thread.join(5)
        broker.kill()
    spread = delays[-1] - delays[0]
    outcome.see("spread s", round(spread, 1))
    outcome.see("last back s", round(delays[-1], 1))
    busiest = max(sum(second <= delay < second + 1 for delay in delays) for second in range(int(delays[-1]) + 1))
    outcome.see("most in one second", busiest)
    outcome.demand(spread >= 0.8 * WINDOW_S, f"spread over {spread:.1f} s only")
    outcome.demand(delays[-1] <= BACK_S, f"the last one was back after {delays[-1]:.1f} s")
    outcome.done = effort.count
    return outcome


def herd_control(effort: Effort) -> str:
    """Thirty clients on paho's own reconnect."""
    broker = Broker(effort.folder / "broker", QUICK)
    broker.start()
    ups: list[float] = []
    numbers = itertools.count()
    clients = []
    try:
        for _ in range(30):
            plain = mqtt.Client(CallbackAPIVersion.VERSION2, f"plain-{next(numbers)}", protocol=mqtt.MQTTv5)
            plain.on_connect = lambda *_: ups.append(time.monotonic())
            plain.connect("127.0.0.1", broker.port)
            plain.loop_start()
            clients.append(plain)
        wait_for(lambda: len(ups) == 30, 10, "all connections")
        broker.kill()
        time.sleep(4.0)
        broker.start()
        wait_for(lambda: len(ups) == 60, 60, "all back")
    finally:
        for plain in clients:
            plain.disconnect()
            plain.loop_stop()
        broker.kill()
    spread = ups[-1] - ups[30]
    assert spread < 0.8 * WINDOW_S, "paho spreads by itself"
    return f"30 clients on paho's own reconnect come back within {spread:.2f} s of each other"
