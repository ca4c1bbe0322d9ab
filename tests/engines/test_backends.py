"""What every backend promises, held on the same small network by each in turn: a new one adds a row to ``BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from engines import EngineInputError, EngineRunError, InputSpec, ModelError, OutputSpec, UsageError, open_engine
from engines.base import Device
from tests.engines import networks, plans, tflite_networks


@dataclass(frozen=True)
class Backend:
    """``save(folder, **changes)`` writes the network of ``networks.graph()``; ``tolerance`` is its rounding; it runs on
    ``device``."""

    save: Callable[..., Path]
    input: InputSpec
    tolerance: float
    device: Device = "cpu"

    def batch(self, n: int) -> np.ndarray[Any, Any]:
        random = np.random.default_rng(0)
        if self.input.dtype == "uint8":
            return random.integers(0, 256, (n, *self.input.shape), np.uint8)
        return random.standard_normal((n, *self.input.shape), dtype=np.float32)

    def expected(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        picture = (2, 3) if self.input.layout == "NCHW" else (1, 2)
        return np.asarray(batch.mean(axis=picture, dtype=np.float64) @ networks.WEIGHTS)


def save_onnx(folder: Path, **changes: Any) -> Path:
    return networks.save(folder, networks.graph(), **changes)


def save_tflite(folder: Path, **changes: Any) -> Path:
    return tflite_networks.save(folder, tflite_networks.graph(), **changes)


def save_quantised_tflite(folder: Path, **changes: Any) -> Path:
    changes.setdefault("input", InputSpec(layout="NHWC", dtype="uint8", height=8, width=8))
    return tflite_networks.save(folder, tflite_networks.graph(quantised=True), **changes)


def save_plan(folder: Path, **changes: Any) -> Path:
    return plans.save(folder, networks.graph(), **changes)


def save_uint8_plan(folder: Path, **changes: Any) -> Path:
    changes.setdefault("input", InputSpec(layout="NCHW", dtype="uint8", height=8, width=8))
    return plans.save(folder, networks.graph(element=TensorProto.UINT8), **changes)


BACKENDS = {
    "onnx": Backend(save_onnx, InputSpec(layout="NCHW", height=8, width=8), 1e-5),
    "tflite": Backend(save_tflite, InputSpec(layout="NHWC", height=8, width=8), 1e-5),
    "tflite-uint8": Backend(save_quantised_tflite, InputSpec(layout="NHWC", dtype="uint8", height=8, width=8), 8),
    "plan": Backend(save_plan, InputSpec(layout="NCHW", height=8, width=8), 1e-5, "cuda"),
    "plan-uint8": Backend(save_uint8_plan, InputSpec(layout="NCHW", dtype="uint8", height=8, width=8), 1e-3, "cuda"),
    "plan-shared-memory": Backend(save_plan, InputSpec(layout="NCHW", height=8, width=8), 1e-5, "cuda"),
}
MARKS = {"tflite": pytest.mark.tflite, "tflite-uint8": pytest.mark.tflite}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in BACKENDS])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if request.param.startswith("plan"):  # on the stand-in device, the last one as a Jetson
        monkeypatch.setenv("STANDIN_SHARED", str(int("shared" in request.param)))
        request.getfixturevalue("standin")
    return BACKENDS[request.param]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_infer_computes_the_network_for_every_batch_size(backend: Backend, tmp_path: Path, n: int) -> None:
    batch = backend.batch(n)
    with open_engine(backend.save(tmp_path), backend.device) as engine:
        output = engine.infer(batch)
        assert engine.device == backend.device
    assert (output.dtype, output.shape) == (np.float32, (n, 4))
    np.testing.assert_allclose(output, backend.expected(batch), rtol=1e-5, atol=backend.tolerance)


def test_rows_do_not_depend_on_their_neighbours(backend: Backend, tmp_path: Path) -> None:
    batch = backend.batch(5)
    with open_engine(backend.save(tmp_path), backend.device, threads=1) as engine:
        alone = np.concatenate([engine.infer(row[None]) for row in batch])
        np.testing.assert_allclose(engine.infer(batch), alone, rtol=1e-6, atol=1e-6)


def test_result_belongs_to_the_caller(backend: Backend, tmp_path: Path) -> None:
    batch = backend.batch(2)
    with open_engine(backend.save(tmp_path), backend.device) as engine:
        first = engine.submit(batch).result()
        kept = first.copy()
        engine.infer(batch[::-1])
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
        np.testing.assert_array_equal(engine.infer(batch), kept)


def test_as_many_batches_as_it_says_are_in_flight_and_each_has_its_own_answer(backend: Backend, tmp_path: Path) -> None:
    with open_engine(backend.save(tmp_path), backend.device) as engine:
        assert engine.in_flight == (2 if backend.device == "cuda" else 1)
        for turn in range(4):  # graphs are captured meanwhile
            batches = [backend.batch(n) for n in range(1, engine.in_flight + 2 + turn % 2)]
            pending = [engine.submit(batch) for batch in batches]
            for batch, answer in list(zip(batches, pending, strict=True))[:: 1 - 2 * (turn // 2)]:
                np.testing.assert_allclose(answer.result(), backend.expected(batch), rtol=1e-5, atol=backend.tolerance)


def test_batch_is_left_as_it_was_and_may_be_scattered_in_memory(backend: Backend, tmp_path: Path) -> None:
    batch = backend.batch(6)
    kept = batch.copy()
    with open_engine(backend.save(tmp_path), backend.device) as engine:
        np.testing.assert_array_equal(engine.infer(batch[::2]), engine.infer(batch[::2].copy()))
    np.testing.assert_array_equal(batch, kept)


@pytest.mark.parametrize("fault", ["empty", "no batch axis", "turned", "float64", "other dtype", "a list"])
def test_submit_refuses_a_batch_unlike_the_manifest(backend: Backend, tmp_path: Path, fault: str) -> None:
    good = backend.batch(2)
    wrong: Any = {
        "empty": good[:0],
        "no batch axis": good[0],
        "turned": np.moveaxis(good, 1, 3) if backend.input.layout == "NCHW" else np.moveaxis(good, 3, 1),
        "float64": good.astype(np.float64),
        "other dtype": good.astype(np.uint8 if good.dtype == np.float32 else np.float32),
        "a list": good.tolist(),
    }[fault]
    with (
        open_engine(backend.save(tmp_path), backend.device) as engine,
        pytest.raises(EngineInputError, match="expected a"),
    ):
        engine.submit(wrong)


def test_closed_engine_refuses_to_run_and_closes_twice(backend: Backend, tmp_path: Path) -> None:
    engine = open_engine(backend.save(tmp_path), backend.device)
    engine.close()
    engine.close()
    with pytest.raises(EngineRunError, match="closed"):
        engine.infer(backend.batch(1))


def test_manifest_unlike_the_graph_is_refused(backend: Backend, tmp_path: Path) -> None:
    other = backend.input.model_copy(update={"height": 16})
    for changes in ({"input": other}, {"output": OutputSpec(kind="features", size=5)}):
        with pytest.raises(ModelError, match="the manifest says") as caught:
            open_engine(backend.save(tmp_path, **changes), backend.device)
        assert caught.value.exit_code == 78


def test_one_flipped_bit_is_refused_by_the_hash(backend: Backend, tmp_path: Path) -> None:
    path = backend.save(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged or the manifest belongs to another"):
        open_engine(path)


def test_pin_refuses_another_file_that_its_manifest_allows(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the configuration pins"):
        open_engine(backend.save(tmp_path), backend.device, sha256="0" * 64)


@pytest.mark.parametrize("arguments", [{"device": "tpu"}, {"threads": 0}])
def test_senseless_arguments_are_a_usage_error(backend: Backend, tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_engine(backend.save(tmp_path), **arguments)
