"""The delivery core's small print: epochs, the window, what is shed and what gives way."""

from __future__ import annotations

import time

import pytest

from edge.delivery import Delivery, Kind, Outgoing


def outgoing(key: str, kind: Kind = "verdict", topic: str = "t", *, stored: bool = False) -> Outgoing:
    return Outgoing(key, kind, topic, b"x", stored=stored)


@pytest.fixture
def delivery() -> Delivery:
    """Connected, with a window of two."""
    delivery = Delivery()
    delivery.connect(2)
    return delivery


def send(delivery: Delivery, mid: int) -> str | None:
    """Send the next publication; its key."""
    sending = delivery.next_to_send()
    if sending is None:
        return None
    delivery.sent(sending.key, mid)
    return sending.key


def test_before_any_connection_nothing_may_leave() -> None:
    fresh = Delivery()
    assert (fresh.epoch, fresh.connected, fresh.window, fresh.unacked, fresh.outbox) == (0, False, 1, 0, 0)
    fresh.offer(outgoing("a"))
    assert fresh.next_to_send() is None
    assert fresh.outbox == 1


def test_connect_counts_epochs_and_tickets_carry_them(delivery: Delivery) -> None:
    assert delivery.epoch == 1
    assert delivery.arrive(7, 1).epoch == 1
    assert delivery.connect(0) == delivery.epoch == 2
    assert delivery.window == 1, "a window of nothing would stand still"
    first, second = delivery.arrive(8, 1), delivery.arrive(8, 2)
    assert (first.epoch, first.mid, first.qos, second.qos) == (2, 8, 1, 2)
    assert second.serial == first.serial + 1 == 3
    assert delivery.unacked == 2


def test_disconnect_forgets_what_the_connection_was_owed(delivery: Delivery) -> None:
    ticket = delivery.arrive(1, 1)
    delivery.disconnect()
    assert not delivery.connected
    assert delivery.unacked == 0
    assert delivery.settle(ticket) == []


def test_window_is_full_until_a_confirmation_comes(delivery: Delivery) -> None:
    for key in "abc":
        delivery.offer(outgoing(key))
    assert [send(delivery, mid) for mid in (1, 2, 3)] == ["a", "b", None]
    assert delivery.confirm(2) is not None
    assert send(delivery, 3) == "c"
    assert delivery.outbox == 2
    assert delivery.confirm(99) is None


def test_unsent_goes_back_to_the_front_once(delivery: Delivery) -> None:
    for key in "ab":
        delivery.offer(outgoing(key))
    assert delivery.next_to_send() is not None
    delivery.unsent("a")
    delivery.unsent("a")
    delivery.unsent("unknown")
    assert [send(delivery, 1), send(delivery, 2), send(delivery, 3)] == ["a", "b", None]
    assert delivery.outbox == 2


def test_sent_of_something_abandoned_takes_no_place_in_the_window() -> None:
    delivery = Delivery()
    delivery.connect(1)
    delivery.offer(outgoing("a"))
    assert delivery.next_to_send() is not None
    delivery.abandon("a")
    delivery.sent("a", 1)
    delivery.offer(outgoing("b"))
    assert send(delivery, 2) == "b"


def test_abandoned_in_flight_is_not_confirmed_any_more(delivery: Delivery) -> None:
    delivery.offer(outgoing("a"))
    send(delivery, 1)
    assert delivery.abandon("a") is not None
    assert delivery.abandon("a") is None
    assert delivery.confirm(1) is None
    assert delivery.outbox == 0


def test_abandon_stored_leaves_what_is_in_memory(delivery: Delivery) -> None:
    delivery.offer(outgoing("here"))
    delivery.offer(outgoing("there", stored=True))
    assert delivery.abandon_stored("here") is None
    assert delivery.abandon_stored("unknown") is None
    gone = delivery.abandon_stored("there")
    assert gone is not None
    assert gone.key == "there"
    assert delivery.outbox == 1


