"""The long runs of ``tests/soak`` in seconds: kills at every step, a share group, a partition, overload."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak import broker_kills, callbacks, kills, model, overload, partition
from tests.soak.ledger import Effort, Outcome

pytestmark = pytest.mark.mosquitto


def effort(folder: Path, count: int) -> Effort:
    return Effort(seed=1, count=count, deadline=time.monotonic() + 60, folder=folder)


@pytest.mark.parametrize("engine", [{}, {"service_s": 0.012, "in_flight": 2}])
def test_kill_at_every_step_of_the_protocol_loses_no_accepted_frame(tmp_path: Path, engine: dict[str, float]) -> None:
    outcome = kills.kill_at_every_step(effort(tmp_path, 1), **engine)
    assert outcome.failures == []
    assert outcome.sums["kills"] == len(kills.MOMENTS)
    assert outcome.sums["frames"] > 0


def test_kills_in_a_share_group_lose_nothing_when_the_worker_comes_back(tmp_path: Path) -> None:
    assert kills.share_group(effort(tmp_path, 3)).failures == []


@pytest.mark.soak
def test_share_group_loses_frames_when_the_worker_stays_away(tmp_path: Path) -> None:
    """The control of the test above, and why a share group wants workers that restart."""
    assert "lost" in kills.share_group_control(effort(tmp_path, 1))


def test_partition_every_verdict_arrives_in_order_within_the_brokers_receive_maximum(tmp_path: Path) -> None:
    assert partition.blackhole(effort(tmp_path, 400), per_second=200).failures == []


def test_paho_alone_passes_the_brokers_receive_maximum(tmp_path: Path) -> None:
    """The control of the test above."""
    assert "in flight" in partition.blackhole_control(effort(tmp_path, 1))


@pytest.mark.parametrize("in_flight", [1, 2])
def test_overload_every_frame_has_one_end_and_quiet_cameras_are_served(tmp_path: Path, in_flight: int) -> None:
    outcome = Outcome()
    frames = overload.plan(effort(tmp_path, 1), 4, 8, 4.0, service_s=0.05)
    overload.one_load(outcome, tmp_path, frames, "latest", 4.0, service_s=0.05, in_flight=in_flight)
    assert [failure for failure in outcome.failures if "percentile" not in failure] == []
    assert outcome.sums["dropped"] > 0


def test_exception_in_any_callback_is_seen_at_the_page_and_ends_the_process(tmp_path: Path) -> None:
    outcome = callbacks.exceptions(effort(tmp_path, 1))
    assert outcome.failures == []
    assert outcome.sums["callbacks"] == 12


def test_broker_killed_with_the_shipped_configuration_loses_at_most_its_last_moment(tmp_path: Path) -> None:
    """Mosquitto confirms a frame before it saves; with its defaults it loses all since the last half hour (row 2)."""
    outcome = broker_kills.kill_broker(replace(effort(tmp_path, 2), patience_s=10.0))
    assert outcome.sums["lost"] <= 2
    assert outcome.sums["duplicates after equal ids"] == 0


def test_broker_killed_before_it_saved_a_burst_takes_nothing_that_a_slow_worker_holds(tmp_path: Path) -> None:
    outcome = broker_kills.kill_during_burst(tmp_path)
    assert outcome.failures == []
    assert outcome.sums["verdicts before the kill"] < outcome.sums["frames"]


def test_sessions_lost_again_and_again_bring_no_wrong_acknowledgement(tmp_path: Path) -> None:
    assert model.lose_sessions(effort(tmp_path, 200)).failures == []
    assert model.lose_sessions_control(effort(tmp_path, 1))
