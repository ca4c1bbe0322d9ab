"""The watchdog: ends a worker that hangs for good, so that its supervisor starts another and the broker delivers again.

Three nets, each for what slips through the one before:

- ``Watchdog.turn``, once a second in a thread of its own: a worker that ``Health`` calls dead for half of
  ``watchdog.stall_s`` on end leaves with 75.
- A call that hangs and keeps Python's lock stops that thread too: ``faulthandler`` then writes where every thread
  stands, and ends the process with 1, without the lock.
- A process that was stopped (SIGSTOP) can do nothing at all: systemd misses our sign of life (``WatchdogSec``), a probe
  of ``/healthz`` its answer, and the broker publishes the will after one and a half keepalives.

Time is counted in turns, not read from a clock: after a SIGCONT the first turn finds every thread silent for as long as
the process was stopped, the second finds them at work.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from engines.errors import EXIT_TRANSIENT

log = logging.getLogger(__name__)

TURN_S = 1.0


class Watchdog:
    """Counts the turns in which a worker was not live.

    Args:
        live: whether the worker gets on, with a sentence.
        stall_s: its patience in seconds; another half of it must pass before the worker is ended.
        end: ends the process with a code, at once.
        bites: False leaves the process alone, and only tells systemd that it runs.
    """

    def __init__(
        self,
        live: Callable[[], tuple[bool, str]],
        stall_s: float,
        end: Callable[[int], object] | None = None,
        *,
        bites: bool = True,
    ) -> None:
        self._bites = bites
        self._live = live
        self._grace = max(2, round(stall_s / 2 / TURN_S))
        self._stall_s = stall_s
        self._end = end or end_now
        self._bad = 0

    def turn(self) -> None:
        """Look once; call it every ``TURN_S`` seconds."""
        notify("WATCHDOG=1")
        live, why = self._live() if self._bites else (True, "not watched")
        self._bad = 0 if live else self._bad + 1
        if self._bad == 1:
            log.error("not live, ending in %d s unless that changes: %s", self._grace, why)
        elif self._bad > self._grace:
            log.critical("the watchdog ends this process with %d: %s", EXIT_TRANSIENT, why)
            self._end(EXIT_TRANSIENT)

    def arm(self) -> None:
        """Have the process end even where no Python runs any more; to be called at every turn."""
        if not self._bites:
            return
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):  # stderr may be none
            faulthandler.dump_traceback_later(1.8 * self._stall_s, exit=True, file=sys.stderr.fileno())


def end_now(code: int) -> NoReturn:
    """Leave without any clean-up, which might hang as well."""
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell systemd (sd_notify(3)), where it has asked to be told."""
    name = environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.1)
        sender.sendto(state.encode(), address)
