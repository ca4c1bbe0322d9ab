"""A broker for one client, written from the MQTT 5 specification: bytes in, bytes out, no thread, no clock.

What the specification lets a broker do at its leisure (deliver, confirm, end the connection, forget the session)
happens when a test says so; what it forbids raises ``Violation``. Numbers in brackets are the specification's own.
"""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 10, 11, 12, 13, 14
SESSION_EXPIRY, RECEIVE_MAXIMUM, MAXIMUM_PACKET = 0x11, 0x21, 0x27


class Violation(AssertionError):  # noqa: N818 - the specification's own word would be protocol error
    """The client did what the specification forbids."""


def varint(number: int) -> bytes:
    """A variable byte integer [1.5.5]."""
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """A control packet: fixed header and ``body`` [2.1]."""
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def text(value: str) -> bytes:
    """A UTF-8 string with its length [1.5.4]."""
    raw = value.encode()
    return struct.pack("!H", len(raw)) + raw


class Reader:
    """Takes fields off the front of a packet's body."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def take(self, count: int) -> bytes:
        if count > len(self.body):
            raise Violation("malformed packet: it ends too early")
        head, self.body = self.body[:count], self.body[count:]
        return head

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(2)).decode()

    def varint(self) -> int:
        value = shift = 0
        while True:
            digit = self.number(1)
            value |= (digit & 0x7F) << shift
            if digit < 0x80:
                return value
            shift += 7

    def properties(self) -> dict[int, int]:
        """The integer properties that matter here; others are passed over [2.2.2]."""
        sizes = {SESSION_EXPIRY: 4, RECEIVE_MAXIMUM: 2, MAXIMUM_PACKET: 4}
        inside = Reader(self.take(self.varint()))
        found: dict[int, int] = {}
        while inside.body:
            name = inside.number(1)
            if name not in sizes:
                break
            found[name] = inside.number(sizes[name])
        return found


@dataclass
class Session:
    """What a broker keeps for a client between connections [4.1]."""

    expiry_s: int
    filters: set[str] = field(default_factory=set)
    queue: list[tuple[str, bytes]] = field(default_factory=list)
    in_flight: OrderedDict[int, tuple[str, bytes]] = field(default_factory=OrderedDict)
    last_mid: int = 0


class FakeBroker:
    """One broker with at most one client.

    Args:
        receive_maximum: what it tells the client in its CONNACK.
        acknowledged: called with topic and payload of each message that the client acknowledges.
    """

    def __init__(self, receive_maximum: int, acknowledged: Callable[[str, bytes], None]) -> None:
        self.receive_maximum = receive_maximum
        self.session: Session | None = None
        self.publications: OrderedDict[int, tuple[str, bytes]] = OrderedDict()  # of the client, without a PUBACK
        self.connected = False
        self._acknowledged = acknowledged
        self._peer: socket.socket | None = None
        self._seen = b""
        self._window = 0
        self._order: list[int] = []  # packet identifiers sent in this connection and not acknowledged

    # -- what the test decides ---------------------------------------------------------------------------------

    def accept(self) -> socket.socket:
        """A new connection; returns the client's end of it."""
        self.cut()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._peer, self._seen = ours, b""
        return theirs

    def cut(self, *, unread: bool = False) -> None:
        """End the connection without a word; the session stays for its expiry interval [3.1.2.11.2].

        ``unread``: what the client has sent and the broker not yet read never arrives.
        """
        if self._peer is not None and not unread:
            self.turn(quietly=True)
        if self._peer is not None:
            self._close()

    def lose_session(self) -> None:
        """Restart without persistence: the connection and the session with all that it held are gone."""
        self.cut()
        self.session = None

    def restore(self, forgotten: Callable[[str, bytes], bool]) -> None:
        """Killed and started again from what it last saved: of the messages on their way to the client it has
        ``forgotten`` some, and counts packet identifiers on from those that are left."""
        self.cut()
        if self.session is not None:
            kept = [(mid, message) for mid, message in self.session.in_flight.items() if not forgotten(*message)]
            self.session.in_flight = OrderedDict(kept)
            self.session.last_mid = max(self.session.in_flight, default=0)

    def publish(self, topic: str, payload: bytes) -> None:
        """Another client's QoS 1 message: queued for the session if it has a subscription that matches."""
        if self.session is not None and any(matches(pattern, topic) for pattern in self.session.filters):
            self.session.queue.append((topic, payload))

    def deliver(self, most: int = 1000) -> None:
        """Send up to ``most`` queued messages within the client's Receive Maximum [3.3.4]."""
        session = self.session
        while most and self.connected and session is not None and session.queue and len(self._order) < self._window:
            most -= 1
            session.last_mid = session.last_mid % 65535 + 1
            session.in_flight[session.last_mid] = session.queue.pop(0)
            self._send_message(session.last_mid, duplicate=False)

    def confirm(self, mid: int, reason: int = 0) -> tuple[str, bytes]:
        """Send the PUBACK of a publication; returns it [3.4]."""
        topic, payload = self.publications.pop(mid)
        self._send(packet(PUBACK, 0, struct.pack("!HBB", mid, reason, 0)))
        if reason < 0x80:
            self.publish(topic, payload)
        return topic, payload

    def turn(self, *, quietly: bool = False) -> None:
        """Read and answer what the client has sent so far; ``quietly``: nothing can be answered any more."""
        if self._peer is None:
            return
        try:
            while chunk := self._peer.recv(65536):
                self._seen += chunk
            ended = True
        except BlockingIOError:
            ended = False
        except OSError:
            ended = True
        while (parts := self._next_packet()) is not None:
            self._handle(*parts)
            if self._peer is None:
                return
        if ended and not quietly:
            self._close()

    # -- inside ------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer = None
        self.connected = False
        self.publications.clear()
        self._order.clear()
        if self.session is not None and self.session.expiry_s == 0:
            self.session = None

    def _next_packet(self) -> tuple[int, int, bytes] | None:
        for length_bytes in range(1, 5):
            if len(self._seen) < 1 + length_bytes:
                return None
            if self._seen[length_bytes] < 0x80:
                break
        length = Reader(self._seen[1 : 1 + length_bytes]).varint()
        end = 1 + length_bytes + length
        if len(self._seen) < end:
            return None
        first, body = self._seen[0], self._seen[1 + length_bytes : end]
        self._seen = self._seen[end:]
        return first >> 4, first & 0x0F, body

    def _handle(self, kind: int, flags: int, body: bytes) -> None:
        if (kind == CONNECT) == self.connected:
            raise Violation("a second CONNECT" if self.connected else f"packet {kind} before CONNECT [3.1.0-1]")
        reader = Reader(body)
        if kind == CONNECT:
            self._on_connect(reader)
        elif kind == PUBLISH:
            self._on_publish(flags, reader)
        elif kind == PUBACK:
            self._on_puback(reader)
        elif kind == SUBSCRIBE:
            self._on_subscribe(reader)
        elif kind == UNSUBSCRIBE:
            self._on_unsubscribe(reader)
        elif kind == PINGREQ:
            self._send(packet(PINGRESP, 0, b""))
        elif kind == DISCONNECT:
            self._close()
        else:
            raise Violation(f"a client never sends packet {kind}")

    def _on_connect(self, reader: Reader) -> None:
        if reader.text() != "MQTT" or reader.number(1) != 5:
            raise Violation("not MQTT 5")
        flags = reader.number(1)
        reader.number(2)
        properties = reader.properties()
        if flags & 0x02:  # Clean Start [3.1.2-4]
            self.session = None
        present = self.session is not None
        expiry = properties.get(SESSION_EXPIRY, 0)  # absent means 0: the session ends with the connection
        session = self.session = self.session or Session(expiry)
        session.expiry_s = expiry
        self._window = properties.get(RECEIVE_MAXIMUM, 65535)
        self.connected = True
        given = bytes([RECEIVE_MAXIMUM]) + struct.pack("!H", self.receive_maximum)
        self._send(packet(CONNACK, 0, bytes([present, 0]) + varint(len(given)) + given))
        for mid in session.in_flight:  # resent with their own identifiers, in their order [4.4.0-1]
            self._send_message(mid, duplicate=True)

    def _on_publish(self, flags: int, reader: Reader) -> None:
        if flags >> 1 & 3 != 1:
            raise Violation("expected QoS 1")
        topic, mid = reader.text(), reader.number(2)
        reader.take(reader.varint())
        if mid in self.publications:
            raise Violation(f"packet identifier {mid} is still in use [2.2.1-3]")
        if len(self.publications) >= self.receive_maximum:
            raise Violation(f"more than {self.receive_maximum} publications in flight [3.3.4-9]")
        if topic.endswith("/verdict") and (topic, reader.body) in self.publications.values():
            raise Violation(f"{reader.body!r} is on its way twice in one connection")
        self.publications[mid] = (topic, reader.body)

    def _on_puback(self, reader: Reader) -> None:
        mid = reader.number(2)
        if mid not in self._order or self.session is None:
            raise Violation(f"acknowledgement of {mid}, which this connection did not deliver or has acknowledged")
        if self._order[0] != mid:
            raise Violation(f"acknowledgement of {mid} before {self._order[0]} [4.6.0-2]")
        self._order.pop(0)
        self._acknowledged(*self.session.in_flight.pop(mid))

    def _on_subscribe(self, reader: Reader) -> None:
        mid = reader.number(2)
        reader.take(reader.varint())
        count = 0
        while reader.body and self.session is not None:
            self.session.filters.add(reader.text())
            reader.number(1)
            count += 1
        self._send(packet(SUBACK, 0, struct.pack("!HB", mid, 0) + b"\x01" * count))

    def _on_unsubscribe(self, reader: Reader) -> None:
        mid = reader.number(2)
        reader.take(reader.varint())
        count = 0
        while reader.body and self.session is not None:
            self.session.filters.discard(reader.text())
            count += 1
        self._send(packet(UNSUBACK, 0, struct.pack("!HB", mid, 0) + b"\x00" * count))

    def _send_message(self, mid: int, *, duplicate: bool) -> None:
        if self.session is None:
            return
        topic, payload = self.session.in_flight[mid]
        self._order.append(mid)
        body = text(topic) + struct.pack("!HB", mid, 0) + payload
        self._send(packet(PUBLISH, 0x02 | (0x08 if duplicate else 0), body))

    def _send(self, data: bytes) -> None:
        if self._peer is not None:
            try:
                self._peer.sendall(data)
            except OSError:
                self._close()


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter with ``+`` matches a topic [4.7]."""
    if pattern.startswith("$share/"):
        pattern = pattern.split("/", 2)[2]
    wanted, given = pattern.split("/"), topic.split("/")
    return len(wanted) == len(given) and all(w in ("+", g) for w, g in zip(wanted, given, strict=True))
