"""Row 33: what is wrong with certificates and rights, each case with its sentence in ``edge check``, log and page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.readiness import Readiness
from edge.rivals import Rivals
from edge.wire import Topics
from tests.soak.access import CASES, Case, one
from tests.soak.fleet import Zygote
from tests.soak.ledger import Outcome


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as running:
        yield running


@pytest.mark.mosquitto
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sentence_in_check_log_and_page(zygote: Zygote, tmp_path: Path, case: Case) -> None:
    outcome = Outcome()
    one(outcome, zygote, tmp_path, case)
    assert outcome.failures == []


def test_rival_is_suspected_after_three_ends_in_a_minute_and_forgotten_after_it() -> None:
    rivals = Rivals("box")
    for now in (0.0, 59.0):
        rivals.ended(now)
        assert rivals.suspicion(now) is None
    rivals.ended(100.0)
    assert rivals.suspicion(100.0) is None, "three ends in 100 s are no rival"
    rivals.ended(101.0)
    assert "client id box?" in str(rivals.suspicion(101.0))
    assert rivals.suspicion(119.0) is None


def test_broker_that_names_the_takeover_is_believed_at_once() -> None:
    rivals = Rivals("box")
    rivals.taken_over(5.0)
    assert "another client uses our client id box" in str(rivals.suspicion(6.0))
    assert rivals.suspicion(66.0) is None


def test_worker_whose_verdicts_are_all_refused_is_not_ready_and_one_of_which_some_pass_is() -> None:
    known = Readiness(Topics("cameras", "box"), warm=True)
    known.connect()
    known.subscribed = known.proven = True
    assert known.state() == ("ready", "judging")
    known.refusal = "Not authorized"
    assert known.state()[0] == "not-ready"
    assert "cameras/+/verdict" in known.state()[1]
    known.confirmed = True
    assert known.state() == ("ready", "judging")
    known.disconnect("cut")
    assert known.state() == ("not-ready", "no connection to the broker: cut")
    known.connect()
    assert known.state()[0] == "not-ready", "a new connection has proven nothing"
