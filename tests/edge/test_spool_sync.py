"""A sync that fails: the system tells it once and takes the pages for clean. The spool may not believe the next one."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from edge.delivery import Outgoing
from edge.keeper import Keeper
from edge.spool import Spool
from edge.spool_file import Disk
from tests.edge.test_spool import TOPIC, Clock, keys


class Forgetful(Disk):
    """A disk behind a page cache as Linux has it: after a sync that failed the next one of that file does nothing.

    ``power_cut`` leaves in another folder what had reached the disk.
    """

    def __init__(self) -> None:
        self.fails = self.is_full = False
        self.syncs = 0
        self._dirty: dict[Path, int] = {}  # from which byte on
        self._durable: dict[Path, bytearray] = {}
        self._names: set[Path] = set()

    def create(self, path: Path) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._dirty[path] = 0
        return super().create(path)

    def write(self, file: int, data: bytes) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(file, data)

    def sync(self, path: Path) -> None:
        self.syncs += 1
        now = [path] if path.is_file() else []
        if self.fails:
            for file in now:
                self._dirty[file] = file.stat().st_size  # clean, says the system
            raise OSError(errno.EIO, "Input/output error")
        if path.is_dir():
            self._names = set(path.iterdir())
        for file in now:
            whole, start = file.read_bytes(), self._dirty[file]
            kept = self._durable.setdefault(file, bytearray())
            kept.extend(bytes(max(0, start - len(kept))))  # a hole where it was never written
            kept[start:] = whole[start:]
            self._dirty[file] = len(whole)

    def power_cut(self, folder: Path) -> list[str]:
        folder.mkdir()
        for path in sorted(self._names):
            if path.exists() and path.suffix == ".spool":
                (folder / path.name).write_bytes(self._durable.get(path, b""))
        return keys(folder)


def verdict(number: int) -> Outgoing:
    return Outgoing(f"{number:04d}", "verdict", TOPIC, b"%04d" % number * 30, camera="a")


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_sync_that_succeeds_after_one_that_failed_is_believed_only_for_what_was_written_anew(
    tmp_path: Path, failures: int
) -> None:
    disk, clock = Forgetful(), Clock()
    keeper = Keeper(Spool(tmp_path / "box", 1 << 20, 3600, disk=disk, clock=clock), clock=clock)
    keeper.keep(verdict(0))
    keeper.flush()
    for number in (1, 2):
        keeper.keep(verdict(number))
    disk.fails = True
    for _ in range(failures):
        clock.now += 2
        keeper.flush()
        late = verdict(9)
        keeper.keep(late)
        assert late.payload, "nothing is written to a disk that is in doubt"
    disk.fails = False
    keeper.flush()
    assert disk.power_cut(tmp_path / "cut") == ["0000", "0001", "0002"]
    clock.now += 2
    after = verdict(3)
    keeper.keep(after)
    assert after.stored, "used again"
    assert all(
        keeper.payload(Outgoing(f"{n:04d}", "verdict", "", b"", stored=True)) == verdict(n).payload or n == 3
        for n in range(4)
    )
    syncs = disk.syncs
    keeper.flush()
    keeper.flush()
    assert disk.syncs == syncs + 1


@pytest.mark.parametrize("seed", range(40))
def test_whatever_fails_a_flush_that_was_believed_outlives_a_power_cut(tmp_path: Path, seed: int) -> None:
    rng, disk, clock = random.Random(seed), Forgetful(), Clock()
    keeper = Keeper(Spool(tmp_path / "box", 20_000, 3600, disk=disk, clock=clock), clock=clock)
    wanted: dict[str, None] = {}
    dropped: set[str] = set()
    for number in range(300):
        clock.now += rng.uniform(0, 0.7)
        disk.fails, disk.is_full = rng.random() < 0.25, rng.random() < 0.05
        one = verdict(number)
        dropped.update(keeper.keep(one))
        if one.stored:
            wanted[one.key] = None
        if wanted and rng.random() < 0.4:
            key = rng.choice(list(wanted))
            del wanted[key]
            keeper.done(key)
        if rng.random() < 0.3:
            keeper.flush()
    disk.fails = disk.is_full = False
    keeper.flush()
    clock.now += 2
    last = verdict(300)
    dropped.update(keeper.keep(last))
    keeper.flush()
    held = [key for key in [*wanted, last.key] if keeper.payload(Outgoing(key, "verdict", "", b"", stored=True))]
    assert dropped.isdisjoint(held)
    assert last.key in held
    assert len(held) > 5
    found = disk.power_cut(tmp_path / "cut")
    assert set(held) <= set(found)
    size = sum(path.stat().st_size for path in (tmp_path / "box").iterdir())
    assert size <= 20_000
    assert keys(tmp_path / "box") == sorted(keys(tmp_path / "box"))
