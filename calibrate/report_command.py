"""``calibrate report``: one self-contained page about a gate, and its JSON."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(report)


def report() -> None:
    """One self-contained page about a gate, and its JSON."""
    raise UsageError("calibrate report: not built yet")
