"""Frames that show what the camera showed before: they reuse the last verdict and cost no inference. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge.records import Frame, Verdict

GRID = 32  # the picture is compared as 32 x 32 cells of gray
CELL_LEVELS = 6.0  # the largest change of any cell, in levels of 255, that still counts as noise
MAX_AGE_S = 60.0  # even a still picture is judged again after this long
MAX_CAMERAS = 1000


@dataclass(frozen=True, slots=True)
class _Seen:
    cells: npt.NDArray[np.float32]
    verdict: Verdict
    at_s: float


class Unchanged:
    """Remembers each camera's last *judged* frame, so that a slow change adds up until it is seen."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def recall(self, frame: Frame) -> Verdict | None:
        """The verdict of the camera's last judged frame, if ``frame`` shows the same and it is not too old."""
        seen = self._seen.get(frame.raw.camera)
        if seen is None or frame.pixels is None or frame.decoded_s - seen.at_s > MAX_AGE_S:
            return None
        if float(np.abs(_cells(frame) - seen.cells).max()) > CELL_LEVELS:
            return None
        return seen.verdict

    def remember(self, frame: Frame, verdict: Verdict) -> None:
        """Keep what ``frame`` shows and how it was judged; error verdicts are not kept."""
        if frame.pixels is None or verdict.error is not None:
            return
        self._seen[frame.raw.camera] = _Seen(_cells(frame), verdict, frame.decoded_s)
        self._seen.move_to_end(frame.raw.camera)
        if len(self._seen) > MAX_CAMERAS:
            self._seen.popitem(last=False)


def _cells(frame: Frame) -> npt.NDArray[np.float32]:
    assert frame.pixels is not None  # noqa: S101 - both callers have checked
    gray = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
