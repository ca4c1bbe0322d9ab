"""The delivery core: who may be acknowledged, when, and in which order. No I/O, no threads, no clock.

The rules it keeps:

* A frame is acknowledged only after its end state is safe: its verdict's (or dead letter's) own PUBACK came, or it
  was dropped by policy and counted.
* Only in the connection that delivered it. Packet identifiers start anew with every session, so a late
  acknowledgement would destroy somebody else's frame.
* In the order in which the frames came, per connection [MQTT-4.6.0-2].
* At most ``window`` publications are unacknowledged; the others wait in the outbox and outlive a reconnect.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from edge.records import Ticket

Kind = Literal["verdict", "deadletter", "notice"]


@dataclass(slots=True)
class Outgoing:
    """One publication that waits for its PUBACK.

    ``key`` names it for ever (a verdict's ``id``): offered again, its tickets join those already waiting.
    ``tickets`` are the frames that may be acknowledged once it is safe. ``camera`` is whom it is about, if anyone.
    ``stored``: the payload is in the spool and not here.
    """

    key: str
    kind: Kind
    topic: str
    payload: bytes
    retain: bool = False
    camera: str = ""
    tickets: list[Ticket] = field(default_factory=list)
    stored: bool = False


class Delivery:
    """The state of one worker's dealings with its broker. The caller locks."""

    def __init__(self) -> None:
        self.epoch = 0
        self.connected = False
        self.window = 1
        self._serial = 0
        # Frames of this connection in the order of arrival; True once the end state is safe.
        self._unacked: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._outbox: OrderedDict[str, Outgoing] = OrderedDict()
        self._unsent: OrderedDict[str, None] = OrderedDict()  # keys in the order in which they leave
        self._shelf: OrderedDict[str, None] = OrderedDict()  # those that the spool does not give back now
        self._in_flight: dict[int, str] = {}
        self._loose: OrderedDict[str, None] = OrderedDict()  # verdicts whose frames nobody delivers again

    @property
    def unacked(self) -> int:
        """Frames of this connection that the broker still holds for us."""
        return len(self._unacked)

    @property
    def outbox(self) -> int:
        """Publications that have no PUBACK yet."""
        return len(self._outbox)

    @property
    def in_flight(self) -> int:
        """Publications that have left in this connection and have no PUBACK yet."""
        return len(self._in_flight)

    def connect(self, window: int) -> int:
        """A connection begins: a new epoch, nothing of the old one may be acknowledged. Returns the epoch."""
        self.disconnect()
        self.epoch += 1
        self.connected = True
        self.window = max(1, window)
        return self.epoch

    def disconnect(self) -> None:
        """The connection is gone; publications without a PUBACK go back to the front of the outbox."""
        self.connected = False
        self._unacked.clear()
        self._in_flight.clear()
        self._shelf.clear()
        self._unsent = OrderedDict.fromkeys(self._outbox)

    def arrive(self, mid: int, qos: int) -> Ticket:
        """A message came in this connection; its ticket is the right to acknowledge it."""
        self._serial += 1
        ticket = Ticket(self.epoch, self._serial, mid, qos)
        if qos > 0:
            self._unacked[ticket.serial] = (mid, False)
        return ticket

    def settle(self, ticket: Ticket) -> list[int]:
        """The frame's end state is safe. Returns the packet identifiers to acknowledge now, in order.

        A ticket of another connection, a second call, or QoS 0 releases nothing.
        """
        if ticket.serial not in self._unacked:  # serials never repeat, and a new connection starts with none
            return []
        self._unacked[ticket.serial] = (ticket.mid, True)
        released = []
        while self._unacked:
            serial, (mid, safe) = next(iter(self._unacked.items()))
            if not safe:
                break
            del self._unacked[serial]
            released.append(mid)
        return released

    def offer(self, outgoing: Outgoing) -> None:
        """Put a publication into the outbox; one with the same key only gains its tickets."""
        waiting = self._outbox.get(outgoing.key)
        if waiting is not None:
            waiting.tickets.extend(outgoing.tickets)
        else:
            waiting = self._outbox[outgoing.key] = outgoing
            self._unsent[outgoing.key] = None
        if waiting.kind == "verdict" and not any(ticket.qos for ticket in waiting.tickets):
            self._loose[waiting.key] = None
        else:
            self._loose.pop(waiting.key, None)

    def offer_newest(self, outgoing: Outgoing) -> None:
        """Put a publication into the outbox in place of those to its topic that no frame waits for and are not sent.

        So an absent broker finds the latest state when it is back, and the outbox does not grow with its absence.
        """
        for key in [key for key in self._unsent if self._is_superseded(self._outbox[key], outgoing)]:
            self.abandon(key)
        self.offer(outgoing)

    @staticmethod
    def _is_superseded(waiting: Outgoing, newer: Outgoing) -> bool:
        return waiting.kind == "notice" and waiting.topic == newer.topic

    def next_to_send(self) -> Outgoing | None:
        """The next publication that may go out now, or None: offline, window full, or nothing to send.

        The caller publishes it and calls ``sent`` before it asks again.
        """
        if not self.connected or not self._unsent or len(self._in_flight) >= self.window:
            return None
        return self._outbox[self._unsent.popitem(last=False)[0]]

    def sent(self, key: str, mid: int) -> None:
        """The publication left under packet identifier ``mid``."""
        if key in self._outbox:
            self._in_flight[mid] = key

    def unsent(self, key: str) -> None:
        """The publication could not leave; it goes back to the front."""
        if key in self._outbox:
            self._unsent[key] = None
            self._unsent.move_to_end(key, last=False)

    def shelve(self, key: str) -> None:
        """The spool does not give ``key`` now: it and all that is stored wait for ``unshelve``, ``key`` behind them."""
        for stored in [waiting for waiting in self._unsent if self._outbox[waiting].stored]:
            del self._unsent[stored]
            self._shelf[stored] = None
        if key in self._outbox:
            self._shelf[key] = None

    def unshelve(self) -> None:
        """What was shelved goes to the front."""
        if self._shelf:
            self._unsent = OrderedDict.fromkeys([*self._shelf, *self._unsent])
            self._shelf.clear()

    def confirm(self, mid: int) -> Outgoing | None:
        """The broker's PUBACK for ``mid`` came, good or bad: the publication leaves the outbox and is returned."""
        key = self._in_flight.pop(mid, None)
        return None if key is None else self.abandon(key)

    def shed(self, most: int) -> list[Outgoing]:
        """Of more than ``most`` verdicts take out the oldest that are not on their way; returns them.

        One whose frame is still to be acknowledged stays, and does not count: the broker bounds how many there are.
        """
        excess = max(0, len(self._loose) - most)
        oldest = list(islice((key for key in self._loose if key in self._unsent), excess))
        return [outgoing for key in oldest if (outgoing := self.abandon(key)) is not None]

    def abandon_stored(self, key: str) -> Outgoing | None:
        """Take out a waiting publication whose payload was in the spool and is there no more.

        One that has been taken to be sent stays: the broker may get it, and confirms it then.
        """
        return self.abandon(key) if self._waits(key) and self._outbox[key].stored else None

    def _waits(self, key: str) -> bool:
        return key in self._unsent or key in self._shelf

    def abandon(self, key: str) -> Outgoing | None:
        """Take a publication out of the outbox: it is confirmed, or can never be sent."""
        self._unsent.pop(key, None)
        self._shelf.pop(key, None)
        self._loose.pop(key, None)
        return self._outbox.pop(key, None)
