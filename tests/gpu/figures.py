"""Figures of one plan on this GPU: batch sizes, batches in flight, CUDA graphs on and off, side by side in one run.

python -m tests.gpu.figures MODEL.plan [SECONDS]    seconds for each cell, default 1
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.table import Table

from engines.bench import bench
from engines.console import stdout
from engines.spec import load_spec
from engines.tensorrt_runtime import TensorRtEngine

SIZES = (1, 8, 32, 128)


def main(path: Path, seconds: float) -> None:
    """Print the table."""
    spec = load_spec(path)
    table = Table(title=f"{spec.name}, img/s (p50 / p99 ms between two answers)", title_justify="left")
    for heading in ("batch", "graphs", "one in flight", "two in flight", "two / one"):
        table.add_column(heading, justify="right")
    most = spec.plan.profile.max if spec.plan is not None else 1
    for size in (size for size in SIZES if size <= most):
        for graphs in (True, False):
            with TensorRtEngine(path.read_bytes(), spec, "cuda", None, path=path, graphs=graphs) as engine:
                one, two = bench(engine, [size], seconds)[0], bench(engine, [size], seconds, in_flight=2)[0]
                told = engine.describe()["graphs"]
            cells = [f"{row.images_per_s:.0f} ({row.p50_ms:.2f} / {row.p99_ms:.2f})" for row in (one, two)]
            table.add_row(str(size), told, *cells, f"{two.images_per_s / one.images_per_s:.2f}")
    stdout.print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
