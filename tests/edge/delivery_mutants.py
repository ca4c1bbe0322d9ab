"""Faults planted into the delivery path: each one was made by somebody once, and the model has to find it.

A mutant is a set of replaced parts for ``tests.edge.delivery_model.Worker``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from edge.config import Config
from edge.courier import Courier
from edge.delivery import Delivery, Outgoing
from edge.link import Link
from edge.link_handler import LinkSettings
from edge.parts import link_settings
from edge.records import Ticket


class NoEpoch(Delivery):
    """Acknowledges by packet identifier alone: a late one of an old session hits somebody else's frame."""

    def settle(self, ticket: Ticket) -> list[int]:
        for serial, (mid, _) in self._unacked.items():
            if mid == ticket.mid:
                return super().settle(replace(ticket, serial=serial))
        return []


class OutOfOrder(Delivery):
    """Acknowledges each frame as soon as it is safe."""

    def settle(self, ticket: Ticket) -> list[int]:
        return [] if self._unacked.pop(ticket.serial, None) is None else [ticket.mid]


class TwiceAcknowledged(Delivery):
    """Forgets what it has acknowledged."""

    def settle(self, ticket: Ticket) -> list[int]:
        released = super().settle(ticket)
        return released or ([ticket.mid] if ticket.epoch == self.epoch and ticket.qos else [])


class NoWindow(Delivery):
    """Sends whatever it has at once, as paho does."""

    def connect(self, window: int) -> int:
        del window
        return super().connect(65535)


class ForgetsTickets(Delivery):
    """A frame that came again while its verdict waited is never acknowledged."""

    def offer(self, outgoing: Outgoing) -> None:
        if outgoing.key not in self._outbox:
            super().offer(outgoing)


class EarlyAck(Courier):
    """Acknowledges a frame when its verdict is handed over, not when the broker has confirmed it."""

    def deliver(self, outgoing: Outgoing) -> None:
        for ticket in outgoing.tickets:
            self.settle(ticket)
        super().deliver(outgoing)


class AckOnError(Courier):
    """Takes a refusal of the verdict for a confirmation."""

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        super().link_confirmed(mid, None if failure is not None else failure)


class DropsSilently(Courier):
    """Does not acknowledge what gave way to a newer frame, until the window is full."""

    def _put_held(self) -> None:
        while self._held:
            self._sink.put(self._held.popleft())


class ForgetsWhatWaits(Courier):
    """Trusts the broker to deliver again what waits, though a killed one may have saved nothing of it."""

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        super().link_up(session_present, window, max_packet)
        if session_present:
            while cast(Any, self._sink).mailbox.take() is not None:
                pass
            self._held.clear()


class AckBeforeConnect(Link):
    """Acknowledges between two connections; paho then sends it as the first packet of the next one."""

    late: int | None = None

    def connect(self) -> None:
        self._client.on_socket_open = lambda *_: None if self.late is None else self.acknowledge(self.late)
        super().connect()

    def _on_message(self, _c: Any, _u: Any, message: Any) -> None:
        self.late = message.mid
        super()._on_message(_c, _u, message)


class NoSubscribeAgain(Link):
    """Subscribes once in its life and trusts the broker's memory."""

    def _on_connect(self, *args: Any) -> None:
        super()._on_connect(*args)
        self._subscriptions = ()


class RetryOnNoConnection(Link):
    """Publishes again what paho has kept and will send by itself after the reconnect."""

    def connect(self) -> None:
        self._client.drop_out_messages = lambda: None  # type: ignore[method-assign]
        super().connect()


def _clean_start(config: Config) -> LinkSettings:
    return replace(link_settings(config), clean_start=True)


def _no_session_expiry(config: Config) -> LinkSettings:
    return replace(link_settings(config), session_expiry_s=0)


MUTANTS: dict[str, dict[str, Any]] = {
    "no epoch": {"delivery": NoEpoch},
    "early ack": {"courier": EarlyAck},
    "ack on error": {"courier": AckOnError},
    "clean start by default": {"settings": _clean_start},
    "missing session expiry": {"settings": _no_session_expiry},
    "no subscription after a lost session": {"link": NoSubscribeAgain},
    "retry of what paho has queued": {"link": RetryOnNoConnection},
    "ack before CONNECT": {"link": AckBeforeConnect},
    "out of order": {"delivery": OutOfOrder},
    "acknowledged twice": {"delivery": TwiceAcknowledged},
    "no window": {"delivery": NoWindow},
    "ticket of a second delivery forgotten": {"delivery": ForgetsTickets},
    "drop without acknowledgement": {"courier": DropsSilently},
    "what waits forgotten at a reconnect": {"courier": ForgetsWhatWaits},
}
