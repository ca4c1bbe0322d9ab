"""The ledger of the long runs: what counts as accepted, and by whom it is kept."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.edge.worker_process import wait_for
from tests.soak.fleet import Yard
from tests.soak.ledger import Outcome

pytestmark = pytest.mark.mosquitto
FRAMES = 5


def publish(yard: Yard) -> None:
    camera = yard.camera("a", 200.0, frames=FRAMES)
    wait_for(lambda: camera.confirmed == FRAMES, 20, "the broker's confirmations")


def test_frames_confirmed_before_a_worker_has_subscribed_are_told_to_be_kept_for_nobody(tmp_path: Path) -> None:
    outcome = Outcome()
    with Yard(tmp_path) as yard:
        worker = yard.worker()
        worker.start(kill_at="after connected", nth=1)
        assert worker.wait() == -signal.SIGKILL
        assert "connected broker=" in worker.log()
        publish(yard)
        worker.start()
        worker.wait_ready()
        lost = yard.settle(outcome, patience_s=1.0)
    assert len(lost) == FRAMES
    assert outcome.failures[0].startswith("5 accepted frames lost, 5 of which the broker said to keep for nobody")


def test_frames_for_a_worker_that_was_ready_and_is_gone_are_kept(tmp_path: Path) -> None:
    outcome = Outcome()
    with Yard(tmp_path) as yard:
        worker = yard.worker()
        worker.start()
        worker.wait_ready()
        worker.kill()
        publish(yard)
        worker.start()
        yard.settle(outcome, patience_s=20.0)
    assert outcome.failures == []
    assert outcome.sums["frames"] == FRAMES
