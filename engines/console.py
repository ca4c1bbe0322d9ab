"""What the commands of every room share at the terminal: exit codes, error lines, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.errors import EXIT_FAILED, ParrotgateError

T = TypeVar("T")

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


def run_app(app: typer.Typer, name: str) -> None:
    """Run ``app`` and end the process: our errors become one line on stderr and their own exit code."""
    try:
        app(prog_name=name)
    except ParrotgateError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `calibrate score … | head` is no fault
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while a progress bar on stderr counts them; silent when stderr is no terminal."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        yield from progress.track(items, total=total, description=what)
