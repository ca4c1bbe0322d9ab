"""The mailbox: bounds, fairness, and what a drop means."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mailbox import CAMERAS_REMEMBERED, Mailbox, MailboxFull, Policy
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
    left = mailbox.clear()
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


def test_purge_forgets_only_what_the_broker_delivers_again() -> None:
    mailbox = Mailbox("every", 10, 1000)
    old, unconfirmed, new = raw_frame("a", epoch=1), raw_frame("a", epoch=1, qos=0), raw_frame("b", epoch=2)
    for frame in (old, unconfirmed, new):
        mailbox.put(frame)
    assert mailbox.purge(2) == [old]
    assert len(mailbox) == 2
    assert mailbox.bytes == 2


def test_purge_of_thousands_is_quick() -> None:
    """The link's thread does it at each reconnect, and must not miss its keepalive over it."""
    mailbox = Mailbox("every", 65_535, 1 << 30)
    for number in range(20_000):
        mailbox.put(raw_frame(f"cam-{number % 50}", b"x"))
    began = time.monotonic()
    assert len(mailbox.purge(epoch=99)) == 20_000
    assert time.monotonic() - began < 2.0
    assert (len(mailbox), mailbox.bytes) == (0, 0)


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
