"""Rows 32, 35 and 36 in seconds: clocks that jump, a leak that is seen, rights that are gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.soak import clock, endurance, least
from tests.soak.ledger import Effort, Outcome


def effort(folder: Path, count: int) -> Effort:
    return Effort(seed=1, count=count, deadline=time.monotonic() + 60, folder=folder)


@pytest.mark.mosquitto
def test_clock_that_jumps_by_hours_and_to_1970_loses_nothing_and_alarms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "PHASE_S", 0.5)
    assert clock.clock(effort(tmp_path, 1)).failures == []


@pytest.mark.soak
@pytest.mark.mosquitto
def test_id_that_holds_the_wall_clock_is_seen(tmp_path: Path) -> None:
    """The control of the test above."""
    assert "ids" in clock.clock_control(effort(tmp_path, 1))


def samples(leak_mib: float, threads: float = 0.0) -> endurance.Samples:
    return endurance.Samples(
        [(float(n), 60.0 + leak_mib * n / 60, 8.0, 5.0 + threads * (n // 10), 100.0, 2.0, 3.0) for n in range(60)]
    )


def test_soak_sees_memory_and_threads_that_grow() -> None:
    flat, leak, more = Outcome(), Outcome(), Outcome()
    endurance.judge(flat, samples(0.0))
    endurance.judge(leak, samples(10.0))
    endurance.judge(more, samples(0.0, 1.0))
    assert flat.failures == []
    assert "resident memory grew" in leak.failures[0]
    assert "threads grew" in more.failures[0]


@pytest.mark.mosquitto
def test_worker_under_load_for_seconds_stays_flat(tmp_path: Path) -> None:
    outcome = endurance.soak(effort(tmp_path, 1200))
    assert [failure for failure in outcome.failures if "latency" not in failure] == []
    assert outcome.sums["lost"] == 0


def test_nothing_may_be_written_and_no_right_is_left_where_the_tests_of_row_36_run(tmp_path: Path) -> None:
    number = least.box_tests().index("tests/edge/test_spool.py")
    chosen = Effort(seed=36_000 + number, count=1, deadline=time.monotonic() + 60, folder=tmp_path)
    outcome = least.least_privilege(chosen)
    assert outcome.failures == []
    assert outcome.done == 1
    assert outcome.sums["passed"] > 10
