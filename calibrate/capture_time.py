"""When a picture was taken, from its EXIF block."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime, timezone

_SEARCHED = 1 << 17  # EXIF stands in one of the first segments, none of which is longer than 64 KiB
_EXIF_POINTER, _DATE_TIME_ORIGINAL, _DATE_TIME = 0x8769, 0x9003, 0x0132
_DATE_BYTES = 19


def captured_at(data: bytes) -> float | None:
    """Seconds of DateTimeOriginal, else DateTime, in the file ``data``; None where there is neither.

    EXIF's times have no zone; they are read as UTC, which leaves the time between two pictures of a camera right.
    """
    at = data.find(b"Exif\0\0", 0, _SEARCHED)
    if at < 0:
        return None
    tiff = data[at + 6 : at + 6 + (1 << 16)]
    try:
        return _time(tiff)
    except (struct.error, ValueError):
        return None


def _time(tiff: bytes) -> float | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    first = dict(_directory(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0]))
    inner = dict(_directory(tiff, order, first[_EXIF_POINTER])) if _EXIF_POINTER in first else {}
    where = inner.get(_DATE_TIME_ORIGINAL, first.get(_DATE_TIME))
    if where is None:
        return None
    text = tiff[where : where + _DATE_BYTES].decode("ascii")
    return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


def _directory(tiff: bytes, order: str, at: int) -> Iterator[tuple[int, int]]:
    """(tag, value or offset of the value) of each entry of the directory at ``at``."""
    (count,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(order + "HHII", tiff, entry)
        yield tag, value
