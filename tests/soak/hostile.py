"""Row 34: a broker that sends damaged packets. The link may leave it, and comes back; nothing else happens."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
from collections.abc import Iterator

from tests.edge.delivery_model import TOPICS, Worker
from tests.edge.fake_broker import CONNACK, PUBACK, PUBLISH, SUBACK, FakeBroker, packet, text, varint
from tests.soak.ledger import Effort, Outcome

GROWTH_MIB = 32
PIECES = (b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00", b"\xed\xa0\x80")


def valid(rng: random.Random) -> bytes:
    """A packet that a broker may send."""
    mid = struct.pack("!H", rng.randint(0, 65535))
    properties = rng.choice([b"", b"\x26" + text("k") + text("v"), b"\x02\x00\x00\x00\x05", b"\x21\x00\x03"])
    counted = varint(len(properties)) + properties
    topic = text(rng.choice(["cameras/a/frame", TOPICS.canary, "", "x" * 300, "cameras/\x00/frame"]))
    return rng.choice(
        [
            packet(CONNACK, 0, bytes([rng.randint(0, 1), rng.choice([0, 0, 0x80, 0x87])]) + counted),
            packet(PUBLISH, rng.choice([0, 2, 4, 6, 10]), topic + mid + counted + rng.randbytes(rng.randint(0, 60))),
            packet(PUBACK, 0, mid + bytes([rng.choice([0, 0x10, 0x80, 0x87])]) + counted),
            packet(SUBACK, 0, mid + counted + bytes([rng.choice([0, 1, 0x80, 0x87])])),
            packet(rng.choice([5, 6, 7, 11, 13, 14, 15]), 0, mid + counted),
        ]
    )


def damaged(rng: random.Random) -> bytes:
    """A valid packet with bytes changed, cut, doubled, or a length that lies."""
    data = bytearray(valid(rng))
    for _ in range(rng.randint(1, 4)):
        at, what = rng.randrange(len(data)), rng.randrange(6)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at : at + 1] = rng.choice(PIECES)
        elif what == 2 and len(data) > 2:
            del data[at:]
        elif what == 3:
            data[at:at] = data[: rng.randint(1, len(data))]
        elif what == 4:
            data[1:2] = varint(rng.choice([0, 1, 127, 128, 16383, 268_435_455]))
        else:
            data += rng.randbytes(rng.randint(1, 30))
        if not data:
            return b"\x00"
    return bytes(data)


class Hostile:
    """A worker whose broker is us; ``feed`` sends bytes and lets its link read them."""

    def __init__(self) -> None:
        self.worker = Worker(FakeBroker(5, lambda *_: None), "latest", {})
        self.broker = self.worker.broker
        self.left = 0

    def connect(self) -> None:
        self.worker.connect()
        for _ in range(4):
            self.worker.turn()
            self.broker.turn(quietly=True)

    def feed(self, data: bytes) -> None:
        peer: socket.socket | None = self.broker._peer
        if peer is None or not self.worker.online:
            self.connect()
            peer = self.broker._peer
        assert peer is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data)
        for _ in range(2):
            self.worker.turn()
        self.left += not self.worker.online
        while self.worker.mailbox.take() is not None:
            pass
        with contextlib.suppress(OSError):
            peer.recv(65536)

    def hang_up(self) -> None:
        """End the connection from our side."""
        self.broker.cut(unread=True)
        for _ in range(3):
            self.worker.turn()


def hostile(effort: Effort) -> Outcome:
    """``effort.count`` damaged packets, a few on each connection."""
    outcome, rng, enemy = Outcome(), random.Random(effort.seed), Hostile()
    before = 0.0
    for data in _stream(rng):
        if not effort.goes_on(outcome.done):
            break
        try:
            enemy.feed(data)
        except Exception as error:  # noqa: BLE001 - this is what the row looks for
            outcome.failures.append(f"{type(error).__name__}: {error} from {data[:40]!r}")
            if len(outcome.failures) > 5:
                break
            enemy = Hostile()
        outcome.done += 1
        if outcome.done == 1000:
            before = _resident()
        if rng.random() < 0.5:
            enemy.hang_up()
    outcome.add("connections left", enemy.left)
    outcome.see("growth MiB", round(_resident() - (before or _resident()), 1))
    outcome.demand(outcome.worst["growth MiB"] <= GROWTH_MIB, f"grew by {outcome.worst['growth MiB']} MiB")
    return outcome


def _stream(rng: random.Random) -> Iterator[bytes]:
    while True:
        yield damaged(rng)


def _resident() -> float:
    """Peak resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def hostile_control(effort: Effort) -> str:
    """A link that trusts the topic to be text."""
    rng, enemy = random.Random(effort.seed), Hostile()
    enemy.worker.link._client.on_message = lambda _c, _u, message: message.topic
    for count in range(20_000):
        try:
            enemy.feed(damaged(rng))
        except UnicodeDecodeError as error:
            return f"a link that trusts the topic to be text: its thread dies after {count} packets of {error.reason}"
        if rng.random() < 0.5:
            enemy.hang_up()
    raise AssertionError("nothing was noticed")
