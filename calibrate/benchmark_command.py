"""``calibrate benchmark``: one-vs-rest over the classes of a train/test folder tree."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(benchmark)


def benchmark() -> None:
    """One-vs-rest over the classes of a train/test folder tree."""
    raise UsageError("calibrate benchmark: not built yet")
