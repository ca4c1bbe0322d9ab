"""ONNX Runtime on CUDA as it was found on a real GPU, played by sessions on the CPU."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state

from engines import DeviceLostError, EngineRunError, ModelError, cuda_alive, open_engine
from engines.bench import noise
from tests.engines import networks

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
REAL = onnxruntime.InferenceSession
NotImplementedByIt = onnxruntime_pybind11_state.NotImplemented


class Session:
    """A session that says it is on CUDA, remembers for which numbers of rows it had to plan, and fails when told to."""

    made: ClassVar[list[Session]] = []
    full = False  # the GPU has no room for another session
    broken = False  # every inference fails
    lacking = False  # cuDNN is missing, which is noticed when it is needed

    def __init__(self, model: bytes, options: Any, *, providers: list[str], **settings: Any) -> None:
        assert settings["enable_fallback"] == 0, "it would write to stdout and go on without CUDA"
        if self.full and CUDA in providers:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")
        self.real, self.providers, self.planned = REAL(model, options, providers=[CPU]), providers, [0]
        self.made.append(self)

    def get_providers(self) -> list[str]:
        return self.providers

    def run(self, outputs: list[str], given: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        (batch,) = given.values()
        if self.planned[-1] != len(batch):
            self.planned.append(len(batch))
        if self.lacking and CUDA in self.providers:
            raise NotImplementedByIt("cuDNN is unavailable or disabled for CUDA Execution Provider")
        if self.broken:
            raise RuntimeError("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED")
        answer: list[np.ndarray[Any, Any]] = self.real.run(outputs, given)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Driver:
    """``libcuda`` with a context that answers ``code`` to every wait; ``init`` 3: CUDA was never begun."""

    def __init__(self, code: int = 0, init: int = 0) -> None:
        self.code, self.init, self.retained, self.pushed = code, init, 0, 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802 - the driver's names
        return self.init

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        self.retained += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:  # noqa: N802
        self.retained -= 1
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:  # noqa: N802
        self.pushed += 1
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:  # noqa: N802
        self.pushed -= 1
        return 0

    def cuCtxSynchronize(self) -> int:  # noqa: N802
        return self.code


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[Driver], None]:
    """ONNX Runtime has CUDA; what it gives sets the driver that is asked after an error."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for name, value in (("made", []), ("full", False), ("broken", False), ("lacking", False)):
        monkeypatch.setattr(Session, name, value)

    def with_driver(driver: Driver) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)

    with_driver(Driver())
    return with_driver


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return networks.save(tmp_path, networks.graph())


def test_no_session_meets_a_second_number_of_rows(onnx: Path, on_cuda: Any) -> None:
    with open_engine(onnx) as engine, open_engine(onnx, "cpu") as cpu:
        assert (engine.device, engine.why) == ("cuda", "ONNX Runtime on CUDA")
        for rows in (1, 8, 3, 1, 5, 2, 8, 9, 33, 4):
            batch = noise(engine.spec.input, rows)
            np.testing.assert_allclose(engine.infer(batch), cpu.infer(batch), rtol=1e-5, atol=1e-6)
        planned = [session.planned[1:] for session in Session.made if session.providers[0] == CUDA]
    assert sorted(planned) == [[1], [2], [4], [8], [16], [64]]


@pytest.mark.parametrize(
    ("code", "lost"), [(0, False), (2, False), (201, False), (700, True), (716, True), (719, True)]
)
def test_failed_inference_loses_the_device_only_where_the_driver_says_so(
    onnx: Path, on_cuda: Callable[[Driver], None], monkeypatch: pytest.MonkeyPatch, code: int, lost: bool
) -> None:
    driver = Driver(code)
    on_cuda(driver)
    with open_engine(onnx) as engine:
        monkeypatch.setattr(Session, "broken", True)
        with pytest.raises(EngineRunError, match="CUDNN_STATUS_EXECUTION_FAILED") as told:
            engine.infer(noise(engine.spec.input, 2))
    assert isinstance(told.value, DeviceLostError) == lost
    assert ("the GPU is lost to this process" in str(told.value)) == lost
    assert (driver.retained, driver.pushed) == (0, 0)


@pytest.mark.parametrize("driver", [Driver(init=3), None])
def test_driver_that_was_never_begun_or_is_missing_has_lost_nothing(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None
) -> None:
    def load(name: str) -> Driver:
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert cuda_alive.why_lost() is None


def test_full_gpu_is_transient_where_cuda_is_demanded_and_a_warning_where_not(
    onnx: Path,
    on_cuda: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Session, "full", True)
    with pytest.raises(EngineRunError, match=r"the GPU does not take this model.*Failed to allocate") as told:
        open_engine(onnx, "cuda")
    assert told.value.exit_code == 75
    with open_engine(onnx) as engine:
        assert (engine.device, engine.why) == ("cpu", "ONNX Runtime on the CPU: its CUDA could not be started")
    assert "slower than it could be" in caplog.text
    assert not capsys.readouterr().out


def test_cuda_without_cudnn_is_left_aside_or_a_bad_configuration(
    onnx: Path, on_cuda: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Session, "lacking", True)
    with open_engine(onnx) as engine:
        assert engine.device == "cpu"
        assert engine.infer(noise(engine.spec.input, 3)).shape == (3, 4)
    assert "cuDNN is unavailable" in caplog.text
    with pytest.raises(ModelError, match="cuDNN is unavailable"):
        open_engine(onnx, "cuda")


def test_gpu_that_fills_up_later_fails_the_batch_alone(
    onnx: Path, on_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(onnx) as engine:
        engine.infer(noise(engine.spec.input, 2))
        monkeypatch.setattr(Session, "full", True)
        with pytest.raises(EngineRunError, match="batch of 5"):
            engine.infer(noise(engine.spec.input, 5))
        assert engine.infer(noise(engine.spec.input, 2)).shape == (2, 4)


def test_gpu_that_was_lost_before_the_model_was_loaded_is_told(onnx: Path, on_cuda: Any, monkeypatch: Any) -> None:
    on_cuda(Driver(700))
    monkeypatch.setattr(Session, "full", True)
    for device in ("cuda", "auto"):
        with pytest.raises(DeviceLostError):
            open_engine(onnx, device)


def test_broken_model_is_no_fault_of_the_gpu(onnx: Path, on_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("Protobuf parsing failed")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ModelError, match="cannot load this model"):
        open_engine(onnx, "cuda")


def test_cuda_libraries_are_looked_for_where_pip_has_put_them_and_say_nothing_on_stdout(
    onnx: Path, on_cuda: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engines import onnx_runtime

    onnx_runtime._load_cuda.cache_clear()
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcufft.so.12"), raising=False)  # noqa: T201
    for _ in range(2):
        open_engine(onnx).close()
    onnx_runtime._load_cuda.cache_clear()
    assert capsys.readouterr() == ("", "Failed to load libcufft.so.12\n")


def test_warming_up_reaches_every_size_that_a_batch_is_filled_up_to(
    onnx: Path, on_cuda: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from edge.parts import warm_up

    caplog.set_level(logging.INFO)
    with open_engine(onnx) as engine:
        warm_up(engine, 12)
        planned = sorted(session.planned[1] for session in Session.made)
    assert planned == [1, 2, 4, 8, 16]
