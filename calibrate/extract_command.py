"""``calibrate extract``: features of pictures, videos and archives, kept in the cache."""

from __future__ import annotations

import typer

from engines import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(extract)


def extract() -> None:
    """Features of pictures, videos and archives, kept in the cache."""
    raise UsageError("calibrate extract: not built yet")