def test_shed_takes_the_oldest_verdicts_that_are_not_on_their_way(delivery: Delivery) -> None:
    delivery.offer(outgoing("sent"))
    send(delivery, 1)
    delivery.offer(outgoing("note", "notice"))
    for key in "abcd":
        delivery.offer(outgoing(key))
    assert delivery.shed(6) == delivery.shed(5) == []
    assert [old.key for old in delivery.shed(4)] == ["a"]
    assert [old.key for old in delivery.shed(3)] == ["b"]
    assert delivery.outbox == 4
    assert [old.key for old in delivery.shed(0)] == ["c", "d"], "what is sent, and notes, stay"
    assert send(delivery, 2) == "note"


def test_shed_leaves_a_verdict_whose_frame_is_to_be_acknowledged(delivery: Delivery) -> None:
    """Mosquitto 2.0.11 sends a backlog far beyond our Receive Maximum, and its PUBACKs behind it."""
    delivery.connect(1)
    for number, qos in enumerate((1, 0, 1)):
        verdict = outgoing(f"{number}")
        verdict.tickets.append(delivery.arrive(number + 1, qos))
        delivery.offer(verdict)
    assert [old.key for old in delivery.shed(0)] == ["1"]
    assert delivery.outbox == 2


def test_shed_is_as_quick_with_many_verdicts_that_stay(delivery: Delivery) -> None:
    delivery.connect(1)
    began = time.process_time()
    for number in range(20_000):
        verdict = outgoing(f"{number}")
        verdict.tickets.append(delivery.arrive(number % 65_535 + 1, 1))
        delivery.offer(verdict)
        assert delivery.shed(100) == []
    assert time.process_time() - began < 5.0


def test_shed_leaves_a_verdict_that_came_again_with_a_frame_to_acknowledge(delivery: Delivery) -> None:
    delivery.connect(1)
    delivery.offer(outgoing("a"))
    again = outgoing("a")
    again.tickets.append(delivery.arrive(1, 1))
    delivery.offer(again)
    assert delivery.shed(0) == []


def test_newest_takes_the_place_of_waiting_notes_to_its_topic_alone(delivery: Delivery) -> None:
    delivery.offer(outgoing("old", "notice", "state"))
    delivery.offer(outgoing("other", "notice", "elsewhere"))
    delivery.offer(outgoing("verdict", "verdict", "state"))
    delivery.offer_newest(outgoing("new", "notice", "state"))
    delivery.connect(9)
    assert [send(delivery, mid) for mid in range(1, 5)] == ["other", "verdict", "new", None]


def test_same_key_waits_once_with_all_its_tickets(delivery: Delivery) -> None:
    first, second = delivery.arrive(1, 1), delivery.arrive(2, 1)
    delivery.offer(Outgoing("k", "verdict", "t", b"x", tickets=[first]))
    delivery.offer(Outgoing("k", "verdict", "t", b"y", tickets=[second]))
    assert delivery.outbox == 1
    waiting = delivery.next_to_send()
    assert waiting is not None
    assert waiting.tickets == [first, second]
    assert delivery.next_to_send() is None


def test_stored_one_that_is_on_its_way_is_not_taken_out(delivery: Delivery) -> None:
    for key in ("taken", "sent", "waiting"):
        delivery.offer(outgoing(key, stored=True))
    delivery.connect(3)
    assert [send(delivery, 1), delivery.next_to_send() and None] == ["taken", None]
    assert delivery.abandon_stored("taken") is None, "the broker gets it"
    assert delivery.abandon_stored("sent") is None, "the link has it in its hands"
    assert delivery.abandon_stored("waiting") is not None
    assert delivery.confirm(1) is not None


def test_taking_out_one_compares_no_other_key(delivery: Delivery) -> None:
    compared: list[str] = []

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return str.__eq__(self, other)

    for number in range(1000):
        delivery.offer(outgoing(Key(f"{number:04d}"), stored=True))
    compared.clear()
    for number in range(500, 600):
        delivery.abandon_stored(Key(f"{number:04d}"))
    assert delivery.outbox == 900
    assert len(compared) < 2000, "a full spool gives up a thousand at once while the courier's lock is held"
