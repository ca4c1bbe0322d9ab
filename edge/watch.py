"""Verdicts as they come: a live table on a terminal, a line each elsewhere."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from edge.link import Link
from edge.link_handler import LinkSettings, Message, QuietHandler

log = logging.getLogger(__name__)

REFRESH_S = 0.25
MAX_CAMERAS = 200
MAX_VERDICT_BYTES = 1 << 20
MAX_TEXT = 300
_STYLES = {"positive": "bold green", "negative": "dim", "uncertain": "yellow", "error": "bold red"}


@dataclass(slots=True)
class _Row:
    verdict: dict[str, Any]
    at_s: float
    count: int
    positives: int


class Watcher(QuietHandler):
    """A ``LinkHandler`` that shows every verdict under ``prefix``; ``run`` until interrupted or ``stop_after_s``."""

    def __init__(
        self, settings: LinkSettings, prefix: str, console: Console, stop_after_s: float | None = None
    ) -> None:
        self._console = console
        self._url = f"{settings.host}:{settings.port}"
        self._state = "connecting"
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._until = None if stop_after_s is None else time.monotonic() + stop_after_s
        self._live: Live | None = None
        self._stopped = False
        self._link = Link(settings, self, (f"{prefix}/+/verdict",))

    def run(self) -> None:
        """Show verdicts; raises LinkRefused when the broker does not want us."""
        if not self._console.is_terminal:
            self._link.run()
            return
        with Live(self._table(), console=self._console, auto_refresh=False, screen=False) as live:
            self._live = live
            self._link.run()

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        del session_present, window, max_packet
        self._state = "connected"

    def link_subscribed(self, refused: list[str]) -> None:
        self._state = f"the broker refuses the subscription: {'; '.join(refused)}" if refused else "listening"

    def link_down(self, reason: str) -> None:
        self._state = reason
        if self._live is None and not self._stopped:
            log.warning("not connected, trying again: %s", reason)

    def link_message(self, message: Message) -> None:
        if message.qos > 0:
            self._link.acknowledge(message.mid)
        verdict = _read(message.payload)
        if verdict is None:
            return
        camera = _plain(verdict["camera"])
        old = self._rows.pop(camera, None)
        positive = verdict.get("verdict") == "positive"
        self._rows[camera] = _Row(
            verdict,
            time.monotonic(),
            1 + (old.count if old else 0),
            int(positive) + (old.positives if old else 0),
        )
        if len(self._rows) > MAX_CAMERAS:
            self._rows.popitem(last=False)
        if self._live is None:
            self._console.print(_line(verdict), markup=False, soft_wrap=True)

    def link_turn(self) -> float | None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        if self._until is not None and time.monotonic() > self._until:
            self._stopped = True
            self._link.stop()
        return REFRESH_S

    def _table(self) -> Table:
        """A line a camera, however narrow the terminal: what is too long is cut at its end."""
        table = Table(title=f"{self._url}: {escape(self._state)}", title_justify="left", expand=True, box=SIMPLE_HEAD)
        table.show_edge, table.collapse_padding, table.pad_edge = False, True, False
        table.add_column("camera", no_wrap=True, max_width=24)
        table.add_column("verdict", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
        table.add_column("species", no_wrap=True, ratio=1)
        for name in ("age", "ms", "frames", "pos."):
            table.add_column(name, justify="right", no_wrap=True)
        for camera in sorted(self._rows):
            table.add_row(*_cells(camera, self._rows[camera]), style=_STYLES.get(_word(self._rows[camera].verdict), ""))
        return table


def _read(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > MAX_VERDICT_BYTES:
        return None
    try:
        verdict = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return verdict if isinstance(verdict, dict) and isinstance(verdict.get("camera"), str) else None


def _word(verdict: dict[str, Any]) -> str:
    return _plain(str(verdict.get("verdict", "?")))


def _number(value: Any, form: str) -> str:
    try:
        return format(float(value), form) if isinstance(value, (int, float)) else ""
    except OverflowError:
        return "?"  # strict JSON, and yet no number that a verdict holds


def _plain(text: str) -> str:
    """``text`` without line ends and escape sequences: whoever may publish a verdict must not drive the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:MAX_TEXT])


def _what(verdict: dict[str, Any]) -> str:
    species = verdict.get("species")
    if isinstance(species, dict):
        return _plain(f"{species.get('label', '')} {_number(species.get('probability'), '.2f')}".strip())
    return _plain(str(verdict.get("error") or ""))


def _likelihood(verdict: dict[str, Any]) -> str:
    probability = verdict.get("probability")
    return _number(probability if probability is not None else verdict.get("p_value"), ".3f")


def _cells(camera: str, row: _Row) -> list[str]:
    latency = row.verdict.get("latency_ms")
    total = latency.get("total") if isinstance(latency, dict) else None
    return [
        escape(camera),
        escape(_word(row.verdict)),
        _likelihood(row.verdict),
        escape(_what(row.verdict)),
        f"{time.monotonic() - row.at_s:.0f} s",
        _number(total, ".0f"),
        str(row.count),
        str(row.positives),
    ]


def _line(verdict: dict[str, Any]) -> str:
    stamp = time.strftime("%H:%M:%S")
    parts = (stamp, _plain(verdict["camera"]), _word(verdict), _likelihood(verdict), _what(verdict))
    return "  ".join(part for part in parts if part)
