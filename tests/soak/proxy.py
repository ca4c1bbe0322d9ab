"""A TCP proxy between client and broker: swallows everything, goes slowly, cuts, counts and tells what passes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PUBLISH, PUBACK = 3, 4
Tap = Callable[[int, bool, int, int, bytes], None]  # connection, from the client, kind, flags, body


@dataclass
class Wire:
    """What went over the wire: the client's unacknowledged publications at most in one connection, and connections."""

    most: int = 0
    connections: int = 0


class _Packets:
    """Cuts one direction's bytes into MQTT packets."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, chunk: bytes) -> list[tuple[int, int, bytes]]:
        """Kind, flags and body of each whole packet."""
        self._data += chunk
        found = []
        while (end := self._end()) is not None:
            head, body_at, stop = self._data[0], end[0], end[1]
            found.append((head >> 4, head & 15, self._data[body_at:stop]))
            self._data = self._data[stop:]
        return found

    def _end(self) -> tuple[int, int] | None:
        length = 0
        for n in range(1, 5):
            if len(self._data) <= n:
                return None
            length |= (self._data[n] & 0x7F) << 7 * (n - 1)
            if self._data[n] < 0x80:
                stop = n + 1 + length
                return (n + 1, stop) if len(self._data) >= stop else None
        return None


class Proxy:
    """Passes on from ``port`` to ``target``.

    ``swallow``: nothing passes and nobody is told. ``rate``: bytes/s. ``limit``: so many bytes more, then the
    connection is cut. ``tap`` is told of each packet just before it is passed on.
    """

    def __init__(self, target: int, rate: float | None = None, tap: Tap | None = None) -> None:
        self.wire = Wire()
        self.swallow = False
        self.rate = rate
        self.limit: int | None = None
        self._target, self._tap = target, tap
        self._now: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._ends: list[socket.socket] = [self._server]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Proxy:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        _hang_up(*self._ends)
        for end in self._ends:
            end.close()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                client.close()
                continue
            self._ends += [client, broker]
            self._now = [client, broker]
            self.wire.connections += 1
            number, in_flight = self.wire.connections, set[int]()
            self._spawn(self._pump, client, broker, number, in_flight, True)
            self._spawn(self._pump, broker, client, number, in_flight, False)

    def reset(self) -> None:
        """Both ends of the latest connection get an RST."""
        for end in self._now:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _hang_up(*self._now)
        for end in self._now:
            end.close()

    def _pump(
        self, source: socket.socket, sink: socket.socket, number: int, in_flight: set[int], outward: bool
    ) -> None:
        packets = _Packets()
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536 if self.rate is None else max(1, int(self.rate / 20))):
                while self.swallow:
                    time.sleep(0.02)
                if self._is_spent(len(chunk)):
                    break
                for kind, flags, body in packets.feed(chunk):
                    self._count(number, kind, flags, body, in_flight, outward)
                if self.rate is not None:
                    time.sleep(len(chunk) / self.rate)
                sink.sendall(chunk)
        _hang_up(source, sink)

    def _is_spent(self, size: int) -> bool:
        if self.limit is None:
            return False
        self.limit = None if self.limit < size else self.limit - size
        return self.limit is None

    def _count(self, number: int, kind: int, flags: int, body: bytes, in_flight: set[int], outward: bool) -> None:
        if self._tap is not None:
            self._tap(number, outward, kind, flags, body)
        if outward and kind == PUBLISH and flags & 6:
            at = 2 + int.from_bytes(body[:2], "big")
            in_flight.add(int.from_bytes(body[at : at + 2], "big"))
            self.wire.most = max(self.wire.most, len(in_flight))
        elif not outward and kind == PUBACK:
            in_flight.discard(int.from_bytes(body[:2], "big"))


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
