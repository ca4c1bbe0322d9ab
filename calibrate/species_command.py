"""``calibrate species``: a species classifier from labelled folders."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(species)


def species() -> None:
    """A species classifier from labelled folders."""
    raise UsageError("calibrate species: not built yet")
