"""Whether the GPU still serves this process, asked of the driver itself: for a library that computes without pycuda."""

from __future__ import annotations

import ctypes
from typing import Any

from engines.cuda import STICKY

_LIBRARY = "libcuda.so.1"


def why_lost() -> str | None:
    """The error after which only a new process helps, as ``an illegal memory access was encountered (CUDA error 700)``.

    None where the driver answers, and where there is none. Waits until the first GPU has done what it was given; to be
    called after an error alone.
    """
    try:
        code = _wait(ctypes.CDLL(_LIBRARY))
    except (OSError, AttributeError):  # no driver, or one that lacks a function
        return None
    return f"{STICKY[code]} (CUDA error {code})" if code in STICKY else None


def _wait(driver: Any) -> int:
    """The answer to ``cuCtxSynchronize`` in the primary context, which CUDA's runtime computes in; 0 is well."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    code = driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if code:
        return int(code)
    try:
        if code := driver.cuCtxPushCurrent_v2(context):
            return int(code)
        try:
            return int(driver.cuCtxSynchronize())
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
