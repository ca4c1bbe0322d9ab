"""Pixels to one row of an engine's batch, exactly as its manifest says."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.errors import ImageError
from engines.spec import InputSpec

UInt8 = npt.NDArray[np.uint8]


def prepare_input(pixels: UInt8, spec: InputSpec) -> npt.NDArray[Any]:
    """Resize and normalise one picture.

    Args:
        pixels: uint8 (h, w, 3) RGB, 0 to 255.
        spec: shape, colour order, resize rule and normalisation.

    Returns:
        A new C-contiguous array of shape ``spec.shape``: float32 ``(pixel / 255 - mean) / std`` correctly rounded, or
        uint8 pixels where the graph normalises.

    Shrinking averages areas (INTER_AREA), enlarging is bilinear; the two axes are treated apart.

    Raises:
        ImageError: ``pixels`` has another shape or dtype, or no pixel.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ImageError(f"expected pixels of shape (h, w, 3) uint8, got {pixels.shape} {pixels.dtype}")
    fitted = _FIT[spec.resize](pixels, spec)
    if spec.dtype == "uint8" and spec.layout == "NHWC":
        return np.array(fitted if spec.color == "RGB" else fitted[..., ::-1], order="C")
    channels = cv2.split(fitted)
    if spec.color == "BGR":
        channels = channels[::-1]
    return _planes(channels, spec) if spec.layout == "NCHW" else _interleaved(channels, spec)


def _planes(channels: Any, spec: InputSpec) -> npt.NDArray[Any]:
    out: npt.NDArray[Any] = np.empty(spec.shape, spec.numpy_dtype)
    for plane, channel, table in zip(out, channels, _tables(spec), strict=True):
        if spec.dtype == "uint8":
            plane[:] = channel
        else:
            cv2.LUT(channel, table, dst=plane)
    return out


def _interleaved(channels: Any, spec: InputSpec) -> npt.NDArray[Any]:
    return cv2.LUT(cv2.merge(channels), np.stack(_tables(spec), axis=-1)[None])


@lru_cache(maxsize=64)
def _tables(spec: InputSpec) -> tuple[npt.NDArray[np.float32], ...]:
    """For each channel the 256 values that a pixel can become: computed in float64, rounded once."""
    levels = np.arange(256) / 255
    return tuple(((levels - mean) / std).astype(np.float32) for mean, std in zip(spec.mean, spec.std, strict=True))


def _stretch(pixels: UInt8, spec: InputSpec) -> UInt8:
    return _resize(pixels, spec.height, spec.width)


def _crop(pixels: UInt8, spec: InputSpec) -> UInt8:
    """The largest centred part with the target's aspect ratio, then resized: as resize-then-crop, with less work."""
    height, width = pixels.shape[:2]
    scale = min(height / spec.height, width / spec.width)
    rows, columns = max(1, round(spec.height * scale)), max(1, round(spec.width * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return _resize(pixels[top : top + rows, left : left + columns], spec.height, spec.width)


def _letterbox(pixels: UInt8, spec: InputSpec) -> UInt8:
    """The whole picture, centred on the mean colour (which normalises to about 0)."""
    height, width = pixels.shape[:2]
    scale = max(height / spec.height, width / spec.width)
    rows, columns = max(1, round(height / scale)), max(1, round(width / scale))
    top, left = (spec.height - rows) // 2, (spec.width - columns) // 2
    mean = spec.mean if spec.color == "RGB" else spec.mean[::-1]
    canvas: UInt8 = np.empty((spec.height, spec.width, 3), np.uint8)
    canvas[:] = np.clip(np.rint(np.multiply(mean, 255)), 0, 255)
    canvas[top : top + rows, left : left + columns] = _resize(pixels, rows, columns)
    return canvas


_FIT = {"stretch": _stretch, "crop": _crop, "letterbox": _letterbox}


def _resize(pixels: UInt8, height: int, width: int) -> UInt8:
    rows, columns = min(height, pixels.shape[0]), min(width, pixels.shape[1])
    for size, method in (((columns, rows), cv2.INTER_AREA), ((width, height), cv2.INTER_LINEAR)):
        if (pixels.shape[1], pixels.shape[0]) != size:
            pixels = cv2.resize(pixels, size, interpolation=method)  # type: ignore[assignment]  # stubs know no dtype
    return pixels
