"""Whether copies run beside computing on this GPU: our streams and buffers, with a kernel that waits, no TensorRT.

python -m tests.gpu.overlap [ROWS]    pictures of 3x224x224 float32 in a batch, default 32

The kernel fills the GPU for as long as an upload takes, so that two lanes gain most. "hidden" is the share of the
uploads' time in which the other lane's kernel ran, by events on the device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pycuda.driver as driver
from rich.table import Table

from engines.console import stdout
from engines.cuda import Buffer, Gpu
from engines.cuda_graph import Graph
from tests.gpu.kernels import kernel

BATCHES = 40
THREADS = 1024
PICTURE = (3, 224, 224)


class Lane:
    """What a lane of the TensorRT engine has, with a kernel in the network's place."""

    def __init__(self, gpu: Gpu, rows: int, cycles: int) -> None:
        self.gpu, self.rows, self.cycles = gpu, rows, cycles
        self.stream = gpu.stream()
        self.input, self.output = gpu.buffer((rows, *PICTURE), np.float32), gpu.buffer((rows, 1024), np.float32)
        self.marks: list[list[Any]] = []
        self.graph: Graph | None = None

    def spin(self) -> None:
        grid = (2 * self.gpu.multiprocessors, 1)
        kernel("spin")(np.uint64(self.cycles), block=(THREADS, 1, 1), grid=grid, stream=self.stream.raw())

    def work(self) -> None:
        self.input.upload(self.rows, self.stream)
        self.spin()
        self.output.download(self.rows, self.stream)

    def marked(self) -> None:
        """The same with events before and behind the upload and behind the kernel."""
        marks = [driver.Event() for _ in range(3)]
        marks[0].record(self.stream.raw())
        self.input.upload(self.rows, self.stream)
        marks[1].record(self.stream.raw())
        self.spin()
        marks[2].record(self.stream.raw())
        self.output.download(self.rows, self.stream)
        self.marks.append(marks)

    def launch(self) -> None:
        if self.graph is None:
            self.graph = Graph(self.stream.handle, self.work)
        self.graph.launch()

    def free(self) -> None:
        if self.graph is not None:
            self.graph.free()
        for part in (self.input, self.output, self.stream):
            part.free()


def ms_of(lane: Lane, work: Callable[[], None], times: int = 10) -> float:
    """Milliseconds of ``work`` on the device, the median of ``times``."""
    found = []
    for _ in range(times + 2):
        begin, end = driver.Event(), driver.Event()
        begin.record(lane.stream.raw())
        work()
        end.record(lane.stream.raw())
        end.synchronize()
        found.append(begin.time_till(end))
    return float(np.median(found[2:]))


def per_batch(lanes: list[Lane], how: str) -> float:
    """Milliseconds of wall time a batch, with one batch in flight for each of ``lanes``."""
    for lane in lanes:
        getattr(lane, how)()
        lane.stream.mark()
        lane.stream.wait()
        lane.marks.clear()
    began = time.perf_counter()
    for number in range(BATCHES):
        lane = lanes[number % len(lanes)]
        if number >= len(lanes):
            lane.stream.wait()
        getattr(lane, how)()
        lane.stream.mark()
    for lane in lanes:
        lane.stream.wait()
    return 1e3 * (time.perf_counter() - began) / BATCHES


def hidden(lanes: list[Lane]) -> float:
    """The share of the uploads' time in which another lane's kernel ran, from their events."""
    zero = lanes[0].marks[0][0]
    spans = [[tuple(zero.time_till(mark) for mark in marks) for marks in lane.marks] for lane in lanes]
    uploads = [(number, begin, end) for number, lane in enumerate(spans) for begin, end, _ in lane]
    kernels = [(number, begin, end) for number, lane in enumerate(spans) for _, begin, end in lane]
    beside = sum(
        max(0.0, min(end, stop) - max(begin, start))
        for own, begin, end in uploads
        for other, start, stop in kernels
        if own != other
    )
    return beside / sum(end - begin for _, begin, end in uploads)


def shared_against_copied(gpu: Gpu, rows: int) -> tuple[float, float]:
    """Milliseconds to add one to a whole input: copied there and back, and in memory that host and device share."""
    count = rows * int(np.prod(PICTURE))
    grid, found = (-(-count // THREADS), 1), []
    for shared in (False, True):
        lane = Lane(gpu, 1, 0)
        there = Buffer((rows, *PICTURE), np.dtype(np.float32), shared=shared)
        there.host[:] = 1

        def work(lane: Lane = lane, there: Buffer = there) -> None:
            there.upload(rows, lane.stream)
            add = kernel("add_one")
            values = (np.uint64(there.address), np.int32(count))
            add(*values, block=(THREADS, 1, 1), grid=grid, stream=lane.stream.raw())
            there.download(rows, lane.stream)

        found.append(ms_of(lane, work))
        assert (there.host == 13).all(), "twelve runs, each of which adds one"
        there.free()
        lane.free()
    return found[0], found[1]


def main(rows: int) -> None:
    """Print the table."""
    gpu = Gpu()
    with gpu.use("measuring"):
        lanes = [Lane(gpu, rows, 1000) for _ in range(2)]
        first = lanes[0]
        upload = ms_of(first, lambda: first.input.upload(rows, first.stream))
        for _ in range(4):  # the clock rises while it is measured
            cycles = round(first.cycles * upload / ms_of(first, first.spin))
            first.cycles = lanes[1].cycles = cycles
        computing, download = ms_of(first, first.spin), ms_of(first, lambda: first.output.download(rows, first.stream))
        fill = _fill_ms(first)
        size = first.input.host.nbytes / 1e6
        title = (
            f"{gpu.name}, {rows} rows of {size / rows * 1e3:.0f} kB: host copy {fill:.3f} ms, upload {upload:.3f} ms "
            f"({size / upload:.1f} GB/s), kernel {computing:.3f} ms, download {download:.3f} ms"
        )
        table = Table(title=title, title_justify="left")
        for heading in ("launched", "one in flight, ms", "two in flight, ms", "one / two", "uploads hidden"):
            table.add_column(heading, justify="right")
        for how, name in (("work", "piece by piece"), ("launch", "as a graph"), ("marked", "with events")):
            one, two = per_batch(lanes[:1], how), per_batch(lanes, how)
            share = f"{hidden(lanes):.0%}" if how == "marked" else ""
            table.add_row(name, f"{one:.3f}", f"{two:.3f}", f"{one / two:.2f}", share)
        stdout.print(table)
        copied, shared = shared_against_copied(gpu, rows)
        stdout.print(f"each value read and written once: {copied:.3f} ms with copies, {shared:.3f} ms in shared memory")
        for lane in lanes:
            lane.free()


def _fill_ms(lane: Lane) -> float:
    """Milliseconds in which the CPU copies a batch into page-locked memory."""
    batch = np.ones_like(np.asarray(lane.input.host))
    found = []
    for _ in range(11):
        began = time.perf_counter()
        lane.input.host[:] = batch
        found.append(time.perf_counter() - began)
    return 1e3 * float(np.median(found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
