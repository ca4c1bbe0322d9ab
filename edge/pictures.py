"""The pictures that the status page may ask for, counted by reference and bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

CONTENT_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})


@dataclass(slots=True)
class Picture:
    """Encoded bytes as they came from the camera; ``holders`` counts who may still show them."""

    data: bytes
    content_type: str
    holders: int = 1


class Pictures:
    """At most ``max_bytes`` of pictures; beyond that the oldest go first. Not thread-safe: Health holds the lock."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._next = 1
        self._held: OrderedDict[int, Picture] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._bytes

    def add(self, data: bytes | None, content_type: str | None) -> int | None:
        """Hold a picture for one holder and return its serial; ``None`` when there is nothing that may be shown."""
        if not data or content_type not in CONTENT_TYPES or len(data) > self._max_bytes:
            return None
        serial = self._next
        self._next += 1
        self._held[serial] = Picture(data, content_type)
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._held.popitem(last=False)[1].data)
        return serial

    def share(self, serial: int | None) -> int | None:
        """Hold ``serial`` once more and return it; ``None`` when it is gone."""
        picture = self._held.get(serial) if serial is not None else None
        if picture is None:
            return None
        picture.holders += 1
        return serial

    def release(self, serial: int | None) -> None:
        """Let go of ``serial`` once; the last holder frees the bytes."""
        picture = self._held.get(serial) if serial is not None else None
        if serial is None or picture is None:
            return
        picture.holders -= 1
        if picture.holders == 0:
            del self._held[serial]
            self._bytes -= len(picture.data)

    def get(self, serial: int | None) -> Picture | None:
        """The picture, while it is held."""
        return self._held.get(serial) if serial is not None else None
