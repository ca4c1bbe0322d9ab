"""The one imaginary GPU that the stand-ins for ``tensorrt``, ``pycuda.driver`` and ``cuda.bindings`` share.

Nothing is done when it is asked for: work waits in its stream and is done when somebody waits for it, so that a buffer
that is read too early holds poison, and one that is written too early gives wrong results. What a real GPU leaves
undefined is an error here.

Environment variables set what it is, and when it fails:

    STANDIN_TENSORRT   version of the bindings, default 10.3.0
    STANDIN_GPU        name, default Orin
    STANDIN_SM         compute capability as 8.7, the default
    STANDIN_SIZE       multiprocessors and memory in MiB as 16x62841, the default
    STANDIN_CUDA       CUDA version as 12.6, the default
    STANDIN_TELL       1: say on stderr at exit how many blocks of memory were not given back, and how many inferences
                       were in flight at most
    STANDIN_MS         milliseconds that an inference keeps the device busy, from the end of the one before; default 0
    STANDIN_SHARED     1: host and device share their memory (Tegra)
    STANDIN_FAIL       CODE@N: CUDA error CODE in the Nth inference of this process, counted from 1; for ever after if
                       the code is one of those that only a new process mends; told on stderr with the time and the
                       number of inferences that were given and not done
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TENSORRT = os.environ.get("STANDIN_TENSORRT", "10.3.0")
GPU = os.environ.get("STANDIN_GPU", "Orin")
COMPUTE_CAPABILITY = tuple(int(part) for part in os.environ.get("STANDIN_SM", "8.7").split("."))
MULTIPROCESSORS, MEMORY_MIB = (int(part) for part in os.environ.get("STANDIN_SIZE", "16x62841").split("x"))
CUDA = tuple(int(part) for part in os.environ.get("STANDIN_CUDA", "12.6").split("."))
INFERENCE_S = float(os.environ.get("STANDIN_MS", "0")) / 1000
SHARED = os.environ.get("STANDIN_SHARED") == "1"

# cuGetErrorString of driver 580
TEXTS = {
    1: "invalid argument",
    2: "out of memory",
    4: "driver shutting down",
    201: "invalid device context",
    214: "uncorrectable ECC error encountered",
    220: "uncorrectable NVLink error detected during the execution",
    226: "Invalid access of peer GPU memory over nvlink or a hardware error",
    400: "invalid resource handle",
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
    801: "operation not supported",
    810: "the MPS client has been terminated by the server",
    900: "operation not permitted when stream is capturing",
    901: "operation failed due to a previous error during capture",
}
STICKY = {4, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810}
POISON = 0xFF  # as float32: NaN
INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONTEXT, INVALID_HANDLE, ILLEGAL_ADDRESS = 1, 2, 201, 400, 700
NOT_SUPPORTED, CAPTURING, CAPTURE_BROKEN = 801, 900, 901


class CudaError(Exception):
    """A driver call that failed; ``code`` is its CUresult."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed: {TEXTS[code]}")
        self.call, self.code = call, code


@dataclass
class Block:
    """Allocated bytes; ``kind`` is ``device``, ``pinned`` or ``mapped``."""

    address: int
    content: Any
    kind: str
    alive: bool = True

    @property
    def end(self) -> int:
        return self.address + len(self.content)


@dataclass(eq=False)
class Work:
    """One thing that a stream has to do; ``scratch`` is the address of the memory that only one may use at a time,
    ``ahead`` happens at once when the work is given: it poisons what is to be written."""

    do: Callable[[], None]
    ahead: Callable[[], None] = lambda: None
    scratch: int | None = None
    still_valid: Callable[[], bool] = lambda: True


@dataclass(eq=False)
class StreamState:
    handle: int
    waiting: list[tuple[Work, float]] = field(default_factory=list)  # with the monotonic time at which it is done
    captured: list[Work] | None = None
    broken: bool = False
    done: int = 0  # how much work was done since the beginning
    given: int = 0


