"""Several models side by side in one run: what each costs a picture, its preparation included."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from engines.base import Device, Engine, available_threads, open_engine
from engines.console import track
from engines.errors import UsageError
from engines.prepare import prepare_input

_SLICE_S = 0.5
_WARM_UP_CALLS = 3


@dataclass(slots=True)
class _Runner:
    """One model; the lists hold a value a call: seconds, CPU seconds of the engine, CPU seconds of preparing."""

    path: Path
    engine: Engine
    pictures: list[npt.NDArray[np.uint8]]
    seconds: list[float] = field(default_factory=list)
    engine_cpu: list[float] = field(default_factory=list)
    prepare_cpu: list[float] = field(default_factory=list)

    def call(self) -> None:
        start = time.process_time()
        batch = np.stack([prepare_input(pixels, self.engine.spec.input) for pixels in self.pictures])
        prepared, begun = time.process_time(), time.perf_counter()
        self.engine.infer(batch)
        self.seconds.append(time.perf_counter() - begun)
        self.engine_cpu.append(time.process_time() - prepared)
        self.prepare_cpu.append(prepared - start)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. ``images_per_s`` is the engine's median; CPU times are means of this process for one picture.

    ``ratio`` is the first model's median time over this one's, ``cpu_ratio`` the same of the engine's CPU time, which
    other processes on the machine disturb less.
    """

    file: str
    name: str
    bytes: int
    input_bytes: int
    images_per_s: float
    ratio: float
    cpu_ratio: float
    engine_cpu_ms: float
    prepare_cpu_ms: float
    p50_ms: float
    p99_ms: float
    calls: int


def bench_models(
    models: Sequence[Path], batch: int, seconds: float, device: Device, threads: int | None
) -> dict[str, Any]:
    """Measure each of ``models`` for about ``seconds`` on batches of ``batch`` pictures, in turns of half a second.

    Pictures are seeded noise of the engine's own size, so that preparing is layout and normalisation, not resizing.
    The ratios are to the first model. Raises :class:`UsageError` for senseless numbers.
    """
    if batch < 1 or seconds <= 0:
        raise UsageError(f"batch and seconds must be positive, not {batch} and {seconds}")
    with ExitStack() as stack:
        runners = [
            _runner(path, stack.enter_context(open_engine(path, device, threads=threads)), batch) for path in models
        ]
        for _ in track(range(max(1, round(seconds / _SLICE_S))), "measuring"):
            for runner in runners:
                end = time.perf_counter() + _SLICE_S
                while time.perf_counter() < end:
                    runner.call()
        rows = [_row(runner, runners[0]) for runner in runners]
        place = runners[0].engine.device
    return {
        "device": place,
        "threads": threads or available_threads(),
        "batch": batch,
        "int8_instructions": int8_instructions(),
        "models": [asdict(row) for row in rows],
    }


def int8_instructions() -> list[str]:
    """The instructions for 8-bit products that Linux finds in this CPU; none known elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    known = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
    words = set(text.split())
    return [name for name in known if name in words]


def models_table(report: dict[str, Any]) -> Table:
    """``bench_models``'s answer for a terminal."""
    flags = ", ".join(report["int8_instructions"]) or "no 8-bit product instructions found"
    # Names are longer than what eight columns of figures leave of a terminal's width.
    names = "\n".join(f"{number}: {row['name']}" for number, row in enumerate(report["models"], 1))
    title = f"batch {report['batch']} on {report['device']}, {report['threads']} threads; {flags}\n{names}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    headings = ("MB", "img/s", "× first (CPU)", "p50 ms", "p99 ms", "CPU ms/img", "prepare CPU ms/img", "kB/img in")
    for heading in headings:
        table.add_column(heading, justify="right")
    for number, row in enumerate(report["models"], 1):
        table.add_row(
            str(number),
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['images_per_s']:.1f}",
            f"{row['ratio']:.2f} ({row['cpu_ratio']:.2f})",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['engine_cpu_ms']:.2f}",
            f"{row['prepare_cpu_ms']:.3f}",
            f"{row['input_bytes'] / 1e3:.0f}",
        )
    return table


def _runner(path: Path, engine: Engine, batch: int) -> _Runner:
    spec = engine.spec.input
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8) for _ in range(batch)]
    runner = _Runner(path, engine, pictures)
    for _ in range(_WARM_UP_CALLS):
        runner.call()
    runner.seconds.clear()
    runner.engine_cpu.clear()
    runner.prepare_cpu.clear()
    return runner


def _row(runner: _Runner, first: _Runner) -> ModelRow:
    spec, batch = runner.engine.spec.input, len(runner.pictures)
    p50, p99 = np.percentile(runner.seconds, (50, 99))
    return ModelRow(
        file=str(runner.path),
        name=runner.path.name,
        bytes=runner.path.stat().st_size,
        input_bytes=int(np.prod(spec.shape)) * np.dtype(spec.numpy_dtype).itemsize,
        images_per_s=round(batch / float(p50), 2),
        ratio=round(float(np.median(first.seconds)) / float(p50), 3),
        cpu_ratio=round(float(np.mean(first.engine_cpu) / np.mean(runner.engine_cpu)), 3),
        engine_cpu_ms=round(1e3 * float(np.mean(runner.engine_cpu)) / batch, 4),
        prepare_cpu_ms=round(1e3 * float(np.mean(runner.prepare_cpu)) / batch, 4),
        p50_ms=round(1e3 * float(p50), 3),
        p99_ms=round(1e3 * float(p99), 3),
        calls=len(runner.seconds),
    )
