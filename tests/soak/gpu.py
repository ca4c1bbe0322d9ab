"""Row 19: workers that lose their GPU, on the stand-in device."""

from __future__ import annotations

import random
import re
import subprocess
import time

import pytest

from tests import standin
from tests.edge.worker_process import MODELS, WorkerProcess, demo_config
from tests.engines import plans
from tests.soak.fleet import Yard, must_fail
from tests.soak.ledger import Effort, Outcome

STICKY = (700, 714, 718, 719)
FPS = 20.0  # of the camera; each frame costs one or two inferences
PATIENCE_S = 60.0  # for what a busy machine may delay
EXIT_S, SUCCESSOR_S = 1.0, 5.0


def lose_gpu(effort: Effort, codes: tuple[int, ...] = STICKY, patience_s: float = PATIENCE_S) -> Outcome:
    """A sticky error in a random inference of each worker; the next one is its successor."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    effort.folder.mkdir(parents=True, exist_ok=True)
    with Yard(effort.folder) as yard:
        worker = _worker(yard)
        worker.start().wait_ready(PATIENCE_S)
        assert worker.terminate() == 0
        yard.camera("a", FPS)
        ended = time.monotonic()
        while effort.goes_on(outcome.done):
            code = rng.choice(codes)
            worker.environment["STANDIN_FAIL"] = f"{code}@{rng.randint(12, 60)}"
            worker.start().wait_ready(PATIENCE_S)
            serves = time.monotonic() - ended
            outcome.see("slowest successor s", round(serves, 2))
            outcome.demand(serves <= SUCCESSOR_S, f"error {code}: the successor served only after {serves:.1f} s")
            if not _ends(worker, outcome, code, patience_s):
                worker.kill()  # else it ends while its frames are waited for, and has no successor
                break
            ended = time.monotonic()
            outcome.done += 1
        worker.environment.pop("STANDIN_FAIL", None)
        worker.start().wait_ready(PATIENCE_S)
        yard.settle(outcome, effort.patience_s)
    return outcome


def lose_gpu_control(effort: Effort) -> str:
    """An error after which the GPU goes on, and the worker with it."""

    def measure(outcome: Outcome) -> None:
        outcome.failures += lose_gpu(effort.broken(1), codes=(2,), patience_s=5.0).failures

    return f"with an error that is not sticky: {must_fail(measure)}"


def _worker(yard: Yard) -> WorkerProcess:
    with pytest.MonkeyPatch.context() as patch:
        standin.put_in_place(patch)
        models = plans.beside(MODELS, yard.folder)
    engines = {role: {"model": str(models / f"{role}.onnx")} for role in ("features", "species")}
    config = demo_config(yard.broker.url, worker="box", mailbox={"policy": "every"}, **engines)
    worker = WorkerProcess(yard.folder, config, standin.environment())

    def stop() -> None:
        if worker.is_running():
            worker.kill()

    yard.callback(stop)
    return worker


def _ends(worker: WorkerProcess, outcome: Outcome, code: int, patience_s: float) -> bool:
    try:
        status = worker.wait(patience_s)
    except subprocess.TimeoutExpired:
        outcome.failures.append(f"error {code}: the worker went on for {patience_s:g} s")
        return False
    ended = time.monotonic()
    failed = float(re.findall(rf"CUDA error {code} at ([\d.]+)", worker.log.read_text())[-1])
    outcome.see("slowest exit s", round(ended - failed, 2))
    outcome.demand(status == 75, f"error {code}: ended with {status}")
    outcome.demand(ended - failed <= EXIT_S, f"error {code}: took {ended - failed:.2f} s to end")
    return True
