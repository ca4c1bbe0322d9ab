"""The mailbox: bounds, fairness, and what a drop means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mailbox import CAMERAS_REMEMBERED, Mailbox, MailboxFull, Policy
from edge.records import RawFrame
from tests.edge.frames import raw_frame

events = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcdef"), st.integers(0, 40)),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
    ),
    max_size=120,
)


def drain(mailbox: Mailbox) -> list[str]:
    """Take everything out; the cameras in the order of being served."""
    served = []
    while (frame := mailbox.take()) is not None:
        served.append(frame.camera)
    return served


@given(events, st.sampled_from(["latest", "every"]), st.integers(1, 6), st.integers(40, 100))
def test_any_history_keeps_bounds_and_accounts_for_every_frame(
    history: list[tuple[str, str, int]], policy: Policy, frames: int, size: int
) -> None:
    mailbox = Mailbox(policy, frames, size)
    put = taken = dropped = refused = 0
    for what, camera, length in history:
        if what == "take":
            taken += mailbox.take() is not None
            continue
        put += 1
        try:
            dropped += len(mailbox.put(raw_frame(camera, b"x" * length)))
        except MailboxFull:
            refused += 1
        assert len(mailbox) <= frames
        assert mailbox.bytes <= size
    assert put == taken + dropped + refused + len(mailbox)
    assert policy == "latest" or dropped == 0
    left = drain(mailbox)
    assert len(left) == put - taken - dropped - refused
    assert (len(mailbox), mailbox.bytes, mailbox.oldest_s) == (0, 0, None)


def test_latest_newer_frame_replaces_older_of_the_same_camera_and_counts_it() -> None:
    mailbox = Mailbox("latest", 10, 1000)
    first, second, third = (raw_frame(payload=bytes([n])) for n in range(3))
    assert mailbox.put(first) == []
    assert mailbox.put(second) == [first]
    (dropped,) = mailbox.put(third)
    assert dropped.ticket == second.ticket
    kept = mailbox.take()
    assert kept is not None
    assert kept.payload == third.payload
    assert kept.dropped_before == 2


def test_latest_noisy_camera_does_not_starve_quiet_ones() -> None:
    mailbox = Mailbox("latest", 10, 1000)
    served = []
    mailbox.put(raw_frame("quiet"))
    for _ in range(20):
        for _ in range(5):
            mailbox.put(raw_frame("noisy"))
        mailbox.put(raw_frame("quiet"))
        frame = mailbox.take()
        assert frame is not None
        served.append(frame.camera)
    assert served.count("quiet") == 10


def test_every_cameras_take_turns_and_each_stays_in_order() -> None:
    mailbox = Mailbox("every", 10, 1000)
    frames = [raw_frame(camera, bytes([n])) for n, camera in enumerate("aaabbc")]
    for frame in frames:
        mailbox.put(frame)
    assert drain(mailbox) == ["a", "b", "c", "a", "b", "a"]


def test_latest_too_many_bytes_sheds_the_longest_waiting_camera() -> None:
    mailbox = Mailbox("latest", 10, 100)
    for camera in "abc":
        mailbox.put(raw_frame(camera, b"x" * 30))
    dropped = mailbox.put(raw_frame("d", b"x" * 40))
    assert [frame.camera for frame in dropped] == ["a"]


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_frame_over_the_byte_bound_is_refused(policy: Policy) -> None:
    with pytest.raises(MailboxFull):
        Mailbox(policy, 10, 10).put(raw_frame(payload=b"x" * 11))


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_frame_that_comes_again_gives_its_ticket_to_the_one_that_waits(policy: Policy) -> None:
    mailbox = Mailbox(policy, 2, 2)
    mailbox.put(raw_frame("a", b"x", epoch=1))
    mailbox.put(raw_frame("b", b"y", epoch=1))
    again = raw_frame("b", b"y", epoch=2)
    assert mailbox.renew(again)
    assert not mailbox.renew(again), "it was given twice"
    assert (len(mailbox), mailbox.bytes) == (2, 2)
    assert [frame.ticket.epoch for frame in (mailbox.take(), mailbox.take()) if frame] == [1, 2]


@pytest.mark.parametrize(
    "other",
    [
        raw_frame("a", b"y", epoch=2),
        raw_frame("b", b"x", epoch=2),
        raw_frame("a", b"x", epoch=1),
        replace(raw_frame("a", b"x", epoch=2), frame_id="1"),
        replace(raw_frame("a", b"x", epoch=2), captured_at=1.0),
    ],
    ids=["picture", "camera", "connection", "frame id", "capture time"],
)
def test_another_frame_takes_the_ticket_of_none(other: RawFrame) -> None:
    mailbox = Mailbox("every", 10, 1000)
    mailbox.put(raw_frame("a", b"x", epoch=1))
    assert not mailbox.renew(other)


def test_frame_of_qos_0_never_comes_again() -> None:
    mailbox = Mailbox("every", 10, 1000)
    mailbox.put(raw_frame("a", b"x", epoch=1, qos=0))
    assert not mailbox.renew(raw_frame("a", b"x", epoch=2))


def test_equal_frames_that_come_again_take_a_ticket_each() -> None:
    mailbox = Mailbox("every", 10, 1000)
    for _ in range(2):
        mailbox.put(raw_frame("a", b"x", epoch=1))
    assert [mailbox.renew(raw_frame("a", b"x", epoch=2)) for _ in range(3)] == [True, True, False]


def test_quiet_camera_goes_before_the_next_frame_of_a_noisy_one() -> None:
    mailbox = Mailbox("latest", 10, 1000)
    mailbox.put(raw_frame("noisy"))
    mailbox.put(raw_frame("quiet"))
    assert [mailbox.take().camera for _ in range(2)] == ["noisy", "quiet"]  # type: ignore[union-attr]
    mailbox.put(raw_frame("noisy"))
    mailbox.put(raw_frame("other"))
    mailbox.put(raw_frame("quiet"))
    taken = [mailbox.take().camera for _ in range(3)]  # type: ignore[union-attr]
    assert taken == ["other", "noisy", "quiet"]


def test_served_cameras_that_are_remembered_are_bounded() -> None:
    mailbox = Mailbox("latest", 10, 1000)
    for number in range(3000):
        mailbox.put(raw_frame(f"camera-{number}"))
        mailbox.take()
    assert len(mailbox._served) == CAMERAS_REMEMBERED
