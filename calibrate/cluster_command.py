"""``calibrate cluster``: pictures alike, sorted into folders."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(cluster)


def cluster() -> None:
    """Pictures alike, sorted into folders."""
    raise UsageError("calibrate cluster: not built yet")
