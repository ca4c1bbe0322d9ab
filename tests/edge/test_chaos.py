"""Row 3 in seconds: that its checker sees every broken rule, and a few events in earnest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.edge.worker_process import Camera, Verdicts
from tests.soak.chaos import MOMENT_S, Account, Chronicler, chaos
from tests.soak.history import PUBACK, PUBLISH, History, Key
from tests.soak.ledger import Effort, Outcome
from tests.soak.oracle import Oracle

FRAME: Key = ("a", "1")


class Wire:
    """Plays packets to a history: connection, then what passes."""

    def __init__(self) -> None:
        self.history = History()

    def frame(self, connection: int, mid: int, key: Key = FRAME) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = [("frame_id", str(key[1]))]
        packed = properties.pack()  # type: ignore[no-untyped-call]
        topic = f"cameras/{key[0]}/frame".encode()
        body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + packed + b"jpeg"
        self.history.tap(connection, False, PUBLISH, 2, body)

    def verdict(self, connection: int, mid: int, key: Key = FRAME) -> None:
        topic = f"cameras/{key[0]}/verdict".encode()
        payload = json.dumps({"camera": key[0], "frame_id": key[1], "id": "x"}).encode()
        body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + b"\0" + payload
        self.history.tap(connection, True, PUBLISH, 2, body)

    def confirmation(self, connection: int, mid: int, reason: bytes = b"") -> None:
        self.history.tap(connection, False, PUBACK, 0, mid.to_bytes(2, "big") + reason)

    def acknowledgement(self, connection: int, mid: int) -> None:
        self.history.tap(connection, True, PUBACK, 0, mid.to_bytes(2, "big"))


def test_right_order_breaks_no_rule_and_the_next_connection_begins_anew() -> None:
    wire = Wire()
    for connection in (1, 2):
        wire.frame(connection, 1)
        wire.verdict(connection, 9)
        wire.confirmation(connection, 9)
        wire.acknowledgement(connection, 1)
    assert wire.history.violations == []
    assert wire.history.acknowledged == 2


def test_acknowledgement_before_the_verdicts_confirmation_is_seen() -> None:
    wire = Wire()
    wire.frame(1, 1)
    wire.verdict(1, 9)
    wire.acknowledgement(1, 1)
    wire.confirmation(1, 9)
    assert "before" in wire.history.violations[0]


def test_refused_verdict_confirms_nothing() -> None:
    wire = Wire()
    wire.frame(1, 1)
    wire.verdict(1, 9)
    wire.confirmation(1, 9, b"\x87")
    wire.acknowledgement(1, 1)
    assert "before" in wire.history.violations[0]


def test_acknowledgement_in_another_connection_and_a_second_one_are_seen() -> None:
    wire = Wire()
    wire.frame(1, 1)
    wire.verdict(1, 9)
    wire.confirmation(1, 9)
    wire.acknowledgement(2, 1)
    wire.acknowledgement(1, 1)
    wire.acknowledgement(1, 1)
    assert len(wire.history.violations) == 2
    assert all("none of its frames" in found for found in wire.history.violations)


class Always:
    """An oracle with one answer."""

    def verdict(self, key: Key, picture: bytes, captured_at: float) -> dict[str, Any]:
        return {"id": "x", "verdict": "negative"}


def settle(accepted: dict[str, float], told: dict[str, list[dict[str, Any]]], kills: list[float]) -> Outcome:
    """What the account says of frames of camera a: accepted when, with which verdicts, the broker killed when."""
    chronicle = Chronicler.__new__(Chronicler)
    chronicle.given = dict.fromkeys(accepted, (b"jpeg", 1.0))
    chronicle.confirmed_at = accepted
    verdicts = SimpleNamespace(by_frame={("a", name): found for name, found in told.items()})
    camera = SimpleNamespace(name="a", _publisher=chronicle)
    outcome = Outcome()
    account = Account([cast(Camera, camera)], cast(Verdicts, verdicts), History(), kills)
    account.settle(outcome, cast(Oracle, Always()))
    return outcome


GOOD = {"id": "x", "verdict": "negative", "judged_at": 5.0}


def test_verdict_that_comes_twice_is_right_and_counted() -> None:
    outcome = settle({"1": 10.0}, {"1": [GOOD, {**GOOD, "judged_at": 6.0}]}, [])
    assert outcome.failures == []
    assert outcome.sums["raw duplicates"] == 1


def test_frame_without_an_end_is_lost_unless_the_broker_was_killed_at_that_moment() -> None:
    lost = settle({"1": 10.0}, {}, [10.0 + 2 * MOMENT_S])
    assert lost.sums["lost"] == 1
    assert "without an end" in lost.failures[0]
    moment = settle({"1": 10.0}, {}, [10.0 + MOMENT_S / 2])
    assert moment.failures == []
    assert moment.sums["frames lost in a broker's last moment"] == 1


def test_other_answer_another_id_and_a_verdict_for_nobody_are_seen() -> None:
    assert "instead of" in settle({"1": 1.0}, {"1": [{**GOOD, "verdict": "positive"}]}, []).failures[0]
    assert "several ids" in settle({"1": 1.0}, {"1": [GOOD, {**GOOD, "id": "y"}]}, []).failures[0]
    assert "no camera has sent" in settle({"1": 1.0}, {"1": [GOOD], "7": [GOOD]}, []).failures[0]


@pytest.mark.mosquitto
def test_few_events_break_no_rule(tmp_path: Path) -> None:
    outcome = chaos(Effort(seed=5, count=6, deadline=time.monotonic() + 60, folder=tmp_path))
    assert outcome.failures == []
    assert outcome.sums["frames"] > 50
    assert outcome.sums["acknowledgements on the wire"] > 50
