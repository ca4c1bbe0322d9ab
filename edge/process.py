"""What a worker's process sets before anything heavy is imported."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30


def prepare_process() -> None:
    """One BLAS thread, and large receive buffers that are reused.

    BLAS threads spin after each small product of the gate and take the engine's cores: two of them halve the
    pipeline (measured). glibc maps and unmaps every buffer over 128 KiB, which makes receiving a 300 KB frame five
    times dearer (measured); keeping such memory costs nothing here, since the mailbox bounds it.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # not glibc: nothing to tune
    mallopt(_M_MMAP_THRESHOLD, _GIB)
    mallopt(_M_TRIM_THRESHOLD, _GIB)
