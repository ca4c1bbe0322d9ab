"""The page of results says what the ledger says, and every row of the registry can be run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.soak.ledger import PAGE, Effort, Ledger, Outcome
from tests.soak.page import holds, measured, render
from tests.soak.rows import ROWS, Row

FACTS = Row(1, "worker killed", "none lost", 100, "kills", run="kills:run")


def test_page_is_what_the_ledger_and_the_registry_give() -> None:
    assert PAGE.read_text() == render(ROWS, Ledger()), "write it anew: python -m tests.soak --render"


def test_every_row_of_the_table_is_there_once_and_in_order() -> None:
    assert [row.number for row in ROWS] == list(range(1, 39))


@pytest.mark.parametrize("row", [row for row in ROWS if row.run], ids=lambda row: str(row.number))
def test_row_names_functions_that_exist(row: Row) -> None:
    for name in filter(None, (row.run, row.control)):
        module, _, function = name.partition(":")
        assert callable(getattr(import_module(f"tests.soak.{module}"), function))


def test_runs_of_a_row_add_up_and_a_failure_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results.json")
    ledger.record(1, 7, 1.0, Outcome(40, {"frames": 10}, {"slowest s": 2.0}))
    ledger.record(1, 8, 1.0, Outcome(60, {"frames": 5, "lost": 0}, {"slowest s": 1.0}))
    total = Ledger(tmp_path / "results.json").total(1)
    assert measured(FACTS, total) == "100 of 100 kills; frames 15; lost 0; slowest s 2"
    assert holds(FACTS, total, ran=True) == "yes"
    ledger.record(1, 9, 1.0, Outcome(1, {"lost": 1}, {}, ["one was lost"]))
    assert holds(FACTS, ledger.total(1), ran=True) == "**no**"


def test_rows_that_run_at_the_same_time_keep_each_other_s_runs(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "results.json"), Ledger(tmp_path / "results.json")
    one.record(1, 7, 1.0, Outcome(40))
    other.record(2, 8, 1.0, Outcome(60))
    other.record_control(2, "it failed")
    one.record(1, 9, 1.0, Outcome(2))
    kept = Ledger(tmp_path / "results.json")
    assert (kept.total(1).done, kept.total(2).done, kept.control(2)) == (42, 60, "it failed")


def test_row_that_never_ran_says_so(tmp_path: Path) -> None:
    page = render([FACTS], Ledger(tmp_path / "none.json"))
    assert "| not yet run | – | `make soak ROW=1` | not yet run |" in page


def test_effort_ends_at_its_count_and_at_its_deadline(tmp_path: Path) -> None:
    assert not Effort(1, 5, float("inf"), tmp_path).goes_on(5)
    assert not Effort(1, 5, 0.0, tmp_path).goes_on(1)
    assert Effort(1, 5, float("inf"), tmp_path).goes_on(4)
