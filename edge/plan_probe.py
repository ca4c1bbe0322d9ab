"""TensorRT plans are tried in a child process first: a library may crash on one instead of refusing it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from edge.config import Config
from edge.pool import run_module
from engines import ModelError
from engines.errors import EXIT_OK

PATIENCE_S = 180.0


class PlanCrashError(ModelError):
    """A plan killed or stopped the process that loaded it."""


def plans_of(config: Config) -> Iterator[tuple[Path, bool]]:
    """The plans that a worker with ``config`` would open, and whether the configuration names them: those that lie
    beside an ONNX file are left aside where they do not fit."""
    models = [config.features.model] + ([config.species.model] if config.species is not None else [])
    for model in map(Path, models):
        if model.suffix == ".plan":
            yield model, True
        elif model.suffix == ".onnx" and config.features.device == "auto":
            beside = model.with_suffix(".plan")
            if beside.is_file():
                yield beside, False


def probe(plan: Path) -> None:
    """Let a child load ``plan`` and compute nothing with it.

    Raises:
        PlanCrashError: the child crashed or took longer than ``PATIENCE_S``.
        ModelError: the child refused it.
    """
    try:
        child = run_module("engines", "info", str(plan), "--json", within_s=PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise PlanCrashError(
            f"{plan}: a child process did not load it within {PATIENCE_S:g} s; build it anew"
        ) from error
    if child.returncode < 0:
        raise PlanCrashError(
            f"{plan}: a child process crashed while it loaded this plan (signal {-child.returncode}), and a worker "
            "would crash with it: the plan is damaged or of another TensorRT; build it anew with engines build"
        )
    if child.returncode != EXIT_OK:
        said = child.stderr.strip().splitlines() or [f"the child process ended with {child.returncode}"]
        raise ModelError(said[-1].removeprefix("engines: "))
