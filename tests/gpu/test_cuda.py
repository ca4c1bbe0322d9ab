"""``engines/cuda.py`` and ``engines/cuda_graph.py`` on a real GPU."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engines import EngineRunError
from engines.cuda import STICKY, Buffer, Gpu, Stream, is_sticky
from engines.cuda_alive import why_lost
from engines.cuda_graph import Graph, _calls
from tests.gpu.kernels import kernel

pytestmark = pytest.mark.gpu
pytest.importorskip(
    "pycuda", reason="pycuda is not installed: pip install 'parrotgate[tensorrt]'", exc_type=ImportError
)

CRASH = """
import sys
import pycuda.driver as driver
from engines.console import run_app
from engines.cuda import Gpu
from tests.gpu.kernels import kernel

def work(prog_name):
    gpu = Gpu()
    with gpu.use("a kernel that fails"):
        stream, fail = gpu.stream(), kernel(sys.argv[1])
        fail(block=(1, 1, 1), grid=(1, 1), stream=stream.raw())
        stream.drain()

run_app(work, "crash")
"""


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    return Gpu()


class There:
    """A buffer and a stream; ``back`` sends its rows to the device and fetches them again."""

    def __init__(self, gpu: Gpu) -> None:
        self.stream: Stream = gpu.stream()
        self.buffer: Buffer = gpu.buffer((64, 3, 32, 32), np.float32)

    def back(self, rows: int = 64) -> None:
        self.buffer.upload(rows, self.stream)
        self.buffer.download(rows, self.stream)

    def free(self) -> None:
        self.buffer.free()
        self.stream.free()


@pytest.fixture
def there(gpu: Gpu) -> Iterator[There]:
    with gpu.use("a test's buffers"):
        made = There(gpu)
    yield made
    with gpu.use("a test's buffers"):
        made.free()


def test_gpu_has_a_name_and_a_capability(gpu: Gpu) -> None:
    assert gpu.name
    assert float(gpu.compute_capability) >= 5.0


def test_rows_come_back_as_they_were_sent(gpu: Gpu, there: There) -> None:
    rows = np.random.default_rng(0).standard_normal(there.buffer.host.shape, dtype=np.float32)
    with gpu.use("copies"):
        there.buffer.host[:] = rows
        there.buffer.upload(64, there.stream)
        there.stream.mark()
        there.stream.wait()
        if not gpu.integrated:  # there, host and device are the same bytes
            there.buffer.host[:] = 0
        there.buffer.download(40, there.stream)
        there.stream.mark()
        there.stream.wait()
    np.testing.assert_array_equal(there.buffer.host[:40], rows[:40])


@pytest.mark.parametrize("way", ["cuda-python", "ctypes"])
def test_graph_does_what_was_captured_as_often_as_wanted(
    gpu: Gpu, there: There, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "cuda-python":
        pytest.importorskip("cuda.bindings")
    else:
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    _calls.cache_clear()
    with gpu.use("a graph"):
        graph = Graph(there.stream.handle, lambda: there.buffer.upload(64, there.stream))
        for number in range(5):
            there.buffer.host[:] = number
            graph.launch()
            there.stream.drain()
            if not gpu.integrated:
                there.buffer.host[:] = -1
            there.buffer.download(64, there.stream)
            there.stream.drain()
            assert (there.buffer.host == number).all()
        graph.free()
    _calls.cache_clear()


def test_capture_of_what_cannot_be_captured_leaves_the_stream_usable(gpu: Gpu, there: There) -> None:
    with gpu.use("a graph"):
        with pytest.raises(EngineRunError):
            Graph(there.stream.handle, there.stream.drain)
        there.back()
        there.stream.drain()


def test_out_of_memory_is_no_lost_device(gpu: Gpu, there: There) -> None:
    with pytest.raises(EngineRunError, match="out of memory"), gpu.use("too much memory"):
        gpu.memory(1 << 50)
    with gpu.use("copies"):
        there.back()
        there.stream.drain()


def test_another_thread_may_use_the_context(gpu: Gpu, there: There) -> None:
    done: list[int] = []

    def work() -> None:
        with gpu.use("copies"):
            there.back()
            there.stream.drain()
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert done


def test_driver_tells_sticky_errors_in_the_words_that_are_looked_for(gpu: Gpu) -> None:
    said = {code: driver_text(code) for code in STICKY}
    unknown = {code for code, text in said.items() if text is None}  # an older driver
    assert {code: text for code, text in said.items() if text is None or not is_sticky(text)}.keys() == unknown
    assert not unknown & {700, 714, 718, 719}


def driver_text(code: int) -> str | None:
    """The driver's own words for an error; None for one that it does not know."""
    text = ctypes.c_char_p()
    failed = ctypes.CDLL("libcuda.so.1").cuGetErrorString(code, ctypes.byref(text))
    return None if failed or text.value is None else text.value.decode()


def test_kernel_reads_and_writes_shared_memory_without_a_copy(gpu: Gpu) -> None:
    with gpu.use("memory that CPU and GPU share"):
        stream, there = gpu.stream(), Buffer((4, 256), np.dtype(np.float32), shared=True)
        there.host[:] = np.arange(1024, dtype=np.float32).reshape(4, 256)
        there.upload(4, stream)
        kernel("add_one")(np.uint64(there.address), np.int32(1024), block=(256, 1, 1), grid=(4, 1), stream=stream.raw())
        there.download(4, stream)
        stream.mark()
        stream.wait()
        np.testing.assert_array_equal(there.host.ravel(), np.arange(1024, dtype=np.float32) + 1)
        there.free()
        stream.free()


def test_device_that_answers_is_not_lost(gpu: Gpu) -> None:
    with pytest.raises(EngineRunError, match="out of memory"), gpu.use("too much memory"):
        gpu.memory(1 << 50)
    assert why_lost() is None


@pytest.mark.parametrize(
    ("how", "words"),
    [("write_nowhere", "illegal memory access"), ("write_askew", "misaligned address"), ("trap", "")],
)
def test_lost_gpu_ends_the_process_with_75(how: str, words: str) -> None:
    command = [sys.executable, "-c", CRASH, how]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 75, child.stderr
    assert "the GPU is lost to this process" in child.stderr
    assert words in child.stderr
