"""``calibrate review``: a local page for labelling pictures near the threshold."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(review)


def review() -> None:
    """A local page for labelling pictures near the threshold."""
    raise UsageError("calibrate review: not built yet")
