"""Row 33: what is wrong with certificates and rights, each case with its sentence in ``edge check``, log and page."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge import canary
from edge.config import Config
from edge.readiness import Readiness
from edge.rivals import Rivals
from edge.wire import Topics
from edge.worker import Worker
from tests.edge.worker_process import Camera, client, demo_config, wait_for
from tests.mosquitto import Broker
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


def connected() -> Readiness:
    known = Readiness(Topics("cameras", "box"), warm=True)
    known.connect()
    known.subscribed = known.proven = True
    return known


def test_worker_whose_verdicts_are_all_refused_is_not_ready_and_one_of_which_some_pass_is() -> None:
    known = connected()
    assert known.state() == ("ready", "judging")
    known.verdict_refused("Not authorized", "a", 0.0)
    assert known.state()[0] == "not-ready"
    assert "cameras/+/verdict" in known.state()[1]
    assert known.verdict_taken("a", 0.0)
    assert known.state() == ("ready", "judging")
    for turn in range(40):  # one camera's are refused, three at a time, another's taken
        for _ in range(3):
            known.verdict_refused("Not authorized", "forbidden", 2.0 * turn)
            assert known.state()[0] == "ready"
        assert not known.verdict_taken("a", 2.0 * turn + 1)
    known.verdict_refused("Not authorized", "a", 80.0)
    known.verdict_refused("Not authorized", "forbidden", 80.0)
    assert known.state()[0] == "ready"
    known.verdict_refused("Not authorized", "a", 80.0)
    assert known.state()[0] == "not-ready", "nobody's are taken any more"
    assert known.verdict_taken("a", 81.0)
    assert not known.verdict_taken("silent", 82.0)
    for second in range(200):
        known.verdict_refused("Not authorized", "a", 82.0 + second)
        assert known.state()[0] == ("ready" if second <= 60 else "not-ready"), "what a silent one had taken grows old"
    known.verdict_taken("a", 300.0)
    known.disconnect("cut")
    assert known.state() == ("not-ready", "no connection to the broker: cut")
    known.connect()
    assert known.state()[0] == "not-ready", "a new connection has proven nothing"


def test_verdicts_taken_before_prove_nothing_after_three_were_refused_in_a_row() -> None:
    known = connected()
    known.verdict_taken("a", 0.0)
    for expected in ("ready", "ready", "not-ready", "not-ready"):
        known.verdict_refused("Not authorized", "a", 0.0)
        assert known.state()[0] == expected
    known.verdict_taken("a", 0.0)
    assert known.state()[0] == "ready"


@pytest.mark.mosquitto
def test_rights_taken_away_and_given_back_in_mid_connection_are_told(
    broker_with: Callable[..., Broker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "CANARY_AGAIN_S", 0.5)
    monkeypatch.setattr(canary, "CANARY_RETRY_S", 0.5)
    monkeypatch.setattr(canary, "CANARY_TIMEOUT_S", 1.0)
    rights = tmp_path / "acl"
    everything = "topic readwrite cameras/#\ntopic readwrite edge/#\n"
    rights.write_text(everything)
    broker = broker_with(f"acl_file {rights}", "allow_anonymous true")

    def allow(text: str) -> None:
        rights.write_text(text)
        os.kill(broker.pid, signal.SIGHUP)

    worker = Worker(Config.model_validate(demo_config(broker.url, status=None)))
    worker.start()
    try:
        with Camera(client(broker, "cam"), "a", 20):
            wait_for(lambda: worker.health.snapshot()["counters"]["published"] > 3, 30, "verdicts")
            allow("topic read cameras/#\ntopic write cameras/+/frame\ntopic readwrite edge/#\n")
            wait_for(lambda: "refuses our verdicts" in worker.health.ready()[1], 20, "the refusals to be told")
            assert not worker.health.ready()[0]
            allow(everything)
            wait_for(lambda: worker.health.ready()[0], 20, "readiness")
        connects = worker.health.snapshot()["broker"]["connects"]
        allow("topic write cameras/#\ntopic write edge/#\n")
        wait_for(lambda: "does its access list let us read" in worker.health.ready()[1], 20, "the silence to be told")
        assert not worker.health.ready()[0]
        allow(everything)
        wait_for(lambda: worker.health.ready()[0], 20, "readiness")
        allow("topic read edge/nothing\n")
        wait_for(lambda: "rights were taken away" in worker.health.ready()[1], 20, "the refused test frame to be told")
        assert not worker.health.ready()[0]
        allow(everything)
        wait_for(lambda: worker.health.ready() == (True, "judging"), 20, "readiness")
        assert worker.health.snapshot()["broker"]["connects"] == connects
    finally:
        worker.stop()
