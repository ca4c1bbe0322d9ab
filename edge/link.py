"""The link to the broker: the only file that knows paho.

One thread owns a Link and runs it; everything that paho does happens in that thread, callbacks included, so there
is nothing to lock here. Other threads only call ``wake``. What the link sees, it tells its ``LinkHandler``; what the
handler wants sent, it sends from ``link_turn``, which the link calls once per turn of its loop, outside callbacks.

Facts of paho that shape this file: an acknowledgement queued between two connections would go out before CONNECT,
so the handler acknowledges only between ``link_up`` and ``link_down``; paho resends what it holds by itself after a
reconnect, so its store is emptied first, because the outbox of ``edge.delivery`` is the truth; its own reconnect has
no jitter, so we time our own; user properties that it cannot read, such as one with U+FEFF, make it leave the
connection, and the broker would send the same message again for ever, so we leave them out and take the message.
"""

from __future__ import annotations

import random
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge import tls
from edge.errors import LinkError, LinkRefused
from edge.link_handler import LinkHandler, LinkSettings, Message, Will
from edge.rivals import Rivals

CONNACK_TIMEOUT_S = 10.0
TCP_TIMEOUT_S = 5.0
TURN_S = 0.5  # longest sleep of the loop: how soon a stop, a silent CONNACK or a keepalive is noticed
FIRST_DELAY_S, MAX_DELAY_S = 1.0, 10.0  # a herd spreads over ten seconds, and nobody stays away longer
DEFAULT_WINDOW = 10  # publications in flight; the smallest server Receive Maximum seen in the field
MAX_PROPERTIES_BYTES = 65_536  # of one message; paho reads them in quadratic time
_MEND = dict.fromkeys((5, 0x86, 0x87), "mend mqtt.username and mqtt.password_file, or the broker's list of users")
_TAKEN_OVER, _NO_REASON = 0x8E, 0x80
_REFUSED = {4, 5, 0x84, 0x85, 0x86, 0x87, 0x8C}  # bad version, id, credentials, rights, authentication method


