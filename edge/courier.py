"""The courier between the link and the worker: takes frames in, carries verdicts out, acknowledges what is safe.

It joins the delivery core (``edge.delivery``, the rules) with the link (``edge.link``, paho's hands). The link's thread
calls the ``link_*`` methods; the worker's calls the others. Only the link's thread touches the connection: what others
want sent waits in the delivery core and leaves on the next turn.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from edge.canary import Canary
from edge.delivery import Delivery, Outgoing
from edge.errors import FrameError, SpoolError
from edge.health import Health
from edge.keeper import RETRY_S, Keeper
from edge.link import Link
from edge.link_handler import Message
from edge.mailbox import MailboxFull, renew
from edge.readiness import PASSING, Readiness
from edge.records import RawFrame, Ticket
from edge.roster import Roster
from edge.wire import Topics, clean_captured_at, clean_frame_id, is_canary, is_reserved, shorten

log = logging.getLogger(__name__)

HELD_TURN_S = 0.01  # how soon a full mailbox is tried again
TOPIC_OVERHEAD = 64  # bytes of a PUBLISH beside topic and payload, generously


class Sink(Protocol):
    """Where frames go: the intake."""

    def put(self, frame: RawFrame) -> list[RawFrame]:
        """Take a frame; returns those dropped for it, or raises MailboxFull."""

    def renew(self, frame: RawFrame) -> bool:
        """Give the ticket of a frame that came again to its first delivery; False where that does not wait."""


class Courier:
    """A ``LinkHandler``. Call ``attach`` with the link before it runs.

    Args:
        topics: this worker's topics.
        sink: where frames go.
        health: whom to tell.
        max_bytes: what a single message may hold to be taken at all.
        url: the broker, for people.
        clock: monotonic seconds.
        keeper: keeps verdicts on disk.
        max_cameras: how many are served at a time.
    """

    def __init__(
        self,
        topics: Topics,
        sink: Sink,
        health: Health,
        max_bytes: int,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        keeper: Keeper | None = None,
        max_cameras: int = 1000,
    ) -> None:
        self._topics, self._sink, self._health = topics, sink, health
        self._max_bytes, self._url = max_bytes, url
        self._clock = clock
        self._lock, self._delivery = Lock(), Delivery()
        self._acks: deque[tuple[int, int]] = deque()
        self._held: deque[RawFrame] = deque()  # read but not yet taken by a full mailbox: one read's worth
        self._max_packet: int | None = None
        self._readiness, self._draining = Readiness(topics), False
        self._canary = Canary(self._readiness)
        self._told, self._serial, self._read_again_at = ("", ""), 0, 0.0
        self._link: Link | None = None
        self._roster = Roster(max_cameras)
        self._keeper = keeper or Keeper()
        for outgoing in self._keeper.recover():
            self._delivery.offer(outgoing)

    def attach(self, link: Link) -> None:
        """Tell the courier which link carries its messages."""
        self._link = link

    # -- the worker's side -------------------------------------------------------------------------------------

    def deliver(self, outgoing: Outgoing) -> None:
        """Publish, and acknowledge the frames of ``outgoing.tickets`` once the broker has confirmed it."""
        gone = self._keeper.keep(outgoing)
        with self._lock:
            self._delivery.offer(outgoing)
            dropped = [old for key in gone if (old := self._delivery.abandon_stored(key)) is not None]
            dropped += self._delivery.shed(self._keeper.most())
        for old in dropped:
            self._drop(old, "outbox full")
        self._wake()

    def notice(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish a state that no frame waits for; a newer one on the same topic takes its place while it waits."""
        with self._lock:
            self._serial += 1
            self._delivery.offer_newest(Outgoing(f"notice:{self._serial}", "notice", topic, payload, retain))
        self._wake()

    def settle(self, ticket: Ticket) -> None:
        """The frame's end state is safe without a publication: it was dropped and counted."""
        with self._lock:
            self._settle(ticket)
        self._wake()

    def dead_letter(self, camera: str, reason: str, tickets: list[Ticket], key: str) -> None:
        """Publish what could not be judged or delivered; its frames are acknowledged after that."""
        self._health.deadletter(camera or "-", reason)
        note = {"camera": camera, "reason": reason, "key": key, "at": time.time(), "worker": self._topics.worker}
        payload = json.dumps(note, allow_nan=False).encode()
        self.deliver(
            Outgoing(f"dead:{key}", "deadletter", self._topics.deadletter, payload, tickets=tickets, camera=camera)
        )

    def set_warm(self) -> None:
        """The engines have answered once; only the broker is missing for readiness."""
        self._readiness.warm = True
        self._tell_state()

    def drain(self) -> None:
        """No more frames are taken; what is judged is still delivered."""
        self._draining = True
        self._wake()
        self._health.set_state("draining", "stopping: delivering what has been judged")

    def pending(self) -> int:
        """Publications and acknowledgements that can still leave; none without a connection.

        A frame whose verdict was not confirmed is not acknowledged either, and comes again to the next worker.
        """
        with self._lock:
            return self._delivery.outbox + len(self._acks) if self._delivery.connected else 0

    # -- the link's side ---------------------------------------------------------------------------------------

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        with self._lock:
            self._delivery.connect(window)
            self._acks.clear()
        self._max_packet = max_packet
        self._canary.connect(self._clock())
        log.info("connected broker=%s session_present=%s", self._url, session_present)
        self._health.connected(self._url, session_present)
        self._tell_state()

    def link_subscribed(self, refused: list[str]) -> None:
        if refused:
            obstacle = f"the broker refuses our subscription ({'; '.join(refused)}): check its access list"
            self._readiness.obstacle = obstacle
            log.error(obstacle)
            self._tell_state()
            return
        self._readiness.subscribed = True
        self.notice(self._topics.status, b"online", retain=True)
        self._send_canary()
        self._tell_state()

    def link_down(self, reason: str) -> None:
        with self._lock:
            self._delivery.disconnect()
            self._acks.clear()
        self._readiness.disconnect(reason)
        level = logging.INFO if self._draining else logging.WARNING
        log.log(level, "disconnected broker=%s reason=%s", self._url, shorten(reason, 300))
        self._health.disconnected(reason)
        self._tell_state(is_logged=True)

    def link_message(self, message: Message) -> None:
        with self._lock:
            ticket = self._delivery.arrive(message.mid, message.qos)
        if self._canary.heard(self._clock()):
            self._tell_state()
        if message.topic == self._topics.canary:
            self.settle(ticket)
        elif not self._draining:
            self._take(message, ticket)

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        with self._lock:
            outgoing = self._delivery.confirm(mid)
            if outgoing is not None and (failure is None or outgoing.kind == "deadletter"):
                self._settle_all(outgoing)
        if outgoing is None:
            return
        if failure is not None:
            self._refused(outgoing, failure)
        elif outgoing.kind == "verdict":
            self._keeper.done(outgoing.key)
            self._health.published()
            if self._readiness.verdict_taken(outgoing.camera, self._clock()):
                self._tell_state()
        elif outgoing.topic == self._topics.canary and self._canary.taken():
            self._tell_state()

    def link_wants_more(self) -> bool:
        return self._draining or not self._held

    def link_turn(self) -> float | None:
        self._health.beat("link")
        self._health.unconfirmed(self._delivery.in_flight)
        self._put_held()
        self._send_acks()
        self._send_publications()
        self._watch_canary()
        self._watch_rival()
        return HELD_TURN_S if self._held else None

    # -- inside ------------------------------------------------------------------------------------------------

    def _take(self, message: Message, ticket: Ticket) -> None:
        try:
            camera = self._topics.camera_of(message.topic)
        except FrameError as error:
            self._health.refused("bad topic")
            self.dead_letter("", str(error), [ticket], f"{ticket.epoch}-{ticket.serial}")
            return
        if is_reserved(camera):
            if not is_canary(camera):
                self._health.refused("reserved name")
            self.settle(ticket)
            return
        if not self._roster.admit(camera, self._clock()):
            self._health.refused("too many cameras")
            self.dead_letter("", f"{camera} is one too many", [ticket], f"{ticket.epoch}-{ticket.serial}")
            return
        if len(message.payload) > self._max_bytes:
            self._health.refused("too large")
            self.dead_letter(camera, f"{len(message.payload)} bytes", [ticket], f"{ticket.epoch}-{ticket.serial}")
            return
        frame_id, captured_at = _properties(message)
        frame = RawFrame(camera, message.payload, ticket, self._clock(), message.duplicate, frame_id, captured_at)
        if self._sink.renew(frame) or renew(self._held, frame):
            return
        self._health.received(camera, len(message.payload))
        self._held.append(frame)
        self._put_held()

    def _put_held(self) -> None:
        """Hand on what the last reads brought; while the mailbox is full, the rest is held and no more is read.

        A broker may overshoot the Receive Maximum (mosquitto 2.0.11 does), and 3.1.1 has none. Leaving the connection
        would bring all of it again at once; an unread socket leaves the rest with the broker.
        """
        while self._held:
            try:
                dropped = self._sink.put(self._held[0])
            except MailboxFull:
                return
            self._held.popleft()
            for old in dropped:
                self._health.dropped(old.camera, "newer frame")
                self.settle(old.ticket)

    def _settle_all(self, outgoing: Outgoing) -> None:
        for ticket in outgoing.tickets:
            self._settle(ticket)

    def _settle(self, ticket: Ticket) -> None:
        for mid in self._delivery.settle(ticket):
            self._acks.append((self._delivery.epoch, mid))

    def _send_acks(self) -> None:
        while True:
            with self._lock:
                if not self._acks or not self._delivery.connected:
                    return
                epoch, mid = self._acks.popleft()
                current = epoch == self._delivery.epoch
            if current and self._link is not None:
                self._link.acknowledge(mid)
                self._health.acked()

    def _send_publications(self) -> None:
        if self._clock() >= self._read_again_at:
            with self._lock:
                self._delivery.unshelve()
        while self._link is not None:
            with self._lock:
                outgoing = self._delivery.next_to_send()
            if outgoing is None:
                return
            try:
                payload = self._keeper.payload(outgoing)
            except SpoolError:
                with self._lock:
                    self._delivery.shelve(outgoing.key)
                self._read_again_at = self._clock() + RETRY_S
                continue
            if payload is None:
                self._drop(outgoing, "spool unreadable")
                continue
            if self._too_large(outgoing, len(payload)):
                continue
            mid = self._link.publish(outgoing.topic, payload, outgoing.retain)
            with self._lock:
                if mid is None:
                    self._delivery.unsent(outgoing.key)
                    return
                self._delivery.sent(outgoing.key, mid)

    def _drop(self, outgoing: Outgoing, why: str) -> None:
        """A verdict gives way: counted, and its frames are acknowledged as dropped ones are."""
        with self._lock:
            self._delivery.abandon(outgoing.key)
            self._settle_all(outgoing)
        self._keeper.done(outgoing.key)
        self._health.dropped(outgoing.camera, why)

    def _too_large(self, outgoing: Outgoing, length: int) -> bool:
        size = len(outgoing.topic) + length + TOPIC_OVERHEAD
        if self._max_packet is None or size <= self._max_packet:
            return False
        with self._lock:
            self._delivery.abandon(outgoing.key)
            if outgoing.kind == "deadletter":
                self._settle_all(outgoing)
        self._refused(outgoing, f"{size} bytes are over the broker's maximum packet size {self._max_packet}")
        return True

    def _refused(self, outgoing: Outgoing, failure: str) -> None:
        if outgoing.topic == self._topics.canary:
            if self._canary.refused(failure, self._clock()):
                log.warning("the broker refuses our test frame (%s); readiness is not proven end to end", failure)
                self._tell_state()
            return
        log.error("the broker refused topic=%s reason=%s", outgoing.topic, failure)
        if outgoing.kind == "verdict":
            self._keeper.done(outgoing.key)
            self._health.publish_failed(failure)
            self._readiness.verdict_refused(failure, outgoing.camera, self._clock())
            self._tell_state()
            self.dead_letter(outgoing.camera, f"verdict refused: {failure}", outgoing.tickets, outgoing.key)

    def _wake(self) -> None:
        if self._link is not None:
            self._link.wake()

    # -- readiness ---------------------------------------------------------------------------------------------

    def _send_canary(self) -> None:
        self._canary.sent(self._clock())
        self.notice(self._topics.canary, b"canary")

    def _watch_canary(self) -> None:
        now, refused = self._clock(), self._readiness.canary == "refused"
        if self._readiness.proven and not refused and self._busy():
            return
        if self._canary.is_lost(now):
            self._tell_state()
        elif self._canary.is_due(now):
            self._send_canary()

    def _busy(self) -> bool:
        """Whether the broker may have a reason to bring nothing: we hold what it has brought, or it owes us answers."""
        return bool(self._held or self._delivery.unacked or self._delivery.outbox)

    def _watch_rival(self) -> None:
        rival = None if self._link is None else self._link.rival
        if rival != self._readiness.rival:
            self._readiness.rival = rival
            self._tell_state()

    def _tell_state(self, *, is_logged: bool = False) -> None:
        """Tell what changed: another name always, another reason unless it passes by itself or ``is_logged``."""
        if self._draining:
            return
        name, reason = state = self._readiness.state()
        self._health.set_state(name, reason)
        if name != self._told[0] or not (is_logged or state == self._told or reason in PASSING):
            log.info("%s: %s", name, shorten(reason, 300))
        self._told = state


def _properties(message: Message) -> tuple[str | None, float | None]:
    """Frame id and capture time from MQTT 5 user properties; what is malformed there is left out."""
    try:
        return clean_frame_id(message.properties.get("frame_id")), clean_captured_at(
            message.properties.get("captured_at")
        )
    except FrameError:
        return None, None
