"""TensorRT plans on the stand-in device: lanes, graphs, profiles, buffers and what goes wrong."""

from __future__ import annotations

import ctypes
import sys
import threading
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from engines import (
    DeviceLostError,
    EngineRunError,
    ModelError,
    OutputSpec,
    UsageError,
    load_spec,
    open_engine,
    write_spec,
)
from engines.cuda import STICKY
from engines.tensorrt_runtime import GRAPH_ROWS, TensorRtEngine
from tests.engines import networks, plans

pytestmark = pytest.mark.usefixtures("standin")
Array = np.ndarray[Any, Any]


def device() -> Any:
    """The stand-in's device: its counters and faults."""
    return import_module("standin_device").device


def batch(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8), dtype=np.float32)


def expected(rows: Array) -> Array:
    return np.asarray(rows.mean(axis=(2, 3)) @ networks.WEIGHTS)


def assert_right(output: Array, rows: Array) -> None:
    np.testing.assert_allclose(output, expected(rows), rtol=1e-5, atol=1e-6)


def opened(folder: Path, *, graphs: bool = True, **plan: Any) -> TensorRtEngine:
    path = plans.save(folder, networks.graph(), **plan)
    return TensorRtEngine(path.read_bytes(), load_spec(path), "cuda", None, path=path, graphs=graphs)


@pytest.fixture(params=["cuda-python", "ctypes"])
def graph_calls(request: pytest.FixtureRequest, standin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the driver's graphs."""
    if request.param == "ctypes":
        monkeypatch.setitem(sys.modules, "cuda", None)
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        library = import_module("standin_libcuda").Library()
        monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": library}.__getitem__)


@pytest.mark.usefixtures("graph_calls")
def test_second_batch_of_a_size_is_captured_and_later_ones_are_launched_as_a_graph(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        for call in range(10):
            assert_right(engine.infer(batch(2, call)), batch(2, call))
        assert (device().captures, device().launches) == (2, 8)  # two lanes: a plain run each, then a graph each
        assert engine.describe()["graphs"] == "2 captured"
    assert device().objects == {}


def test_answers_with_and_without_graphs_are_the_same_bits(tmp_path: Path) -> None:
    rows = [batch(n, n) for n in (1, 2, 3, 3, 2, 1, 8, 8, 8, 1, 2, 3)]
    with opened(tmp_path) as captured, opened(tmp_path, graphs=False) as plain:
        for one in rows:
            np.testing.assert_array_equal(captured.infer(one), plain.infer(one))
        assert plain.describe()["graphs"] == "off"
    assert device().captures > 0


@pytest.mark.usefixtures("graph_calls")
def test_capture_that_fails_turns_graphs_off_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device(), "instantiate", lambda graph: (901, 0))
    end = device().end_capture
    monkeypatch.setattr(device(), "end_capture", lambda handle: (901, end(handle)[1]))
    with opened(tmp_path) as engine:
        for call in range(6):
            assert_right(engine.infer(batch(2, call)), batch(2, call))
        assert engine.describe()["graphs"] == "off"
    assert device().launches == 0


def test_large_batches_are_launched_piece_by_piece(tmp_path: Path) -> None:
    most = GRAPH_ROWS + 8
    with opened(tmp_path, profiles=[(1, 8, most)]) as engine:
        for n in (most, most, most, most - 1, most, GRAPH_ROWS + 1):
            assert_right(engine.infer(batch(n)), batch(n))
    assert device().captures == 0


def test_two_batches_are_in_flight_and_the_third_waits_for_the_first(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        pending = [engine.submit(batch(3, seed)) for seed in (1, 2)]
        assert device().inferences == 0  # nobody has waited yet
        pending.append(engine.submit(batch(3, 3)))
        assert device().inferences == 1
        for seed in (3, 1, 2):
            assert_right(pending[seed - 1].result(), batch(3, seed))


def test_answer_can_be_asked_for_again_and_outlives_the_engine(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        pending = engine.submit(batch(2))
        first = pending.result()
        assert pending.result() is first
    assert_right(first, batch(2))


def test_batch_may_be_overwritten_once_it_is_submitted(tmp_path: Path) -> None:
    rows = batch(2)
    with opened(tmp_path) as engine:
        pending = engine.submit(rows)
        rows[:] = 7
        assert_right(pending.result(), batch(2))


def test_answer_of_a_closed_engine_says_so(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    pending = engine.submit(batch(2))
    engine.close()
    with pytest.raises(EngineRunError, match="closed before this batch was done"):
        pending.result()


@pytest.mark.parametrize(
    "profiles", [[(1, 4, 8)], [(4, 4, 4)], [(4, 8, 8)], [(1, 1, 1), (2, 4, 8)], [(1, 1, 2), (2, 8, 24)]]
)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 30])
def test_every_number_of_rows_is_computed_whatever_the_profiles(
    tmp_path: Path, profiles: list[plans.Rows], n: int
) -> None:
    with opened(tmp_path, profiles=profiles) as engine:
        for seed in range(4):
            assert_right(engine.infer(batch(n, seed)), batch(n, seed))


def test_narrowest_profile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = import_module("tensorrt").IExecutionContext
    chosen: list[int] = []
    choose = context.set_optimization_profile_async

    def note(self: Any, profile_index: int, stream_handle: int) -> bool:
        chosen.append(profile_index)
        return bool(choose(self, profile_index, stream_handle))

    monkeypatch.setattr(context, "set_optimization_profile_async", note)
    with opened(tmp_path, profiles=[(1, 8, 16), (1, 1, 1), (2, 4, 8)]) as engine:
        for n in (1, 4, 12):
            engine.infer(batch(n))
    assert chosen == [1, 2, 0]


def test_half_precision_output_arrives_as_float32(tmp_path: Path) -> None:
    path = plans.save(tmp_path, networks.half_output_graph())
    with open_engine(path) as engine:
        output = engine.infer(batch(3))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected(batch(3)), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("integrated", [False, True])
def test_closing_gives_every_byte_stream_and_graph_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, integrated: bool
) -> None:
    monkeypatch.setattr(import_module("standin_device"), "SHARED", integrated)
    engine = opened(tmp_path)
    for n in (1, 2, 2, 8, 8, 8, 20, 1):
        engine.infer(batch(n))
    engine.submit(batch(3))
    assert device().allocated() > 0
    engine.close()
    assert (device().allocated(), device().streams, device().objects) == (0, {}, {})


def test_shared_memory_is_bound_directly_and_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("standin_device"), "SHARED", True)
    driver = import_module("pycuda.driver")
    monkeypatch.delattr(driver, "memcpy_htod_async")
    monkeypatch.delattr(driver, "memcpy_dtoh_async")
    with opened(tmp_path) as engine:
        for seed in range(4):
            assert_right(engine.infer(batch(3, seed)), batch(3, seed))
        assert "nothing is copied" in engine.describe()["memory"]


