"""The link on both brokers, and against a scripted one that misbehaves."""

from __future__ import annotations

import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edge.errors import LinkRefused
from edge.link import Link
from edge.link_handler import LinkSettings, Message, QuietHandler, Will
from tests.edge.worker_process import wait_for
from tests.embedded import Embedded
from tests.mosquitto import Broker, free_port, password_lines

AnyBroker = Broker | Embedded


class Recorder(QuietHandler):
    """Keeps all that the link tells; acknowledges and publishes on request, in the link's thread."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[Message] = []
        self.confirmed: list[tuple[int, str | None]] = []
        self.acknowledge = True
        self.reading = True
        self.to_publish: list[tuple[str, bytes, bool]] = []
        self.properties: dict[str, str] | None = None
        self.link: Link | None = None
        self.sessions: list[bool] = []

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        self.events.append("up")
        self.sessions.append(session_present)

    def link_subscribed(self, refused: list[str]) -> None:
        self.events.append("refused" if refused else "subscribed")

    def link_down(self, reason: str) -> None:
        self.events.append(f"down: {reason}")

    def link_message(self, message: Message) -> None:
        self.messages.append(message)
        if self.acknowledge and message.qos and self.link is not None:
            self.link.acknowledge(message.mid)

    def link_wants_more(self) -> bool:
        return self.reading

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        self.confirmed.append((mid, failure))

    def link_turn(self) -> float | None:
        while self.to_publish and self.link is not None and self.link.connected:
            topic, payload, retain = self.to_publish.pop(0)
            self.link.publish(topic, payload, retain, self.properties)
        return 0.01


@contextmanager
def running(settings: LinkSettings, *filters: str, will: Will | None = None) -> Iterator[Recorder]:
    """A link in a thread of its own, subscribed."""
    recorder = Recorder()
    link = recorder.link = Link(settings, recorder, filters, will, jitter=lambda: 0.1)
    thread = threading.Thread(target=link.run, daemon=True)
    thread.start()
    if filters:
        wait_for(lambda: "subscribed" in recorder.events, 10, f"subscription; {recorder.events}")
    yield recorder
    link.stop()
    thread.join(10)
    assert not thread.is_alive()


def settings_for(broker: AnyBroker, name: str | None = None) -> LinkSettings:
    version = 5 if broker.version == 5 else 4
    name = name or f"test-{secrets.token_hex(4)}"
    return LinkSettings("127.0.0.1", broker.port, name, version=version, session_expiry_s=300, clean_start=True)


@pytest.fixture
def topic() -> str:
    return f"t{secrets.token_hex(4)}/a/frame"


def test_message_goes_round(broker: AnyBroker, topic: str) -> None:
    payload = secrets.token_bytes(300_000)
    with running(settings_for(broker), topic) as reader, running(settings_for(broker)) as writer:
        writer.to_publish.append((topic, payload, False))
        wait_for(lambda: reader.messages and writer.confirmed, 10, "the message")
    assert reader.messages[0].payload == payload
    assert reader.messages[0].topic == topic
    assert reader.messages[0].qos == 1
    assert writer.confirmed[0][1] is None


def test_small_packets_are_sent_at_once(broker: AnyBroker, topic: str) -> None:
    """Nagle's rule holds a verdict back until TCP has acknowledged the PUBACK before it, up to 40 ms later."""
    with running(settings_for(broker), topic) as reader:
        assert reader.link is not None
        assert reader.link._client.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_user_properties_travel_with_mqtt_5(mosquitto: Broker, topic: str) -> None:
    with running(settings_for(mosquitto), topic) as reader, running(settings_for(mosquitto)) as writer:
        writer.properties = {"frame_id": "7", "captured_at": "1.5"}
        writer.to_publish.append((topic, b"x", False))
        wait_for(lambda: reader.messages, 10, "the message")
    assert reader.messages[0].properties == {"frame_id": "7", "captured_at": "1.5"}


