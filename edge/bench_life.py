"""The worker as a process of its own: how soon it is ready, what it holds and uses when idle and under load."""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.config import Config
from edge.pool import start_module
from engines import ParrotgateError

IDLE_S = 10.0
LOAD_S = 10.0
READY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Life:
    """``ready_s`` from process start to ``/readyz`` 200; resident MiB; ``idle_cpu_percent`` of one core."""

    ready_s: float
    idle_rss_mib: float
    idle_cpu_percent: float
    load_rss_mib: float


def measure_life(config: Config, cameras: Callable[[str], AbstractContextManager[None]]) -> Life:
    """Start ``edge run`` on ``config`` under a fresh prefix, leave it alone, then load it with ``cameras(prefix)``.

    Raises:
        ParrotgateError: it did not become ready.
    """
    prefix, port = f"bench-{secrets.token_hex(6)}", _free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edge.yaml"
        path.write_text(json.dumps(_changed(config, prefix, port)))
        began = time.monotonic()
        child = start_module("edge", "run", "--config", str(path), quiet=True)
        try:
            _wait_ready(f"http://127.0.0.1:{port}/readyz", began + READY_TIMEOUT_S)
            ready = time.monotonic() - began
            time.sleep(1.0)
            used = _cpu_s(child.pid)
            time.sleep(IDLE_S)
            idle = 100 * (_cpu_s(child.pid) - used) / IDLE_S
            idle_rss = _rss_mib(child.pid)
            with cameras(prefix):
                time.sleep(LOAD_S)
                load_rss = _rss_mib(child.pid)
        finally:
            child.terminate()
            child.wait(10.0)
    return Life(round(ready, 2), round(idle_rss, 1), round(idle, 2), round(load_rss, 1))


def _changed(config: Config, prefix: str, port: int) -> dict[str, Any]:
    values: dict[str, Any] = config.model_dump(mode="json")
    values["worker"] = prefix
    values["mqtt"] |= {"prefix": prefix, "client_id": prefix, "session_expiry_s": 0, "share_group": None}
    values["status"] = {"host": "127.0.0.1", "port": port}
    return values


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(url: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        if _is_ready(url):
            return
        time.sleep(0.02)
    raise ParrotgateError(f"the worker was not ready within {READY_TIMEOUT_S:g} s; try edge check")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own child on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