@pytest.mark.parametrize("code", sorted(STICKY))
@pytest.mark.parametrize("graphs", [True, False])
def test_sticky_error_loses_the_device_for_good(tmp_path: Path, code: int, graphs: bool) -> None:
    engine = opened(tmp_path, graphs=graphs)
    for _ in range(6):
        engine.infer(batch(2))
    device().fail(code)
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=STICKY[code]) as caught:
            engine.infer(batch(2))
        assert caught.value.exit_code == 75
    engine.close()  # does not raise, though nothing can be freed any more


def test_lost_device_is_told_from_a_refusal_even_where_only_tensorrt_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(tmp_path)
    context = import_module("tensorrt").IExecutionContext
    monkeypatch.setattr(context, "execute_async_v3", lambda self, stream_handle: False)
    with pytest.raises(EngineRunError, match="TensorRT refused the inference of 2 rows") as caught:
        engine.infer(batch(2))
    assert not isinstance(caught.value, DeviceLostError)
    device().lose("kernel", 719)
    with pytest.raises(DeviceLostError):
        engine.infer(batch(2))


def test_failure_while_another_thread_captures_a_graph_is_no_lost_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload opens its engines beside those that run; the context cannot be waited for while a stream is captured."""
    with opened(tmp_path) as engine:
        for _ in range(2):
            engine.infer(batch(2))
        begin, failed = device().begin_capture, []

        def open_another() -> None:
            device().refuse_memory = 1
            with pytest.raises(EngineRunError, match="out of memory") as caught:
                opened(tmp_path)
            failed.append(caught.value)

        def begin_and_open(handle: int, mode: int) -> int:
            code = int(begin(handle, mode))
            thread = threading.Thread(target=open_another)
            thread.start()
            thread.join(20)
            return code

        monkeypatch.setattr(device(), "begin_capture", begin_and_open)
        assert_right(engine.infer(batch(2, 1)), batch(2, 1))  # its capture is broken by that, and given up
        assert not isinstance(failed[0], DeviceLostError)


@pytest.mark.parametrize("graphs", [True, False])
def test_recoverable_error_fails_its_own_batch_alone(tmp_path: Path, graphs: bool) -> None:
    with opened(tmp_path, graphs=graphs) as engine:
        for _ in range(6):
            engine.infer(batch(2))
        device().fail(2)
        unlucky, lucky = engine.submit(batch(2, 1)), engine.submit(batch(2, 2))
        third = engine.submit(batch(2, 3))  # waits for the unlucky one, and must not be told its error
        assert_right(third.result(), batch(2, 3))
        assert_right(lucky.result(), batch(2, 2))
        for _ in range(2):
            with pytest.raises(EngineRunError, match="out of memory") as caught:
                unlucky.result()
        assert not isinstance(caught.value, DeviceLostError)


def test_gpu_without_memory_says_so_at_opening(tmp_path: Path) -> None:
    device().refuse_memory = 1
    with pytest.raises(EngineRunError, match="out of memory"):
        opened(tmp_path)


def test_engine_may_pass_from_thread_to_thread(tmp_path: Path) -> None:
    answers: list[Array] = []
    with opened(tmp_path) as engine:
        for _ in range(4):
            thread = threading.Thread(target=lambda: answers.append(engine.infer(batch(2))))
            thread.start()
            thread.join(20)
        assert_right(engine.infer(batch(2)), batch(2))
    assert len(answers) == 4
    assert_right(answers[-1], batch(2))


def test_two_threads_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    within, leave = threading.Event(), threading.Event()
    with opened(tmp_path) as engine:
        count = device().count_inference

        def linger() -> None:
            within.set()
            leave.wait(20)
            count()

        monkeypatch.setattr(device(), "count_inference", linger)
        thread = threading.Thread(target=lambda: engine.infer(batch(2)))
        thread.start()
        within.wait(20)
        with pytest.raises(EngineRunError, match="serves one thread at a time"):
            engine.infer(batch(2))
        leave.set()
        thread.join(20)


def test_plan_with_code_for_the_cpu_is_refused(tmp_path: Path) -> None:
    path = plans.save(tmp_path, networks.graph(), header={"host_code": True})
    with pytest.raises(ModelError, match=r"engine_host_code_allowed is false.*engines build"):
        open_engine(path)


def test_runtime_that_could_not_start_is_never_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 11.4 without a fitting driver tells its log, and returns an object that kills whoever calls it."""
    path = plans.save(tmp_path, networks.graph())
    trt = import_module("tensorrt")
    called: list[str] = []

    class Null:
        def __init__(self, logger: Any) -> None:
            trt.log(logger, trt.ILogger.ERROR, "createInferRuntime: CUDA initialization failure with error: 35")

        def deserialize_cuda_engine(self, serialized_engine: Any) -> None:
            called.append("segmentation fault")

    monkeypatch.setattr(trt, "Runtime", Null)
    with pytest.raises(ModelError, match=r"cannot start its runtime on this machine: .*error: 35"):
        open_engine(path)
    assert not called


