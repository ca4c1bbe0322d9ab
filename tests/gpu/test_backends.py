"""ONNX Runtime on CUDA and TensorRT plans on a real GPU, held against ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge.parts import warm_up
from engines import DeviceLostError, EngineRunError, ModelError, load_spec, open_engine, write_spec
from engines.bench import noise
from engines.cuda import Gpu
from engines.tensorrt_runtime import TensorRtEngine
from tests.edge.worker_process import MODELS

pytestmark = pytest.mark.gpu
needs_tensorrt = pytest.mark.skipif(
    find_spec("tensorrt") is None or find_spec("pycuda") is None,
    reason="TensorRT or pycuda is not installed: pip install 'parrotgate[tensorrt]'",
)
needs_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has no CUDA: pip install 'parrotgate[cuda]'",
)
needs_pycuda = pytest.mark.skipif(
    find_spec("pycuda") is None, reason="pycuda, which breaks the GPU here, is not installed"
)
MODEL = MODELS / "features.onnx"

LOSE = """
import sys
from engines import open_engine
from engines.bench import noise
from engines.console import run_app
from engines.cuda import Gpu
from tests.gpu.kernels import kernel

def work(prog_name):
    with open_engine(sys.argv[1], "cuda") as engine:
        batch = noise(engine.spec.input, 4)
        engine.infer(batch)
        gpu = Gpu()
        with gpu.use("a kernel that fails"):
            kernel("write_nowhere")(block=(1, 1, 1), grid=(1, 1), stream=gpu.stream().raw())
        engine.infer(batch)

run_app(work, "lose")
"""


FILL = """
import sys
import pycuda.driver as driver
from engines import EngineRunError, open_engine
from engines.cuda import Gpu

gpu, filled = Gpu(), []
with gpu.use("filling the GPU"):
    for size in (1 << 30, 1 << 26, 1 << 21):
        while driver.mem_get_info()[0] > size:
            try:
                filled.append(gpu.memory(size))
            except driver.MemoryError:
                break
try:
    open_engine(sys.argv[1], "cuda")
except EngineRunError as error:
    print("refused", type(error).__name__)
print("auto", open_engine(sys.argv[1]).device)
with gpu.use("emptying the GPU"):
    for memory in filled:
        memory.free()
print("emptied", open_engine(sys.argv[1], "cuda").device)
"""


def on_cpu(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with open_engine(MODEL, "cpu") as engine:
        return engine.infer(batch)


def similarity(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """The least cosine of the rows of ``one`` and ``other``."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).min())


@needs_cuda
def test_onnx_runtime_on_cuda_gives_the_answers_of_the_cpu() -> None:
    batch = noise(load_spec(MODEL).input, 8)
    with open_engine(MODEL, "cuda") as engine:
        assert engine.device == "cuda"
        assert similarity(engine.infer(batch), on_cpu(batch)) > 0.999


@needs_cuda
def test_onnx_runtime_on_cuda_takes_batches_of_any_size_in_turn() -> None:
    took = []
    with open_engine(MODEL, "cuda") as engine:
        warm_up(engine, 8)
        for rows in (1, 8, 3, 5, 2, 7, 4, 6) * 4:
            batch = noise(engine.spec.input, rows)
            began = time.monotonic()
            engine.infer(batch)
            took.append(time.monotonic() - began)
    assert np.median(took) < 0.02  # 0.15 s and more where convolutions are planned anew for every change


