"""The intake: the mailbox and the threads that decode ahead of the engine. Frames leave in the order they were taken.

A decoder thread takes the next waiting frame only while fewer than ``ahead`` frames are decoded and not yet judged, so
that under load the frames wait in the mailbox, where a newer one may still replace an older one.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from edge.mailbox import Mailbox
from edge.records import Frame, RawFrame

EXCHANGE_TURN_S = 0.25  # between two looks whether an exchange is still wanted


class _Slot:
    """A frame being decoded by ``decode``; ``frame`` is set when it is done."""

    __slots__ = ("decode", "frame", "raw")

    def __init__(self, raw: RawFrame, decode: Callable[[RawFrame], Frame]) -> None:
        self.raw = raw
        self.decode = decode
        self.frame: Frame | None = None


class Intake:
    """A mailbox with decoder threads behind it; every method may be called from any thread.

    Args:
        mailbox: where frames wait.
        decode: turns a raw frame into a frame; what it raises ends the intake, and ``next_batch`` raises it.
        workers: decoder threads (OpenCV releases the GIL).
        ahead: most frames decoded or in decoding that no engine has taken yet.
    """

    def __init__(self, mailbox: Mailbox, decode: Callable[[RawFrame], Frame], workers: int, ahead: int) -> None:
        self._mailbox = mailbox
        self._decode = decode
        self._ahead = ahead
        self._slots: deque[_Slot] = deque()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._decoded = threading.Condition(self._lock)
        self._closing = False
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{n}", daemon=True) for n in range(max(1, workers))
        ]

    def start(self) -> None:
        """Start the decoder threads."""
        for thread in self._threads:
            thread.start()

    def put(self, frame: RawFrame) -> list[RawFrame]:
        """Let a frame wait; returns those dropped for it. Raises MailboxFull as ``Mailbox.put`` does."""
        with self._lock:
            dropped = self._mailbox.put(frame)
            self._arrived.notify()
            return dropped

    def renew(self, frame: RawFrame) -> bool:
        """Give a redelivered frame's ticket to its first delivery, as ``Mailbox.renew`` does."""
        with self._lock:
            return self._mailbox.renew(frame)

    def next_batch(self, most: int, wait_s: float, timeout_s: float) -> list[Frame]:
        """Up to ``most`` decoded frames, in order; empty when none came within ``timeout_s``.

        Returns at once with whatever is decoded, at least one; ``wait_s`` > 0 holds the batch open that long for
        more. Raises what ended a decoder thread.
        """
        with self._lock:
            if not self._decoded.wait_for(lambda: self._failure or self._head_is_done(), timeout_s):
                return []
            if self._failure is not None:
                raise self._failure
            if wait_s > 0:
                self._decoded.wait_for(lambda: self._done() >= most, wait_s)
            return self._leave(most)

    def take(self, most: int, least: int) -> list[Frame]:
        """Up to ``most`` decoded frames, in order, without waiting; empty while fewer than ``least`` are decoded.

        What ended a decoder thread is left for ``next_batch`` to raise.
        """
        with self._lock:
            if self._failure is not None or self._done() < least:
                return []
            return self._leave(most)

    def exchange(
        self, decode: Callable[[RawFrame], Frame], ahead: int, going: Callable[[], bool]
    ) -> list[Frame] | None:
        """Decode with ``decode`` from now on; waits for the frames that the old one has begun, and returns them.

        None, and nothing changed, when ``going`` says no or the intake is closed meanwhile.
        """
        with self._lock:
            begun, before, self._ahead = list(self._slots), self._ahead, 0
            while not self._decoded.wait_for(
                lambda: self._failure or self._closing or all(slot.frame is not None for slot in begun), EXCHANGE_TURN_S
            ):
                if not going():
                    break
            if self._failure is not None:
                raise self._failure
            if self._closing or not all(slot.frame is not None for slot in begun):
                self._ahead = before
                self._arrived.notify_all()
                return None
            self._decode, self._ahead = decode, ahead
            for _ in begun:
                self._slots.popleft()
            self._arrived.notify_all()
            return [slot.frame for slot in begun if slot.frame is not None]

    def backlog(self) -> tuple[int, int, float | None]:
        """Frames waiting or decoded and not yet taken, their payload bytes, monotonic receive time of the oldest."""
        with self._lock:
            raws = [slot.raw for slot in self._slots]
            times = [raw.received_s for raw in raws]
            if self._mailbox.oldest_s is not None:
                times.append(self._mailbox.oldest_s)
            held = sum(len(raw.payload) for raw in raws)
            return len(self._mailbox) + len(raws), self._mailbox.bytes + held, min(times, default=None)

    def close(self, timeout_s: float = 2.0) -> list[Frame]:
        """Stop decoding; returns the frames already decoded. What still waits is left unjudged."""
        with self._lock:
            self._closing = True
            self._arrived.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            frames = [slot.frame for slot in self._slots if slot.frame is not None]
            self._slots.clear()
            return frames

    def _leave(self, most: int) -> list[Frame]:
        count = min(most, self._done())
        frames = [frame for _ in range(count) if (frame := self._slots.popleft().frame) is not None]
        self._arrived.notify_all()
        return frames

    def _head_is_done(self) -> bool:
        return bool(self._slots) and self._slots[0].frame is not None

    def _done(self) -> int:
        count = 0
        for slot in self._slots:
            if slot.frame is None:
                break
            count += 1
        return count

    def _work(self) -> None:
        while (slot := self._take()) is not None:
            try:
                frame = slot.decode(slot.raw)
            except Exception as error:  # noqa: BLE001 - handed on to the engine's thread, which ends the worker
                self._fail(error)
                return
            with self._lock:
                slot.frame = frame
                self._decoded.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failure = self._failure or error
            self._decoded.notify_all()

    def _take(self) -> _Slot | None:
        with self._lock:
            self._arrived.wait_for(lambda: self._closing or (len(self._slots) < self._ahead and len(self._mailbox) > 0))
            raw = None if self._closing else self._mailbox.take()
            if raw is None:
                return None
            slot = _Slot(raw, self._decode)
            self._slots.append(slot)
            return slot


def spawn(name: str, target: Callable[[], object]) -> threading.Thread:
    """Run ``target`` in a daemon thread called ``name``; for the demo's cameras and the benchmark."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def call_on_signal(callback: Callable[[], object]) -> None:
    """Have the running event loop call ``callback`` at SIGINT and SIGTERM instead of ending the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, callback)


def end_on_sigterm() -> None:
    """Make a SIGTERM that comes before there is anything to drain end the process with 0, and a SIGHUP do nothing; the
    worker has its own."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def start_module(module: str, *arguments: str, quiet: bool = False) -> subprocess.Popen[bytes]:
    """Run ``python -m module arguments…`` as a child, its stderr unseen when ``quiet``; the caller ends it."""
    stderr = subprocess.DEVNULL if quiet else None
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stderr=stderr)


def run_module(module: str, *arguments: str, within_s: float) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module arguments…`` to its end; ``returncode`` is minus the signal that killed it.

    Raises ``subprocess.TimeoutExpired`` when it takes longer than ``within_s``; it is killed then.
    """
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s, check=False
    )
