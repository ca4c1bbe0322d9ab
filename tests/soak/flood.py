"""A camera and a reader of verdicts on bare sockets, for loads at which a client library would be the bottleneck.

``python -m tests.soak.flood PORT BYTES RATE SECONDS`` sends frames of so many bytes, RATE a second, in the name of
eight cameras, reads the verdicts, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

CAMERAS, AHEAD = 8, 256  # frames sent and not yet answered at most: what a worker's mailbox takes
PUBLISH, PUBACK = 3, 4
ANSWER = re.compile(rb'"id":"(\w+)".*?"frame_id":"(\d+)".*?"total":([\d.]+)')


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT control packet; ``kind`` is its first byte."""
    left, length = len(body), bytearray()
    while True:
        left, digit = left >> 7, left & 0x7F
        length.append(digit | (0x80 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


def string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


class Client:
    """An MQTT 5 connection; ``take`` gives the packets that came, as first byte and body."""

    def __init__(self, port: int, name: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()
        properties = b"\x21" + (65535).to_bytes(2, "big")  # Receive Maximum
        self.socket.sendall(packet(0x10, string(b"MQTT") + b"\5\2\0\0\3" + properties + string(name.encode())))
        self._await(0x20)

    def subscribe(self, topic: str) -> None:
        self.socket.sendall(packet(0x82, b"\0\1\0" + string(topic.encode()) + b"\1"))
        self._await(0x90)

    def take(self) -> list[tuple[int, bytes]]:
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the broker closed the connection")
        self._data += chunk
        found, at, data = [], 0, self._data
        while True:
            length, n = 0, 1
            while True:
                if at + n >= len(data):
                    del data[:at]
                    return found
                length |= (data[at + n] & 0x7F) << 7 * (n - 1)
                n += 1
                if data[at + n - 1] < 0x80:
                    break
            if len(data) < at + n + length:
                del data[:at]
                return found
            found.append((data[at], bytes(data[at + n : at + n + length])))
            at += n + length

    def _await(self, kind: int) -> None:
        while kind not in [first for first, _ in self.take()]:
            pass


@dataclass
class Flood:
    """``sent`` and ``confirmed`` frames, and of the ``answered`` their verdict ids and latencies in ms."""

    port: int
    size: int
    rate: float
    sent: int = 0
    confirmed: int = 0
    repeated: int = 0
    answered: dict[int, str] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._camera, self._reader = Client(self.port, "flood-camera"), Client(self.port, "flood-reader")
        self._reader.subscribe("cameras/+/verdict")
        self._image = b"\xff\xd8" + b"\x5a" * (self.size - 2)

    def run(self, seconds: float) -> dict[str, float]:
        with selectors.DefaultSelector() as selector:
            for client in (self._camera, self._reader):
                selector.register(client.socket, selectors.EVENT_READ, client)
            began = time.monotonic()
            while (now := time.monotonic()) < began + seconds:
                self._send(began, now)
                self._turn(selector, 0.001)
            sending = time.monotonic() - began
            within = len(self.answered)
            while len(self.answered) < self.sent and time.monotonic() < began + sending + 20:
                self._turn(selector, 0.1)
        return self._summary(sending, within)

    def _send(self, began: float, now: float) -> None:
        due = min(int((now - began) * self.rate), self.sent + 16)
        while self.sent < due and self.sent - len(self.answered) < AHEAD:
            topic = string(f"cameras/flood-{self.sent % CAMERAS}/frame".encode())
            frame_id = b"\x26" + string(b"frame_id") + string(b"%d" % self.sent)
            mid = (self.sent % 65535 + 1).to_bytes(2, "big")
            head = topic + mid + bytes([len(frame_id)]) + frame_id
            self._camera.socket.sendall(packet(0x32, head + self._image))
            self.sent += 1

    def _turn(self, selector: selectors.BaseSelector, timeout_s: float) -> None:
        for key, _ in selector.select(timeout_s):
            acknowledgements = []
            for first, body in key.data.take():
                if first >> 4 == PUBACK:
                    self.confirmed += 1
                elif first >> 4 == PUBLISH:
                    acknowledgements.append(self._answer(body))
            if acknowledgements:
                key.data.socket.sendall(b"".join(acknowledgements))

    def _answer(self, body: bytes) -> bytes:
        found = ANSWER.search(body)
        if found is not None:
            number = int(found[2])
            self.repeated += number in self.answered
            self.answered[number] = found[1].decode()
            self.latencies_ms.append(float(found[3]))
        at = 2 + int.from_bytes(body[:2], "big")
        return packet(0x40, body[at : at + 2])

    def _summary(self, seconds: float, within: int) -> dict[str, float]:
        ordered = sorted(self.latencies_ms) or [0.0]
        return {
            "sent": self.sent,
            "confirmed": self.confirmed,
            "answered": len(self.answered),
            "repeated": self.repeated,
            "frames/s": within / seconds,
            "p50 ms": ordered[len(ordered) // 2],
            "p99 ms": ordered[int(0.99 * (len(ordered) - 1))],
        }


def main() -> None:
    port, size, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    sys.stdout.write(json.dumps(Flood(port, size, rate).run(seconds)) + "\n")


if __name__ == "__main__":
    main()
