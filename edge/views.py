"""The views of a frame whose features a gate averages: how a batch of prepared inputs looks under each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines import InputSpec

CENTRE = 0.85  # of each side that ``centre`` keeps: less of what an animal sits on, and most animals whole

Batch = npt.NDArray[Any]


def view_of(batch: Batch, view: str, spec: InputSpec) -> Batch:
    """``batch`` (n, *spec.shape) under ``view``, C-contiguous and of the same shape and dtype.

    ``full`` is the batch itself, ``hflip`` mirrors it left to right, ``centre`` enlarges its central part (bilinear).
    """
    return _VIEWS[view](batch, spec)


def _full(batch: Batch, spec: InputSpec) -> Batch:  # noqa: ARG001 - looks alike in every layout
    return batch


def _hflip(batch: Batch, spec: InputSpec) -> Batch:
    return np.ascontiguousarray(np.flip(batch, axis=3 if spec.layout == "NCHW" else 2))


def _centre(batch: Batch, spec: InputSpec) -> Batch:
    height, width = spec.height, spec.width
    rows, columns = max(1, round(CENTRE * height)), max(1, round(CENTRE * width))
    top, left = (height - rows) // 2, (width - columns) // 2
    enlarged: Batch = np.empty_like(batch, order="C")
    # One plane at a time where channels come first: OpenCV wants them last.
    given, filled = (x.reshape(-1, height, width) if spec.layout == "NCHW" else x for x in (batch, enlarged))
    for picture, place in zip(given, filled, strict=True):
        part = picture[top : top + rows, left : left + columns]
        place[:] = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    return enlarged


_VIEWS: Mapping[str, Callable[[Batch, InputSpec], Batch]] = {"full": _full, "hflip": _hflip, "centre": _centre}
