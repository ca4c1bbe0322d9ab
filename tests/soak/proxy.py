"""A TCP proxy between client and broker: swallows everything, goes slowly, counts what is in flight on the wire."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

PUBLISH, PUBACK = 3, 4


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
    """Passes on from ``port`` to ``target``. ``swallow``: nothing passes and nobody is told. ``rate``: bytes/s."""

    def __init__(self, target: int, rate: float | None = None) -> None:
        self.wire = Wire()
        self.swallow = False
        self._target, self._rate = target, rate
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
                broker = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                return
            self._ends += [client, broker]
            self.wire.connections += 1
            in_flight: set[int] = set()
            self._spawn(self._pump, client, broker, in_flight, True)
            self._spawn(self._pump, broker, client, in_flight, False)

    def _pump(self, source: socket.socket, sink: socket.socket, in_flight: set[int], outward: bool) -> None:
        packets = _Packets()
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536 if self._rate is None else max(1, int(self._rate / 20))):
                while self.swallow:
                    time.sleep(0.02)
                for kind, flags, body in packets.feed(chunk):
                    self._count(kind, flags, body, in_flight, outward)
                if self._rate is not None:
                    time.sleep(len(chunk) / self._rate)
                sink.sendall(chunk)
        _hang_up(source, sink)

    def _count(self, kind: int, flags: int, body: bytes, in_flight: set[int], outward: bool) -> None:
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
