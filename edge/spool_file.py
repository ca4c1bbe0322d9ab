"""How a publication stands in a spool file, and the few calls on the disk that the spool makes.

A record is ``MAGIC, length, CRC-32, body``: the CRC covers length and body, so that every damaged byte is seen, and the
magic begins with a byte that no body holds, so that reading goes on at the next whole record behind a damaged one.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"\xf5PGs"
_HEAD = struct.Struct("!4sII")
MAX_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One publication: its name for ever, where it goes, and ``age_s``, the spool's running time when it was kept."""

    key: str
    topic: str
    payload: bytes
    camera: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Removal:
    """The publication ``key`` is confirmed, or was dropped."""

    key: str


def encode(entry: Record | Removal) -> bytes:
    """The entry's bytes; its header is ASCII JSON."""
    if isinstance(entry, Removal):
        return _frame(json.dumps({"gone": entry.key}).encode())
    header = {"key": entry.key, "topic": entry.topic, "camera": entry.camera, "age_s": round(entry.age_s, 6)}
    return _frame(json.dumps(header).encode() + b"\n" + entry.payload)


def scan(read: Callable[[int], bytes]) -> Iterator[tuple[int, int, Record | Removal]]:
    """Every whole entry with its offset and length; what is cut or damaged is passed over.

    ``read`` gives the next bytes, at most as many as asked for, and none at the end; two of the longest entries are
    held at a time, however long the file is.
    """
    window, base, at, more = b"", 0, 0, True
    while True:
        if more and len(window) - at < _HEAD.size + MAX_BODY:
            part = read(_HEAD.size + MAX_BODY)
            window, base, at, more = window[at:] + part, base + at, 0, bool(part)
            continue
        found = window.find(MAGIC, at)
        if found < 0 and not more:
            return
        if found < 0 or (more and len(window) - found < _HEAD.size + MAX_BODY):
            at = found if found >= 0 else max(at, len(window) - len(MAGIC) + 1)
            continue
        body = _body(window, found)
        entry = None if body is None else _decode(body)
        at = found + 1
        if body is not None and entry is not None:
            at = found + _HEAD.size + len(body)
            yield base + found, at - found, entry


def payload_at(data: bytes) -> bytes | None:
    """The payload of the record that ``data`` is, or None where it is damaged."""
    body = _body(data, 0)
    entry = None if body is None else _decode(body)
    return entry.payload if isinstance(entry, Record) else None


def _frame(body: bytes) -> bytes:
    length = struct.pack("!I", len(body))
    return _HEAD.pack(MAGIC, len(body), zlib.crc32(length + body)) + body


def _body(data: bytes, at: int) -> bytes | None:
    if len(data) < at + _HEAD.size:
        return None
    magic, length, crc = _HEAD.unpack_from(data, at)
    body = data[at + _HEAD.size : at + _HEAD.size + length]
    whole = magic == MAGIC and length <= MAX_BODY and len(body) == length
    return body if whole and zlib.crc32(struct.pack("!I", length) + body) == crc else None


def _decode(body: bytes) -> Record | Removal | None:
    head, _, payload = body.partition(b"\n")
    try:
        header: dict[str, Any] = json.loads(head)
        if "gone" in header:
            return Removal(str(header["gone"]))
        return Record(header["key"], header["topic"], payload, header["camera"], float(header["age_s"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Disk:
    """The calls on the file system; a test may let any of them fail."""

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def list(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("*.spool"))

    def open(self, path: Path) -> BinaryIO:
        return path.open("rb")

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def read_part(self, path: Path, at: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(length)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, file: int, data: bytes) -> int:
        return os.write(file, data)

    def sync(self, path: Path) -> None:
        """Wait until the disk has the file, or the folder with the names of its files."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, file: int) -> None:
        os.close(file)

    def cut(self, path: Path, length: int) -> None:
        os.truncate(path, length)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
