"""The command ``calibrate`` as it is installed: one line instead of a traceback where the extra is missing."""

from __future__ import annotations

from engines.console import run_app


def main() -> None:
    """Entry point of the console command."""
    run_app(_app, "calibrate")


def _app(prog_name: str) -> None:
    from calibrate.__main__ import app  # the workstation's libraries, which a box does not have

    app(prog_name=prog_name)
