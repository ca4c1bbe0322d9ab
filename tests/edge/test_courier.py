"""The courier against a link that records: what waits for an absent broker, what is refused, and what is told."""

from __future__ import annotations

from typing import cast

import pytest

from edge.courier import Courier
from edge.delivery import Outgoing
from edge.health import Health
from edge.link import Link
from edge.link_handler import Message
from edge.mailbox import Mailbox
from edge.records import RawFrame
from edge.wire import Topics

TOPICS = Topics("cameras", "box")


class Recording:
    """Stands where the link stands: keeps what is published and acknowledged."""

    rival = None

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.acknowledged: list[int] = []

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int:
        del retain
        self.published.append((topic, payload))
        return len(self.published)

    def acknowledge(self, mid: int) -> None:
        self.acknowledged.append(mid)

    def wake(self) -> None:
        """Nobody sleeps."""


class Box(Mailbox):
    """A mailbox as the courier's sink; ``frames`` holds what came."""

    def __init__(self) -> None:
        super().__init__("every", 100, 1 << 20)
        self.frames: list[RawFrame] = []

    def put(self, frame: RawFrame) -> list[RawFrame]:
        self.frames.append(frame)
        return []


@pytest.fixture
def link() -> Recording:
    return Recording()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def courier(link: Recording, box: Box) -> Courier:
    """A courier that has engines and no connection yet."""
    courier = Courier(TOPICS, box, Health("box"), 1 << 20, "mqtt://broker:1883")
    courier.attach(cast(Link, link))
    courier.set_warm()
    return courier


def frame(mid: int) -> Message:
    return Message("cameras/feeder/frame", b"picture", mid, 1, False, False, {})


def test_states_for_an_absent_broker_are_kept_once_a_topic_and_the_newest(courier: Courier, link: Recording) -> None:
    for number in range(500):
        courier.notice(TOPICS.stats, b"%d" % number)
        courier.notice(TOPICS.status, b"online", retain=True)
    courier.link_up(False, 10, None)
    assert courier.pending() == 2
    courier.link_turn()
    assert sorted(link.published) == [(TOPICS.stats, b"499"), (TOPICS.status, b"online")]


def test_state_that_is_on_its_way_is_followed_by_the_newer_one(courier: Courier, link: Recording) -> None:
    courier.link_up(False, 10, None)
    for payload in (b"online", b"stopped"):
        courier.notice(TOPICS.status, payload, retain=True)
        courier.link_turn()
    assert link.published == [(TOPICS.status, b"online"), (TOPICS.status, b"stopped")]


def test_frame_whose_verdict_and_dead_letter_are_too_large_for_the_broker_is_acknowledged(
    courier: Courier, link: Recording, box: Box
) -> None:
    courier.link_up(False, 10, 100)
    courier.link_message(frame(7))
    courier.deliver(
        Outgoing("id", "verdict", "cameras/feeder/verdict", bytes(500), tickets=[box.frames[0].ticket], camera="feeder")
    )
    courier.link_turn()
    courier.link_turn()
    assert link.published == []
    assert link.acknowledged == [7]


def test_frames_of_one_camera_too_many_end_as_dead_letters(link: Recording, box: Box) -> None:
    health = Health("box")
    courier = Courier(TOPICS, box, health, 1 << 20, "mqtt://broker:1883", max_cameras=2)
    courier.attach(cast(Link, link))
    courier.link_up(False, 10, None)
    for mid, camera in enumerate(["a", "b", "c", "a"], start=1):
        courier.link_message(Message(f"cameras/{camera}/frame", b"picture", mid, 1, False, False, {}))
    courier.link_turn()
    assert [frame.camera for frame in box.frames] == ["a", "b", "a"]
    assert [topic for topic, _ in link.published] == [TOPICS.deadletter]
    assert health.snapshot()["refused"] == {"too many cameras": 1}


def test_nothing_can_leave_without_a_connection(courier: Courier) -> None:
    courier.notice(TOPICS.status, b"stopped")
    assert courier.pending() == 0
    courier.link_up(False, 10, None)
    assert courier.pending() == 1
    courier.link_down("gone")
    assert courier.pending() == 0


def test_refused_subscription_stays_the_reason_when_the_engines_become_warm(link: Recording, box: Box) -> None:
    health = Health("box")
    courier = Courier(TOPICS, box, health, 1 << 20, "mqtt://broker:1883")
    courier.attach(cast(Link, link))
    courier.link_up(False, 10, None)
    courier.link_subscribed(["cameras/+/frame: Not authorized"])
    courier.set_warm()
    ready, reason = health.ready()
    assert not ready
    assert "Not authorized" in reason


def subscribed(link: Recording, box: Box, health: Health, now: list[float]) -> Courier:
    """A warm courier whose link is up and has its subscription; ``now`` is its clock."""
    courier = Courier(TOPICS, box, health, 1 << 20, "mqtt://broker:1883", clock=lambda: now[0])
    courier.attach(cast(Link, link))
    courier.set_warm()
    courier.link_up(False, 10, None)
    courier.link_subscribed([])
    return courier