class Link:
    """A connection to one broker that comes back by itself.

    Args:
        settings: how to reach it.
        handler: whom to tell.
        subscriptions: topic filters, subscribed to at QoS 1 in every connection.
        will: published by the broker when the connection is lost; None for none.
        stale: topic filters that an older session may still hold, and that must go.
        jitter: the source of random delays in [0, 1).
    """

    def __init__(
        self,
        settings: LinkSettings,
        handler: LinkHandler,
        subscriptions: tuple[str, ...] = (),
        will: Will | None = None,
        *,
        stale: tuple[str, ...] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.connected = False
        self._answered = False
        self._handler = handler
        self._subscriptions = subscriptions
        self._stale = stale
        self._jitter = jitter
        self._stopping = self._vanishing = False
        self._ever_connected = False
        self._up_at: float | None = None
        self._attempt = 0
        self._refusal: str | None = None
        self._rivals = Rivals(settings.client_id)
        self._subscribing: dict[int, tuple[str, ...]] = {}
        self._sleep_s = TURN_S
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self._client = self._make_client(will)

    # -- called by other threads ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the loop turn now. The only call allowed from another thread besides ``stop``."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            return  # a wake is already waiting
        except OSError:
            return  # the link is closed

    def stop(self, *, will: bool = False) -> None:
        """End ``run`` after a clean DISCONNECT, or with ``will`` without one, so that the broker publishes our will."""
        self._vanishing = will
        self._stopping = True
        self.wake()

    # -- called by the link's own thread ----------------------------------------------------------------------

    def run(self) -> None:
        """Connect, serve, reconnect with jitter, until ``stop``.

        Raises:
            LinkRefused: the very first connection was refused for a reason that a retry cannot mend.
        """
        while not self._stopping:
            try:
                self.connect()
                self._serve()
            except LinkRefused as error:
                if not self._ever_connected:
                    raise
                self._handler.link_down(str(error))
            except LinkError as error:
                self._handler.link_down(str(error))
            self._pause()
        self._close()

    def connect(self) -> None:
        """Open the connection and send CONNECT.

        Raises:
            LinkError: the broker is not there. LinkRefused: its certificate does not verify, or ours is unusable.
        """
        self._client.drop_out_messages()
        self._refusal = None
        self._answered = False
        self._subscribing.clear()
        settings = self.settings
        options: dict[str, Any] = {}
        if settings.version == 5:
            options = {"clean_start": settings.clean_start, "properties": self._connect_properties()}
        try:
            self._client.connect(settings.host, settings.port, settings.keepalive_s, **options)
        except ssl.SSLError as exc:
            raise tls.fault(settings, exc) from exc
        except socket.gaierror as exc:
            raise LinkError(f"the name {settings.host} does not resolve: {exc.strerror}") from exc
        except (OSError, ValueError) as exc:
            hung_up = settings.tls and isinstance(exc, ConnectionResetError)
            why = (
                "hangs up at the TLS handshake; is it a port without TLS (mqtt://)?"
                if hung_up
                else f"does not answer: {exc}"
            )
            raise LinkError(f"{self._where} {why}") from exc

    def publish(
        self, topic: str, payload: bytes, retain: bool = False, properties: Mapping[str, str] | None = None
    ) -> int | None:
        """Hand one QoS 1 publication to the connection; returns its packet identifier, None when it was not taken.

        ``properties`` become MQTT 5 user properties; a 3.1.1 connection leaves them out.
        """
        extra = _user_properties(properties) if properties and self.settings.version == 5 else None
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=extra)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def acknowledge(self, mid: int) -> None:
        """Send the PUBACK of a QoS 1 message; only in the connection that delivered it."""
        self._client.ack(mid, 1)

    @property
    def rival(self) -> str | None:
        """A sentence while another client seems to use our client id."""
        return self._rivals.suspicion(time.monotonic())

    @property
    def _where(self) -> str:
        return f"{self.settings.host}:{self.settings.port}"

    def _make_client(self, will: Will | None) -> mqtt.Client:
        settings = self.settings
        v5 = settings.version == 5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if v5 else settings.clean_start,
            protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
            manual_ack=True,
        )
        client.connect_timeout = TCP_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is kept by edge.delivery
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls:
            client.tls_set_context(tls.context(settings))
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def _connect_properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self.settings.session_expiry_s
        properties.ReceiveMaximum = max(1, min(65535, self.settings.receive_maximum))
        if self.settings.maximum_packet_bytes is not None:
            properties.MaximumPacketSize = self.settings.maximum_packet_bytes
        return properties

    def _serve(self) -> None:
        began, sock = time.monotonic(), self._client.socket()
        if isinstance(sock, socket.socket):
            # Else a verdict waits behind a frame's PUBACK for TCP's acknowledgement, which comes up to 40 ms late.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakes, selectors.EVENT_READ)
            while sock is not None and self._client.socket() is sock and not self._stopping:
                self._turn(selector, sock)
                if not self._answered and time.monotonic() - began > CONNACK_TIMEOUT_S:
                    self._client.disconnect()
                    raise LinkError(f"{self._where} accepted the connection but sent no CONNACK: is it an MQTT broker?")
        if self._refusal is not None:
            raise LinkRefused(self._refusal)
        if not self._answered and not self._stopping:
            raise self._unanswered()

    def _unanswered(self) -> LinkError:
        told = tls.ask_why(self.settings) if self.settings.tls else None
        if told is not None:
            return told
        hint = "does its log say why?" if self.settings.tls else "does it want TLS (mqtts://)?"
        return LinkError(f"{self._where} closed the connection before it answered: {hint}")

    def _turn(self, selector: selectors.BaseSelector, sock: Any) -> None:
        reading = not self.connected or self._handler.link_wants_more()  # a CONNACK waits for no room
        writing = self._client.want_write()
        _watch(selector, sock, (reading and selectors.EVENT_READ) | (writing and selectors.EVENT_WRITE))
        pending = reading and bool(getattr(sock, "pending", int)())  # bytes that TLS holds do not wake a selector
        ready = {key.fileobj for key, _ in selector.select(0 if pending else self._sleep_s)}
        if self._wakes in ready:
            self._wakes.recv(4096)
        if reading and (pending or sock in ready):
            self._client.loop_read()
        if self._client.socket() is sock and self._client.want_write():
            self._client.loop_write()
        if self._client.socket() is sock:
            self._client.loop_misc()
        self._sleep_s = _bounded(self._handler.link_turn())

    def _pause(self) -> None:
        """Sleep before the next attempt: full jitter over a range that doubles, so that no herd comes back at once."""
        if self._up_at is not None and time.monotonic() - self._up_at > MAX_DELAY_S:
            self._attempt = 0
        delay = self._jitter() * min(MAX_DELAY_S, FIRST_DELAY_S * 2**self._attempt)
        self._attempt = min(self._attempt + 1, 10)
        until = time.monotonic() + delay
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, TURN_S))
            self._handler.link_turn()

    def _close(self) -> None:
        sock = self._client.socket()
        if self._vanishing and sock is not None:
            sock.close()
        elif self.connected:
            self._client.disconnect()
            while self._client.want_write() and self._client.socket() is not None:
                if self._client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
        self._waker.close()
        self._wakes.close()

    # -- paho's callbacks --------------------------------------------------------------------------------------

    def _on_connect(self, _c: mqtt.Client, _u: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._answered = True
        if reason.is_failure:
            self._note_refusal(reason)
            return
        self.connected = self._ever_connected = True
        self._up_at = time.monotonic()
        window = min(DEFAULT_WINDOW, getattr(properties, "ReceiveMaximum", DEFAULT_WINDOW))
        self._handler.link_up(bool(flags.session_present), window, getattr(properties, "MaximumPacketSize", None))
        if self._stale and flags.session_present:
            self._client.unsubscribe(list(self._stale))
        if self._subscriptions:
            _, mid = self._client.subscribe(
                [(topic, _subscribe_options(self.settings)) for topic in self._subscriptions]
            )
            if mid is not None:
                self._subscribing[mid] = self._subscriptions

    def _note_refusal(self, reason: ReasonCode) -> None:
        sentence = f"{self._where} refuses the connection: {reason}"
        if reason.value in _REFUSED:
            who = f"client id {self.settings.client_id}, user {self.settings.username or 'none'}"
            mend = f": {_MEND[reason.value]}" if reason.value in _MEND else ""
            self._refusal = f"{sentence} ({who}){mend}"
        else:
            self._handler.link_down(sentence)

    def _on_subscribe(self, _c: mqtt.Client, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        topics = self._subscribing.pop(mid, None)
        if topics is not None:
            refused = [f"{t}: {r}" for t, r in zip(topics, reasons, strict=False) if r.is_failure]
            self._handler.link_subscribed(refused)

    def _on_disconnect(self, _c: mqtt.Client, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        if not self.connected:
            return
        self.connected = False
        told = flags.is_disconnect_packet_from_server
        if reason.value == _TAKEN_OVER:
            self._rivals.taken_over(time.monotonic())
        elif reason.value == _NO_REASON and not told:
            self._rivals.ended(time.monotonic())
        by = "the broker closed the connection" if told else "the connection ended"
        rival = self.rival
        self._handler.link_down(f"{by}: {reason}" + (f"; {rival}" if rival is not None else ""))

    def _on_message(self, _c: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        pairs = getattr(message.properties, "UserProperty", None) or ()
        self._handler.link_message(
            Message(topic, bytes(message.payload), message.mid, message.qos, message.dup, message.retain, dict(pairs))
        )

    def _on_publish(self, _c: mqtt.Client, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        self._handler.link_confirmed(mid, str(reason) if reason.is_failure else None)


_read_properties: Callable[[Properties, bytes], tuple[Properties, int]] = Properties.unpack


def _read_publish_properties(properties: Properties, packet: bytes) -> tuple[Properties, int]:
    """Read the properties at the beginning of ``packet``; those of a PUBLISH are the publisher's, and never a fault."""
    length, head = VariableByteIntegers.decode(packet)  # type: ignore[no-untyped-call]
    whole = head + length
    if properties.packetType != PacketTypes.PUBLISH or whole > len(packet):
        return _read_properties(properties, packet)
    try:
        if length <= MAX_PROPERTIES_BYTES:
            _read_properties(properties, packet[:whole])
    except (MQTTException, LookupError, ValueError, struct.error):
        properties.clear()  # type: ignore[no-untyped-call]
    return properties, whole


Properties.unpack = _read_publish_properties  # type: ignore[method-assign] # paho has no hook for it


def _watch(selector: selectors.BaseSelector, sock: Any, events: int) -> None:
    watched = sock in selector.get_map()
    if events and watched:
        selector.modify(sock, events)
    elif events:
        selector.register(sock, events)
    elif watched:
        selector.unregister(sock)


def _bounded(sleep_s: float | None) -> float:
    return TURN_S if sleep_s is None else min(TURN_S, max(0.0, sleep_s))


def _user_properties(pairs: Mapping[str, str]) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = list(pairs.items())
    return properties


def _subscribe_options(settings: LinkSettings) -> Any:
    if settings.version != 5:
        return 1
    # A retained message comes with a new session, not again with each reconnect
    return SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
