"""What a link is told and what it tells: the seam between paho and the rest. No paho here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How to reach the broker. ``version`` is 5 or 4 (3.1.1); ``password`` is the secret itself, never logged."""

    host: str
    port: int
    client_id: str
    version: int = 5
    tls: bool = False
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keepalive_s: int = 30
    session_expiry_s: int = 0
    clean_start: bool = False
    receive_maximum: int = 65535
    maximum_packet_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came. ``properties`` holds the MQTT 5 user properties, the last one of each name."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    duplicate: bool
    retained: bool
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when we vanish, and how we are announced."""

    topic: str
    payload: bytes


class LinkHandler(Protocol):
    """What a link tells. All calls come from the thread that runs the link, and must return quickly."""

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        """Connected; ``window`` publications may be in flight, of at most ``max_packet`` bytes each."""

    def link_subscribed(self, refused: list[str]) -> None:
        """The broker answered the subscriptions; ``refused`` names the filters it denied, with the reason."""

    def link_down(self, reason: str) -> None:
        """Disconnected; nothing of this connection may be acknowledged any more."""

    def link_message(self, message: Message) -> None:
        """A message came."""

    def link_wants_more(self) -> bool:
        """Whether messages may be read now; False leaves them in the socket, and so with the broker."""

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        """The PUBACK of a publication came; ``failure`` is the broker's reason if it refused it."""

    def link_turn(self) -> float | None:
        """One turn of the loop: time to publish and acknowledge.

        Returns how many seconds the loop may sleep at most when nothing happens; None leaves it to the link.
        """


class QuietHandler:
    """A ``LinkHandler`` that does nothing; overwrite what matters."""

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        """Connected."""

    def link_subscribed(self, refused: list[str]) -> None:
        """Subscribed."""

    def link_down(self, reason: str) -> None:
        """Disconnected."""

    def link_message(self, message: Message) -> None:
        """A message came."""

    def link_wants_more(self) -> bool:
        """Always."""
        return True

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        """A PUBACK came."""

    def link_turn(self) -> float | None:
        """One turn of the loop."""
        return None
