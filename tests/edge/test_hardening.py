"""The rows of the long runs about bad input, artifacts and hot swaps, at a size for every day."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path

import pytest

from tests.edge.worker_process import ROOT
from tests.soak.ledger import Effort
from tests.soak.no_code import scan
from tests.soak.rows import ROWS

DAILY = {21: 400, 24: 10_000, 25: 40, 26: 10_000, 27: 200}
CONTROLS = (20, 22, 24, 25, 26)


def call(name: str, count: int, folder: Path) -> object:
    module, _, function = name.partition(":")
    return getattr(import_module(f"tests.soak.{module}"), function)(Effort(3, count, time.monotonic() + 60.0, folder))


@pytest.mark.parametrize("number", DAILY)
def test_row_holds_at_a_daily_size(number: int, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.number == number)
    assert row.run
    outcome = call(row.run, DAILY[number], tmp_path)
    worst = [failure for failure in outcome.failures if " ms" not in failure]  # type: ignore[attr-defined]
    assert not worst  # speed is measured in the long runs, not here


@pytest.mark.parametrize("number", CONTROLS)
def test_control_of_the_row_fails_as_it_must(number: int, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.number == number)
    assert row.control
    assert call(row.control, 1, tmp_path)


@pytest.mark.usefixtures("mosquitto")
def test_swaps_under_load_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    assert not call("swaps:swap", 10, tmp_path).failures  # type: ignore[attr-defined]


def test_nothing_on_the_box_turns_data_into_code() -> None:
    paths = sorted(path for room in ("edge", "engines") for path in (ROOT / room).rglob("*.py"))
    assert not list(scan(paths))
