"""The delivery core against a model of the broker: nothing acknowledged too early, twice, late or out of order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.delivery import Delivery, Outgoing
from edge.records import Ticket


def verdict(key: str, *tickets: Ticket) -> Outgoing:
    """A verdict that waits for its PUBACK."""
    return Outgoing(key, "verdict", "cameras/a/verdict", b"{}", tickets=list(tickets))


class Broker(RuleBasedStateMachine):
    """A broker with a persistent session: what it holds it delivers again, and every PUBACK is checked."""

    def __init__(self) -> None:
        super().__init__()
        self.delivery = Delivery()
        self.held: dict[int, str] = {}  # what the broker still holds for us: serial of the frame -> its name
        self.delivered: dict[int, Ticket] = {}  # this connection: mid -> ticket
        self.order: list[int] = []  # mids of this connection in order of delivery, unacknowledged
        self.judged: set[str] = set()  # frames whose verdict the broker has confirmed, or that were dropped
        self.names: dict[Ticket, str] = {}
        self.stale: list[Ticket] = []
        self.on_the_wire: dict[int, Outgoing] = {}
        self.frames = 0
        self.mids = 0

    @initialize(window=st.integers(1, 4))
    def connect_first(self, window: int) -> None:
        self.window = window
        self._connect()

    def _connect(self) -> None:
        self.delivery.connect(self.window)
        self.stale += self.delivered.values()
        self.delivered.clear()
        self.order.clear()
        self.on_the_wire.clear()
        self.mids = 0  # packet identifiers start anew: the reason for epochs
        for serial in list(self.held):
            self._deliver(serial)

    def _deliver(self, serial: int) -> None:
        self.mids += 1
        ticket = self.delivery.arrive(self.mids, 1)
        self.delivered[self.mids] = ticket
        self.names[ticket] = self.held[serial]
        self.order.append(self.mids)

    def _check_acks(self, mids: list[int]) -> None:
        for mid in mids:
            assert self.order, "acknowledged something that was not delivered"
            assert mid == self.order.pop(0), "out of order"
            name = self.names[self.delivered.pop(mid)]
            assert name in self.judged, "acknowledged before the end state was safe"
            for serial in [s for s, n in self.held.items() if n == name]:
                del self.held[serial]

    @rule()
    def frame(self) -> None:
        self.frames += 1
        self.held[self.frames] = f"frame-{self.frames}"
        if self.delivery.connected:
            self._deliver(self.frames)

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.delivered.values(), key=lambda t: t.serial)))
        self.delivery.offer(verdict(self.names[ticket], ticket))

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def judge_frame_of_an_old_connection(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.stale))
        self.delivery.offer(verdict(self.names[ticket], ticket))
        assert self.delivery.settle(ticket) == []

    @rule()
    def publish(self) -> None:
        outgoing = self.delivery.next_to_send()
        if outgoing is not None:
            self.mids += 1
            self.on_the_wire[10_000 + self.mids] = outgoing
            self.delivery.sent(outgoing.key, 10_000 + self.mids)

    @precondition(lambda self: self.on_the_wire)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        mid = data.draw(st.sampled_from(sorted(self.on_the_wire)))
        expected = self.on_the_wire.pop(mid)
        outgoing = self.delivery.confirm(mid)
        assert outgoing is not None
        assert outgoing.key == expected.key
        self.judged.add(outgoing.key)
        for ticket in outgoing.tickets:
            self._check_acks(self.delivery.settle(ticket))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.delivered.values(), key=lambda t: t.serial)))
        self.judged.add(self.names[ticket])
        self._check_acks(self.delivery.settle(ticket))

    @rule()
    def reconnect(self) -> None:
        self._connect()

    @rule()
    def disconnect(self) -> None:
        self.delivery.disconnect()
        self.stale += self.delivered.values()
        self.delivered.clear()
        self.order.clear()
        self.on_the_wire.clear()

    @invariant()
    def window_is_kept(self) -> None:
        assert len(self.on_the_wire) <= self.delivery.window

    @invariant()
    def the_core_and_the_broker_agree_on_what_is_unacknowledged(self) -> None:
        assert self.delivery.unacked == len(self.order)

    def teardown(self) -> None:
        """Let everything finish: nothing may be stuck."""
        if not hasattr(self, "window"):
            return
        self._connect()
        for ticket in list(self.delivered.values()):
            self.delivery.offer(verdict(self.names[ticket], ticket))
        while self.delivery.outbox:
            self.publish()
            mid = min(self.on_the_wire)
            outgoing = self.delivery.confirm(mid)
            del self.on_the_wire[mid]
            assert outgoing is not None
            self.judged.add(outgoing.key)
            for ticket in outgoing.tickets:
                self._check_acks(self.delivery.settle(ticket))
        assert not self.held
        assert self.delivery.unacked == 0


Broker.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDeliveryAgainstABroker = Broker.TestCase


def test_settle_twice_acknowledges_once() -> None:
    delivery = Delivery()
    delivery.connect(1)
    ticket = delivery.arrive(7, 1)
    assert delivery.settle(ticket) == [7]
    assert delivery.settle(ticket) == []


def test_settle_waits_for_earlier_frames() -> None:
    delivery = Delivery()
    delivery.connect(1)
    first, second, third = (delivery.arrive(mid, 1) for mid in (1, 2, 3))
    assert delivery.settle(third) == []
    assert delivery.settle(second) == []
    assert delivery.settle(first) == [1, 2, 3]


def test_qos_0_needs_no_acknowledgement() -> None:
    delivery = Delivery()
    delivery.connect(1)
    ticket = delivery.arrive(0, 0)
    assert delivery.unacked == 0
    assert delivery.settle(ticket) == []


def test_offer_same_key_publishes_once_and_acknowledges_both_deliveries() -> None:
    delivery = Delivery()
    delivery.connect(5)
    first, again = delivery.arrive(1, 1), delivery.arrive(2, 1)
    delivery.offer(verdict("id", first))
    delivery.offer(verdict("id", again))
    outgoing = delivery.next_to_send()
    assert outgoing is not None
    assert delivery.next_to_send() is None
    delivery.sent("id", 9)
    confirmed = delivery.confirm(9)
    assert confirmed is not None
    assert [mid for ticket in confirmed.tickets for mid in delivery.settle(ticket)] == [1, 2]


def test_disconnect_keeps_unconfirmed_verdicts_in_order() -> None:
    delivery = Delivery()
    delivery.connect(2)
    for key in "abc":
        delivery.offer(verdict(key))
    for mid in (1, 2):
        outgoing = delivery.next_to_send()
        assert outgoing is not None
        delivery.sent(outgoing.key, mid)
    delivery.disconnect()
    assert delivery.next_to_send() is None
    delivery.connect(3)
    assert delivery.confirm(1) is None, "a PUBACK of the old connection"
    sent = [delivery.next_to_send() for _ in range(3)]
    assert [outgoing.key for outgoing in sent if outgoing is not None] == ["a", "b", "c"]


def test_abandon_frees_the_outbox() -> None:
    delivery = Delivery()
    delivery.connect(1)
    delivery.offer(verdict("a"))
    assert delivery.abandon("a") is not None
    assert delivery.outbox == 0
    assert delivery.next_to_send() is None
