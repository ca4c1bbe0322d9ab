"""``tests/RESULTS.md`` out of the registry and the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from tests.soak.ledger import Ledger, Outcome
from tests.soak.rows import Row

HEAD = """# Results of the long runs

Every row of the table of figures, run or not. This page is written by `make soak` and `make fuzz` out of
`tests/results.json` and `tests/soak/rows.py`; do not edit it. `make soak ROW=1 N=100` adds a hundred units to row 1,
`WITHIN=900` bounds a row in seconds, `FRESH=1` begins it anew. A row holds ("yes") when its target count is reached
and nothing failed; "so far" means that fewer units were run and nothing failed. The control is the same measurement on
something broken: it must fail, and the column says how it did.

"""
TABLE = "| row | target | holds | measured | repeat | control |\n|---|---|---|---|---|---|\n"
RUNS = "\n## Runs\n\n| row | date | seed | machine | units | seconds | failures |\n|---|---|---|---|---|---|---|\n"


def holds(row: Row, total: Outcome, ran: bool) -> str:
    """One word for where the row stands."""
    if row.elsewhere:
        return "see there"
    if not ran:
        return "not yet run"
    if total.failures:
        return "**no**"
    return "yes" if total.done >= row.goal else "so far"


def measured(row: Row, total: Outcome) -> str:
    """What was counted, in one line."""
    parts = [f"{total.done:,} of {row.goal:,} {row.unit}"]
    parts += [f"{name} {count:,}" for name, count in total.sums.items()]
    parts += [f"{name} {value:g}" for name, value in total.worst.items()]
    parts += [f"FAILED: {sentence}" for sentence in total.failures[:3]]
    return "; ".join(parts).replace("|", "/").replace("\n", " ")


def render(rows: Sequence[Row], ledger: Ledger) -> str:
    """The whole page."""
    lines, runs = [], []
    for row in rows:
        total, ran = ledger.total(row.number), bool(ledger.runs(row.number))
        shown = row.elsewhere or (measured(row, total) if ran else "–")
        note = f"{shown}. {row.note}" if row.note else shown
        repeat = f"`make {row.kind} ROW={row.number}`" if row.run else "–"
        control = ledger.control(row.number) or ("not yet run" if row.run else "–")
        cells = (
            f"{row.number} {row.title}",
            row.target,
            holds(row, total, ran),
            note,
            repeat,
            control.replace("|", "/"),
        )
        lines.append("| " + " | ".join(cells) + " |\n")
        for run in ledger.runs(row.number):
            facts = [run[name] for name in ("row", "date", "seed", "machine", "done", "seconds")]
            runs.append("| " + " | ".join(map(str, [*facts, len(run["failures"])])) + " |\n")
    return HEAD + TABLE + "".join(lines) + RUNS + "".join(runs)
