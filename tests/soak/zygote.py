"""Workers that start in milliseconds: this process imports everything once and forks a worker for each line it reads.

A worker is the real one (link, courier, mailbox, decoders, threads, signals) on the configuration it is given, but for
its engines: ``FakeCascade`` answers after ``service_s`` seconds a frame, while it begins the next batch where it has
two ``in_flight``. ``kill_at`` names a step at whose ``nth``
passing the worker kills itself; ``hang_at`` one where it hangs for ever, ``lock`` with Python's lock held.

Lines in: ``{"config": …, "service_s": …, "in_flight": …, "kill_at": …, "nth": …, …}`` -> its process number;
``{"wait": pid}`` -> its status.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edge.worker
from edge.config_file import load_config
from edge.courier import Courier
from edge.decode import Decoder
from edge.delivery import Outgoing
from edge.link import Link
from edge.logs import set_up_logging
from edge.parts import Parts
from edge.picture import Picture, PictureOpener
from edge.records import Frame, Outcome, Verdict
from edge.verdict import verdict_id
from engines import ImageLimits, InputSpec, ParrotgateError

INPUT = InputSpec.model_validate(
    {
        "layout": "NCHW",
        "dtype": "float32",
        "height": 32,
        "width": 32,
        "color": "RGB",
        "resize": "stretch",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
)


class FakeCascade:
    """Every frame is negative, after a fixed time; a frame that cannot be decoded is an error.

    Its device does one batch after the other; with one ``in_flight`` it is waited for at once.
    """

    def __init__(self, worker: str, service_s: float, in_flight: int) -> None:
        self._worker, self._service_s = worker, service_s
        self.overlaps = in_flight > 1
        self._busy_until = 0.0

    def begin(self, frames: Sequence[Frame]) -> tuple[Sequence[Frame], float, float]:
        began = time.monotonic()
        self._busy_until = max(began, self._busy_until) + self._service_s * len(frames)
        begun = (frames, began, self._busy_until)
        if not self.overlaps:
            self.collect(begun)
        return begun

    def collect(self, begun: tuple[Sequence[Frame], float, float]) -> tuple[Sequence[Frame], float]:
        frames, began, done_at = begun
        time.sleep(max(0.0, done_at - time.monotonic()))
        return frames, 1000 * (time.monotonic() - began)

    def finish(self, collected: tuple[Sequence[Frame], float]) -> list[Verdict]:
        frames, took_ms = collected
        return [self.error(frame, frame.error) if frame.error else self._judge(frame, took_ms) for frame in frames]

    def error(self, frame: Frame, sentence: str) -> Verdict:
        return self._judge(frame).replace(verdict=Outcome.ERROR, error=sentence)

    def _judge(self, frame: Frame, took_ms: float = 0.0) -> Verdict:
        return Verdict(
            id=verdict_id(frame, ("fake",), "fake"),
            camera=frame.raw.camera,
            verdict=Outcome.NEGATIVE,
            judged_at=time.time(),
            gate="fake",
            models={},
            worker=self._worker,
            frame_id=frame.frame_id,
            captured_at=frame.captured_at,
            redelivered=frame.raw.redelivered,
            latency_ms={"features": took_ms, "total": 1000 * (time.monotonic() - frame.raw.received_s)},
        )


class FakeParts(Parts):
    """Parts without engines."""

    def warm_up(self, batch: int) -> None:
        """Nothing is cold."""

    def describe(self) -> dict[str, dict[str, Any]]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


def fake_parts(service_s: float, in_flight: int) -> Callable[[Any], Any]:
    """What stands in for ``load_parts``."""

    def load(config: Any, *_watchers: Any) -> Any:
        opener = PictureOpener(INPUT, (32, 32), ImageLimits())
        decoder = Decoder(opener, config.mailbox.max_frame_bytes)
        cascade, nothing = FakeCascade(config.worker, service_s, in_flight), None
        return FakeParts(cascade, decoder, opener, nothing, None, nothing)  # type: ignore[arg-type]

    return load


# Where a worker may kill itself: the name, and the method before or after which it happens.
STEPS: dict[str, tuple[type, str]] = {
    "connect": (Link, "connect"),
    "connected": (Courier, "link_up"),
    "subscribed": (Courier, "link_subscribed"),
    "frame read": (Courier, "link_message"),
    "decode": (Decoder, "__call__"),
    "judge": (FakeCascade, "finish"),
    "hand over": (Courier, "deliver"),
    "publish": (Link, "publish"),
    "confirmation": (Courier, "link_confirmed"),
    "acknowledge": (Link, "acknowledge"),
}
_PAHO = ("on_connect", "on_disconnect", "on_message", "on_publish", "on_subscribe")
_LINK = ("link_up", "link_subscribed", "link_down", "link_message", "link_confirmed", "link_wants_more", "link_turn")
MOMENTS = [f"{when} {step}" for step in STEPS for when in ("before", "after")]


def plant(moment: str, nth: int, end: Callable[[], None]) -> None:
    """Have this process call ``end`` at the ``nth`` passing of a moment."""
    when, _, step = moment.partition(" ")
    owner, name = STEPS[step]
    real, passed = getattr(owner, name), 0

    def end_or(*arguments: Any, **named: Any) -> Any:
        nonlocal passed
        passed += 1
        mine = passed == nth
        if mine and when == "before":
            end()
        answer = real(*arguments, **named)
        if mine and when == "after":
            end()
        return answer

    setattr(owner, name, end_or)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(lock: bool) -> None:
    """Never return. ``PyDLL`` keeps Python's lock in its calls, ``CDLL`` does not."""
    os.write(2, f"planted: hangs at {time.monotonic()}\n".encode())
    library = ctypes.PyDLL(None) if lock else ctypes.CDLL(None)
    library.sleep(3600)


