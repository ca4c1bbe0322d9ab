"""What decoders take at most: ``python -m tests.soak.decode_memory [DECODERS]``, beside the limit in ``deploy/``.

A worker with so many isolated decoders gets nothing but the largest pictures that are allowed, from as many cameras as
it decodes at a time. Its memory is the sum of the proportional sets (PSS) of the worker and its decoders, so that what
they share counts once, as a control group counts it; looked at as often as can be.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from tests.edge.worker_process import Camera, Verdicts, WorkerProcess, client, demo_config
from tests.mosquitto import Broker

DECODERS = 8  # the most that `workers: auto` takes
LIMIT_MIB = 2048  # mem_limit of compose.yaml, MemoryMax of parrotgate.service
SIDES = {"50": 7071, "8.3": 2880}  # the largest allowed, and the largest of which several are opened at a time
SECONDS = 20.0


def flat(suffix: str, side: int, channels: int, *flags: int) -> bytes:
    """A square of one colour, small as a file and large as a picture."""
    return cv2.imencode(suffix, np.full((side, side, channels), 99, np.uint8), flags)[1].tobytes()


# With alpha a PNG or WebP takes the most for a moment; a progressive JPEG keeps all coefficients until its last scan.
PICTURES: dict[str, Callable[[int], bytes]] = {
    "png": lambda side: flat(".png", side, 4),
    "webp": lambda side: flat(".webp", side, 4),
    "jpeg": lambda side: flat(".jpg", side, 3, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
}


def peak_mib(folder: Path, picture: bytes, decoders: int, seconds: float = SECONDS) -> tuple[float, int]:
    """The most that worker and decoders took, and how many of the pictures were judged."""
    with ExitStack() as stack:
        broker = Broker(folder / "broker", ["message_size_limit 0"])
        broker.start()
        stack.callback(broker.kill)
        process = WorkerProcess(folder, demo_config(broker.url, decode={"mode": "isolated", "workers": decoders}))
        process.start()
        stack.callback(process.kill)
        process.wait_ready(60)
        verdicts = stack.enter_context(Verdicts(client(broker, "reader")))
        for number in range(2 * decoders):
            camera = Camera(client(broker, f"camera-{number}"), f"c{number}", 2.0, pictures=[picture])
            stack.enter_context(camera)
        most, end = 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            assert process.is_running(), process.log.read_text()[-2000:]
            most = max(most, tree_mib(process.pid))
        return most, sum(one["verdict"] != "error" for one in verdicts.all)


def tree_mib(pid: int) -> float:
    """Proportional set of a process and its children, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            children += (task / "children").read_text().split()
    return sum(_pss_kib(one) for one in {str(pid), *children}) / 1024


def _pss_kib(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    decoders = int(sys.argv[1]) if len(sys.argv) > 1 else DECODERS
    for (name, make), (size, side) in itertools.product(PICTURES.items(), SIDES.items()):
        with tempfile.TemporaryDirectory() as folder:
            most, judged = peak_mib(Path(folder), make(side), decoders)
        told = f"{decoders} decoders, {name} of {size} million pixels: at most {most:.0f} of {LIMIT_MIB} MiB"
        print(f"{told}, {judged} judged", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
