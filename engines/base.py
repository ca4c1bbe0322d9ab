"""The engine seam: what every backend offers, and the checks that all of them share."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from engines.errors import DeviceLostError, EngineInputError, EngineRunError, ModelError, UsageError
from engines.spec import ModelSpec, load_spec

Batch = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]

log = logging.getLogger(__name__)

# Backends by suffix, as "module:class", imported only when a file asks for them.
_BACKENDS = {
    ".onnx": "engines.onnx_runtime:OnnxEngine",
    ".plan": "engines.tensorrt_runtime:TensorRtEngine",
    ".tflite": "engines.tflite_runtime:TfliteEngine",
}


class Pending(Protocol):
    """A batch on its way through an engine."""

    def result(self) -> Float32:
        """Wait for the batch: (n, d) float32, owned by the caller. Raises ``EngineRunError``, for this batch alone.

        ``DeviceLostError`` tells that no other batch will be answered either.
        """
        ...


class Engine(Protocol):
    """Arrays in, arrays out. Owned by one thread at a time; a context manager that closes it.

    ``spec`` is the checked manifest; ``device`` is ``cpu`` or ``cuda``, whichever the engine truly runs on; ``why``
    says in a few words what computes and why it was chosen. ``in_flight`` is the number of batches that ``submit``
    takes before it waits for an earlier one: 1 where it computes while it is asked, so that there nothing is gained by
    having two.
    """

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str: ...

    @property
    def why(self) -> str: ...

    @property
    def in_flight(self) -> int: ...

    def submit(self, batch: Batch) -> Pending:
        """Start on ``batch``, of shape (n, *spec.input.shape) with n >= 1 and dtype ``spec.input.dtype``.

        Raises ``EngineInputError`` before the device is touched. The batch must not be written to until the result
        is there.
        """
        ...

    def infer(self, batch: Batch) -> Float32:
        """``submit(batch).result()``."""
        ...

    def close(self) -> None:
        """Free the device; may be called twice. A closed engine raises ``EngineRunError``."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Done:
    """The ``Pending`` of a backend that computes while it is asked."""

    output: Float32

    def result(self) -> Float32:
        return self.output


class CheckedEngine(ABC):
    """What all backends share: the public verbs check, ``_start`` computes."""

    in_flight = 1

    def __init__(self, spec: ModelSpec, device: str, why: str) -> None:
        self.spec = spec
        self.device = device
        self.why = why
        self._closed = False

    @abstractmethod
    def _start(self, batch: Batch) -> Pending:
        """Run a checked, C-contiguous batch; the result must have ``spec.output.size`` columns."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """What the backend itself says of the loaded model: ``runtime``, ``input``, ``output``."""

    def submit(self, batch: Batch) -> Pending:
        if self._closed:
            raise EngineRunError(f"{self.spec.name}: the engine is closed; open it again")
        check_batch(batch, self.spec)
        return self._start(np.ascontiguousarray(batch))

    def infer(self, batch: Batch) -> Float32:
        return self.submit(batch).result()

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Engine:
        return cast(Engine, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def available_threads() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_batch(batch: Batch, spec: ModelSpec) -> None:
    """Raise ``EngineInputError`` unless ``batch`` is (n >= 1, *spec.input.shape) of the manifest's dtype."""
    wanted = f"(n, {', '.join(map(str, spec.input.shape))}) {spec.input.dtype} with n >= 1"
    if not isinstance(batch, np.ndarray):
        raise EngineInputError(f"{spec.name}: expected an array {wanted}, got {type(batch).__name__}")
    if batch.shape[1:] != spec.input.shape or len(batch) == 0 or batch.dtype != spec.input.numpy_dtype:
        raise EngineInputError(f"{spec.name}: expected a batch {wanted}, got {batch.shape} {batch.dtype}")


