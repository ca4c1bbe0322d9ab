"""The whole delivery path, from paho's bytes to the delivery core, against the broker of the specification.

Link, courier, delivery core and mailbox are the real ones; only the engine is a list of frames that a rule picks from,
and the socket's other end is ``FakeBroker``. One thread, no sleeping: hypothesis decides what happens next.
"""

from __future__ import annotations

import json
import selectors
import socket
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from edge.config import Config
from edge.courier import Courier
from edge.delivery import Delivery, Outgoing
from edge.health import Health
from edge.link import Link
from edge.link_handler import LinkSettings, Will
from edge.mailbox import Mailbox
from edge.parts import frame_filter, link_settings
from edge.records import RawFrame
from edge.wire import Topics
from tests.edge.fake_broker import FakeBroker

TOPICS = Topics("cameras", "box")
REFUSALS = [0x80, 0x83, 0x87, 0x97, 0x99]  # what a PUBACK may say against a publication [3.4.2.1]
CAMERAS = ("a", "b", "c")
STEPS = st.integers(0, 2)
DISRUPTIONS = ("worker killed", "broker forgets", "broker restored", "cut", "cut unread", "cut and back")


class Worker:
    """The worker's half: all but threads and engines. ``parts`` replaces classes, for the mutants."""

    def __init__(self, broker: FakeBroker, policy: str, parts: dict[str, Any]) -> None:
        self.broker = broker
        self.dropped: list[RawFrame] = []
        self.taken: list[RawFrame] = []
        self.received: set[bytes] = set()
        self.mailbox = Mailbox(policy, 4, 1 << 20)  # type: ignore[arg-type]
        config = Config.model_validate(
            {"worker": "box", "features": {"model": "x"}, "gate": {"file": "x"}, "mailbox": {"max_frames": 5}}
        )
        settings: LinkSettings = parts.get("settings", link_settings)(config)
        self.courier = parts.get("courier", Courier)(TOPICS, self, Health("box"), 1 << 20, "mqtt://fake:1883")
        self.courier._delivery = parts.get("delivery", Delivery)()
        will = Will(TOPICS.status, b"offline")
        self.link = parts.get("link", Link)(settings, self.courier, (frame_filter(config), TOPICS.canary), will)
        self.courier.attach(self.link)
        self.courier.set_warm()
        self._selector = selectors.PollSelector()

    def put(self, frame: RawFrame) -> list[RawFrame]:
        """The courier's sink."""
        dropped = self.mailbox.put(frame)
        self.received.add(frame.payload)
        self.dropped += dropped
        return dropped

    def renew(self, frame: RawFrame) -> bool:
        """The courier's sink."""
        return self.mailbox.renew(frame)

    @property
    def online(self) -> bool:
        return self.link._client.socket() is not None

    def connect(self) -> None:
        """Open a connection and send CONNECT."""
        theirs = self.broker.accept()
        self.link._client._create_socket_connection = lambda: theirs  # type: ignore[method-assign]
        self._selector = selectors.PollSelector()
        self._selector.register(self.link._wakes, selectors.EVENT_READ)
        self.link.connect()

    def turn(self) -> None:
        """One turn of the link's loop that never sleeps."""
        sock: socket.socket | None = self.link._client.socket()
        self.link._sleep_s = 0.0
        if sock is not None:
            self.link._turn(self._selector, sock)
        else:
            self.courier.link_turn()

    def take(self) -> None:
        """A frame leaves the mailbox for the engine."""
        frame = self.mailbox.take()
        if frame is not None:
            self.taken.append(frame)

    def judge(self, frame: RawFrame) -> None:
        """The engine has finished with a frame."""
        name = frame.payload.decode()
        topic = TOPICS.of_camera(frame.camera, "verdict")
        self.courier.deliver(Outgoing(name, "verdict", topic, frame.payload, tickets=[frame.ticket], camera="a"))

    def vanish(self) -> None:
        """SIGKILL: nothing is said to anybody."""
        sock = self.link._client.socket()
        if sock is not None:
            sock.close()
        self.link._waker.close()
        self.link._wakes.close()


