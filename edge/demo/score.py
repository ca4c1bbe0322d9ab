"""The demo's judge of the worker: a consumer at the broker that compares every verdict with the truth."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from rich.table import Table

from edge.demo.cameras import Truths
from edge.demo.simulator import Drawn
from edge.link import Link
from edge.link_handler import LinkSettings, Message, QuietHandler


@dataclass(slots=True)
class Tally:
    """Counts of judged frames: positives and negatives by truth, what was accepted, and of which kind."""

    judged: int = 0
    errors: int = 0
    parrots: int = 0
    recalled: int = 0
    others: int = 0
    accepted: int = 0
    named: int = 0
    accepted_kinds: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)


class Scorer(QuietHandler):
    """A ``LinkHandler`` that reads verdicts; ``run`` until ``stop``."""

    def __init__(self, settings: LinkSettings, prefix: str, truths: Truths) -> None:
        self.tally = Tally()
        self._truths = truths
        self._seen: set[str] = set()
        self._lock = Lock()
        self._link = Link(settings, self, (f"{prefix}/+/verdict",))

    def run(self) -> None:
        """Read verdicts until ``stop``."""
        self._link.run()

    def stop(self) -> None:
        """End ``run``."""
        self._link.stop()

    def link_message(self, message: Message) -> None:
        if message.qos > 0:
            self._link.acknowledge(message.mid)
        verdict = json.loads(message.payload)
        drawn = self._truths.of(verdict["camera"], verdict["frame_id"])
        with self._lock:
            if drawn is not None and verdict["id"] not in self._seen:
                self._seen.add(verdict["id"])
                self._count(verdict, drawn)

    def _count(self, verdict: dict[str, Any], drawn: Drawn) -> None:
        tally = self.tally
        tally.judged += 1
        tally.latencies_ms.append(verdict["latency_ms"]["total"])
        if verdict["verdict"] == "error":
            tally.errors += 1
            return
        positive = verdict["verdict"] == "positive"
        if drawn.positive:
            tally.parrots += 1
            tally.recalled += positive
            species = verdict["species"] or {}
            tally.named += positive and species.get("label") == drawn.species
        else:
            tally.others += 1
            tally.accepted += positive
            if positive:
                tally.accepted_kinds[drawn.kind] += 1


def summary(tally: Tally, counters: dict[str, int], seconds: float) -> Table:
    """The closing summary as a table: frames, verdicts, recall, false accepts, latency, drops."""
    table = Table(title=f"{seconds:.0f} s of simulated cameras", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    kinds = ", ".join(f"{kind} {count}" for kind, count in tally.accepted_kinds.most_common())
    p50, p99 = np.percentile(tally.latencies_ms, [50, 99]) if tally.latencies_ms else (0.0, 0.0)
    rows = [
        ("frames taken", f"{counters['received']}"),
        ("verdicts seen at the broker", f"{tally.judged}"),
        ("parrots recalled", _share(tally.recalled, tally.parrots)),
        ("others accepted", _share(tally.accepted, tally.others) + (f" ({kinds})" if kinds else "")),
        ("species right, of those recalled", _share(tally.named, tally.recalled)),
        ("latency, received to judged", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"),
        ("frames dropped for newer ones", f"{counters['dropped']}"),
        ("error verdicts", f"{tally.errors}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" = {100 * part / whole:.1f} %" if whole else "")
