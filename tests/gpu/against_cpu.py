"""How far answers on CUDA lie from those of the CPU: ONNX Runtime with the same files, in one run.

python -m tests.gpu.against_cpu MODEL.onnx…
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.table import Table

from engines import load_spec, open_engine
from engines.bench import noise
from engines.console import stdout

ROWS = 32


def main(paths: list[Path]) -> None:
    """Print the table."""
    table = Table(title=f"CUDA against the CPU, {ROWS} rows of noise", title_justify="left")
    for heading in ("network", "largest difference", "of the largest value", "‖difference‖ / ‖answer‖", "least cosine"):
        table.add_column(heading, justify="right")
    for path in paths:
        batch = noise(load_spec(path).input, ROWS)
        with open_engine(path, "cpu") as cpu, open_engine(path, "cuda") as cuda:
            wanted, got = cpu.infer(batch).astype(np.float64), cuda.infer(batch).astype(np.float64)
        apart = np.abs(got - wanted)
        norms = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
        table.add_row(
            path.name,
            f"{apart.max():.2e}",
            f"{apart.max() / np.abs(wanted).max():.2e}",
            f"{np.linalg.norm(apart) / np.linalg.norm(wanted):.2e}",
            f"{((got * wanted).sum(axis=1) / norms).min():.7f}",
        )
    stdout.print(table)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