@needs_cuda
@needs_pycuda
def test_lost_gpu_under_onnx_runtime_ends_the_process_with_75() -> None:
    command = [sys.executable, "-c", LOSE, str(MODEL)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 75, child.stderr
    assert "the GPU is lost to this process" in child.stderr


@needs_cuda
@needs_pycuda
def test_full_gpu_under_onnx_runtime_is_no_lost_device() -> None:
    import pycuda.driver as driver

    gpu = Gpu()
    with open_engine(MODEL, "cuda") as engine:
        few = noise(engine.spec.input, 2)
        alone = engine.infer(few)
        with gpu.use("filling the GPU"):
            filled = gpu.memory(driver.mem_get_info()[0] - (256 << 20))
        with pytest.raises(EngineRunError) as told:
            engine.infer(np.repeat(few, 2048, axis=0))
        assert not isinstance(told.value, DeviceLostError)
        with gpu.use("emptying the GPU"):
            filled.free()
        np.testing.assert_allclose(engine.infer(few), alone, rtol=1e-2, atol=1e-3)


@needs_cuda
@needs_pycuda
def test_full_gpu_takes_no_new_model_in_onnx_runtime() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(MODEL)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "refused EngineRunError\nauto cpu\nemptied cuda\n"


def build(folder: Path, *options: str) -> Path:
    """A plan of the demo's feature network, made by the command."""
    plan = folder / "features.plan"
    command = [
        sys.executable,
        "-m",
        "engines",
        "build",
        str(MODEL),
        "--out",
        str(plan),
        "--cache",
        str(folder / "cache"),
    ]
    done = subprocess.run([*command, "--json", *options], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    return plan


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp(request.param), "--precision", request.param, "--batch", "1,8,24")


def opened(plan: Path, *, graphs: bool = True) -> TensorRtEngine:
    return TensorRtEngine(plan.read_bytes(), load_spec(plan), "cuda", None, path=plan, graphs=graphs)


@needs_tensorrt
@pytest.mark.parametrize("n", [1, 2, 8, 17, 30])
def test_plan_gives_the_answers_of_the_cpu(plan: Path, n: int) -> None:
    batch = noise(load_spec(plan).input, n)
    with open_engine(plan) as engine:
        answers = [engine.infer(batch) for _ in range(4)]
    assert similarity(answers[0], on_cpu(batch)) > 0.999
    for answer in answers[1:]:  # later ones are launched as graphs
        np.testing.assert_allclose(answer, answers[0], rtol=1e-3, atol=1e-3)


@needs_tensorrt
def test_graphs_are_captured_and_change_nothing(plan: Path) -> None:
    batch = noise(load_spec(plan).input, 4)
    with opened(plan) as captured, opened(plan, graphs=False) as plain:
        for _ in range(5):
            np.testing.assert_allclose(captured.infer(batch), plain.infer(batch), rtol=1e-3, atol=1e-3)
        assert captured.describe()["graphs"] == "2 captured"


@needs_tensorrt
def test_batches_in_flight_keep_apart(plan: Path) -> None:
    spec = load_spec(plan).input
    batches = [np.roll(noise(spec, 3), shift, axis=0) for shift in range(3)]
    with open_engine(plan) as engine:
        alone = [engine.infer(batch) for batch in batches]
        for _ in range(20):
            pending = [engine.submit(batch) for batch in batches]
            for one, answer in zip(pending, alone, strict=True):
                np.testing.assert_allclose(one.result(), answer, rtol=1e-3, atol=1e-3)


@needs_tensorrt
def test_truncated_plan_is_refused_and_ends_nothing(plan: Path, tmp_path: Path) -> None:
    from tests.engines import plans

    cut = tmp_path / plan.name
    for file in (plan, plan.with_name(plan.name + ".json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    plans.rewrite(cut, plan.read_bytes()[: plan.stat().st_size // 2])
    code = f"from engines import open_engine; open_engine({str(cut)!r})"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode != 0
    assert (
        "ModelError" in child.stderr or child.returncode < 0
    )  # some versions crash: that is why edge check has a child


@needs_tensorrt
def test_machine_that_is_not_the_plans_is_refused_before_it_is_loaded(plan: Path, tmp_path: Path) -> None:
    spec = load_spec(plan)
    assert spec.plan is not None
    copied = tmp_path / plan.name
    copied.write_bytes(plan.read_bytes())
    write_spec(copied, replace(spec, plan=spec.plan.model_copy(update={"gpu": "Voodoo 2"})))
    with pytest.raises(ModelError, match=r"built on Voodoo 2.*engines build"):
        open_engine(copied)
