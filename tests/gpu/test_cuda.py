"""``engines/cuda.py`` and ``engines/cuda_graph.py`` on a real GPU."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engines import EngineRunError
from engines.cuda import Buffer, Gpu, Stream
from engines.cuda_graph import Graph, _calls

pytestmark = pytest.mark.gpu
pytest.importorskip(
    "pycuda", reason="pycuda is not installed: pip install 'parrotgate[tensorrt]'", exc_type=ImportError
)

# A kernel that writes to address 0, for the driver's own compiler.
CRASH = """
import pycuda.driver as driver
from engines.console import run_app
from engines.cuda import Gpu

PTX = b'''.version 6.3
.target sm_75
.address_size 64
.visible .entry crash() {
    .reg .u64 %a; .reg .u32 %v;
    mov.u64 %a, 0; mov.u32 %v, 1;
    st.global.u32 [%a], %v;
    ret;
}
'''

def work(prog_name):
    gpu = Gpu()
    with gpu.use("a kernel that writes to address 0"):
        stream = gpu.stream()
        crash = driver.module_from_buffer(PTX).get_function("crash")
        crash(block=(1, 1, 1), grid=(1, 1), stream=stream.raw())
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


def test_illegal_memory_access_ends_the_process_with_75() -> None:
    child = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 75, child.stderr
    assert "the GPU is lost to this process" in child.stderr
    assert "illegal memory access" in child.stderr
