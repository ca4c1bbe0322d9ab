"""What the views of a gate cost: each is one more inference of every frame on the box."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from calibrate.views import view_of
from engines import Engine

ROUNDS = 9


def view_cost(engine: Engine, views: Sequence[str]) -> dict[str, Any]:
    """``inferences`` a frame, ``ms`` of each view (its picture made and inferred alone, the median of ``ROUNDS``), and
    the ``device`` that took them; JSON-able. It differs from run to run."""
    frame = np.zeros((1, *engine.spec.input.shape), engine.spec.input.numpy_dtype)
    ms: dict[str, float] = {}
    for view in views:
        engine.infer(view_of(frame, view, engine.spec.input))  # the first is slower
        ms[view] = round(statistics.median(_once(engine, frame, view) for _ in range(ROUNDS)), 2)
    return {"inferences": len(views), "ms": ms, "device": engine.device}


def _once(engine: Engine, frame: np.ndarray[Any, np.dtype[Any]], view: str) -> float:
    start = time.perf_counter()
    engine.infer(view_of(frame, view, engine.spec.input))
    return 1000.0 * (time.perf_counter() - start)
