"""Being a camera: what is sent again after a lost connection, and what is not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from edge.link_handler import LinkSettings
from edge.publish import Publisher
from edge.sources import Picture


class Wire:
    """A link that writes down what it is given, under packet identifiers from 1."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.stopped = False

    def publish(self, topic: str, payload: bytes, properties: Mapping[str, str]) -> int:
        del topic, payload
        self.sent.append((properties["frame_id"], properties["captured_at"]))
        return len(self.sent)

    def stop(self) -> None:
        self.stopped = True


def pictures(count: int) -> Iterator[Picture]:
    return iter([Picture(f"{number}", b"jpeg") for number in range(count)])


def camera(count: int, fps: float | None = None, moment_s: float = 60.0) -> tuple[Publisher, Wire]:
    """A connected camera of ``count`` pictures that has sent the first ones."""
    settings = LinkSettings("127.0.0.1", 1, "camera")
    publisher, wire = Publisher(settings, "cameras/a/frame", pictures(count), fps, moment_s=moment_s), Wire()
    publisher._link = cast(Any, wire)
    publisher.link_up(False, 10, None)
    publisher.link_turn()
    return publisher, wire


def names(wire: Wire) -> list[str]:
    return [name for name, _ in wire.sent]


def test_lost_connection_sends_again_what_was_confirmed_a_moment_ago_and_what_was_not() -> None:
    publisher, wire = camera(3)
    publisher.link_confirmed(1, None)
    publisher.link_down("the broker was killed")
    publisher.link_up(True, 10, None)
    publisher.link_turn()
    assert names(wire) == ["0", "1", "2", "0", "1", "2"]
    assert wire.sent[:3] == wire.sent[3:], "another capture time would make another id"
    for mid in (4, 5, 6):
        publisher.link_confirmed(mid, None)
    publisher.link_turn()
    assert publisher.sent.frames == 3
    assert wire.stopped


def test_what_was_confirmed_long_ago_is_not_sent_again() -> None:
    publisher, wire = camera(2, moment_s=0.0)
    publisher.link_confirmed(1, None)
    publisher.link_confirmed(2, None)
    publisher.link_down("the broker was killed")
    publisher.link_up(True, 10, None)
    publisher.link_turn()
    assert names(wire) == ["0", "1"]


def test_pictures_are_held_no_longer_than_they_may_be_sent_again() -> None:
    publisher, _ = camera(10, moment_s=0.05)
    for mid in range(1, 10):
        publisher.link_confirmed(mid, None)
    time.sleep(0.06)
    publisher.link_confirmed(10, None)
    assert [item.picture.name for item in publisher._confirmed] == ["9"]


def test_what_is_sent_again_does_not_wait_for_the_camera_s_pace() -> None:
    publisher, wire = camera(100, fps=0.001)
    publisher.link_confirmed(1, None)
    publisher.link_down("first")
    publisher.link_down("still not there")
    publisher.link_up(True, 10, None)
    publisher.link_turn()
    assert names(wire) == ["0", "0", "1"]


@pytest.mark.parametrize("failure", [None, "Not authorized"])
def test_frame_that_comes_back_counts_once(failure: str | None) -> None:
    publisher, _ = camera(1)
    publisher.link_confirmed(1, None)
    publisher.link_down("the broker was killed")
    publisher.link_up(True, 10, None)
    publisher.link_turn()
    publisher.link_confirmed(2, failure)
    assert (publisher.sent.frames, publisher.sent.refused) == (1, 0)
