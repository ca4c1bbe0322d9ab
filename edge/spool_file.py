"""How a publication stands in a spool file, and the few calls on the disk that the spool makes.

A record is ``MAGIC, length, CRC-32, body``: the CRC covers length and body, so that every damaged byte is seen, and the
magic begins with a byte that no body holds, so that reading goes on at the next whole record behind a damaged one.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    header = {"key": entry.key, "topic": entry.topic, "camera": entry.camera, "age_s": round(entry.age_s, 3)}
    return _frame(json.dumps(header).encode() + b"\n" + entry.payload)


def scan(data: bytes) -> Iterator[tuple[int, int, Record | Removal]]:
    """Every whole entry with its offset and length; what is cut or damaged is passed over."""
    at = data.find(MAGIC)
    while at >= 0:
        body = _body(data, at)
        entry = None if body is None else _decode(body)
        if body is None or entry is None:
            at = data.find(MAGIC, at + 1)
            continue
        length = _HEAD.size + len(body)
        yield at, length, entry
        at = data.find(MAGIC, at + length)


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

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def read_part(self, path: Path, at: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(length)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, file: int, data: bytes) -> int:
        return os.write(file, data)

    def sync(self, file: int) -> None:
        os.fdatasync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
