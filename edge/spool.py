"""The spool: verdicts on disk until the broker has confirmed them. No MQTT, no thread; the caller locks.

Files of a bounded size are written one after the other; a confirmation is one more record behind. The
oldest file goes when nothing in it is still wanted, or when all of them together pass the bound: then what it held is
dropped, oldest first, and told. So a kill at any byte leaves whole records and at most one torn one, which the next
start passes over; a confirmation that was torn off means one more publication with an ``id`` that is known.

A kept verdict does **not** release its frame. The frame's acknowledgement waits for the verdict's own PUBACK all the
same: the broker's disk is the safer place, the spool drops when it is full, a card can be lost with the box, and
without a connection nothing could be acknowledged anyway. So the spool can only add safety, and a failing disk can
take none away. It is for what no broker holds: verdicts of QoS 0 frames. The others are not written, which also spares
the card.

A record is handed to the system when it is kept, and to the disk itself by ``flush``, which somebody calls every second
or so without the caller's lock: a disk that takes its time holds up neither those who keep nor those who send. A power
cut takes what came after the last ``flush``.

A ``flush`` that fails is not tried again on the same file: the system tells a failed write once and then takes the
pages for clean, so that the next sync would succeed without having done anything. What was written since the last
good one is in doubt. It stays where it is until ``probe`` has found that the disk works; then ``renew`` writes it into
another file, while it can still be read, and cuts it off where it stood. So a disk that goes on failing takes no more
room from one failure to the next, and what it has for sure is never dropped for what is in doubt. While one file is
written anew, all of them may pass the bound by what of it is in doubt.

Ages count seconds during which a worker ran, not wall time: a clock that jumps by fifty years drops nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.errors import SpoolDamaged, SpoolError
from edge.spool_file import Disk, Record, Removal, encode, payload_at, scan

FILE_BYTES = 1 << 20
SYNC_EVERY_S = 1.0  # between two flushes


@dataclass(slots=True)
class _File:
    path: Path
    size: int = 0
    wanted: int = 0
    synced: int = 0  # so many bytes have reached the disk for sure
    in_doubt: bool = False  # what is behind them may never reach it
    removals: list[tuple[str, int]] = field(default_factory=list)  # behind them, each with where it begins


@dataclass(slots=True)
class _Place:
    file: _File
    at: int
    length: int
    age_s: float
    owed: int  # bytes of the removal that is to follow


class Spool:
    """Records kept in ``folder``, at most ``max_bytes`` of files and ``max_age_s`` seconds old.

    ``clock`` gives monotonic seconds; ``lock`` is a descriptor that ``close`` closes. Every method but ``drop_old`` and
    ``in`` may raise SpoolError; the spool stays usable after it.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        max_age_s: float,
        *,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.monotonic,
        lock: int | None = None,
    ) -> None:
        self._lock = lock
        self.folder = folder
        self._disk = disk or Disk()
        self._clock = clock
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._file_bytes = max(1, min(FILE_BYTES, max_bytes // 8))
        self._files: list[_File] = []
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._open: int | None = None
        self._ran_s, self._began_s = 0.0, clock()
        self._unsynced: dict[Path, None] = {}
        self._number = self._owed = 0
        self._dropped: list[str] = []
        self.unread: list[str] = []  # files of an earlier process, each with the reason

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    @property
    def size(self) -> int:
        """Bytes that the files take up."""
        return sum(file.size for file in self._files)

    def start(self) -> list[Record]:
        """Find what an earlier process left; returns the records still wanted, oldest first, without their payloads.

        A file that cannot be read stays, counts, and goes when the bound demands it; ``unread`` names it.
        """
        records: OrderedDict[str, Record] = OrderedDict()
        try:
            self._disk.make_folder(self.folder)
            found = self._disk.list(self.folder)
        except OSError as error:
            raise self._failed("read", error) from error
        for path in found:
            self._take_in(path, records)
        self._ran_s = max((record.age_s for record in records.values()), default=0.0)
        self._forget_finished()
        # What was in doubt was written anew, behind younger ones.
        self._places = OrderedDict(sorted(self._places.items(), key=lambda item: item[1].age_s))
        return sorted(records.values(), key=lambda record: record.age_s)

    def keep(self, key: str, topic: str, payload: bytes, camera: str) -> list[str]:
        """Write a record; returns the keys of older ones that were dropped to make room, as ``dropped`` does."""
        now = self._now()
        data = encode(Record(key, topic, payload, camera, now))
        self._make_room(len(data) + _owed(key))
        file, at = self._write(data)
        self._remember(key, _Place(file, at, len(data), now, _owed(key)))
        return self.dropped()

    def payload(self, key: str) -> bytes:
        """A kept record's payload; raises KeyError where there is none, SpoolDamaged where no later read gives it."""
        place = self._places[key]
        try:
            payload = payload_at(self._disk.read_part(place.file.path, place.at, place.length))
        except FileNotFoundError:
            payload = None
        except OSError as error:
            raise self._failed("read", error) from error
        if payload is None:
            raise SpoolDamaged(f"the spool file {place.file.path} is gone or damaged at byte {place.at}")
        return payload

    def remove(self, key: str) -> None:
        """The record is not wanted any more."""
        if self._forget(key) is None:
            return
        try:
            self._write_removal(key)
        finally:
            self._forget_finished()

    def drop_old(self) -> list[str]:
        """Forget the records beyond the greatest age; returns their keys, as ``dropped`` does."""
        limit = self._now() - self._max_age_s
        while self._places and next(iter(self._places.values())).age_s < limit:
            self._drop(next(iter(self._places)))
        self._forget_finished()
        return self.dropped()

    def dropped(self) -> list[str]:
        """The keys dropped since they were last told, those of a call that failed included; each is told once."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def unsynced(self) -> dict[Path, int]:
        """The files written to since the last call with their sizes, for ``flush``, and the folder of a new one."""
        sizes = {file.path: file.size for file in self._files}
        written, self._unsynced = {path: sizes.get(path, 0) for path in self._unsynced}, {}
        return written

    def flush(self, written: Iterable[Path]) -> None:
        """Wait until the disk has ``written``; touches nothing else, so that no lock need be held meanwhile."""
        try:
            for path in written:
                with contextlib.suppress(FileNotFoundError):  # nothing in it is wanted any more
                    self._disk.sync(path)
        except OSError as error:
            raise self._failed("write", error) from error

    def synced(self, written: Mapping[Path, int]) -> None:
        """``flush`` has succeeded."""
        for file in self._files:
            if file.path in written:
                file.synced = max(file.synced, written[file.path])
                file.removals = [(key, at) for key, at in file.removals if at >= file.synced]

    def doubt(self, written: Mapping[Path, int]) -> None:
        """``flush`` has failed: nothing more is written to those files, and none of them is synced again."""
        for file in self._files:
            file.in_doubt = file.in_doubt or file.path in written
        if self._files and self._files[-1].in_doubt:
            self._finish_file()
        for path in written:
            self._unsynced.pop(path, None)
        self._unsynced[self.folder] = None  # the names of files that are younger than ``written``

    def probe(self) -> None:
        """Have the disk take a new file, if anything is in doubt; waits, and touches nothing else, as ``flush``.

        Raises:
            SpoolError: it does not; what is in doubt stays as it is.
        """
        path = self.folder / "probe"
        if not any(file.in_doubt for file in list(self._files)):
            return
        try:
            self._disk.remove(path)
            descriptor = self._disk.create(path)
            try:
                self._disk.write(descriptor, bytes(512))
            finally:
                self._disk.close(descriptor)
            self._disk.sync(path)
        except OSError as error:
            raise self._failed("write", error) from error
        finally:
            with contextlib.suppress(OSError):  # the next one begins with it
                self._disk.remove(path)

    def renew(self) -> None:
        """Write what is in doubt into another file, and cut it off where it stands.

        It reads and writes as ``payload`` and ``keep`` do, and waits for no disk: the caller holds the lock meanwhile.
        """
        for file in [file for file in self._files if file.in_doubt]:
            while file.removals:
                key, _ = file.removals[-1]
                if key not in self._places:
                    self._write_removal(key)
                file.removals.pop()
            doubtful = [(key, place) for key, place in self._places.items() if place.file is file]
            copied = [self._copy(place) for _, place in doubtful if place.at >= file.synced]
            file.in_doubt = False
            if all(copied):
                self._cut(file)
        self._forget_finished()

    def close(self) -> None:
        """Leave the file that is being written; every record in it was handed to the system before."""
        self._finish_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- inside ------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._ran_s + self._clock() - self._began_s

    def _take_in(self, path: Path, records: OrderedDict[str, Record]) -> None:
        file = _File(path)
        self._files.append(file)
        self._number = max(self._number, int(path.stem) if path.stem.isdecimal() else 0)
        try:
            file.size = self._disk.size(path)
            with self._disk.open(path) as opened:
                self._index(file, opened.read, records)
        except OSError as error:
            file.wanted += 1  # whatever it holds
            self.unread.append(f"{path.name}: {error.strerror or error}")

    def _index(self, file: _File, read: Callable[[int], bytes], records: OrderedDict[str, Record]) -> None:
        for at, length, entry in scan(read):
            self._forget(entry.key)
            records.pop(entry.key, None)
            if isinstance(entry, Record):
                records[entry.key] = replace(entry, payload=b"")
                self._remember(entry.key, _Place(file, at, length, entry.age_s, _owed(entry.key)))

    def _copy(self, place: _Place) -> bool:
        """Write a record anew; one that cannot be read stays, and is told when it is to be sent."""
        try:
            data = self._disk.read_part(place.file.path, place.at, place.length)
        except OSError:
            return False
        if payload_at(data) is None:
            return False
        file, at = self._write(data)
        place.file.wanted -= 1
        place.file, place.at = file, at
        file.wanted += 1
        return True

    def _cut(self, file: _File) -> None:
        """Leave of ``file`` what has reached the disk for sure."""
        with contextlib.suppress(OSError):  # what stays is read at the next start, and is older than what was copied
            if file.synced:
                self._disk.cut(file.path, file.synced)
                file.size = file.synced
            else:
                self._files.remove(file)
                self._disk.remove(file.path)

    def _remember(self, key: str, place: _Place) -> None:
        self._places[key] = place
        self._owed += place.owed
        place.file.wanted += 1

    def _forget(self, key: str) -> _Place | None:
        place = self._places.pop(key, None)
        if place is not None:
            self._owed -= place.owed
            place.file.wanted -= 1
        return place

    def _drop(self, key: str) -> None:
        self._forget(key)
        self._dropped.append(key)

    def _make_room(self, size: int) -> None:
        while self._files and self.size + self._owed + size > self._max_bytes:
            file = self._files[0]
            for key in [key for key, place in self._places.items() if place.file is file]:
                self._drop(key)
            file.wanted = 0
            self._drop_first()

    def _write_removal(self, key: str) -> None:
        file, at = self._write(encode(Removal(key)))
        file.removals.append((key, at))

    def _write(self, data: bytes) -> tuple[_File, int]:
        try:
            descriptor, file = self._current()
            at = file.size
            written = self._disk.write(descriptor, data)
            file.size += written
            if written < len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
            self._unsynced[file.path] = None
        except OSError as error:
            self._finish_file()  # behind a torn record begins a file of its own
            self._leave_no_empty_file()
            raise self._failed("write", error) from error
        return file, at

    def _current(self) -> tuple[int, _File]:
        """The file that is written to, a new one where the last is full or closed."""
        if self._open is not None and self._files[-1].size < self._file_bytes:
            return self._open, self._files[-1]
        self._finish_file()
        self._disk.make_folder(self.folder)
        self._number += 1
        path = self.folder / f"{self._number:012d}.spool"
        self._open = self._disk.create(path)
        self._files.append(_File(path))
        self._unsynced[self.folder] = None
        return self._open, self._files[-1]

    def _finish_file(self) -> None:
        if self._open is not None:
            with contextlib.suppress(OSError):  # a write has told already
                self._disk.close(self._open)
            self._open = None

    def _leave_no_empty_file(self) -> None:
        if self._files and self._files[-1].size == 0:
            with contextlib.suppress(OSError):  # a file that stays is read at the next start
                self._disk.remove(self._files.pop().path)

    def _forget_finished(self) -> None:
        """Remove files from the oldest on, as long as they hold nothing wanted: a removal never outlives its record."""
        while self._files and self._files[0].wanted == 0:
            last = len(self._files) == 1
            if last and self._open is not None and self._files[0].size < self._file_bytes:
                return
            self._drop_first()

    def _drop_first(self) -> None:
        file = self._files.pop(0)
        if not self._files:
            self._finish_file()
        with contextlib.suppress(OSError):  # a file that stays is read, and told, at the next start
            self._disk.remove(file.path)

    def _failed(self, what: str, error: OSError) -> SpoolError:
        return SpoolError(f"cannot {what} the spool in {self.folder}: {error.strerror or error}")


def _owed(key: str) -> int:
    """Bytes that the removal of ``key`` will take: room is kept for it, so that no removal passes the bound."""
    return len(encode(Removal(key)))
