"""Opening and running ONNX models: the seam's promises, kept on a tiny true network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.external_data_helper import convert_model_to_external_data

from engines import EngineInputError, EngineRunError, InputSpec, ModelError, OutputSpec, UsageError, open_engine
from tests.engines import networks


def batch(n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((n, 3, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_infer_computes_the_graph_for_every_batch_size(tmp_path: Path, n: int) -> None:
    with open_engine(networks.save(tmp_path, networks.graph()), "cpu") as engine:
        output = engine.infer(batch(n))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, batch(n).mean(axis=(2, 3)) @ networks.WEIGHTS, rtol=1e-5, atol=1e-6)


def test_result_belongs_to_the_caller(tmp_path: Path) -> None:
    with open_engine(networks.save(tmp_path, networks.graph()), "cpu") as engine:
        first = engine.submit(batch(2)).result()
        kept = first.copy()
        engine.infer(batch(2) + 1)
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
        np.testing.assert_array_equal(engine.infer(batch(2)), kept)


def test_infer_takes_a_batch_that_is_not_contiguous(tmp_path: Path) -> None:
    with open_engine(networks.save(tmp_path, networks.graph()), "cpu") as engine:
        np.testing.assert_array_equal(engine.infer(batch(6)[::2]), engine.infer(batch(6)[::2].copy()))


def test_pooled_output_with_empty_axes_is_flattened(tmp_path: Path) -> None:
    model = networks.graph(keep_axes=True, output_shape=("n", 4, 1, 1))
    with open_engine(networks.save(tmp_path, model), "cpu") as engine:
        assert engine.infer(batch(3)).shape == (3, 4)


def test_uint8_input_takes_plain_pixels(tmp_path: Path) -> None:
    model = networks.graph(element=TensorProto.UINT8)
    path = networks.save(tmp_path, model, input=InputSpec(layout="NCHW", height=8, width=8, dtype="uint8"))
    with open_engine(path, "cpu") as engine:
        pixels = np.full((1, 3, 8, 8), 200, np.uint8)
        np.testing.assert_allclose(engine.infer(pixels)[0], 200 * networks.WEIGHTS.sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 3, 8, 8), np.float32),
        np.zeros((3, 8, 8), np.float32),
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 3, 8, 8), np.float64),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.float32(1),
        [[1.0]],
    ],
)
def test_submit_refuses_a_batch_unlike_the_manifest(tmp_path: Path, wrong: Any) -> None:
    path = networks.save(tmp_path, networks.graph())
    with open_engine(path, "cpu") as engine, pytest.raises(EngineInputError, match=r"\(n, 3, 8, 8\) float32"):
        engine.submit(wrong)


def test_closed_engine_refuses_to_run_and_closes_twice(tmp_path: Path) -> None:
    engine = open_engine(networks.save(tmp_path, networks.graph()), "cpu")
    engine.close()
    engine.close()
    with pytest.raises(EngineRunError, match="closed"):
        engine.infer(batch(1))


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        (networks.graph(input_shape=(1, 3, 8, 8)), {}, "fixed batch of 1"),
        (networks.graph(input_shape=("n", 3, 16, 8)), {}, "manifest says input"),
        (networks.graph(), {"input": InputSpec(layout="NHWC", height=8, width=8)}, "manifest says input"),
        (networks.graph(element=TensorProto.UINT8), {}, "says tensor\\(uint8\\)"),
        (networks.graph(), {"output": OutputSpec(kind="features", size=5)}, "manifest says output"),
        (networks.graph(extra_output=True), {}, "one output, the graph has 1 and 2"),
        (b"", {}, "cannot load"),
        (b"no model at all", {}, "not an ONNX file"),
    ],
)
def test_open_engine_refuses_a_model_unlike_its_manifest(
    tmp_path: Path, model: Any, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        open_engine(networks.save(tmp_path, model, **changes), "cpu")
    assert caught.value.exit_code == 78


def test_output_with_other_rows_than_the_batch_is_caught_at_run_time(tmp_path: Path) -> None:
    path = networks.save(tmp_path, networks.indices_graph(), output=OutputSpec(kind="features", size=2))
    with open_engine(path, "cpu") as engine, pytest.raises(EngineRunError, match=r"expected \(2, 2\) values"):
        engine.infer(batch(2))


def test_every_cut_of_a_model_is_refused(tmp_path: Path) -> None:
    whole = networks.graph().SerializeToString()
    for length in range(0, len(whole), 7):
        with pytest.raises(ModelError):
            open_engine(networks.save(tmp_path, whole[:length]), "cpu")


def test_one_flipped_bit_is_refused_by_the_hash(tmp_path: Path) -> None:
    path = networks.save(tmp_path, networks.graph())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged or the manifest belongs to another"):
        open_engine(path)


def test_pin_refuses_another_file_that_its_manifest_allows(tmp_path: Path) -> None:
    path = networks.save(tmp_path, networks.graph())
    with pytest.raises(ModelError, match="the configuration pins"):
        open_engine(path, "cpu", sha256="0" * 64)
    open_engine(path, "cpu", sha256=networks.spec_of(path.read_bytes()).sha256.upper()).close()


def test_external_weights_are_refused_before_they_are_read(tmp_path: Path) -> None:
    model = networks.graph()
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, tmp_path / "outside.onnx")
    with pytest.raises(ModelError, match=r"other files \(weights\.bin\)"):
        open_engine(networks.save(tmp_path, (tmp_path / "outside.onnx").read_bytes()), "cpu")


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no backend for '\.pb'"):
        open_engine(tmp_path / "net.pb")


@pytest.mark.parametrize("arguments", [{"device": "tpu"}, {"threads": 0}, {"threads": -2}])
def test_senseless_arguments_are_a_usage_error(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_engine(networks.save(tmp_path, networks.graph()), **arguments)


def test_cuda_without_its_provider_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"parrotgate\[cuda\]"):
        open_engine(networks.save(tmp_path, networks.graph()), "cuda")


def test_importing_engines_loads_no_backend() -> None:
    code = "import engines, sys; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False).returncode == 0


def test_onnx_runtime_is_told_to_report_nothing_to_its_maker(tmp_path: Path) -> None:
    # Where it reports, it first keeps an identifier below the home folder, and complains when that cannot be written.
    path = networks.save(tmp_path, networks.graph())
    code = f"import engines, os; engines.open_engine({str(path)!r}).close(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ | nowhere, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "1\n"
    assert "telemetry" not in done.stderr
