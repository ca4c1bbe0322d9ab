"""The lock on a spool's folder: two workers that share one would publish, confirm and remove each other's verdicts."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

from edge.errors import SpoolTaken

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # a predecessor that is told to stop needs about four
_RETRY_S = 0.1


def lock_folder(folder: Path, patience_s: float = PATIENCE_S) -> int | None:
    """Take the lock in ``folder``; returns the descriptor that holds it until it is closed or the process ends.

    None, with a warning, where the disk takes no lock: a spool that cannot be locked is better than none.

    Raises:
        SpoolTaken: another process holds it, for longer than ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        log.warning("the spool in %s cannot be locked: %s", folder, error.strerror or error)
        return None
    while not _try(descriptor, folder):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise SpoolTaken(taken(folder))
        time.sleep(_RETRY_S)
    return descriptor


def taken(folder: Path) -> str:
    """The sentence for people whose folder another worker has."""
    return (
        f"the spool in {folder} belongs to another running worker of this name; give one of them another "
        "`worker` name or another spool.folder, or stop it"
    )


def is_taken(folder: Path) -> bool:
    """Whether another process holds the lock in ``folder`` now; makes nothing, and keeps nobody from taking it."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:  # nobody has ever locked it, or it is not for us to see
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _try(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("the file system of %s knows no locks: %s", folder, error.strerror or error)
    return True
