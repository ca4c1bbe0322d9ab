"""Small pictures inside pages: decoded by the engines' own decoder, written again as JPEG."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2

from engines import ImageError, decode_image


def thumbnail(path: Path, side: int, quality: int = 72) -> bytes | None:
    """A JPEG of the picture with its longer side at most ``side`` pixels; None when it can no longer be read."""
    try:
        pixels = decode_image(path.read_bytes(), minimum=(side // 2, side // 2)).pixels
    except (ImageError, OSError):
        return None
    height, width = pixels.shape[:2]
    shrink = min(1.0, side / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if shrink < 1.0 else pixels
    good, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes() if good else None


def data_uri(path: Path, side: int) -> str:
    """:func:`thumbnail` as a ``data:`` address, empty when there is none."""
    data = thumbnail(path, side)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""
