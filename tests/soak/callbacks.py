"""Row 16: an exception in any callback of paho or of the link; nobody may go on believing that the worker is alive."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.error
import urllib.request

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.edge.worker_process import small_pictures, wait_for
from tests.mosquitto import Broker
from tests.soak.fleet import QUICK, Forked, Yard
from tests.soak.ledger import Effort, Outcome
from tests.soak.zygote import CALLBACKS

LIMIT_S, GONE_S = 1.0, 5.0


def exceptions(effort: Effort) -> Outcome:
    """Each callback raises once; the page says so, or is gone, within a second, and the process ends with a fault."""
    outcome = Outcome()
    with Yard(effort.folder, *QUICK) as yard:
        camera = mqtt.Client(CallbackAPIVersion.VERSION2, "camera", protocol=mqtt.MQTTv5)
        camera.connect("127.0.0.1", yard.broker.port)
        camera.loop_start()
        yard.callback(camera.loop_stop)
        while effort.goes_on(outcome.done):
            for number, callback in enumerate(CALLBACKS):
                worker = yard.worker(f"box-{outcome.done}-{number}", status={"port": 0})
                _raise_in(worker, callback, yard.broker, camera, outcome)
            outcome.done += 1
    return outcome


def _raise_in(worker: Forked, callback: str, broker: Broker, camera: mqtt.Client, outcome: Outcome) -> None:
    worker.start(raise_in=callback)
    wait_for(lambda: "status page url=" in worker.log(), 20, "the status page")
    page = worker.log().partition("status page url=")[2].split()[0]
    if callback.endswith(("down", "disconnect")):
        worker.wait_connected()
        _drop_connection(broker)
    wait_for(lambda: _poke(camera) and "RAISED" in worker.log(), 20, f"{callback} to raise; {worker.log()}")
    raised = float(worker.log().partition("RAISED ")[2].split()[0])
    found = _last_live(page, raised + 5) - raised
    code = worker.wait()
    ended = time.monotonic() - raised
    outcome.add("callbacks")
    outcome.see("live up to s", round(max(0.0, found), 2))
    outcome.see("ended after s", round(ended, 2))
    outcome.demand(found <= LIMIT_S, f"{callback}: still live {found:.2f} s later")
    outcome.demand(code != 0 and ended <= GONE_S, f"{callback}: ended with {code} after {ended:.1f} s")


def _poke(camera: mqtt.Client) -> bool:
    camera.publish("cameras/a/frame", small_pictures()[0], qos=1)
    time.sleep(0.05)
    return True


def _drop_connection(broker: Broker) -> None:
    broker.kill()
    broker.start()


def _last_live(page: str, until: float) -> float:
    """When the last request was begun that was answered "live"; however late we look, nobody is blamed for that."""
    last = 0.0
    while (began := time.monotonic()) < until and _is_live(page):
        last = began
        time.sleep(0.01)
    return last


def _is_live(page: str) -> bool:
    try:
        with urllib.request.urlopen(f"{page.rstrip('/')}/healthz", timeout=1) as answer:  # noqa: S310 - our own page
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def exceptions_control(effort: Effort) -> str:
    """A health check built on ``is_connected`` of paho's own loop."""
    broker = Broker(effort.folder / "broker", QUICK)
    broker.start()
    try:
        plain = mqtt.Client(CallbackAPIVersion.VERSION2, "plain", protocol=mqtt.MQTTv5)

        def fail(*_: object) -> None:
            raise RuntimeError("planted")

        plain.on_message = fail
        plain.connect("127.0.0.1", broker.port)
        hook, threading.excepthook = threading.excepthook, lambda _: None
        plain.loop_start()
        plain.subscribe("a", qos=1)
        time.sleep(0.3)
        plain.publish("a", b"x", qos=1)
        time.sleep(2.0)
        threading.excepthook = hook
        assert plain.is_connected(), "paho noticed by itself"
        with contextlib.suppress(Exception):
            plain.disconnect()
    finally:
        broker.kill()
    return "paho's own loop with is_connected(): its thread is dead, and 2 s later it still says connected"
