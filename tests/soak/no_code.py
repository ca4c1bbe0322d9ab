"""Row 28: nothing that comes in is run. Every source file is read, and a worker at work is watched from the inside."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.gate_file import load_gate
from engines import ParrotgateError, open_engine
from tests.edge.worker_process import (
    ROOT,
    Camera,
    Verdicts,
    WorkerProcess,
    client,
    demo_config,
    small_pictures,
    wait_for,
)
from tests.engines import pictures
from tests.mosquitto import Broker
from tests.soak.ledger import Effort, Outcome

FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"FileStorage", "unsafe_load", "full_load"}
UNPICKLERS = {"pickle", "shelve", "dill", "cloudpickle", "joblib", "marshal"}
SERVED_S = 8.0


def no_code(effort: Effort) -> Outcome:
    """The scan of the sources, a pickle in the place of each artifact, and the audit of a worker under load."""
    outcome = Outcome()
    for sentence in scan(sorted(path for room in ("edge", "engines") for path in (ROOT / room).rglob("*.py"))):
        outcome.demand(False, sentence)
    effort.folder.mkdir(parents=True, exist_ok=True)
    canary = effort.folder / "canary"
    for path in _pickles(effort.folder, canary):
        outcome.demand(_refuses(path), f"{path.name}, a pickle, was taken")
        outcome.add("pickles refused")
    outcome.demand(not canary.exists(), "a pickle was run")
    for event in events_at_work(effort.folder):
        outcome.demand(False, f"at work: {event}")
    outcome.done += 1
    return outcome


def _refuses(path: Path) -> bool:
    try:
        load_gate(path) if path.suffix == ".npz" else open_engine(path)
    except ParrotgateError:
        return True
    return False


def scan(paths: list[Path]) -> Iterator[str]:
    """What in ``paths`` could turn data into code; ``importlib`` names are constants, held by another test."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                is_method = isinstance(node.func, ast.Attribute)
                name = str(getattr(node.func, "attr" if is_method else "id", ""))
                owner = getattr(getattr(node.func, "value", None), "id", "")
                if name in (FORBIDDEN_METHODS if is_method else FORBIDDEN_NAMES | FORBIDDEN_METHODS):
                    yield f"{path.name}:{node.lineno} calls {name}"
                if (owner, name) == ("yaml", "load") and not _is_safe(node):
                    yield f"{path.name}:{node.lineno} loads YAML unsafely"
                for keyword in node.keywords:
                    if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False:
                        yield f"{path.name}:{node.lineno} allows pickles"
            elif isinstance(node, ast.Import) and UNPICKLERS & {alias.name.split(".")[0] for alias in node.names}:
                yield f"{path.name}:{node.lineno} imports an unpickler"


def _is_safe(call: ast.Call) -> bool:
    return any("Safe" in ast.unparse(keyword.value) for keyword in call.keywords) or "Safe" in ast.unparse(call)


class _Canary:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _pickles(folder: Path, canary: Path) -> list[Path]:
    bomb = pickle.dumps(_Canary(canary))
    gate, arrays, model = folder / "gate.npz", folder / "arrays.npz", folder / "model.onnx"
    gate.write_bytes(bomb)
    np.savez(arrays, manifest=np.array([_Canary(canary)], dtype=object))
    model.write_bytes(bomb)
    model.with_name("model.onnx.json").write_bytes(bomb)
    return [gate, arrays, model]


def events_at_work(folder: Path) -> list[str]:
    """Audit events of a worker, decoder processes included, from readiness on, but for its decoders' own start."""
    log = folder / "audit.log"
    broker = Broker(folder / "broker")
    broker.start()
    os.environ.update(AUDIT_LOG=str(log))
    worker = Audited(folder, demo_config(broker.url, decode={"mode": "isolated"}))
    try:
        worker.start()
        worker.wait_ready(60)
        ready = time.time()
        bad = [b"{", b"\xff\xd8", pickle.dumps(_Canary(folder / "canary")), pictures.save(pictures.scene(), "GIF")]
        camera = Camera(client(broker, "sender"), "feeder", 20, pictures=[*small_pictures()[:8], *bad])
        with Verdicts(client(broker, "reader")) as verdicts, camera:
            wait_for(lambda: len(verdicts.all) > 20 * SERVED_S / 2, 60, "verdicts")
        ended = time.time()
        worker.terminate()
    finally:
        if worker.is_running():
            worker.kill()
        broker.stop()
        os.environ.pop("AUDIT_LOG")
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    if len({process for _, process, _ in lines}) < 2:
        raise AssertionError("the audit hook did not watch worker and decoder")
    return [event for at, _, event in lines if ready < float(at) < ended and not event.startswith("import ")]


class Audited(WorkerProcess):
    """``edge run`` with the audit hook first on its path, and in every Python that it starts."""

    def start(self) -> WorkerProcess:
        audit = Path(__file__).parent / "audit"
        environment = {**os.environ, "PYTHONPATH": f"{audit}{os.pathsep}{ROOT}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge", "run", "--config", str(self.config)],
                stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, env=environment,
            )  # fmt: skip
        return self


def no_code_control(effort: Effort) -> str:
    """The scan on a file that does all of it, and a pickle that is loaded."""
    effort.folder.mkdir(parents=True, exist_ok=True)
    bad = effort.folder / "bad.py"
    bad.write_text("import pickle\nimport yaml\neval('1')\nyaml.load('a')\nnp.load('x', allow_pickle=True)\n")
    found = len(list(scan([bad])))
    canary = effort.folder / "canary"
    pickle.loads(pickle.dumps(_Canary(canary)))  # noqa: S301 - our own, to show what a pickle can do
    if found != 4 or not canary.exists():
        raise AssertionError(f"the scan found {found} of 4 faults")
    return "the scan finds 4 of 4 planted faults; pickle.loads runs the canary that no artifact's loader runs"
