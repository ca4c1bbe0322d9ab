"""The few CUDA things that an engine needs, over pycuda; the only file that imports it.

The context is the device's primary one, which TensorRT uses too (``pycuda.autoinit`` would make a second). It is
retained once for the process and made current only within ``Gpu.use``, so that no thread ends with a context on its
stack, at which pycuda aborts the process. Everything here is called within ``Gpu.use``.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.errors import DeviceLostError, EngineRunError, ModelError
from engines.plan_manifest import Machine, memory_class

if TYPE_CHECKING:
    import pycuda.driver as driver

# After these every further call of the process fails alike (CUDA's driver API, CUresult: "the process must be
# terminated and relaunched"); pycuda's exceptions carry only the text, as ``cuGetErrorString`` gives it.
STICKY = {
    4: "driver shutting down",
    214: "uncorrectable ECC error encountered",
    220: "uncorrectable NVLink error detected during the execution",
    226: "Invalid access of peer GPU memory over nvlink or a hardware error",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    709: "context is destroyed",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    721: "tensor memory not completely freed",
    810: "the MPS client has been terminated by the server",
}
_CAPTURING = "operation not permitted when stream is capturing"  # 900
_NON_BLOCKING_STREAM = 1  # CU_STREAM_NON_BLOCKING: never waits for the default stream


class Gpu:
    """The first NVIDIA GPU: ``name``, ``compute_capability`` as 8.7, ``multiprocessors``, ``memory_bytes``,
    ``integrated`` where it shares the CPU's memory.

    Raises:
        ModelError: pycuda, the driver or the GPU is missing.
        EngineRunError: the GPU has no memory left for this process.
    """

    def __init__(self) -> None:
        driver = _pycuda()
        try:
            driver.init()
            device = driver.Device(0)
            self._context = _primary_context()
            self.name = str(device.name())
            self.compute_capability = "{}.{}".format(*device.compute_capability())
            self.multiprocessors = int(device.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT))
            self.memory_bytes = int(device.total_memory())
            self.integrated = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
        except driver.MemoryError as error:
            raise EngineRunError(f"the GPU is out of memory: {error}; free it, or set device to cpu") from error
        except driver.Error as error:
            raise ModelError(f"no NVIDIA GPU can be used: {error}; set device to cpu and name an .onnx file") from error
        self._lock = Lock()

    def machine(self, tensorrt: str) -> Machine:
        """What a plan is bound to: this GPU, with that version of ``tensorrt``."""
        memory = memory_class(self.memory_bytes)
        return Machine(tensorrt, self.name, self.compute_capability, self.multiprocessors, memory)

    @contextmanager
    def use(self, what: str) -> Iterator[None]:
        """Make the context current in this thread; ``what`` is done within, and named when it fails.

        Raises:
            DeviceLostError: the process cannot use the GPU any more.
            EngineRunError: anything else that CUDA refused, or another thread is within.
        """
        if not self._lock.acquire(blocking=False):
            raise EngineRunError(f"{what}: another thread uses this engine now; an engine serves one thread at a time")
        try:
            with checked(what):
                self._context.push()
                try:
                    with checked(what):
                        yield
                except (EngineRunError, ModelError) as error:
                    _probe(error)
                    raise
                finally:
                    _pycuda().Context.pop()
        finally:
            self._lock.release()

    def stream(self) -> Stream:
        """A stream of its own, beside the default one."""
        return Stream()

    def buffer(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Buffer:
        """A page-locked host array with its memory on the device; one and the same memory where the GPU shares it."""
        return Buffer(tuple(shape), np.dtype(dtype), shared=self.integrated)

    def memory(self, nbytes: int) -> Memory:
        """``nbytes`` bytes on the device alone."""
        return Memory(nbytes)


class Stream:
    """Work in the order in which it was given, with one event that marks its end."""

    def __init__(self) -> None:
        driver = _pycuda()
        self._stream = driver.Stream(_NON_BLOCKING_STREAM)
        # Waiting sleeps: a spinning wait would take a core from the decoders.
        flags = driver.event_flags
        self._done = driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    @property
    def handle(self) -> int:
        """The CUstream, as TensorRT wants it."""
        return int(self._stream.handle)

    def mark(self) -> None:
        """Set the event behind all that was given so far."""
        self._done.record(self._stream)

    def wait(self) -> None:
        """Sleep until the device has passed the last mark."""
        self._done.synchronize()

    def drain(self) -> None:
        """Sleep until the device has done everything."""
        self._stream.synchronize()

    def raw(self) -> Any:
        """pycuda's own stream, for copies."""
        return self._stream

    def free(self) -> None:
        """Destroy stream and event; the object is of no use afterwards."""
        self._stream = self._done = None


