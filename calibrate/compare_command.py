"""``calibrate compare``: one table over recipes and members."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(compare)


def compare() -> None:
    """One table over recipes and members."""
    raise UsageError("calibrate compare: not built yet")
