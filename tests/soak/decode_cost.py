"""What ``decode: isolated`` costs beside ``threads``: ``python -m tests.soak.decode_cost``.

Both modes decode, infer and judge the same frames in memory by the worker's own intake, in turns of a few seconds, so
that a noisy machine disturbs them alike: what counts is the ratio of each pair. CPU time includes the decoders'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import count, cycle
from pathlib import Path

import yaml

from edge.bench import _draw
from edge.config_file import load_config
from edge.mailbox import Mailbox
from edge.parts import Parts, decode_threads, load_parts
from edge.pool import Intake
from edge.records import RawFrame, Ticket
from engines.console import stdout
from tests.edge.worker_process import demo_config

MODES = ("threads", "isolated")
WARM_UP_S = 0.5
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s() -> float:
    """CPU seconds of this process and of its children, the decoders, so far."""
    used = sum(os.times()[:2])
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += TICK_S * (int(fields[11]) + int(fields[12]))
    return used


def measure(parts: Parts, workers: int, most: int, pictures: list[bytes], seconds: float) -> tuple[float, float]:
    """Frames a second and CPU milliseconds a frame; frames wait in memory all the time."""
    intake = Intake(Mailbox("every", 4 * most, 1 << 30), parts.decoder, workers, ahead=most)
    serials, names = count(), cycle(f"camera-{n}" for n in range(4))
    intake.start()
    done, used, began, end = 0, 0.0, 0.0, time.monotonic() + WARM_UP_S
    while (now := time.monotonic()) < end:
        while intake.backlog()[0] < 3 * most:
            serial = next(serials)
            intake.put(RawFrame(next(names), pictures[serial % len(pictures)], Ticket(0, serial, 0, 0), now))
        batch = intake.next_batch(most, 0.0, 1.0)
        verdicts = parts.cascade.judge(batch)
        if any(verdict.error for verdict in verdicts):
            raise SystemExit(f"a drawn picture was not judged: {[verdict.error for verdict in verdicts]}")
        if began:
            done += len(batch)
        elif time.monotonic() > end - WARM_UP_S / 2:
            used, began = cpu_s(), time.monotonic()
            end = began + seconds
    took, cpu = time.monotonic() - began, cpu_s() - used
    intake.close()
    return done / took, 1000 * cpu / done


def compare(size: tuple[int, int], rounds: int, seconds: float, config: Path | None) -> list[dict[str, float]]:
    """Each round's frames a second and CPU milliseconds a frame in both modes; who begins changes with the round."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if config is None:
            config = scratch / "edge.yaml"
            config.write_text(yaml.safe_dump(demo_config("mqtt://localhost")))
        pictures = [path.read_bytes() for path in sorted(_draw(_made(scratch / "drawn"), size).iterdir())]
        configs = {mode: load_config(config, {"EDGE_DECODE__MODE": mode}) for mode in MODES}
        parts = {mode: load_parts(configs[mode]) for mode in MODES}
        for number in range(rounds):
            row: dict[str, float] = {}
            for mode in MODES[:: 1 if number % 2 else -1]:
                most = configs[mode].batch.max
                fps, cpu = measure(parts[mode], decode_threads(configs[mode]), most, pictures, seconds)
                row |= {f"{mode} fps": fps, f"{mode} cpu ms": cpu}
            rows.append(row)
        for mode in MODES:
            parts[mode].close()
    return rows


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.decode_cost", description=__doc__)
    parser.add_argument("--size", default=["640x480"], nargs="+", help="of the pictures, such as 1920x1080")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--config", type=Path, help="a worker's configuration; else the demo's networks")
    options = parser.parse_args(arguments)
    for size in options.size:
        width, _, height = size.partition("x")
        rows = compare((int(width), int(height)), options.rounds, options.seconds, options.config)
        ratios = sorted(row["isolated fps"] / row["threads fps"] for row in rows)
        figures = ", ".join(f"{name} {statistics.median(row[name] for row in rows):.2f}" for name in sorted(rows[0]))
        stdout.print(
            f"{size}: isolated / threads {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f} in {len(ratios)} rounds); medians: {figures}",
            highlight=False,
            soft_wrap=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