def open_engine(
    path: str | Path,
    device: Device = "auto",
    *,
    threads: int | None = None,
    sha256: str | None = None,
    manifest_sha256: str | None = None,
) -> Engine:
    """Load the model file ``path`` with the backend of its suffix.

    The file is read once; the very bytes that are hashed are those that are loaded, so that nothing can be swapped in
    between. What was chosen, and why, goes to the log and stands in the engine's ``why``.

    Args:
        device: ``cpu`` or ``cuda`` insist. ``auto`` takes for an ``.onnx`` file the best that works: the TensorRT plan
            ``<stem>.plan`` built from it, ONNX Runtime on CUDA, ONNX Runtime on the CPU. A ``.plan`` named itself is
            never replaced by anything else.
        threads: threads inside one inference on the CPU; None takes every core this process may use.
        sha256: pins the file: refuse it unless it has this hash (64 hex digits), whatever its manifest says.
        manifest_sha256: pins the manifest file in the same way, and through it the labels. Where something is pinned,
            no plan takes the file's place.

    Raises:
        ModelError: model, manifest or labels are missing, damaged or contradict each other, or the backend is missing.
        UsageError: ``device`` or ``threads`` make no sense.
    """
    path = Path(path)
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, not {device!r}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}; leave it out to use every core")
    engine = None
    if device == "auto" and path.suffix == ".onnx":
        engine = _open_plan_of(path, pinned=sha256 is not None or manifest_sha256 is not None)
    if engine is None:
        engine = _open(path, device, threads, sha256, manifest_sha256)
    log.info("opened model=%s device=%s why=%r", path, engine.device, engine.why)
    return engine


def _open(
    path: Path,
    device: Device = "auto",
    threads: int | None = None,
    pin: str | None = None,
    manifest_sha256: str | None = None,
) -> Engine:
    backend = _backend(path)
    spec = load_spec(path, manifest_sha256=manifest_sha256)
    model = read_verified(path, spec, pin)
    engine: Engine = backend(model, spec, device, threads)
    return engine


def _open_plan_of(path: Path, *, pinned: bool) -> Engine | None:
    """The plan that was built from the ONNX file ``path`` and lies beside it, where this machine can run it."""
    plan = path.with_suffix(".plan")
    if not plan.is_file():
        return None
    if pinned:
        log.warning("slower than it could be: only %s is pinned, so %s is left aside", path.name, plan.name)
        return None
    source = load_spec(path)
    try:
        made = load_spec(plan)
        if made.plan is None or made.plan.onnx_sha256 != source.sha256:
            raise ModelError(f"{plan}: it was not built from {path.name}; build it anew with engines build {path}")
        if replace(made, sha256=source.sha256, plan=None) != source:
            raise ModelError(
                f"{plan}: its manifest does not say what that of {path.name} says; "
                f"build it anew with engines build {path}"
            )
        return _open(plan)
    except DeviceLostError:
        raise
    except (ModelError, EngineRunError) as error:
        log.warning("slower than it could be: the plan is left aside for %s: %s", path.name, error)
        return None


def _backend(path: Path) -> Any:
    if path.suffix not in _BACKENDS:
        known = " or ".join(_BACKENDS)
        raise ModelError(
            f"{path}: no backend for {path.suffix or 'a file without suffix'!r}; use a file that ends in {known}"
        )
    module, name = _BACKENDS[path.suffix].split(":")
    backend = getattr(import_module(module), name)
    return partial(backend, path=path) if path.suffix == ".plan" else backend


def read_verified(path: Path, spec: ModelSpec, pin: str | None = None) -> bytes:
    """The bytes of the model file; ``ModelError`` unless they have the manifest's hash, and ``pin``'s if given."""
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(model).hexdigest()
    if digest != spec.sha256:
        raise ModelError(
            f"{path}: its SHA-256 is {digest}, but the manifest says {spec.sha256}; "
            "the file is damaged or the manifest belongs to another one: fetch both again"
        )
    if pin is not None and digest != pin.lower():
        raise ModelError(f"{path}: its SHA-256 is {digest}, but the configuration pins {pin}; correct the pin or file")
    return model
