"""The spool: whole records survive any cut and any damaged byte, bounds hold, and a failing disk ends nothing."""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.courier import Courier
from edge.delivery import Outgoing
from edge.errors import SpoolError
from edge.health import Health
from edge.keeper import RETRY_S, Keeper
from edge.link import Link
from edge.mailbox import Mailbox
from edge.records import Ticket
from edge.spool import Spool
from edge.spool_file import Disk, Record, Removal, encode, scan
from edge.wire import Topics
from tests.edge.test_courier import Recording
from tests.soak.spool import cuts, damaged_bytes, sample_file

TOPIC = "cameras/a/verdict"


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Failing(Disk):
    """A disk of which ``fails`` names the calls that fail, with ``code``; a write may be cut short."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.code = errno.ENOSPC
        self.short = False

    def _check(self, call: str) -> None:
        if call in self.fails:
            raise OSError(self.code, errno.errorcode[self.code])

    def write(self, file: int, data: bytes) -> int:
        if "write" in self.fails and self.short:
            return super().write(file, data[: len(data) // 2])
        self._check("write")
        return super().write(file, data)

    def create(self, path: Path) -> int:
        self._check("create")
        return super().create(path)

    def sync(self, path: Path) -> None:
        self._check("sync")
        super().sync(path)

    def open(self, path: Path) -> BinaryIO:
        self._check("open")
        return super().open(path)

    def size(self, path: Path) -> int:
        self._check("size")
        return super().size(path)

    def read_part(self, path: Path, at: int, length: int) -> bytes:
        self._check("read_part")
        return super().read_part(path, at, length)

    def remove(self, path: Path) -> None:
        self._check("remove")
        super().remove(path)

    def make_folder(self, folder: Path) -> None:
        self._check("make_folder")
        super().make_folder(folder)


CALLS = ["write", "create", "sync", "read_part", "remove", "make_folder"]


def keys(folder: Path) -> list[str]:
    """What another process would find."""
    return [record.key for record in Spool(folder, 1 << 20, 3600).start()]


def fill(spool: Spool, count: int, size: int = 100) -> list[str]:
    """Keep ``count`` records; returns the keys that were dropped."""
    return [key for n in range(count) for key in spool.keep(f"{n:04d}", TOPIC, b"%04d" % n + bytes(size), "a")]


def test_what_is_not_removed_comes_back_in_order_with_its_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20, 3600)
    assert spool.start() == []
    fill(spool, 50)
    for n in range(0, 50, 2):
        spool.remove(f"{n:04d}")
    again = Spool(tmp_path, 1 << 20, 3600)
    records = again.start()
    assert [record.key for record in records] == [f"{n:04d}" for n in range(1, 50, 2)]
    assert all(again.payload(f"{n:04d}") == b"%04d" % n + bytes(100) for n in range(1, 50, 2))
    assert not any(record.payload for record in records), "payloads stay on the disk"
    assert (records[0].topic, records[0].camera) == (TOPIC, "a")


def test_file_goes_when_nothing_in_it_is_wanted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 80_000, 3600)
    fill(spool, 300)
    assert len(list(tmp_path.iterdir())) > 3
    for n in range(300):
        spool.remove(f"{n:04d}")
    assert len(list(tmp_path.iterdir())) <= 1
    assert spool.size <= 10_000 + 300


def test_bound_in_bytes_drops_the_oldest_and_tells(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 50_000, 3600)
    dropped = fill(spool, 1000)
    assert dropped == [f"{n:04d}" for n in range(len(dropped))]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 50_000
    assert keys(tmp_path) == [f"{n:04d}" for n in range(len(dropped), 1000)]


def test_bound_in_bytes_holds_for_what_removals_write(tmp_path: Path) -> None:
    for size in range(0, 300, 7):
        spool = Spool(tmp_path / str(size), 4000, 3600, clock=Clock())
        dropped = set(fill(spool, 40, size))
        wanted = [key for n in range(40) if (key := f"{n:04d}") not in dropped]
        for key in wanted[:0:-1]:  # the oldest file stays to the end
            spool.remove(key)
            assert spool.size <= 4000


def test_bound_in_age_counts_running_time_over_restarts(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, 1 << 20, 60, clock=clock)
    spool.keep("old", TOPIC, b"1", "a")
    clock.now += 50
    spool.keep("young", TOPIC, b"2", "a")
    clock.now = 5.0  # another boot: another monotonic clock
    again = Spool(tmp_path, 1 << 20, 60, clock=clock)
    assert len(again.start()) == 2
    assert again.drop_old() == []
    clock.now += 20
    assert again.drop_old() == ["old"]


def test_cut_at_every_byte_starts_and_keeps_every_whole_record() -> None:
    assert cuts(6).failures == []


def test_every_damaged_byte_is_seen_and_costs_one_record() -> None:
    assert damaged_bytes(6, random.Random(1)).failures == []


def test_length_that_claims_much_is_no_record() -> None:
    whole = encode(Record("k", TOPIC, b"x" * 50, "a", 1.0))
    claims = whole[:4] + (1 << 30).to_bytes(4, "big") + whole[8:]
    assert [entry for _, _, entry in scan(io.BytesIO(claims + whole).read)] == [Record("k", TOPIC, b"x" * 50, "a", 1.0)]


def test_sample_file_holds_what_it_says() -> None:
    data, ends = sample_file(5)
    assert len(list(scan(io.BytesIO(data).read))) == 5
    assert ends[-1] == len(data)
    assert [entry for _, _, entry in scan(io.BytesIO(encode(Removal("x"))).read)] == [Removal("x")]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_failing_disk_ends_nothing_and_is_used_again_when_it_answers(tmp_path: Path, call: str, code: int) -> None:
    disk, clock, told = Failing(), Clock(), []
    disk.code = code
    keeper = Keeper(Spool(tmp_path, 40_000, 3600, disk=disk, clock=clock), told.append, clock)
    keeper.recover()
    disk.fails = {call}
    during = _offer(keeper, clock, range(40))
    if call != "remove":
        assert told or call == "read_part"
    disk.fails = set()
    clock.now += RETRY_S
    keeper.flush()
    after = _offer(keeper, clock, range(40, 60))
    assert all(outgoing.stored for outgoing in after), "used again"
    for outgoing in during + after:
        assert keeper.payload(outgoing) == outgoing.key.encode() * 20, "in memory or on disk, it can be sent"


def _offer(keeper: Keeper, clock: Clock, numbers: range) -> list[Outgoing]:
    """Offers that many; every seventh time one of them is confirmed. Returns those that are not."""
    offered = {}
    for n in numbers:
        offered[n] = Outgoing(f"{n:04d}", "verdict", TOPIC, b"%04d" % n * 20)
        keeper.keep(offered[n])
        keeper.flush()
        clock.now += 0.5
        if n % 7 == 6 and offered.pop(n - 6, None) is not None:
            keeper.done(f"{n - 6:04d}")
    return list(offered.values())


def test_write_cut_short_leaves_the_other_records_whole(tmp_path: Path) -> None:
    disk, clock = Failing(), Clock()
    spool = Spool(tmp_path, 1 << 20, 3600, disk=disk, clock=clock)
    spool.keep("first", TOPIC, b"1", "a")
    disk.fails, disk.short = {"write"}, True
    with pytest.raises(SpoolError, match="No space left"):
        spool.keep("torn", TOPIC, b"2", "a")
    disk.fails = set()
    spool.keep("last", TOPIC, b"3", "a")
    assert keys(tmp_path) == ["first", "last"]


def test_spool_that_cannot_be_read_at_start_leaves_a_worker_without_it(tmp_path: Path) -> None:
    disk, told = Failing(), []
    fill(Spool(tmp_path, 1 << 20, 3600), 3)
    disk.fails, disk.code = {"make_folder"}, errno.EIO
    assert Keeper(Spool(tmp_path, 1 << 20, 3600, disk=disk), told.append).recover() == []
    assert "cannot read the spool" in told[0]


def test_verdict_whose_frame_waits_at_the_broker_is_not_written(tmp_path: Path) -> None:
    keeper = Keeper(Spool(tmp_path, 1 << 20, 3600))
    keeper.keep(Outgoing("held", "verdict", TOPIC, b"x", tickets=[Ticket(1, 1, 1, 1)]))
    keeper.keep(Outgoing("note", "notice", TOPIC, b"x"))
    keeper.keep(Outgoing("free", "verdict", TOPIC, b"x", tickets=[Ticket(1, 2, 0, 0)]))
    assert keys(tmp_path) == ["free"]


class Kept(RuleBasedStateMachine):
    """The spool beside a plain dictionary, over restarts without a farewell."""

    folder: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder()
        self.expected: dict[str, bytes] = {}
        self.spool = Spool(self.path, 4000, 3600)
        self.number = 0

    @rule(size=st.integers(0, 300))
    def keep(self, size: int) -> None:
        self.number += 1
        key = f"{self.number:04d}"
        payload = key.encode() + b"\n" * size
        for dropped in self.spool.keep(key, TOPIC, payload, "a"):
            del self.expected[dropped]
        self.expected[key] = payload

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.expected:
            key = data.draw(st.sampled_from(sorted(self.expected)))
            del self.expected[key]
            self.spool.remove(key)

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.path, 4000, 3600)
        assert [record.key for record in self.spool.start()] == list(self.expected)

    def teardown(self) -> None:
        self.spool.close()

    @invariant()
    def bounded_and_complete(self) -> None:
        assert self.spool.size <= 4000
        assert len(self.spool) == len(self.expected)
        assert all(self.spool.payload(key) == payload for key, payload in self.expected.items())


def test_spool_keeps_what_a_dictionary_keeps(tmp_path: Path) -> None:
    numbers = iter(range(10**6))
    machine = type("Machine", (Kept,), {"folder": lambda self: tmp_path / str(next(numbers))})
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
    case().runTest()


def test_spool_holds_one_descriptor_however_much_it_writes(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    spool = Spool(tmp_path, 50_000, 3600)
    fill(spool, 2000)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    spool.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_full_disk_leaves_no_empty_file_behind(tmp_path: Path) -> None:
    disk, clock = Failing(), Clock()
    keeper = Keeper(Spool(tmp_path, 1 << 20, 3600, disk=disk, clock=clock), clock=clock)
    disk.fails = {"write"}
    for number in range(30):
        clock.now += RETRY_S
        keeper.keep(Outgoing(str(number), "verdict", TOPIC, b"x"))
    assert list(tmp_path.iterdir()) == []


def test_read_that_fails_once_costs_no_verdict_and_holds_up_none_in_memory(tmp_path: Path) -> None:
    disk, clock, health, link = Failing(), Clock(), Health("box"), Recording()
    keeper = Keeper(Spool(tmp_path, 1 << 20, 3600, disk=disk, clock=clock), health.spool_failed, clock)
    sink = Mailbox("every", 100, 1 << 20)
    courier = Courier(Topics("cameras", "box"), sink, health, 1 << 20, "mqtt://b", clock, keeper)
    courier.attach(cast(Link, link))
    for number in range(200):
        courier.deliver(Outgoing(str(number), "verdict", TOPIC, b"x", camera="a"))
    courier.notice("state", b"on")
    courier.link_up(False, 1000, None)
    disk.fails, disk.code = {"read_part"}, errno.EMFILE
    courier.link_turn()
    assert [topic for topic, _ in link.published] == ["state"]
    assert health.snapshot()["counters"]["spool_failures"] == 1, "not tried again before a while"
    disk.fails = set()
    clock.now += RETRY_S
    courier.link_turn()
    assert len(link.published) == 201
    assert health.snapshot()["dropped"] == {}