@pytest.mark.parametrize("cut", [0, 5, 40, 400, -1])
def test_plan_that_tensorrt_cannot_read_is_refused_with_its_own_words(tmp_path: Path, cut: int) -> None:
    path = plans.save(tmp_path, networks.graph())
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    spec = load_spec(path)
    write_spec(path, replace(spec, sha256=networks.spec_of(content).sha256))
    with pytest.raises(ModelError, match=r"TensorRT refuses it \(.*rebuild it here: engines build"):
        open_engine(path)


def test_plan_whose_output_depends_on_values_is_refused(tmp_path: Path) -> None:
    path = plans.save(tmp_path, networks.indices_graph(), output=OutputSpec(kind="features", size=2))
    with open_engine(path) as engine, pytest.raises(EngineRunError, match=r"expected \(2, 2\) values"):
        engine.infer(batch(2))


@pytest.mark.parametrize("model", [networks.graph(extra_output=True), networks.graph(element=TensorProto.UINT8)])
def test_plan_unlike_its_manifest_is_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ModelError, match=r"the manifest says input|one input and one output") as caught:
        open_engine(plans.save(tmp_path, model))
    assert caught.value.exit_code == 78


def test_plan_without_its_section_is_refused(tmp_path: Path) -> None:
    path = plans.save(tmp_path, networks.graph())
    write_spec(path, replace(load_spec(path), plan=None))
    with pytest.raises(ModelError, match="no section 'plan'"):
        open_engine(path)


def test_plan_on_the_cpu_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="runs on a GPU only"):
        open_engine(plans.save(tmp_path, networks.graph()), "cpu")


@pytest.mark.parametrize("missing", ["tensorrt", "pycuda"])
def test_machine_without_the_libraries_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    path = plans.save(tmp_path, networks.graph())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=r"parrotgate\[tensorrt\]") as caught:
        open_engine(path)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("way", ["no driver library", "library without graphs", "cuda-python without its driver"])
def test_machine_without_graphs_launches_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise {"n": OSError, "l": AttributeError, "c": RuntimeError}[way[0]](way)

    if way.startswith("cuda-python"):
        monkeypatch.setattr(import_module("cuda.bindings.driver"), "cuStreamBeginCapture", refuse)
    else:
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        monkeypatch.setattr(ctypes, "CDLL", refuse)
    with opened(tmp_path) as engine:
        for call in range(6):
            assert_right(engine.infer(batch(2, call)), batch(2, call))
        assert engine.describe()["graphs"] == "off"
    assert way in caplog.text
