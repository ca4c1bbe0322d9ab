"""Pictures that kill their decoder: how often each has, kept over restarts where there is a folder for it."""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock

log = logging.getLogger(__name__)

CRASHES_ALLOWED = 2
REMEMBERED = 1000
_MAX_JOURNAL_BYTES = 1 << 18


class PoisonJournal:
    """Counts decoder crashes for each picture, by the SHA-256 of its bytes; the latest thousand are remembered.

    Args:
        path: JSON file that keeps the counts over a restart of the worker, written whole and renamed into place; None
            keeps them in memory. A journal that cannot be read is begun anew, one that cannot be written is logged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = Lock()
        self._crashes: OrderedDict[str, int] = OrderedDict()
        if path is not None:
            self._crashes.update(_read(path))

    def is_poison(self, digest: str) -> bool:
        """Whether the picture has had its chances; it must not be decoded again."""
        return self._crashes.get(digest, 0) >= CRASHES_ALLOWED

    def crashed(self, digest: str) -> None:
        """The picture has killed a decoder once more."""
        with self._lock:
            self._crashes[digest] = self._crashes.get(digest, 0) + 1
            self._crashes.move_to_end(digest)
            while len(self._crashes) > REMEMBERED:
                self._crashes.popitem(last=False)
            if self._path is not None:
                self._write(self._path)

    def survived(self, digest: str) -> None:
        """The picture was decoded after all: what it cost before was bad luck."""
        if digest in self._crashes:
            with self._lock:
                self._crashes.pop(digest, None)

    def _write(self, path: Path) -> None:
        fresh = path.with_name(path.name + ".new")
        try:
            with fresh.open("w") as file:
                json.dump(self._crashes, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            log.error("the journal of decoder crashes cannot be written: %s", error)


def _read(path: Path) -> dict[str, int]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JOURNAL_BYTES + 1)
        content = json.loads(data) if len(data) <= _MAX_JOURNAL_BYTES else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: the journal of decoder crashes cannot be read, a new one is begun: %s", path, error)
        return {}
    if not isinstance(content, dict):
        return {}
    return {str(digest): count for digest, count in content.items() if isinstance(count, int) and 0 < count < 1000}