# Everything that paho calls, and everything that the link calls.
CALLBACKS: dict[str, tuple[type, str]] = {
    **{f"Link.{name}": (Link, f"_{name}") for name in _PAHO},
    **{f"Courier.{name}": (Courier, name) for name in _LINK},
}


def plant_exception(callback: str) -> None:
    """Make a callback raise, and write down when it first did."""
    owner, name = CALLBACKS[callback]
    told = False

    def fail(*_arguments: Any, **_named: Any) -> Any:
        nonlocal told
        if not told:
            told = True
            os.write(2, f"RAISED {time.monotonic()}\n".encode())
        raise RuntimeError(f"planted into {callback}")

    setattr(owner, name, fail)


def plant_leak(nbytes: int) -> None:
    """Keep so many bytes for every batch that is judged."""
    real, kept = FakeCascade.finish, list[bytes]()

    def finish(self: FakeCascade, collected: tuple[Sequence[Frame], float]) -> list[Verdict]:
        kept.extend(os.urandom(nbytes) for _ in collected[0])
        return real(self, collected)

    FakeCascade.finish = finish  # type: ignore[method-assign]


def plant_early_acks() -> None:
    """Acknowledge each frame when its verdict is handed over, not when the broker has it."""
    real = Courier.deliver

    def deliver(self: Courier, outgoing: Outgoing) -> None:
        for ticket in outgoing.tickets:
            self.settle(ticket)
        real(self, outgoing)

    Courier.deliver = deliver  # type: ignore[method-assign]


def be_worker(order: dict[str, Any]) -> int:
    """Run the worker of ``order`` to its end; returns its exit code."""
    log = os.open(order["config"] + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    set_up_logging("text")
    if order.get("raise_in"):
        plant_exception(order["raise_in"])
    if order.get("kill_at"):
        plant(order["kill_at"], order["nth"], die)
    if order.get("hang_at"):
        plant(order["hang_at"], order["nth"], lambda: hang(order["lock"]))
    if order.get("leak_bytes"):
        plant_leak(order["leak_bytes"])
    os.environ.update(order.get("environment", {}))
    if order.get("no_decode"):
        nothing = np.zeros((32, 32, 3), np.uint8)
        seen = Picture(32, 32, "jpeg", nothing, nothing)
        PictureOpener.__call__ = lambda *_: seen  # type: ignore[method-assign]
    if order.get("early_acks"):
        plant_early_acks()
    if not order.get("real_engines"):
        edge.worker.load_parts = fake_parts(order["service_s"], order["in_flight"])
    try:
        edge.worker.Worker(load_config(Path(order["config"]))).run()
    except ParrotgateError as error:
        os.write(2, f"{error}\n".encode())
        return error.exit_code
    return 0


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                code = 70
                try:
                    code = be_worker(order)
                except BaseException:  # noqa: BLE001 - told in the worker's log, which a test shows
                    os.write(2, traceback.format_exc().encode())
                finally:
                    os._exit(code)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
