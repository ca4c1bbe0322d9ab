"""A stand-in for libcuda's graph functions as ctypes finds them, with the C types of cuda.h."""

from __future__ import annotations

import ctypes
from typing import Any

from standin_device import device

_Ptr = ctypes.c_void_p
_Out = ctypes.POINTER(_Ptr)


def _c(function: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(function)


def _end(stream: int, graph: Any) -> int:
    code, handle = device.end_capture(stream)
    graph[0] = _Ptr(handle)
    return code


def _instantiate(executable: Any, graph: int, flags: int) -> int:
    code, handle = device.instantiate(graph)
    executable[0] = _Ptr(handle)
    return code


class Library:
    """What ``ctypes.CDLL("libcuda.so.1")`` gives."""

    cuStreamBeginCapture_v2 = _c(device.begin_capture, _Ptr, ctypes.c_int)  # noqa: N815
    cuStreamEndCapture = _c(_end, _Ptr, _Out)  # noqa: N815
    cuGraphInstantiateWithFlags = _c(_instantiate, _Out, _Ptr, ctypes.c_ulonglong)  # noqa: N815
    cuGraphLaunch = _c(device.launch_graph, _Ptr, _Ptr)  # noqa: N815
    cuGraphExecDestroy = _c(lambda handle: device.destroy("executable", handle), _Ptr)  # noqa: N815
    cuGraphDestroy = _c(lambda handle: device.destroy("graph", handle), _Ptr)  # noqa: N815