def test_connection_that_ends_after_it_was_long_up_is_not_called_a_broker_without_connack(
    mosquitto: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(mosquitto)
    with running(settings, topic) as reader:
        monkeypatch.setattr("edge.link.CONNACK_TIMEOUT_S", 0.0)
        with socket.create_connection(("127.0.0.1", mosquitto.port)) as thief:
            name = settings.client_id.encode()
            body = b"\0\4MQTT\4\2\0\x3c" + len(name).to_bytes(2, "big") + name
            thief.sendall(bytes([0x10, len(body)]) + body)
            wait_for(lambda: any("down" in event for event in reader.events), 10, "the loss of the connection")
            monkeypatch.undo()
            time.sleep(0.05)
    assert not [event for event in reader.events if "CONNACK" in event]


def test_unacknowledged_messages_come_again_in_the_next_connection(mosquitto: Broker, topic: str) -> None:
    broker = mosquitto  # the embedded broker does not deliver again
    kept = replace(settings_for(broker), clean_start=False)
    with running(kept, topic) as reader:
        reader.acknowledge = False
        with running(settings_for(broker)) as writer:
            writer.to_publish += [(topic, b"%d" % n, False) for n in range(5)]
            wait_for(lambda: len(reader.messages) == 5, 10, "five messages")
    with running(kept, topic) as again:
        wait_for(lambda: len(again.messages) >= 5, 10, "the same five")
    assert again.sessions == [True]
    assert [message.payload for message in again.messages[:5]] == [b"%d" % n for n in range(5)]


def test_will_is_published_when_the_process_vanishes_and_not_at_a_clean_stop(broker: AnyBroker, topic: str) -> None:
    with running(settings_for(broker), topic) as reader:
        with running(settings_for(broker), topic + "/x", will=Will(topic, b"gone")):
            pass
        time.sleep(0.3)
        assert reader.messages == []
        with running(settings_for(broker), topic + "/x", will=Will(topic, b"gone")) as victim:
            assert victim.link is not None
            victim.link._client.socket().shutdown(socket.SHUT_RDWR)
            wait_for(lambda: reader.messages, 10, "the will")
    assert reader.messages[0].payload == b"gone"


def test_reading_stops_while_the_handler_wants_no_more_and_nothing_is_lost(mosquitto: Broker, topic: str) -> None:
    with running(settings_for(mosquitto), topic) as reader, running(settings_for(mosquitto)) as writer:
        reader.reading = False
        time.sleep(0.1)
        before = len(reader.messages)
        writer.to_publish += [(topic, b"%04d" % n, False) for n in range(200)]
        wait_for(lambda: len(writer.confirmed) == 200, 10, "the broker's confirmations")
        time.sleep(0.2)
        assert len(reader.messages) - before <= 1
        reader.reading = True
        wait_for(lambda: len(reader.messages) == 200, 10, "all of them")
    assert [message.payload for message in reader.messages] == [b"%04d" % n for n in range(200)]


def test_link_comes_back_after_the_broker_was_killed(broker_with: Callable[..., Broker], topic: str) -> None:
    broker = broker_with()
    with running(replace(settings_for(broker), clean_start=False), topic) as reader:
        for _ in range(3):
            ups = reader.events.count("up")
            broker.kill()
            wait_for(lambda: reader.events[-1].startswith("down"), 10, "the disconnection")
            broker.start()
            wait_for(lambda count=ups: reader.events.count("up") > count, 20, f"reconnection {reader.events}")


def test_wrong_password_ends_the_first_connection_for_good(broker_with: Callable[..., Broker], tmp_path: Path) -> None:
    broker = broker_with(*password_lines(tmp_path / "users", {"orin": "secret"}))
    link = Link(replace(settings_for(broker), username="orin", password="wrong"), Recorder())
    with pytest.raises(LinkRefused, match="orin"):
        link.run()


def test_broker_that_is_down_is_told_and_tried_again() -> None:
    settings = LinkSettings("127.0.0.1", free_port(), "x")
    with running(settings) as recorder:
        wait_for(lambda: len(recorder.events) >= 2, 10, "two attempts")
    assert all("does not answer" in event for event in recorder.events)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (b"", "closed the connection before it answered"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection before it answered"),
        (b"\x20\xff\xff\xff\xff\xff", "closed the connection before it answered"),
        (b"\x30\xff\xff\xff\x7fabc", "closed the connection before it answered"),
    ],
)
def test_scripted_broker_that_talks_nonsense_ends_in_a_sentence(script: bytes, says: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    peer.recv(1024)
                    peer.sendall(script)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with running(LinkSettings("127.0.0.1", server.getsockname()[1], "x")) as recorder:
            wait_for(lambda: len(recorder.events) >= 2, 15, "two attempts")
        assert any(says in event for event in recorder.events)


def test_connect_attempts_have_jitter() -> None:
    pauses: list[float] = []
    draws = iter([0.0, 0.5, 0.999, 0.25] * 10)

    def jitter() -> float:
        pauses.append(time.monotonic())
        return next(draws) * 0.1

    link = Link(LinkSettings("127.0.0.1", free_port(), "x"), Recorder(), jitter=jitter)
    thread = threading.Thread(target=link.run, daemon=True)
    thread.start()
    wait_for(lambda: len(pauses) >= 4, 10, "attempts")
    link.stop()
    thread.join(5)
    gaps = [round(later - earlier, 2) for earlier, later in pairwise(pauses)]
    assert len(set(gaps)) > 1


@pytest.mark.parametrize("text", ["a\ufeffb", "x" * 60_000], ids=["byte order mark", "60 kB"])
def test_message_with_properties_that_paho_cannot_read_is_taken(mosquitto: Broker, topic: str, text: str) -> None:
    """Else the connection ends, the broker sends the message again, and so on for ever: one camera stops them all."""
    command = ["mosquitto_pub", "-p", str(mosquitto.port), "-V", "5", "-q", "1", "-t", topic, "-m", "picture"]
    for _ in range(2):
        command += ["-D", "publish", "user-property", "note", text]
    with running(settings_for(mosquitto), topic) as reader:
        subprocess.run(command, check=True, timeout=20)
        wait_for(lambda: reader.messages, 5, f"the message; {reader.events}")
    assert [message.payload for message in reader.messages] == [b"picture"]
    assert reader.events.count("up") == 1


def test_retained_message_comes_with_a_new_session_and_not_again_with_a_reconnect(
    broker_with: Callable[..., Broker], topic: str
) -> None:
    broker = broker_with()
    retained = ["mosquitto_pub", "-p", str(broker.port), "-q", "1", "-t", topic, "-m", "old", "-r"]
    subprocess.run(retained, check=True, timeout=20)
    with running(replace(settings_for(broker), clean_start=False), topic) as reader:
        wait_for(lambda: reader.messages, 5, "the retained message")
        time.sleep(1.2)  # the broker saves its acknowledgement
        broker.restart()
        wait_for(lambda: reader.events.count("subscribed") == 2, 15, f"the reconnect; {reader.events}")
        time.sleep(0.3)
    assert reader.sessions == [False, True]
    assert len(reader.messages) == 1
