"""How a batch of prepared inputs looks under a view: the box's own (``edge.views``), and zoomed out."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge.gate_manifest import VIEWS
from edge.views import view_of as box_view
from engines import InputSpec

# The picture amid its own mirror images, by the share of a side added on each side: a network trained on whole scenes
# reads small, blurred pictures better when they fill less of its input. Costs an inference each; not known to the box.
ZOOMED_OUT = {"zoom_0.8": 0.125, "zoom_0.5": 0.5}
MIRRORED = "_hflip"
ALL_VIEWS = (*VIEWS, *(name + end for name in ZOOMED_OUT for end in ("", MIRRORED)))


def view_of(batch: npt.NDArray[Any], view: str, spec: InputSpec) -> npt.NDArray[Any]:
    """``batch`` of prepared inputs under ``view``: one of the box's own, or zoomed out, mirrored or not."""
    if view in VIEWS:
        return box_view(batch, view, spec)
    if view.endswith(MIRRORED):
        return view_of(view_of(batch, view.removesuffix(MIRRORED), spec), "hflip", spec)
    first = spec.layout == "NCHW"
    rows = batch.transpose(0, 2, 3, 1) if first else batch
    shrunk = np.stack([_zoomed_out(np.ascontiguousarray(row), ZOOMED_OUT[view]) for row in rows])
    return np.ascontiguousarray(shrunk.transpose(0, 3, 1, 2)) if first else shrunk


def _zoomed_out(pixels: npt.NDArray[Any], share: float) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    y, x = round(share * height), round(share * width)
    framed = cv2.copyMakeBorder(pixels, y, y, x, x, cv2.BORDER_REFLECT_101)
    shrunk: npt.NDArray[Any] = cv2.resize(framed, (width, height), interpolation=cv2.INTER_AREA)
    return shrunk