def test_absent_broker_is_the_reason_for_not_being_ready(link: Recording, box: Box) -> None:
    health = Health("box")
    courier = Courier(TOPICS, box, health, 1 << 20, "mqtt://broker:1883")
    courier.attach(cast(Link, link))
    courier.link_down("broker:1883 does not answer")
    courier.set_warm()
    assert health.ready() == (False, "no connection to the broker: broker:1883 does not answer")


def test_right_to_read_is_tried_anew_after_a_minute_of_silence_and_believed_lost_only_when_nothing_explains_it(
    link: Recording, box: Box
) -> None:
    now, health = [1000.0], Health("box")
    courier = subscribed(link, box, health, now)

    def canaries_after(seconds: float) -> int:
        now[0] += seconds
        courier.link_turn()
        courier.link_turn()
        return [topic for topic, _ in link.published].count(TOPICS.canary)

    assert canaries_after(0.1) == 1
    for mid in range(1, len(link.published) + 1):
        courier.link_confirmed(mid, None)
    courier.link_message(frame(7))
    assert canaries_after(61.0) == 1, "a frame is with us: the broker may have its window full"
    courier.settle(box.frames[0].ticket)
    assert canaries_after(0.1) == 2
    assert canaries_after(6.0) == 2
    assert health.ready() == (True, "judging"), "the broker has not even confirmed the test frame"
    courier.link_confirmed(len(link.published), None)
    courier.link_turn()
    assert not health.ready()[0]
    assert "does its access list let us read" in health.ready()[1]
    courier.link_message(Message(TOPICS.canary, b"canary", 8, 1, False, False, {}))
    assert health.ready() == (True, "judging")
    assert canaries_after(59.0) == 2


def test_test_frame_that_is_refused_after_one_was_taken_is_sent_again_until_rights_are_back(
    link: Recording, box: Box
) -> None:
    now, health = [1000.0], Health("box")
    courier = subscribed(link, box, health, now)

    def answer_after(seconds: float, failure: str | None) -> int:
        now[0] += seconds
        before = len(link.published)
        courier.link_turn()
        courier.link_turn()
        for mid in range(before + 1, len(link.published) + 1):
            courier.link_confirmed(mid, failure)
        return len(link.published) - before

    def canary() -> None:
        courier.link_message(Message(TOPICS.canary, b"canary", 0, 0, False, False, {}))

    assert answer_after(0.1, "Not authorized") == 2
    ready, sentence = health.ready()
    assert ready, "one that was never taken proves nothing"
    assert "refuses our test frame" in sentence
    assert answer_after(29.0, None) == 0
    assert answer_after(2.0, None) == 1
    canary()
    assert health.ready() == (True, "judging")
    assert answer_after(61.0, "Not authorized") == 1
    assert not health.ready()[0]
    assert "rights were taken away" in health.ready()[1]
    assert [answer_after(31.0, "Not authorized") for _ in range(3)] == [1, 1, 1]
    assert not health.ready()[0]
    assert answer_after(31.0, None) == 1
    assert not health.ready()[0], "it is taken again, and has not come"
    assert answer_after(6.0, None) == 0
    assert "does its access list let us read" in health.ready()[1]
    canary()
    assert health.ready() == (True, "judging")


def test_worker_that_judges_stays_ready_though_its_test_frame_is_refused_now(link: Recording, box: Box) -> None:
    now, health = [1000.0], Health("box")
    courier = subscribed(link, box, health, now)
    courier.link_turn()
    for mid in (1, 2):
        courier.link_confirmed(mid, None)
    courier.link_message(frame(1))
    courier.settle(box.frames[0].ticket)
    now[0] += 61.0
    courier.link_turn()
    courier.link_turn()
    courier.link_confirmed(3, "Not authorized")
    assert not health.ready()[0]
    for number in range(2, 10):
        courier.link_message(frame(number))  # and stays with us
        now[0] += 10.0
        sent = len(link.published)
        courier.link_turn()
        courier.link_turn()
        if len(link.published) > sent:
            courier.link_confirmed(len(link.published), "Not authorized")
        assert health.ready()[0]
    assert link.published.count((TOPICS.canary, b"canary")) > 3


def test_test_frames_of_neighbours_are_acknowledged_and_not_counted(link: Recording, box: Box) -> None:
    health = Health("box")
    courier = Courier(TOPICS, box, health, 1 << 20, "mqtt://broker:1883")
    courier.attach(cast(Link, link))
    courier.link_up(False, 10, None)
    for mid, name in enumerate(["_canary-neighbour", "_canary", "_secret"], start=1):
        courier.link_message(Message(f"cameras/{name}/frame", b"canary", mid, 1, False, False, {}))
    courier.link_turn()
    assert link.acknowledged == [1, 2, 3]
    assert health.snapshot()["refused"] == {"reserved name": 2}
    assert box.frames == []
