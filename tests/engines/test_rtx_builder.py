"""The builder of TensorRT for RTX, the one real builder that the package index has: it reads and builds our networks.

It needs no GPU, and has the interface of TensorRT 11. Its plans run on GPUs that are sold as RTX;
an H100 (compute capability 9.0) is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.engines.conformance.fetch import CACHE
from tests.engines.pictures import save, scene

VERSION = "1.7.1.116"
PACKAGES = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, sys
from pathlib import Path
from engines import build, tensorrt_build
from engines.build import Wanted
from engines.onnx_half import to_half
from engines.plan_manifest import Machine, Profile

model, precision = Path(sys.argv[1]), sys.argv[2]
tensorrt_build._layers = lambda plan, section: []  # loading a plan needs the GPU
source = build.read_source(model)
wanted = Wanted(profile=Profile(min=1, opt=8, max=32), precision=precision)
section = build.plan_section(source, wanted, Machine(tensorrt_build.tensorrt_version(), "none", "8.6", 1, 1))
onnx = source.content if precision in ("fp32", "int8") else to_half(source.content, precision, model.name)
told = []
def progress(fraction, phase):
    told.append(fraction)
    return True
built = tensorrt_build.build_plan(onnx, section, timing_cache=b"", detailed=True, progress=progress)
again = tensorrt_build.build_plan(onnx, section, timing_cache=built.timing_cache, detailed=True, progress=progress)
label = section.label.encode() in built.plan
print(json.dumps({"plan": len(built.plan), "again": len(again.plan), "told": told, "label": label}))
"""


def environment() -> dict[str, str]:
    """Real bindings and libraries under TensorRT's name, fetched once."""
    folder = CACHE / f"rtx-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}"
    if not folder.is_dir():
        wanted = [f"{package}=={VERSION}" for package in PACKAGES]
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *wanted]
        subprocess.run(command, check=True, timeout=500)
    path = os.pathsep.join(map(str, (ROOT / "tests" / "gpu" / "rtx", folder, ROOT)))
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="packages for x86-64 Linux alone")
@pytest.mark.parametrize("name", ["features", "species"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_real_builder_builds_our_networks_in_each_precision(tmp_path: Path, name: str, precision: str) -> None:
    model = ROOT / "edge" / "demo" / "models" / f"{name}.onnx"
    if precision == "int8":
        model = quantised(model, tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(model), precision]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["plan"] > 100_000
    assert told["again"] > 100_000  # with the timing cache that it gave itself
    assert told["label"], "the plan carries the section of its manifest"
    assert len(told["told"]) > 20
    assert all(0 <= fraction <= 1 for fraction in told["told"])


def quantised(model: Path, folder: Path) -> Path:
    """``model`` as `engines quantize --for tensorrt` makes it."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(12):
        (pictures / f"{number}.png").write_bytes(save(np.roll(scene(), 10 * number, axis=1), "PNG"))
    command = ["quantize", str(model), "--pictures", str(pictures), "--for", "tensorrt", "--out", str(folder)]
    done = subprocess.run([sys.executable, "-m", "engines", *command], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (made,) = folder.glob("*.int8-tensorrt.onnx")
    return made