class Device:
    """Memory, streams, contexts and faults; every method is called with a context current unless it says otherwise."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.blocks: dict[int, Block] = {}
        self.streams: dict[int, StreamState] = {}
        self.objects: dict[int, Any] = {}
        self.handles = itertools.count(0x7F00_0000_1000, 0x10)
        self.addresses = itertools.count(1)
        self.retained = 0
        self.inferences = 0
        self.given = 0
        self.most_in_flight = 0
        self.busy_until = 0.0
        # Inferences as they were "given" and seen "done", each counted from 1.
        self.timeline: deque[tuple[str, int]] = deque(maxlen=10_000)
        self.launches = 0
        self.captures = 0
        self.lost: int | None = None
        self.refuse_memory = 0
        code, _, at = os.environ.get("STANDIN_FAIL", "").partition("@")
        self.failure: tuple[int, int] | None = (int(code), int(at)) if at else None

    # -- contexts

    def stack(self) -> list[Any]:
        if not hasattr(self.local, "stack"):
            self.local.stack = []
        found: list[Any] = self.local.stack
        return found

    def enter(self, call: str) -> None:
        """What every driver call begins with."""
        if self.lost is not None:
            raise CudaError(call, self.lost)
        if not self.stack():
            raise CudaError(call, INVALID_CONTEXT)

    def fail(self, code: int, in_inferences: int = 1) -> None:
        """Let the ``in_inferences``-th inference from now fail with ``code``."""
        self.failure = (code, self.inferences + in_inferences)

    # -- memory

    def allocate(self, call: str, content: Any, kind: str, address: int | None = None) -> Block:
        self.enter(call)
        if self.refuse_memory:
            self.refuse_memory -= 1
            raise CudaError(call, OUT_OF_MEMORY)
        if address is None:
            address = 0x7E_0000_0000 + next(self.addresses) * 0x1000_0000
        block = Block(address, content, kind)
        self.blocks[block.address] = block
        return block

    def free(self, call: str, block: Block) -> None:
        if not block.alive:
            raise CudaError(call, INVALID_HANDLE)
        self.enter(call)
        self._drain_all()  # as cuMemFree does
        block.alive = False
        del self.blocks[block.address]
        block.content[:] = POISON

    def at(self, address: int, nbytes: int) -> Any:
        """The bytes at ``address``; touching what is not allocated loses the device."""
        for block in list(self.blocks.values()):  # another thread may allocate meanwhile
            if block.address <= address and address + nbytes <= block.end:
                if block.kind == "pinned":
                    break
                return block.content[address - block.address : address - block.address + nbytes]
        raise self.lose("kernel", ILLEGAL_ADDRESS)

    def is_pinned(self, address: int, nbytes: int) -> bool:
        return any(
            block.kind != "device" and block.address <= address and address + nbytes <= block.end
            for block in list(self.blocks.values())
        )

    def lose(self, call: str, code: int) -> CudaError:
        self.lost = code
        return CudaError(call, code)

    def allocated(self) -> int:
        """Blocks that were not given back."""
        return len(self.blocks)

    # -- streams

    def new_stream(self) -> StreamState:
        self.enter("cuStreamCreate")
        state = StreamState(next(self.handles))
        self.streams[state.handle] = state
        return state

    def stream(self, call: str, handle: int) -> StreamState:
        self.enter(call)
        if handle not in self.streams:
            raise CudaError(call, INVALID_HANDLE)
        return self.streams[handle]

    def give(self, state: StreamState, work: Work) -> None:
        if state.captured is not None:
            state.captured.append(work)
            return
        if work.scratch is not None and self._busy_elsewhere(state, work.scratch):
            raise AssertionError("two streams use the same scratch memory at once: one would overwrite the other's")
        work.ahead()
        state.waiting.append((work, self._done_at(work)))
        state.given += 1

    def _done_at(self, work: Work) -> float:
        """When the device will have done it; only inferences take time, one after the other."""
        if work.scratch is None:
            return 0.0
        self.given += 1
        self.most_in_flight = max(self.most_in_flight, self.given - self.inferences)
        self.timeline.append(("given", self.given))
        self.busy_until = max(time.monotonic(), self.busy_until) + INFERENCE_S
        return self.busy_until

    def _busy_elsewhere(self, state: StreamState, scratch: int) -> bool:
        others = [other for other in list(self.streams.values()) if other is not state]
        return any(work.scratch == scratch for other in others for work, _ in other.waiting)

    def run(self, call: str, state: StreamState, until: int) -> None:
        self.enter(call)
        if state.captured is not None:
            state.broken = True
            raise CudaError(call, CAPTURING)
        while state.done < until:
            work, done_at = state.waiting.pop(0)
            time.sleep(max(0.0, done_at - time.monotonic()))
            state.done += 1
            if not work.still_valid():
                raise AssertionError("the execution context was changed after this graph was captured from it")
            work.do()

    def _drain_all(self) -> None:
        for state in list(self.streams.values()):
            if state.captured is None:
                self.run("implicit synchronisation", state, state.given)

    def synchronize(self, call: str) -> None:
        """Drain the whole context; not while any of its streams is captured, whoever does that."""
        self.enter(call)
        captured = [state for state in list(self.streams.values()) if state.captured is not None]
        for state in captured:
            state.broken = True
        if captured:
            raise CudaError(call, CAPTURING)
        self._drain_all()

    def count_inference(self) -> None:
        """One inference is done; the fault that was asked for happens here."""
        self.inferences += 1
        self.timeline.append(("done", self.inferences))
        if self.failure is not None and self.inferences >= self.failure[1]:
            code, self.failure = self.failure[0], None
            flying = self.given - self.inferences + 1
            told = f"standin: CUDA error {code} at {time.monotonic()}, {flying} in flight"
            print(told, file=sys.stderr, flush=True)  # noqa: T201
            raise self.lose("kernel", code) if code in STICKY else CudaError("kernel", code)

    # -- graphs, as the driver's functions: each answers its CUresult

    def begin_capture(self, handle: int, mode: int) -> int:
        try:
            state = self.stream("cuStreamBeginCapture", handle)
        except CudaError as error:
            return error.code
        if mode not in (0, 1, 2) or state.captured is not None:
            return INVALID_VALUE
        state.captured, state.broken = [], False
        return 0

    def end_capture(self, handle: int) -> tuple[int, int]:
        try:
            state = self.stream("cuStreamEndCapture", handle)
        except CudaError as error:
            return error.code, 0
        work, broken, state.captured = state.captured, state.broken, None
        if work is None:
            return INVALID_VALUE, 0
        return (CAPTURE_BROKEN, 0) if broken else (0, self._keep(("graph", work)))

    def instantiate(self, graph: int) -> tuple[int, int]:
        kind, work = self.objects.get(graph, (None, None))
        if kind != "graph":
            return INVALID_HANDLE, 0
        self.captures += 1
        return 0, self._keep(("executable", list(work)))

    def launch_graph(self, executable: int, handle: int) -> int:
        kind, work = self.objects.get(executable, (None, None))
        if kind != "executable":
            return INVALID_HANDLE
        try:
            state = self.stream("cuGraphLaunch", handle)
        except CudaError as error:
            return error.code
        for part in work:
            self.give(state, part)
        self.launches += 1
        return 0

    def destroy(self, kind: str, handle: int) -> int:
        if self.objects.get(handle, (None,))[0] != kind:
            return INVALID_HANDLE
        del self.objects[handle]
        return 0

    def _keep(self, thing: Any) -> int:
        handle = next(self.handles)
        self.objects[handle] = thing
        return handle


device = Device()


def _tell() -> None:
    told = f"standin: {device.allocated()} blocks left at exit, at most {device.most_in_flight} inferences in flight"
    print(told, file=sys.stderr, flush=True)  # noqa: T201


if os.environ.get("STANDIN_TELL") == "1":
    atexit.register(_tell)


def poison(content: Any) -> None:
    """Make bytes unreadable as numbers: NaN in every float format, 255 as uint8."""
    content[:] = POISON


def bytes_of(array: Any) -> Any:
    """A flat uint8 view of a C-contiguous array."""
    return np.frombuffer(memoryview(array).cast("B"), np.uint8)
