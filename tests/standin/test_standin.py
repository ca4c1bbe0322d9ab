"""The stand-in device forbids what a real GPU forbids or leaves undefined; each rule is broken once."""

from __future__ import annotations

import inspect
import threading
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from tests.engines import networks
from tests.engines.conformance.golden import load

pytestmark = pytest.mark.usefixtures("standin")


class Bench:
    """A plan with everything it needs, by hand, in a current context."""

    def __init__(self) -> None:
        self.trt, self.cuda = import_module("tensorrt"), import_module("pycuda.driver")
        self.device = import_module("standin_device").device
        self.cuda.init()
        self.cuda_context = self.cuda.Device(0).retain_primary_context()
        self.cuda_context.push()
        self.said: list[str] = []
        self.stream = self.cuda.Stream()
        self.host_in = self.cuda.pagelocked_empty((8, 3, 8, 8), np.float32)
        self.host_out = self.cuda.pagelocked_empty((8, 4), np.float32)
        self.device_in = self.cuda.mem_alloc(self.host_in.nbytes)
        self.device_out = self.cuda.mem_alloc(self.host_out.nbytes)
        self.engine = self.load()
        self.context = self.bound()

    def load(self, **header: Any) -> Any:
        said, trt = self.said, self.trt

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, msg: str) -> None:
                said.append(msg)

        head = trt.plan_header([{"x": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}], **header)
        self.runtime = trt.Runtime(Log())
        return self.runtime.deserialize_cuda_engine(trt.write_plan(head, networks.graph().SerializeToString()))

    def bound(self) -> Any:
        context = self.engine.create_execution_context()
        assert context.set_input_shape("x", (2, 3, 8, 8))
        assert context.set_tensor_address("x", int(self.device_in))
        assert context.set_tensor_address("y", int(self.device_out))
        return context

    def run(self) -> None:
        self.host_in[:] = 1
        self.cuda.memcpy_htod_async(self.device_in, self.host_in, self.stream)
        assert self.context.execute_async_v3(self.stream.handle)
        self.cuda.memcpy_dtoh_async(self.host_out, self.device_out, self.stream)


@pytest.fixture
def bench(standin: None) -> Bench:
    return Bench()


def test_answer_is_poison_until_the_event_fires(bench: Bench) -> None:
    bench.run()
    event = bench.cuda.Event().record(bench.stream)
    assert np.isnan(bench.host_out).all()
    assert not event.query()
    event.synchronize()
    np.testing.assert_allclose(bench.host_out[:2], np.ones((2, 3)) @ networks.WEIGHTS)


def test_input_that_is_overwritten_too_early_spoils_the_answer(bench: Bench) -> None:
    bench.run()
    bench.host_in[:] = 5
    bench.stream.synchronize()
    np.testing.assert_allclose(bench.host_out[:2], 5 * np.ones((2, 3)) @ networks.WEIGHTS)


def test_thread_without_the_context_is_refused(bench: Bench) -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            bench.stream.synchronize()
        except bench.cuda.LogicError as error:
            caught.append(error)
        assert not bench.context.execute_async_v3(bench.stream.handle)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert "invalid device context" in str(caught[0])
    assert "invalid device context" in bench.said[-1]


def test_memory_is_freed_once(bench: Bench) -> None:
    bench.device_in.free()
    with pytest.raises(bench.cuda.LogicError, match="invalid resource handle"):
        bench.device_in.free()


def test_use_after_free_loses_the_device_for_every_later_call(bench: Bench) -> None:
    bench.device_in.free()
    bench.run()
    for _ in range(2):
        with pytest.raises(bench.cuda.LogicError, match="illegal memory access"):
            bench.stream.synchronize()


def test_copies_from_pageable_memory_are_refused(bench: Bench) -> None:
    with pytest.raises(AssertionError, match="pageable"):
        bench.cuda.memcpy_htod_async(bench.device_in, np.zeros((2, 3, 8, 8), np.float32), bench.stream)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (9, 3, 8, 8), (2, 3, 8, 9), (2, 3, 8)])
def test_shape_outside_the_profile_is_refused(bench: Bench, shape: tuple[int, ...]) -> None:
    assert not bench.context.set_input_shape("x", shape)
    assert "outside profile 0" in bench.said[-1]


def test_unknown_names_are_refused(bench: Bench) -> None:
    assert not bench.context.set_input_shape("z", (2, 3, 8, 8))
    assert not bench.context.set_tensor_address("z", 4096)


