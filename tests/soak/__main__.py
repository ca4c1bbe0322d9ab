"""Run rows of the registry, add what they found to the ledger, and write the page."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from engines.console import stdout
from tests.soak.ledger import PAGE, Effort, Ledger, Outcome
from tests.soak.page import measured, render
from tests.soak.rows import ROWS, Row

MINUTES_15 = 900.0


def call(name: str, *arguments: Any) -> Any:
    """Call ``module:function`` of this package."""
    module, _, function = name.partition(":")
    return getattr(import_module(f"tests.soak.{module}"), function)(*arguments)


def run_row(row: Row, ledger: Ledger, count: int | None, seconds: float) -> bool:
    """Run a row's control and then as many further units as fit; True when nothing failed."""
    assert row.run is not None
    done = ledger.total(row.number).done
    wanted = count if count is not None else max(0, row.goal - done)
    seed = 1000 * row.number + done
    with tempfile.TemporaryDirectory(prefix="parrotgate-soak-") as name:
        stdout.print(f"row {row.number} {row.title}: {done} of {row.goal} {row.unit} so far", highlight=False)
        if row.control is not None and ledger.control(row.number) is None:
            sentence = call(row.control, Effort(seed, 1, time.monotonic() + seconds, Path(name) / "control"))
            ledger.record_control(row.number, sentence)
        if wanted == 0:
            return True
        began = time.monotonic()
        outcome: Outcome = call(row.run, Effort(seed, wanted, began + seconds, Path(name) / "run"))
        ledger.record(row.number, seed, time.monotonic() - began, outcome)
    stdout.print(f"  {measured(row, ledger.total(row.number))}", highlight=False, soft_wrap=True)
    return not outcome.failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--row", type=int, action="append", help="only this row; may be repeated")
    parser.add_argument("--n", type=int, help="units to add; else what is missing to the target")
    parser.add_argument("--for", type=float, default=MINUTES_15, dest="seconds", help="longest time for each row")
    parser.add_argument("--kind", choices=("soak", "fuzz"), help="all rows of this kind")
    parser.add_argument("--fresh", action="store_true", help="forget the rows' earlier runs first")
    parser.add_argument("--render", action="store_true", help="write the page and run nothing")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ledger, good = Ledger(), True
    chosen = [row for row in ROWS if row.run and (row.number in (options.row or []) or row.kind == options.kind)]
    if options.row:
        chosen = [row for row in chosen if row.number in options.row]
    for row in [] if options.render else chosen:
        if options.fresh:
            ledger.forget(row.number)
        good = run_row(row, ledger, options.n, options.seconds) and good
        PAGE.write_text(render(ROWS, ledger))
    PAGE.write_text(render(ROWS, ledger))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
