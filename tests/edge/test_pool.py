"""The intake: order, the bound on decoding ahead, and a clean end."""

from __future__ import annotations

import random
import threading
import time

import pytest

from edge.mailbox import Mailbox
from edge.pool import Intake
from edge.records import Frame, RawFrame
from tests.edge.frames import raw_frame


def decoded(raw: RawFrame) -> Frame:
    """What a decoder would give."""
    return Frame(raw, raw.payload, "0" * 64, 0.0, 0.0)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox("every", 1000, 1 << 20)


def test_next_batch_frames_leave_in_the_order_taken_whatever_decoding_takes(mailbox: Mailbox) -> None:
    rng = random.Random(1)
    pauses = {n: rng.random() * 0.01 for n in range(60)}

    def decode(raw: RawFrame) -> Frame:
        time.sleep(pauses[int(raw.payload)])
        return decoded(raw)

    intake = Intake(mailbox, decode, workers=4, ahead=8)
    intake.start()
    for n in range(60):
        intake.put(raw_frame(payload=b"%d" % n))
    seen: list[int] = []
    while len(seen) < 60:
        batch = intake.next_batch(8, 0.0, 5.0)
        assert 1 <= len(batch) <= 8
        seen += [int(frame.image) for frame in batch]
    assert seen == list(range(60))
    intake.close()


def test_decoding_ahead_is_bounded_so_that_frames_wait_where_newer_ones_replace_them(mailbox: Mailbox) -> None:
    busy = threading.Semaphore(0)
    begun: list[RawFrame] = []

    def decode(raw: RawFrame) -> Frame:
        begun.append(raw)
        busy.release()
        return decoded(raw)

    intake = Intake(mailbox, decode, workers=2, ahead=3)
    intake.start()
    for n in range(10):
        intake.put(raw_frame(payload=b"%d" % n))
    for _ in range(3):
        assert busy.acquire(timeout=5)
    time.sleep(0.05)
    assert len(begun) == 3
    assert intake.backlog()[0] == 10
    assert len(intake.next_batch(2, 0.0, 5.0)) == 2
    for _ in range(2):
        assert busy.acquire(timeout=5)
    intake.close()


def test_next_batch_nothing_comes_returns_empty_after_the_timeout(mailbox: Mailbox) -> None:
    intake = Intake(mailbox, decoded, workers=1, ahead=2)
    intake.start()
    began = time.monotonic()
    assert intake.next_batch(4, 0.0, 0.05) == []
    assert time.monotonic() - began < 2.0
    intake.close()


def test_next_batch_held_open_fills(mailbox: Mailbox) -> None:
    intake = Intake(mailbox, decoded, workers=1, ahead=8)
    intake.start()
    intake.put(raw_frame())
    later = threading.Timer(0.05, lambda: [intake.put(raw_frame()) for _ in range(3)])
    later.start()
    assert len(intake.next_batch(4, 5.0, 5.0)) == 4
    later.join()
    intake.close()


def test_take_never_waits_and_gives_nothing_below_what_is_wanted(mailbox: Mailbox) -> None:
    gate = threading.Semaphore(0)

    def decode(raw: RawFrame) -> Frame:
        gate.acquire(timeout=10)
        return decoded(raw)

    intake = Intake(mailbox, decode, workers=1, ahead=4)
    intake.start()
    for n in range(4):
        intake.put(raw_frame(payload=b"%d" % n))
    assert intake.take(4, least=1) == []
    for _ in range(3):
        gate.release()
    deadline = time.monotonic() + 5
    while intake._done() < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert intake.take(4, least=4) == []
    assert [frame.image for frame in intake.take(2, least=2)] == [b"0", b"1"]
    assert [frame.image for frame in intake.take(2, least=1)] == [b"2"]
    gate.release()
    assert [frame.image for frame in intake.next_batch(4, 0.0, 5.0)] == [b"3"]
    intake.close()


def test_close_returns_what_is_decoded_and_leaves_the_rest(mailbox: Mailbox) -> None:
    intake = Intake(mailbox, decoded, workers=1, ahead=2)
    intake.start()
    for _ in range(5):
        intake.put(raw_frame())
    deadline = time.monotonic() + 5
    while len(mailbox) > 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(intake.close()) == 2
    assert len(mailbox) == 3


def test_exchange_gives_up_when_it_is_not_wanted_any_more_and_changes_nothing(mailbox: Mailbox) -> None:
    release = threading.Event()

    def slow(raw: RawFrame) -> Frame:
        release.wait(10)
        return decoded(raw)

    intake = Intake(mailbox, slow, workers=1, ahead=2)
    intake.start()
    intake.put(raw_frame(payload=b"1"))
    time.sleep(0.05)
    began = time.monotonic()
    assert intake.exchange(decoded, 4, lambda: time.monotonic() - began < 0.3) is None
    assert time.monotonic() - began < 2
    release.set()
    intake.put(raw_frame(payload=b"2"))
    seen = [frame.image for _ in range(2) for frame in intake.next_batch(1, 0.0, 5.0)]
    assert seen == [b"1", b"2"]
    intake.close()


def test_exchange_returns_what_the_old_decoder_has_begun_in_order(mailbox: Mailbox) -> None:
    intake = Intake(mailbox, decoded, workers=2, ahead=3)
    intake.start()
    for n in range(6):
        intake.put(raw_frame(payload=b"%d" % n))
    time.sleep(0.1)
    old = intake.exchange(lambda raw: Frame(raw, b"new", "0" * 64, 0.0, 0.0), 3, lambda: True)
    assert old is not None
    assert [frame.image for frame in old] == [b"0", b"1", b"2"]
    fresh: list[bytes] = []
    while len(fresh) < 3:
        fresh += [frame.image for frame in intake.next_batch(8, 0.0, 5.0)]
    assert fresh == [b"new"] * 3
    intake.close()
