"""Pictures for a camera that is none: a folder, a video file, an RTSP address, a webcam."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from engines import UsageError

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture and its name, which becomes the frame id."""

    name: str
    data: bytes


def open_source(source: str, loop: bool = False) -> Iterator[Picture]:
    """The pictures of ``source``, for ever with ``loop`` (folders and files only).

    Args:
        source: a folder of pictures, a picture, a video file, ``rtsp://…``, or a webcam's number.

    Raises:
        UsageError: there is nothing to read.
    """
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return _files(path, loop)
    if source.isdecimal() or "://" in source:
        return _capture(source, False)
    if not path.exists():
        raise UsageError(f"{source} does not exist; give a folder, a picture, a video, rtsp://… or a webcam's number")
    return _capture(source, loop)


def native_fps(source: str) -> float | None:
    """Frames per second that a video says of itself, None for anything else."""
    if Path(source).is_dir() or Path(source).suffix.lower() in PICTURES:
        return None
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return fps if 0.1 < fps < 1000 else None


def _files(path: Path, loop: bool) -> Iterator[Picture]:
    files = (
        sorted(f for f in path.rglob("*") if f.suffix.lower() in PICTURES and f.is_file()) if path.is_dir() else [path]
    )
    if not files:
        raise UsageError(f"{path} holds no picture ({', '.join(sorted(PICTURES))})")
    return _read_files(path, files, loop)


def _read_files(root: Path, files: list[Path], loop: bool) -> Iterator[Picture]:
    round_ = 0
    while True:
        for file in files:
            name = file.name if file == root else str(file.relative_to(root))
            try:
                data = file.read_bytes()
            except OSError as exc:
                raise UsageError(f"{file} cannot be read: {exc.strerror}") from exc
            yield Picture(f"{round_}/{name}" if loop else name, data)
        if not loop:
            return
        round_ += 1


def _capture(source: str, loop: bool) -> Iterator[Picture]:
    return _read_capture(source, _open(source), loop)


def _open(source: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not capture.isOpened():
        raise UsageError(f"{source} cannot be opened as a video; is the address right, does its format need a codec?")
    return capture


def _read_capture(source: str, capture: cv2.VideoCapture, loop: bool) -> Iterator[Picture]:
    serial = 0
    while True:
        before = serial
        while (frame := capture.read())[0]:
            _, data = cv2.imencode(".jpg", frame[1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
            yield Picture(f"{serial:06d}", data.tobytes())
            serial += 1
        capture.release()
        if not loop or serial == before:
            return
        capture = _open(source)