class DeliveryModel(RuleBasedStateMachine):
    """Cameras, broker and worker; ``owed``: the frames that the broker has accepted while it kept a session for us."""

    parts: dict[str, Any] = {}  # noqa: RUF012 - hypothesis wants a class without arguments

    def __init__(self) -> None:
        super().__init__()
        self.safe: set[str] = (
            set()
        )  # frames whose end state is known to the broker, or counted: they may be acknowledged
        self.owed: set[str] = set()
        self.only_ours: set[str] = set()  # of those owed, the ones that the broker has forgotten and the worker has
        self.frames = 0
        self.away = False  # the broker has forgotten us and we have not been back since
        self.worker: Worker | None = None

    @initialize(window=st.integers(1, 4), policy=st.sampled_from(["latest", "every"]))
    def begin(self, window: int, policy: str) -> None:
        self.policy = policy
        self.broker = FakeBroker(window, self._on_ack)
        self.worker = Worker(self.broker, policy, self.parts)
        self._bring_up()

    def _bring_up(self) -> None:
        assert self.worker is not None
        self.worker.connect()
        self._steps(4)
        for mid, (topic, _) in list(self.broker.publications.items()):
            if not topic.endswith("/verdict"):
                self._confirm(mid, 0)
        self._steps(2)
        self.away = False

    def _step(self) -> None:
        assert self.worker is not None
        self.worker.turn()
        self._note_drops()
        self.broker.turn()

    def _note_drops(self) -> None:
        assert self.worker is not None
        self.safe |= {frame.payload.decode() for frame in self.worker.dropped}
        self.worker.dropped.clear()

    def _on_ack(self, topic: str, payload: bytes) -> None:
        self._note_drops()
        if topic != TOPICS.canary:
            assert payload.decode() in self.safe, f"{payload!r} was acknowledged before its end state was safe"
            self.owed.discard(payload.decode())

    @rule(camera=st.sampled_from(CAMERAS), count=st.integers(1, 3), most=st.integers(0, 6), steps=STEPS)
    def cameras_publish(self, camera: str, count: int, most: int, steps: int) -> None:
        """The broker delivers up to ``most`` of what it holds."""
        for _ in range(count):
            self.frames += 1
            name = f"{camera}-{self.frames}"
            if not self.away:
                self.owed.add(name)
            self.broker.publish(f"cameras/{camera}/frame", name.encode())
        self.broker.deliver(most)
        self._steps(steps)

    @rule(steps=STEPS)
    def turn(self, steps: int) -> None:
        self.broker.deliver()
        self._steps(steps + 1)

    @rule()
    def worker_turns_and_the_broker_is_slow(self) -> None:
        assert self.worker is not None
        self.worker.turn()
        self._note_drops()

    @rule(count=st.integers(1, 3), steps=STEPS)
    def engine_takes(self, count: int, steps: int) -> None:
        assert self.worker is not None
        for _ in range(count):
            self.worker.take()
        self._steps(steps)

    @precondition(lambda self: self.worker is not None and self.worker.taken)
    @rule(data=st.data(), count=st.integers(1, 3), steps=STEPS)
    def engine_finishes(self, data: st.DataObject, count: int, steps: int) -> None:
        """Any taken frames, some of an earlier connection too."""
        assert self.worker is not None
        for _ in range(min(count, len(self.worker.taken))):
            index = data.draw(st.integers(0, len(self.worker.taken) - 1))
            self.worker.judge(self.worker.taken.pop(index))
        self._steps(steps)

    @precondition(lambda self: self.worker is not None and self.broker.publications)
    @rule(data=st.data(), count=st.integers(1, 3), refusal=st.sampled_from([0, 0, 0x10, *REFUSALS]), steps=STEPS)
    def broker_confirms(self, data: st.DataObject, count: int, refusal: int, steps: int) -> None:
        for _ in range(min(count, len(self.broker.publications))):
            self._confirm(data.draw(st.sampled_from(sorted(self.broker.publications))), refusal)
        self._steps(steps)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def _confirm(self, mid: int, reason: int) -> None:
        topic, payload = self.broker.publications[mid]
        if topic.endswith("/verdict") and reason < 0x80:
            self.safe.add(payload.decode())
        elif topic == TOPICS.deadletter:  # good or bad, there is nothing more that can be done
            self.safe.add(json.loads(payload)["key"])
        self.broker.confirm(mid, reason)

    @rule(what=st.sampled_from(DISRUPTIONS))
    def disrupt(self, what: str) -> None:
        assert self.worker is not None
        if what == "worker killed":
            self._note_drops()
            self.owed -= self.only_ours  # a second process was killed
            self.worker.vanish()
            self.broker.cut()
            self.worker = Worker(self.broker, self.policy, self.parts)
            self._bring_up()
        elif what == "broker forgets":  # outside of the promise for what it held; what comes afterwards is not
            self.broker.lose_session()
            self.owed.clear()
            self.away = True
            self._come_back()
        elif what == "broker restored":
            self.broker.restore(self._is_forgotten)
            self._come_back()
        else:
            self.broker.cut(unread=what == "cut unread")
            if what == "cut and back":
                self._come_back()

    def _is_forgotten(self, topic: str, payload: bytes) -> bool:
        """What it handed to us and never saved: mosquitto saves no frame that goes straight to a connected worker."""
        assert self.worker is not None
        ours = topic != TOPICS.canary and payload in self.worker.received
        if ours:
            self.only_ours.add(payload.decode())
        return ours

    @precondition(lambda self: self.worker is not None and not self.worker.online)
    @rule()
    def worker_reconnects(self) -> None:
        self._bring_up()

    def _come_back(self) -> None:
        assert self.worker is not None
        for _ in range(3):
            self.worker.turn()
        self._note_drops()
        if not self.worker.online:
            self._bring_up()

    def teardown(self) -> None:
        """Let everything finish: nothing owed is missing, nothing is stuck."""
        if self.worker is None:
            return
        try:
            self._finish()
        finally:
            self.worker.vanish()
            self.broker.cut(unread=True)

    def _finish(self) -> None:
        assert self.worker is not None
        for _ in range(4 * self.frames + 40):
            if not self.worker.online:
                self._bring_up()
            self.broker.deliver()
            self._step()
            self.worker.take()
            while self.worker.taken:
                self.worker.judge(self.worker.taken.pop())
            self._step()
            for mid in list(self.broker.publications):
                self._confirm(mid, 0)
            if self._is_quiet():
                break
        assert not self._missing(), f"lost: {sorted(self._missing())}"
        session = self.broker.session
        assert session is not None
        assert not session.queue
        assert not session.in_flight, "the window is stuck"

    def _missing(self) -> set[str]:
        """Frames that are owed; one that the broker has forgotten cannot be acknowledged, its end has to be safe."""
        return self.owed - (self.only_ours & self.safe)

    def _is_quiet(self) -> bool:
        session = self.broker.session
        assert self.worker is not None
        held = session is None or session.queue or session.in_flight
        return not (held or self._missing() or self.broker.publications or self.worker.courier.pending())
