"""TensorRT's own lean runtime, the one part of the real library that the package index has: what it says and does.

Seen with 11.4 on a machine without a driver: it tells the logger why, hands out a hollow ``Runtime`` all the same, and
the process crashes once that is touched or let go. So the GPU is looked for before anything of TensorRT is made.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from engines import ModelError, build, open_engine
from tests.engines import networks, plans
from tests.engines.conformance.fetch import CACHE

VERSION = "11.4.0.106"
PACKAGES = ("tensorrt-lean-cu13-bindings", "tensorrt-lean-cu13-libs")
ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
import tensorrt_lean_bindings
sys.modules["tensorrt"] = tensorrt_lean_bindings
from engines.tensorrt_api import complaint, has, logger
assert has("Runtime.engine_host_code_allowed") and not has("Builder")
runtime = tensorrt_lean_bindings.Runtime(logger())
print("made:", complaint(), flush=True)
if sys.argv[1] == "driver":
    for content in (b"", b"no plan" * 100):
        assert runtime.deserialize_cuda_engine(content) is None
        print("refused:", complaint(), flush=True)
"""


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="packages for x86-64 Linux alone")
def test_real_runtime_refuses_what_is_no_plan_and_crashes_without_a_driver() -> None:
    folder = CACHE / f"lean-{VERSION}"
    if not folder.is_dir():
        wanted = [f"{package}=={VERSION}" for package in PACKAGES]
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *wanted]
        subprocess.run([*command, "nvidia-cuda-runtime>=13"], check=True, timeout=500)
    libraries = os.pathsep.join([str(folder / "tensorrt_lean_libs"), str(folder / "nvidia" / "cu13" / "lib")])
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "LD_LIBRARY_PATH": libraries}
    command = [sys.executable, "-c", SCRIPT, "driver" if has_driver() else "none"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if has_driver():
        assert (done.returncode, done.stdout.count("refused: ")) == (0, 2), done.stderr
        assert "gave no reason" not in done.stdout.partition("refused:")[2]
    else:
        assert "made: createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure" in done.stdout
        assert done.returncode == -11


@pytest.mark.usefixtures("standin")
@pytest.mark.parametrize("make", [open_engine, lambda plan: build.this_machine()])
def test_gpu_is_looked_for_before_tensorrt_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    plan = plans.save(tmp_path, networks.graph())
    tensorrt = import_module("tensorrt")
    for name in ("Runtime", "Builder"):
        monkeypatch.setattr(tensorrt, name, lambda logger: pytest.fail("made without a GPU"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(ModelError, match="pycuda cannot be imported"):
        make(plan)
