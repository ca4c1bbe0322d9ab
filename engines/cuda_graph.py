"""CUDA graphs: the work of one batch captured once and launched as a whole.

pycuda has no graphs, so that the driver is called through cuda-python where it is installed, else through ctypes. Both
ways take a stream's handle and are called with its context current.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from engines.cuda import STICKY, checked
from engines.errors import DeviceLostError, EngineRunError

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on calling CUDA
_LIBRARY = "libcuda.so.1"
_Ptr = ctypes.c_void_p


class GraphError(EngineRunError):
    """A graph could not be captured, made or launched; the same work can still be launched piece by piece."""


class _Calls(Protocol):
    def begin(self, stream: int) -> None: ...
    def end(self, stream: int) -> Any: ...
    def instantiate(self, graph: Any) -> Any: ...
    def launch(self, executable: Any, stream: int) -> None: ...
    def destroy(self, executable: Any) -> None: ...
    def destroy_graph(self, graph: Any) -> None: ...


class Graph:
    """What ``work`` gave to the stream, without being done yet; ``launch`` does it, as often as wanted.

    Raises:
        EngineRunError: ``work`` failed or did what cannot be captured; the stream is out of capture again.
        DeviceLostError: only a new process helps.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._calls, self._stream = _calls(), stream
        self._executable: Any = None
        try:
            graph = self._capture(work)
        except RuntimeError as error:  # cuda-python, where the driver lacks what it looks for
            raise GraphError(f"CUDA graphs cannot be used: {error}") from error
        try:
            self._executable = self._calls.instantiate(graph)
        finally:
            self._calls.destroy_graph(graph)

    def _capture(self, work: Callable[[], None]) -> Any:
        self._calls.begin(self._stream)
        with checked("capturing a CUDA graph"):
            done = False
            try:
                work()
                done = True
            finally:
                if not done:  # the stream must leave capture before anything else is asked of the device
                    self._abandon()
        return self._calls.end(self._stream)

    def _abandon(self) -> None:
        try:
            self._calls.destroy_graph(self._calls.end(self._stream))
        except GraphError:
            return  # a capture that failed has no graph; ending it was the point

    def launch(self) -> None:
        """Give the whole work to the stream once more."""
        self._calls.launch(self._executable, self._stream)

    def free(self) -> None:
        """Destroy the graph; it must not be at work."""
        if self._executable is not None:
            self._calls.destroy(self._executable)
            self._executable = None


@cache
def _calls() -> _Calls:
    try:
        from cuda.bindings import driver
    except ImportError:
        try:
            return _Library(ctypes.CDLL(_LIBRARY))
        except (OSError, AttributeError) as error:
            raise GraphError(f"CUDA graphs cannot be used: {error}") from error
    return _CudaPython(driver)


def _check(name: str, code: int) -> None:
    if code in STICKY:
        raise DeviceLostError(f"{name}: {STICKY[code]} (CUDA error {code}); start the process again")
    if code:
        raise GraphError(f"{name}: CUDA error {code}")


class _CudaPython:
    """The calls through cuda-python: each answers a tuple that begins with its error code."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def begin(self, stream: int) -> None:
        driver = self._driver
        mode = driver.CUstreamCaptureMode(_THREAD_LOCAL)
        (code,) = driver.cuStreamBeginCapture(driver.CUstream(stream), mode)
        _check("cuStreamBeginCapture", int(code))

    def end(self, stream: int) -> Any:
        code, graph = self._driver.cuStreamEndCapture(self._driver.CUstream(stream))
        _check("cuStreamEndCapture", int(code))
        return graph

    def instantiate(self, graph: Any) -> Any:
        code, executable = self._driver.cuGraphInstantiate(graph, 0)
        _check("cuGraphInstantiate", int(code))
        return executable

    def launch(self, executable: Any, stream: int) -> None:
        (code,) = self._driver.cuGraphLaunch(executable, self._driver.CUstream(stream))
        _check("cuGraphLaunch", int(code))

    def destroy(self, executable: Any) -> None:
        (code,) = self._driver.cuGraphExecDestroy(executable)
        _check("cuGraphExecDestroy", int(code))

    def destroy_graph(self, graph: Any) -> None:
        (code,) = self._driver.cuGraphDestroy(graph)
        _check("cuGraphDestroy", int(code))


class _Library:
    """The calls through ctypes, with the C signatures of cuda.h (CUDA 11.4 and later)."""

    _SIGNATURES = {  # noqa: RUF012 - constant
        "cuStreamBeginCapture_v2": (_Ptr, ctypes.c_int),
        "cuStreamEndCapture": (_Ptr, ctypes.POINTER(_Ptr)),
        "cuGraphInstantiateWithFlags": (ctypes.POINTER(_Ptr), _Ptr, ctypes.c_ulonglong),
        "cuGraphLaunch": (_Ptr, _Ptr),
        "cuGraphExecDestroy": (_Ptr,),
        "cuGraphDestroy": (_Ptr,),
    }

    def __init__(self, library: Any) -> None:
        self._functions = {}
        for name, arguments in self._SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
            self._functions[name] = function

    def _call(self, name: str, *arguments: Any) -> None:
        _check(name, self._functions[name](*arguments))

    def begin(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end(self, stream: int) -> Any:
        graph = _Ptr()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        return graph

    def instantiate(self, graph: Any) -> Any:
        executable = _Ptr()
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        return executable

    def launch(self, executable: Any, stream: int) -> None:
        self._call("cuGraphLaunch", executable, stream)

    def destroy(self, executable: Any) -> None:
        self._call("cuGraphExecDestroy", executable)

    def destroy_graph(self, graph: Any) -> None:
        self._call("cuGraphDestroy", graph)
