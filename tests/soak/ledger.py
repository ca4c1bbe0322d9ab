"""What was measured: each run of a row is kept in ``tests/results.json`` and added up."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
LEDGER, PAGE = TESTS / "results.json", TESTS / "RESULTS.md"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Effort:
    """How far a run goes: ``count`` units or until the monotonic ``deadline``, whichever is first.

    What is missing counts as lost when nothing has come for ``patience_s``. Processes may wait long for a busy
    machine; only what must fail need not be waited for.
    """

    seed: int
    count: int
    deadline: float
    folder: Path
    patience_s: float = PATIENCE_S

    def broken(self, count: int) -> Effort:
        """For ``count`` units of what must fail."""
        return replace(self, count=count, patience_s=8.0)

    def goes_on(self, done: int) -> bool:
        return done < self.count and time.monotonic() < self.deadline


@dataclass
class Outcome:
    """What a run found: ``done`` units, ``sums`` that add up over runs, ``worst`` of which the largest counts.

    A row holds while no run has ``failures``.
    """

    done: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> None:
        self.sums[name] = self.sums.get(name, 0) + count

    def see(self, name: str, value: float) -> None:
        self.worst[name] = max(self.worst.get(name, value), value)

    def demand(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.failures.append(sentence)


def machine() -> str:
    """Processor model and cores."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return f"{found.group(1).strip() if found else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


class Ledger:
    """All runs and controls that were ever recorded; several rows may run at once and record into one file."""

    def __init__(self, path: Path = LEDGER) -> None:
        self._path = path
        self._data: dict[str, Any] = {"runs": [], "controls": {}}
        self._read()

    def runs(self, row: int) -> list[dict[str, Any]]:
        return [run for run in self._data["runs"] if run["row"] == row]

    def control(self, row: int) -> str | None:
        """How the row's negative control failed, if it was run."""
        found: str | None = self._data["controls"].get(str(row))
        return found

    def total(self, row: int) -> Outcome:
        """All runs of the row as one."""
        total = Outcome()
        for run in self.runs(row):
            total.done += run["done"]
            for name, count in run["sums"].items():
                total.add(name, count)
            for name, value in run["worst"].items():
                total.see(name, value)
            total.failures += run["failures"]
        return total

    def record(self, row: int, seed: int, seconds: float, outcome: Outcome) -> None:
        today = date.fromtimestamp(time.time()).isoformat()
        facts = {"row": row, "date": today, "seed": seed, "machine": machine(), "seconds": round(seconds)}
        with self._change():
            self._data["runs"].append({**facts, **vars(outcome)})

    def record_control(self, row: int, sentence: str) -> None:
        with self._change():
            self._data["controls"][str(row)] = sentence

    def forget(self, row: int) -> None:
        """Begin the row anew, after a change that makes its older runs worthless."""
        with self._change():
            self._data["runs"] = [run for run in self._data["runs"] if run["row"] != row]
            self._data["controls"].pop(str(row), None)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Read what others have recorded meanwhile, and write it back with the change."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._read()
            yield
            self._save()
        finally:
            os.close(folder)

    def _read(self) -> None:
        if self._path.exists():
            self._data = json.loads(self._path.read_text())

    def _save(self) -> None:
        ordered = sorted(self._data["runs"], key=lambda run: run["row"])
        runs = ",\n".join("    " + json.dumps(run) for run in ordered)
        controls = json.dumps(self._data["controls"], indent=2, sort_keys=True).replace("\n", "\n  ")
        new = self._path.with_suffix(".new")
        new.write_text(f'{{\n  "controls": {controls},\n  "runs": [\n{runs}\n  ]\n}}\n')
        new.replace(self._path)
