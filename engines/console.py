"""What the commands of every room share at the terminal: exit codes, error lines, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from engines.errors import EXIT_CONFIG, EXIT_FAILED, DeviceLostError, ParrotgateError

T = TypeVar("T")

# What the box does without, and the extra that brings it.
_EXTRAS = {
    "amqtt": "demo",
    "jinja2": "calibrate",
    "joblib": "calibrate",
    "matplotlib": "calibrate",
    "onnx": "convert",
    "scipy": "calibrate",
    "sklearn": "calibrate",
    "timm": "export",
    "torch": "export",
    "torchvision": "export",
}

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


def run_app(app: Callable[..., object], name: str) -> None:
    """Run ``app`` and end the process: our errors become one line on stderr and their own exit code."""
    try:
        app(prog_name=name)
    except DeviceLostError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - as below
        sys.stdout.flush()
        os._exit(error.exit_code)  # at once: the libraries' clean-up may hang or crash on a lost device
    except ParrotgateError as error:
        _end(name, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        _end(name, f"this needs {library}, which is not installed; install parrotgate[{_EXTRAS[library]}]", EXIT_CONFIG)
    except BrokenPipeError:  # `calibrate score … | head` is no fault
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


def _end(name: str, sentence: str, code: int) -> NoReturn:
    print(f"{name}: {sentence}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
    sys.exit(code)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while a progress bar on stderr counts them; silent when stderr is no terminal."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        yield from progress.track(items, total=total, description=what)


@contextmanager
def track_bytes(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr over ``total`` bytes; call what it gives with the number that is there."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda there: progress.update(task, completed=there)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, str], bool]]:
    """A bar on stderr that is told the share done (0 to 1) and what is done now; silent when stderr is no terminal."""
    columns = (
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("", total=1.0)

        def show(fraction: float, phase: str) -> bool:
            progress.update(task, completed=fraction, description=phase[:60])
            return True

        yield show