class Buffer:
    """``host``: a page-locked array; ``address``: its memory as the device sees it.

    On a GPU with memory of its own ``upload`` and ``download`` copy rows; where host and device share memory (Tegra),
    both name the same bytes and copying would be waste.
    """

    _pinned: driver.PagelockedHostAllocation

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, shared: bool) -> None:
        driver = _pycuda()
        flags = driver.host_alloc_flags.DEVICEMAP if shared else 0
        self.host: npt.NDArray[Any] = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._pinned = self.host.base
        self._memory = None if shared else Memory(prod(shape) * dtype.itemsize)
        self.address = int(self._pinned.get_device_pointer()) if self._memory is None else self._memory.address

    def upload(self, rows: int, stream: Stream) -> None:
        """Copy the first ``rows`` to the device, in the stream's turn; they must stay unchanged until then."""
        if self._memory is not None:
            _pycuda().memcpy_htod_async(self.address, self.host[:rows], stream.raw())

    def download(self, rows: int, stream: Stream) -> None:
        """Copy the first ``rows`` from the device, in the stream's turn; not to be read before."""
        if self._memory is not None:
            _pycuda().memcpy_dtoh_async(self.host[:rows], self.address, stream.raw())

    def free(self) -> None:
        """Give both memories back; ``host`` must not be touched afterwards."""
        self.host = np.empty(0)
        self._pinned.free()
        if self._memory is not None:
            self._memory.free()


class Memory:
    """Bytes on the device, aligned to 256, from ``address`` on."""

    def __init__(self, nbytes: int) -> None:
        self._allocation = _pycuda().mem_alloc(max(1, nbytes))
        self.address = int(self._allocation)

    def free(self) -> None:
        """Give the memory back."""
        self._allocation.free()


def is_sticky(message: str) -> bool:
    """Whether an error's text is one of those after which only a new process helps."""
    return any(text in message for text in STICKY.values())


@contextmanager
def checked(what: str) -> Iterator[None]:
    """Turn pycuda's errors into ours."""
    driver = _pycuda()
    try:
        yield
    except driver.MemoryError as error:
        raise EngineRunError(f"{what}: the GPU is out of memory: {error}; lower batch.max or free the GPU") from error
    except driver.Error as error:
        if is_sticky(str(error)):
            raise DeviceLostError(f"{what}: the GPU is lost to this process: {error}; start it again") from error
        raise EngineRunError(f"{what}: {error}") from error


def _probe(error: EngineRunError | ModelError) -> None:
    """Raise ``DeviceLostError`` if the device answers nothing after ``error``: a lost one fails at every call."""
    driver = _pycuda()
    try:
        driver.Context.synchronize()
    except driver.Error as second:
        if _CAPTURING in str(second):  # another thread's engine captures a graph: the device answers, but not now
            return
        raise DeviceLostError(f"{error}, and then the GPU is lost to this process: {second}") from error


def _pycuda() -> Any:
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise ModelError(
            f"pycuda cannot be imported ({error}); install parrotgate[tensorrt] and NVIDIA's driver, "
            "or set device to cpu and name an .onnx file"
        ) from error
    return driver


@cache
def _primary_context() -> driver.Context:
    device: driver.Device = _pycuda().Device(0)
    context: driver.Context = device.retain_primary_context()
    atexit.register(context.detach)  # while the driver still answers
    return context
