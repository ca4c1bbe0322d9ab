"""A stand-in for ``cuda.bindings.driver``: stream capture and graphs. Every answer is a tuple, its CUresult first."""

from __future__ import annotations

import enum

from standin_device import device


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


class CUstream:
    def __init__(self, init_value: int = 0) -> None:
        self._handle = int(init_value)

    def __int__(self) -> int:
        return self._handle


class _Handle(CUstream):
    pass


class CUgraph(_Handle):
    pass


class CUgraphExec(_Handle):
    pass


def cuStreamBeginCapture(hStream: CUstream, mode: CUstreamCaptureMode) -> tuple[int]:  # noqa: N802
    assert isinstance(mode, CUstreamCaptureMode)
    return (device.begin_capture(int(hStream), int(mode)),)


def cuStreamEndCapture(hStream: CUstream) -> tuple[int, CUgraph]:  # noqa: N802
    code, graph = device.end_capture(int(hStream))
    return code, CUgraph(graph)


def cuGraphInstantiate(hGraph: CUgraph, flags: int) -> tuple[int, CUgraphExec]:  # noqa: N802
    assert isinstance(hGraph, CUgraph)
    code, executable = device.instantiate(int(hGraph))
    return code, CUgraphExec(executable)


def cuGraphLaunch(hGraphExec: CUgraphExec, hStream: CUstream) -> tuple[int]:  # noqa: N802
    assert isinstance(hGraphExec, CUgraphExec)
    return (device.launch_graph(int(hGraphExec), int(hStream)),)


def cuGraphExecDestroy(hGraphExec: CUgraphExec) -> tuple[int]:  # noqa: N802
    assert isinstance(hGraphExec, CUgraphExec)
    return (device.destroy("executable", int(hGraphExec)),)


def cuGraphDestroy(hGraph: CUgraph) -> tuple[int]:  # noqa: N802
    assert isinstance(hGraph, CUgraph)
    return (device.destroy("graph", int(hGraph)),)
