"""A stand-in for ``pycuda.driver``: what ``engines/cuda.py`` uses, with pycuda's own argument names and exceptions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import standin_device
from standin_device import CudaError, Work, device


class Error(Exception):
    pass


class MemoryError(Error):  # noqa: A001 - pycuda's name
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError(Error):  # noqa: A001 - pycuda's name
    pass


_CLASSES = {2: MemoryError, 100: RuntimeError, 214: RuntimeError, 701: LaunchError, 702: LaunchError, 719: LaunchError}


class _Translating:
    """pycuda turns CUresult into a class and a text; the number itself is lost."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, CudaError):
            raise _CLASSES.get(error.code, LogicError)(str(error)) from None


_translating = _Translating()

event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1, DISABLE_TIMING=2, INTERPROCESS=4)
host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)
device_attribute = SimpleNamespace(INTEGRATED=18, CAN_MAP_HOST_MEMORY=19, MULTIPROCESSOR_COUNT=16)
_initialised = False


def init(flags: int = 0) -> None:
    global _initialised
    _initialised = True


def get_version() -> tuple[int, int, int]:
    return (*standin_device.CUDA, 0)


def get_driver_version() -> int:
    return standin_device.CUDA[0] * 1000 + standin_device.CUDA[1] * 10


class Device:
    def __init__(self, ordinal: int) -> None:
        if not _initialised:
            raise LogicError("cuDeviceGet failed: initialization error")
        if ordinal != 0:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return standin_device.GPU

    def compute_capability(self) -> tuple[int, ...]:
        return standin_device.COMPUTE_CAPABILITY

    def get_attribute(self, attr: int) -> int:
        return {16: standin_device.MULTIPROCESSORS, 18: int(standin_device.SHARED), 19: 1}[attr]

    def total_memory(self) -> int:
        return standin_device.MEMORY_MIB << 20

    def retain_primary_context(self) -> Context:
        device.retained += 1
        return Context()


class Context:
    def push(self) -> None:
        device.stack().append(self)

    @staticmethod
    def pop() -> None:
        if not device.stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        device.stack().pop()

    @staticmethod
    def synchronize() -> None:
        with _translating:
            device.synchronize("cuCtxSynchronize")

    def detach(self) -> None:
        device.retained -= 1


class Stream:
    def __init__(self, flags: int = 0) -> None:
        with _translating:
            self._state = device.new_stream()

    @property
    def handle(self) -> int:
        return self._state.handle

    def synchronize(self) -> None:
        with _translating:
            device.run("cuStreamSynchronize", self._state, self._state.given)

    def is_done(self) -> bool:
        return not self._state.waiting

    def __del__(self) -> None:
        if device.stack() and hasattr(self, "_state"):
            device.streams.pop(self._state.handle, None)


class Event:
    def __init__(self, flags: int = 0) -> None:
        if not isinstance(flags, int):
            raise TypeError("Python argument types in Event.__init__ did not match C++ signature")
        with _translating:
            device.enter("cuEventCreate")
        self._mark: tuple[Any, int] | None = None

    def record(self, stream: Stream | None = None) -> Event:
        assert stream is not None, "the default stream waits for all others; give one"
        with _translating:
            device.enter("cuEventRecord")
        self._mark = (stream._state, stream._state.given)
        return self

    def synchronize(self) -> Event:
        with _translating:
            device.enter("cuEventSynchronize")
            if self._mark is not None:
                device.run("cuEventSynchronize", *self._mark)
        return self

    def query(self) -> bool:
        return self._mark is None or self._mark[0].done >= self._mark[1]


class DeviceAllocation:
    def __init__(self, block: Any) -> None:
        self._block = block

    def __int__(self) -> int:
        return int(self._block.address)

    __index__ = __int__

    def free(self) -> None:
        with _translating:
            device.free("device_allocation::free", self._block)


def mem_alloc(bytes: int) -> DeviceAllocation:  # noqa: A002 - pycuda's name
    with _translating:
        if bytes > 1 << 40:
            raise CudaError("cuMemAlloc", standin_device.OUT_OF_MEMORY)
        content = np.full(bytes, standin_device.POISON, np.uint8)
        return DeviceAllocation(device.allocate("cuMemAlloc", content, "device"))


class PagelockedHostAllocation:
    def __init__(self, nbytes: int, mapped: bool) -> None:
        self._content = np.full(nbytes, standin_device.POISON, np.uint8)
        address = self._content.__array_interface__["data"][0]
        with _translating:
            self._block = device.allocate("cuMemHostAlloc", self._content, "mapped" if mapped else "pinned", address)

    def get_device_pointer(self) -> int:
        if self._block.kind != "mapped":
            raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        return int(self._block.address)

    def free(self) -> None:
        with _translating:
            device.free("pagelocked_host_allocation::free", self._block)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        found: dict[str, Any] = self._content.__array_interface__
        return found


class _HostArray(np.ndarray):  # type: ignore[type-arg]
    """An array whose ``base`` is its allocation, as pycuda's arrays have it."""

    allocation: Any

    @property
    def base(self) -> Any:  # type: ignore[override]
        return getattr(self, "allocation", None)


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    allocation = PagelockedHostAllocation(nbytes, bool(mem_flags & host_alloc_flags.DEVICEMAP))
    array = allocation._content.view(dtype).reshape(shape, order=order).view(_HostArray)
    array.allocation = allocation
    return array


def _host(call: str, array: Any) -> Any:
    content = standin_device.bytes_of(array)
    address = content.__array_interface__["data"][0]
    assert device.is_pinned(address, len(content)), f"{call} on pageable memory is not asynchronous"
    return content


def memcpy_htod_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    assert stream is not None, "the default stream waits for all others; give one"
    with _translating:
        device.enter("cuMemcpyHtoDAsync")
        content, to = _host("cuMemcpyHtoDAsync", src), int(dest)

        def copy() -> None:
            device.at(to, len(content))[:] = content

        device.give(stream._state, Work(copy))


def memcpy_dtoh_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    assert stream is not None, "the default stream waits for all others; give one"
    with _translating:
        device.enter("cuMemcpyDtoHAsync")
        content, source = _host("cuMemcpyDtoHAsync", dest), int(src)

        def copy() -> None:
            content[:] = device.at(source, len(content))

        device.give(stream._state, Work(copy, ahead=lambda: standin_device.poison(content)))
