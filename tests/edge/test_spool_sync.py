"""A sync that fails: the system tells it once and takes the pages for clean. The spool may not believe the next one."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.delivery import Outgoing
from edge.keeper import Keeper
from edge.spool import Spool
from edge.spool_file import Disk
from tests.edge.test_spool import TOPIC, Clock, keys


class Forgetful(Disk):
    """A disk behind a page cache as Linux has it: after a sync that failed the next one of that file does nothing.

    ``fails_for`` are the suffixes of files whose sync fails where others do not; ``meanwhile`` is called in every sync.
    ``power_cut`` leaves in another folder what had reached the disk.
    """

    def __init__(self) -> None:
        self.fails = self.is_full = self.is_unreadable = False
        self.fails_for: tuple[str, ...] = ()
        self.meanwhile: Callable[[], object] = lambda: None
        self.synced: list[Path] = []
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

    def read_part(self, path: Path, at: int, length: int) -> bytes:
        if self.is_unreadable:
            raise OSError(errno.EIO, "Input/output error")
        return super().read_part(path, at, length)

    def sync(self, path: Path) -> None:
        self.synced.append(path)
        self.meanwhile()
        now = [path] if path.is_file() else []
        if self.fails or path.suffix in self.fails_for:
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
        clock.now += 2
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
    syncs = len(disk.synced)
    keeper.flush()
    keeper.flush()
    assert len(disk.synced) == syncs + 1


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


def full_of(keeper: Keeper, numbers: range) -> list[str]:
    """Keeps verdicts of those numbers; returns the keys that were dropped for them."""
    return [key for number in numbers for key in keeper.keep(verdict(number))]


@pytest.mark.parametrize("broken", ["the disk", "what verdicts are written to"])
def test_disk_that_goes_on_failing_costs_no_verdict_that_it_has(tmp_path: Path, broken: str) -> None:
    disk, clock = Forgetful(), Clock()
    spool = Spool(tmp_path / "box", 1 << 20, 3600, disk=disk, clock=clock)
    keeper = Keeper(spool, clock=clock)
    assert full_of(keeper, range(2000)) == []
    keeper.flush()
    assert full_of(keeper, range(2000, 2300)) == []
    size = spool.size
    disk.fails, disk.fails_for = broken == "the disk", (".spool",)
    for turn in range(30):
        clock.now += 2
        keeper.flush()
        if turn % 3 == 0:
            keeper.done(f"{turn + 2000:04d}")
        assert len(spool) == 2300 - turn // 3 - 1
        assert spool.size <= size + 50 * (turn // 3 + 1), "what is written anew takes the place of what is in doubt"
    disk.fails, disk.fails_for = False, ()
    keeper.flush()
    wanted = [f"{n:04d}" for n in range(2300) if n < 2000 or (n - 2000) % 3 or n >= 2030]
    assert keys(tmp_path / "box") == wanted
    assert disk.power_cut(tmp_path / "cut") == wanted
    assert spool.size == sum(path.stat().st_size for path in (tmp_path / "box").iterdir())


def test_only_what_is_in_doubt_is_written_anew_and_its_file_never_synced_again(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    spool = Spool(tmp_path / "box", 1 << 20, 3600, disk=disk, clock=clock)
    keeper = Keeper(spool, clock=clock)
    full_of(keeper, range(200))
    keeper.flush()
    full_of(keeper, range(200, 210))
    first = min((tmp_path / "box").iterdir())
    disk.fails, disk.meanwhile = True, lambda: keeper.keep(verdict(210))
    keeper.flush()
    disk.meanwhile = lambda: None
    keeper.flush()
    size = spool.size
    assert [path.name for path in (tmp_path / "box").iterdir()] == [first.name], "not written before the disk answers"
    disk.fails, disk.synced = False, []
    keeper.flush()
    assert first not in disk.synced
    assert spool.size == size
    assert first.stat().st_size == size * 200 // 211
    assert keys(tmp_path / "box") == disk.power_cut(tmp_path / "cut") == [f"{n:04d}" for n in range(211)]


def test_file_begun_while_a_sync_waits_that_fails_outlives_a_power_cut(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    keeper = Keeper(Spool(tmp_path / "box", 20_000, 3600, disk=disk, clock=clock), clock=clock)
    full_of(keeper, range(5))
    disk.fails, disk.meanwhile = True, lambda: full_of(keeper, range(5, 15))
    keeper.flush()
    assert len(list((tmp_path / "box").iterdir())) == 2
    for number in range(8):
        keeper.done(f"{number:04d}")
    disk.fails, disk.meanwhile, disk.synced = False, lambda: None, []
    keeper.flush()
    assert "000000000001.spool" not in [path.name for path in disk.synced], "written to while its sync failed"
    assert len(list((tmp_path / "box").iterdir())) == 1, "no other file was begun"
    assert sorted(disk.power_cut(tmp_path / "cut")) == [f"{n:04d}" for n in range(8, 15)]


def test_verdict_in_doubt_that_cannot_be_read_stays_where_it_is(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    keeper = Keeper(Spool(tmp_path / "box", 20_000, 3600, disk=disk, clock=clock), clock=clock)
    one = verdict(1)
    keeper.keep(one)
    disk.fails = True
    keeper.flush()
    disk.fails, disk.is_unreadable = False, True
    keeper.flush()
    disk.is_unreadable = False
    assert keeper.payload(one) == verdict(1).payload
    clock.now += 2
    after = verdict(2)
    keeper.keep(after)
    assert after.stored, "the spool is used again"


def test_spool_filled_between_two_flushes_of_which_one_fails_is_flushed_again(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    spool = Spool(tmp_path / "box", 1 << 18, 3600, disk=disk, clock=clock)
    keeper = Keeper(spool, clock=clock)
    dropped = full_of(keeper, range(3000))
    disk.fails = True
    keeper.flush()
    disk.fails = False
    keeper.flush()
    clock.now += 2
    dropped += full_of(keeper, range(3000, 3200))
    assert spool.size <= 1 << 18
    keeper.flush()
    assert disk.power_cut(tmp_path / "cut") == [f"{n:04d}" for n in range(len(dropped), 3200)]


def test_disk_that_fails_and_is_full_then_while_everything_is_confirmed(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    spool = Spool(tmp_path / "box", 20_000, 3600, disk=disk, clock=clock)
    keeper = Keeper(spool, clock=clock)
    full_of(keeper, range(3))
    disk.fails = True
    keeper.flush()
    keeper.done("0000")
    disk.is_full = True
    disk.meanwhile = lambda: [keeper.done(f"{n:04d}") for n in range(3)]
    keeper.flush()
    assert len(spool) == 0
    disk.fails = disk.is_full = False
    disk.meanwhile = lambda: None
    keeper.flush()
    clock.now += 2
    assert full_of(keeper, range(3, 6)) == []
    keeper.flush()
    assert disk.power_cut(tmp_path / "cut") == ["0003", "0004", "0005"]


def test_what_ends_a_flush_lets_the_next_one_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Forgetful()
    spool = Spool(tmp_path / "box", 20_000, 3600, disk=disk)
    keeper = Keeper(spool)
    full_of(keeper, range(3))
    with monkeypatch.context() as patched:
        patched.setattr(spool, "unsynced", lambda: [][0])
        with pytest.raises(IndexError):
            keeper.flush()
    keeper.flush()
    assert disk.power_cut(tmp_path / "cut") == ["0000", "0001", "0002"]


def synced(folder: Path, n: int) -> tuple[Forgetful, Keeper]:
    """A disk, and a keeper on it whose first ``n`` verdicts are synced."""
    disk, clock = Forgetful(), Clock()
    keeper = Keeper(Spool(folder, 20_000, 3600, disk=disk, clock=clock), clock=clock)
    full_of(keeper, range(n))
    keeper.flush()
    return disk, keeper


def test_confirmation_in_doubt_is_written_anew(tmp_path: Path) -> None:
    disk, keeper = synced(tmp_path / "box", 30)
    keeper.done("0001")
    disk.meanwhile = lambda: keeper.done("0002")
    keeper.flush()
    keeper.done("0003")
    full_of(keeper, range(30, 33))
    disk.fails, disk.meanwhile = True, lambda: None
    keeper.flush()
    keeper.done("0004")
    disk.fails = False
    keeper.flush()
    wanted = [f"{n:04d}" for n in range(33) if n not in (1, 2, 3, 4)]
    assert keys(tmp_path / "box") == disk.power_cut(tmp_path / "cut") == wanted


def test_verdict_kept_again_behind_a_confirmation_in_doubt_stays_kept(tmp_path: Path) -> None:
    disk, keeper = synced(tmp_path / "box", 30)
    keeper.done("0029")
    disk.fails = True
    disk.meanwhile = lambda: (full_of(keeper, range(30, 45)), keeper.keep(verdict(29)))
    keeper.flush()
    disk.fails, disk.meanwhile = False, lambda: None
    keeper.flush()
    found = disk.power_cut(tmp_path / "cut")
    assert sorted(found) == sorted(keys(tmp_path / "box")) == [f"{n:04d}" for n in range(45)]


def test_oldest_comes_first_after_a_restart_though_it_was_written_anew(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    keeper = Keeper(Spool(tmp_path / "box", 1 << 18, 3600, disk=disk, clock=clock), clock=clock)
    numbers = iter(range(600))

    def some() -> None:
        for _ in range(200):
            clock.now += 1e-5
            keeper.keep(verdict(next(numbers)))

    some()
    disk.fails, disk.meanwhile = True, some
    keeper.flush()
    disk.fails, disk.meanwhile = False, lambda: None
    keeper.flush()
    clock.now += 2
    some()
    keeper.flush()
    assert keys(tmp_path / "box") == disk.power_cut(tmp_path / "cut") == [f"{n:04d}" for n in range(600)]
    again = Spool(tmp_path / "box", 1 << 18, 3600, clock=clock)
    again.start()
    clock.now += 3600 - 1.5
    assert again.drop_old() == [f"{n:04d}" for n in range(400)]


def test_verdicts_dropped_for_one_that_the_disk_then_refuses_are_told(tmp_path: Path) -> None:
    disk, clock = Forgetful(), Clock()
    spool = Spool(tmp_path / "box", 20_000, 3600, disk=disk, clock=clock)
    keeper = Keeper(spool, clock=clock)
    dropped, number = full_of(keeper, range(40)), 40
    while not dropped:
        dropped, number = full_of(keeper, range(number, number + 1)), number + 1
    told = set(dropped)
    disk.is_full = True
    while len(spool):
        clock.now += 2
        before = {f"{n:04d}" for n in range(number) if f"{n:04d}" in spool}
        told.update(keeper.keep(verdict(number)))
        assert told >= {key for key in before if key not in spool}
        number += 1
        if number > 400:
            break
        disk.is_full = number % 2 == 0
    assert told
