"""The spool and its disk: a bounded start, syncs that hold nobody up, unreadable files, one worker a folder."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import BinaryIO
from unittest import mock

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import spool_file, spool_lock
from edge import worker as worker_module
from edge.config_file import load_config
from edge.delivery import Outgoing
from edge.errors import SpoolTaken
from edge.keeper import Keeper
from edge.parts import open_spool
from edge.spool import Spool
from edge.spool_file import MAGIC, Disk, Record, Removal, encode, scan
from edge.spool_lock import lock_folder
from edge.worker import Worker
from tests.edge.test_spool import TOPIC, Failing, fill, keys
from tests.edge.worker_process import ROOT, demo_config


@given(
    st.lists(st.tuples(st.sampled_from(["record", "removal", "noise", "silence"]), st.integers(0, 400)), max_size=30),
    st.data(),
)
@settings(max_examples=80, deadline=None, database=None)
def test_file_read_in_pieces_holds_what_it_holds_as_a_whole(parts: list[tuple[str, int]], data: st.DataObject) -> None:
    whole, expected = b"", []
    for number, (kind, size) in enumerate(parts):
        if kind in ("noise", "silence"):
            whole += MAGIC * (kind == "noise") + bytes(3 * size)
            continue
        record = Record(f"{number}", TOPIC, b"p" * size, "a", float(number))
        entry = Removal(f"{number}") if kind == "removal" else record
        expected.append((len(whole), len(encode(entry)), entry))
        whole += encode(entry)
    file = io.BytesIO(whole)
    with mock.patch.object(spool_file, "MAX_BODY", 520):  # so that entries lie across the edges of what is held
        assert list(scan(lambda most: file.read(data.draw(st.integers(1, most))))) == expected


def test_entry_is_found_wherever_it_lies_across_what_is_held_at_a_time() -> None:
    record = Record("k", TOPIC, b"p" * 30, "a", 1.0)
    with mock.patch.object(spool_file, "MAX_BODY", 200):
        for gap in range(700):
            assert [at for at, _, entry in scan(io.BytesIO(bytes(gap) + encode(record)).read) if entry == record] == [
                gap
            ]


def test_start_holds_no_more_than_an_index_however_much_lies_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40 << 20, 3600)
    fill(spool, 300, 100_000)
    (tmp_path / "000000009999.spool").write_bytes(bytes(20 << 20))  # somebody else's, in one piece
    tracemalloc.start()
    assert len(Spool(tmp_path, 80 << 20, 3600).start()) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20


class Noting(Disk):
    """A disk that notes what is synced, and waits for ``answers`` before it answers."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()

    def sync(self, path: Path) -> None:
        self.asked.set()
        assert self.answers.wait(20)
        super().sync(path)
        self.synced.append(path.name)


def test_record_is_synced_though_no_other_follows_and_each_file_once(tmp_path: Path) -> None:
    disk = Noting()
    folder = tmp_path / "box"
    keeper = Keeper(Spool(folder, 80_000, 3600, disk=disk))
    keeper.recover()
    keeper.keep(Outgoing("a", "verdict", TOPIC, b"x"))
    keeper.flush()
    assert disk.synced == ["box", "000000000001.spool"]
    keeper.flush()
    assert len(disk.synced) == 2
    for number in range(25):  # into a second and a third file, while nobody flushes
        keeper.keep(Outgoing(f"{number}", "verdict", TOPIC, bytes(1000)))
    keeper.flush()
    assert disk.synced[2:] == ["000000000001.spool", "box", "000000000002.spool", "000000000003.spool"]


def test_sync_that_takes_its_time_holds_up_neither_keeping_nor_sending(tmp_path: Path) -> None:
    disk = Noting()
    keeper = Keeper(Spool(tmp_path, 1 << 20, 3600, disk=disk))
    keeper.recover()
    first, second = (Outgoing(key, "verdict", TOPIC, key.encode()) for key in ("first", "second"))
    keeper.keep(first)
    disk.answers.clear()
    flushing = threading.Thread(target=keeper.flush)
    flushing.start()
    assert disk.asked.wait(10)
    done = threading.Thread(
        target=lambda: (keeper.keep(second), keeper.payload(first), keeper.done("first"), keeper.flush())
    )
    done.start()
    done.join(10)
    assert not done.is_alive()
    disk.answers.set()
    flushing.join(10)
    assert keys(tmp_path) == ["second"]


def test_sync_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    disk, told = Failing(), []
    keeper = Keeper(Spool(tmp_path, 1 << 20, 3600, disk=disk), told.append)
    keeper.keep(Outgoing("a", "verdict", TOPIC, b"x"))
    disk.fails, disk.code = {"sync"}, errno.EIO
    keeper.flush()
    keeper.flush()
    assert len(told) == 2
    disk.fails = set()
    keeper.flush()
    keeper.flush()
    assert len(told) == 2


def test_closing_flushes_what_is_left(tmp_path: Path) -> None:
    disk = Noting()
    keeper = Keeper(Spool(tmp_path, 1 << 20, 3600, disk=disk))
    keeper.keep(Outgoing("a", "verdict", TOPIC, b"x"))
    keeper.close()
    assert "000000000001.spool" in disk.synced


def test_file_that_cannot_be_read_is_told_counted_and_hides_no_other(tmp_path: Path) -> None:
    before = Spool(tmp_path, 80_000, 3600)
    fill(before, 30, 1000)
    first = min(tmp_path.iterdir())
    held = first.stat().st_size

    class HalfBroken(Failing):
        def open(self, path: Path) -> BinaryIO:
            self.fails = {"open"} if path == first else set()
            return super().open(path)

    disk, told = HalfBroken(), []
    disk.code = errno.EIO
    spool = Spool(tmp_path, 80_000, 3600, disk=disk)
    recovered = [outgoing.key for outgoing in Keeper(spool, told.append).recover()]
    assert recovered == [f"{n:04d}" for n in range(30 - len(recovered), 30)]
    assert 0 < len(recovered) < 30
    assert f"{first.name}: EIO" in told[0]
    assert first.exists()
    assert spool.size == sum(path.stat().st_size for path in tmp_path.iterdir()) > held
    for n in range(100, 200):
        spool.keep(f"{n}", TOPIC, bytes(1000), "a")
    assert not first.exists(), "the bound takes it"
    assert spool.size <= 80_000


def test_two_workers_of_one_name_do_not_share_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_lock.lock_folder, "__defaults__", (0.2,))
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump(demo_config("mqtt://127.0.0.1:1", spool={"folder": str(tmp_path)}, status=None)))
    config = load_config(path, {})
    first = open_spool(config)
    assert first is not None
    monkeypatch.setattr(worker_module, "load_parts", lambda *_: pytest.fail("networks were loaded first"))
    with pytest.raises(SpoolTaken, match="another running worker of this name") as refused:
        Worker(config).start()
    assert refused.value.exit_code == 75
    open_spool(config.model_copy(update={"worker": "other"}))
    first.close()
    again = open_spool(config)
    assert again is not None
    again.close()


def test_lock_ends_with_the_process_that_holds_it_however_it_ends(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from edge.spool_lock import lock_folder\n"
    code += "lock_folder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SpoolTaken):
            lock_folder(tmp_path, 0.2)
        holder.kill()
        holder.wait()
    descriptor = lock_folder(tmp_path, 0.0)
    assert descriptor is not None
    os.close(descriptor)


def test_folder_that_takes_no_lock_costs_a_warning_and_not_the_spool(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("a file where the folder should be")
    assert lock_folder(tmp_path / "box") is None
