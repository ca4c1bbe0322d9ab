"""``device: auto``: the plan beside the ONNX file, ONNX Runtime on CUDA, ONNX Runtime on the CPU; and what is told."""

from __future__ import annotations

import json
import logging
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engines import EngineRunError, ModelError, load_spec, open_engine
from engines.__main__ import app
from engines.errors import DeviceLostError
from tests.engines import networks, plans


@pytest.fixture
def onnx(tmp_path: Path, standin: None) -> Path:
    """An ONNX file with its plan beside it, on a machine that can run it."""
    plans.save(tmp_path, networks.graph())
    return networks.save(tmp_path, networks.graph())


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def test_auto_takes_the_plan_that_was_built_from_the_file(onnx: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with open_engine(onnx) as engine:
        assert (engine.device, engine.why) == ("cuda", "TensorRT 10.3.0 on Orin, fp32 plan")
        assert engine.spec.sha256 == load_spec(onnx.with_suffix(".plan")).sha256 != engine.spec.origin
        assert engine.infer(np.zeros((2, 3, 8, 8), np.float32)).shape == (2, 4)
    assert f"opened model={onnx} device=cuda why='TensorRT 10.3.0 on Orin, fp32 plan'" in caplog.text
    assert not warnings(caplog)


def test_cpu_is_the_cpu(onnx: Path) -> None:
    with open_engine(onnx, "cpu") as engine:
        assert (engine.device, engine.why) == ("cpu", "ONNX Runtime on the CPU, as asked")


@pytest.mark.parametrize("lack", ["tensorrt", "pycuda", "gpu", "version", "source", "hash", "manifest"])
def test_plan_that_cannot_be_used_is_left_aside_loudly(
    onnx: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lack: str
) -> None:
    plan = onnx.with_suffix(".plan")
    if lack in ("tensorrt", "pycuda"):
        monkeypatch.setitem(sys.modules, lack, None)
    elif lack == "gpu":
        driver = import_module("pycuda.driver")

        def init(flags: int = 0) -> None:
            raise driver.RuntimeError("cuInit failed: no CUDA-capable device is detected")

        monkeypatch.setattr(driver, "init", init)
    elif lack == "version":
        monkeypatch.setattr(import_module("tensorrt"), "__version__", "10.7.0")
    elif lack == "source":
        networks.save(onnx.parent, networks.graph(keep_axes=True, output_shape=("n", 4, 1, 1)))
    elif lack == "hash":
        plan.write_bytes(plan.read_bytes()[:-1])
    else:
        plan.with_name("tiny.plan.json").unlink()
    with open_engine(onnx) as engine:
        assert engine.device == "cpu"
        assert engine.spec.sha256 == load_spec(onnx).sha256
    assert "slower than it could be: the plan is left aside for tiny.onnx" in warnings(caplog)


@pytest.mark.parametrize("change", [{"mean": (0.5, 0.5, 0.5)}, {"color": "BGR"}, {"resize": "letterbox"}])
def test_plan_with_the_manifest_of_before_is_left_aside(
    onnx: Path, caplog: pytest.LogCaptureFixture, change: dict[str, object]
) -> None:
    corrected = load_spec(onnx).input.model_copy(update=change)
    networks.save(onnx.parent, networks.graph(), input=corrected)
    with open_engine(onnx) as engine:
        assert (engine.device, engine.spec.input) == ("cpu", corrected)
    assert "its manifest does not say what that of tiny.onnx says" in warnings(caplog)


def test_plan_without_room_on_the_gpu_is_left_aside(
    onnx: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = import_module("pycuda.driver")

    def full(nbytes: int) -> None:
        raise driver.MemoryError("cuMemAlloc failed: out of memory")

    monkeypatch.setattr(driver, "mem_alloc", full)
    with open_engine(onnx) as engine:
        assert engine.device == "cpu"
    assert "the GPU is out of memory" in warnings(caplog)
    with pytest.raises(EngineRunError, match="out of memory"):
        open_engine(onnx.with_suffix(".plan"))


def test_gpu_without_memory_for_a_context_is_no_bad_configuration(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = import_module("pycuda.driver")

    def full(self: object) -> None:
        raise driver.MemoryError("cuDevicePrimaryCtxRetain failed: out of memory")

    monkeypatch.setattr(driver.Device, "name", full)
    with pytest.raises(EngineRunError, match="out of memory"):
        open_engine(onnx.with_suffix(".plan"))
    with open_engine(onnx) as engine:
        assert engine.device == "cpu"


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.plan"])
def test_device_lost_while_a_plan_is_refused_ends_the_process(
    onnx: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    driver = import_module("pycuda.driver")

    def lost() -> None:
        raise driver.LaunchError("cuCtxSynchronize failed: an illegal memory access was encountered")

    monkeypatch.setattr(import_module("tensorrt").Runtime, "deserialize_cuda_engine", lambda self, plan: None)
    monkeypatch.setattr(driver.Context, "synchronize", staticmethod(lost))
    with pytest.raises(DeviceLostError, match="the GPU is lost to this process"):
        open_engine(onnx.with_name(name))


def test_plan_that_is_named_is_never_replaced(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tensorrt"), "__version__", "10.7.0")
    with pytest.raises(ModelError, match=r"built with TensorRT 10\.3\.0, and here is 10\.7\.0.*engines build"):
        open_engine(onnx.with_suffix(".plan"))


def test_pinned_file_is_the_only_one_that_is_loaded(onnx: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_engine(onnx, sha256=load_spec(onnx).sha256) as engine:
        assert engine.device == "cpu"
    assert "only tiny.onnx is pinned, so tiny.plan is left aside" in warnings(caplog)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_provider_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with open_engine(networks.save(tmp_path, networks.graph())) as engine:
        assert (engine.device, engine.why) == ("cpu", "ONNX Runtime on the CPU: its CUDA could not be started")
    assert "CUDA could not be started, and the CPU is slower" in warnings(caplog)


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.plan"])
def test_info_tells_what_auto_takes_and_what_a_plan_is(onnx: Path, name: str) -> None:
    told = CliRunner().invoke(app, ["info", str(onnx.with_name(name)), "--json"])
    facts = json.loads(told.output)
    assert facts["chosen"] == "TensorRT 10.3.0 on Orin, fp32 plan"
    if name == "tiny.plan":
        assert facts["plan"]["gpu"] == "Orin"
        assert facts["runtime"]["runtime"] == "TensorRT 10.3.0 on Orin, compute capability 8.7"
    assert CliRunner().invoke(app, ["info", str(onnx.with_name(name))]).exit_code == 0
