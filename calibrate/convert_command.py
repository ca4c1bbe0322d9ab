"""``calibrate convert``: a gate file from the classic notebook's joblib files."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(convert)


def convert() -> None:
    """A gate file from the classic notebook's joblib files."""
    raise UsageError("calibrate convert: not built yet")