@pytest.mark.parametrize("left_out", ["shape", "x", "y"])
def test_inference_without_shape_or_address_is_refused(bench: Bench, left_out: str) -> None:
    context = bench.engine.create_execution_context()
    if left_out != "shape":
        context.set_input_shape("x", (2, 3, 8, 8))
    for name, memory in (("x", bench.device_in), ("y", bench.device_out)):
        if name != left_out:
            context.set_tensor_address(name, int(memory))
    assert not context.execute_async_v3(bench.stream.handle)


@pytest.mark.parametrize("call", ["set_tensor_address('x', 1.5)", "execute_async_v3('1')", "set_input_shape('x', 2)"])
def test_arguments_of_the_wrong_type_raise_as_pybind_does(bench: Bench, call: str) -> None:
    with pytest.raises(TypeError):
        eval(call, {name: getattr(bench.context, name) for name in dir(bench.context)})  # noqa: S307 - our own text


def test_two_streams_in_one_scratch_memory_are_refused(bench: Bench) -> None:
    scratch = bench.cuda.mem_alloc(bench.engine.device_memory_size_v2)
    strategy = bench.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    streams = [bench.stream, bench.cuda.Stream()]
    for number, stream in enumerate(streams):
        context = bench.engine.create_execution_context(strategy)
        context.set_input_shape("x", (2, 3, 8, 8))
        context.set_tensor_address("x", int(bench.device_in))
        context.set_tensor_address("y", int(bench.device_out))
        assert not context.execute_async_v3(stream.handle)  # no scratch memory yet
        context.set_device_memory(int(scratch), bench.engine.device_memory_size_v2)
        if number == 0:
            assert context.execute_async_v3(stream.handle)
        else:
            with pytest.raises(AssertionError, match="same scratch memory"):
                context.execute_async_v3(stream.handle)


def test_graph_holds_for_one_state_of_its_context(bench: Bench) -> None:
    graphs = import_module("engines.cuda_graph")
    bench.run()
    bench.stream.synchronize()
    graph = graphs.Graph(bench.stream.handle, bench.run)
    graph.launch()
    bench.stream.synchronize()
    bench.context.set_input_shape("x", (3, 3, 8, 8))
    graph.launch()
    with pytest.raises(AssertionError, match="changed after this graph was captured"):
        bench.stream.synchronize()


def test_first_run_cannot_be_captured_and_waiting_breaks_a_capture(bench: Bench) -> None:
    device, handle = bench.device, bench.stream.handle
    assert device.begin_capture(handle, 1) == 0
    assert not bench.context.execute_async_v3(handle)
    assert device.end_capture(handle)[0] == 901
    assert device.begin_capture(handle, 1) == 0
    with pytest.raises(bench.cuda.LogicError, match="stream is capturing"):
        bench.stream.synchronize()
    assert device.end_capture(handle)[0] == 901


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"tensorrt": "10.2.0"}, "expecting library version 10.3.0 got 10.2.0"),
        ({"tensorrt": "11.0.0", "version_compatible": True, "host_code": False}, "got 11.0.0"),
        ({"compute_capability": "7.5"}, "expecting compute 8.7 got compute 7.5"),
        ({"version_compatible": True}, "engine_host_code_allowed is false"),
    ],
)
def test_plan_of_another_machine_is_refused(bench: Bench, header: dict[str, Any], words: str) -> None:
    assert bench.load(**header) is None
    assert words in bench.said[-1]


def _methods(module: Any) -> list[tuple[str, str, list[str]]]:
    """(class, method, names of its parameters) of everything public that a stand-in module defines."""
    found = []
    for name, kind in vars(module).items():
        if inspect.isclass(kind) and not name.startswith("_") and kind.__module__ == module.__name__:
            for method, function in vars(kind).items():
                inner = getattr(function, "__func__", function)
                if inspect.isfunction(inner) and not method.startswith("_"):
                    names = list(inspect.signature(inner).parameters)
                    found.append((name, method, names[names[:1] == ["self"] :]))
    return found


@pytest.mark.parametrize(
    ("library", "module", "least"), [("tensorrt", "tensorrt._runtime", 17), ("pycuda", "pycuda.driver", 15)]
)
def test_stand_in_has_the_methods_and_parameters_of_the_real_bindings(library: str, module: str, least: int) -> None:
    methods = _methods(import_module(module))
    assert len(methods) >= least
    for api in load(library).values():
        for owner, method, names in methods:
            overloads = [list(overload.names) for overload in api.signatures(owner, method)]
            # Boost and pybind11 number the parameters that have no name.
            unnamed = [["arg"] * len(overload) for overload in overloads if all(n.startswith("arg") for n in overload)]
            assert names in overloads or ["arg"] * len(names) in unnamed, (api.version, owner, method, names, overloads)
