"""The watchdog: by itself, in a process that cannot run Python any more, and in workers that really hang."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.watchdog import Watchdog, notify
from tests.soak import hangs
from tests.soak.ledger import Effort, Outcome


def test_worker_that_is_not_live_for_half_its_patience_is_ended_with_75() -> None:
    ends: list[int] = []
    watchdog = Watchdog(lambda: (False, "hangs"), 10.0, ends.append)
    for _ in range(5):
        watchdog.turn()
    assert not ends
    watchdog.turn()
    assert ends == [75]


def test_worker_that_comes_back_is_not_ended() -> None:
    ends: list[int] = []
    answers = iter([False] * 5 + [True] + [False] * 5)
    watchdog = Watchdog(lambda: (next(answers), "sometimes"), 10.0, ends.append)
    for _ in range(11):
        watchdog.turn()
    assert not ends


def test_call_that_hangs_with_pythons_lock_ends_the_process_and_tells_where_it_stood() -> None:
    code = (
        "import ctypes\nfrom edge.watchdog import Watchdog\n"
        "Watchdog(lambda: (True, ''), 0.2).arm()\nctypes.PyDLL(None).sleep(60)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "line 4 in <module>" in done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_where_it_asks(tmp_path: Path, abstract: bool) -> None:
    name = f"@parrotgate-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.settimeout(5)
        supervisor.bind("\0" + name[1:] if abstract else name)
        notify("READY=1", {"NOTIFY_SOCKET": name})
        assert supervisor.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "/nobody/listens", "vsock:2:1"])
def test_systemd_that_does_not_listen_hinders_nobody(name: str) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": name} if name else {})


def test_hours_of_jumping_clocks_are_no_hang_and_a_hang_among_them_is_found() -> None:
    calm, hung = Outcome(), Outcome()
    hangs.false_alarms(calm, random.Random(1), 4.0)
    hangs.false_alarms(hung, random.Random(1), 1.0, hang=True)
    assert calm.failures == []
    assert "the engine's thread gave no sign of life" in hung.failures[0]


@pytest.mark.mosquitto
def test_workers_that_hang_are_ended_in_time_and_lose_no_frame(tmp_path: Path) -> None:
    """Two of the cases of row 17, which has them all."""
    effort = Effort(seed=1, count=1, deadline=time.monotonic() + 60, folder=tmp_path)
    assert hangs.hangs(effort, ("publish", "with Python's lock"), hours=0.1, stop=False).failures == []
