"""TensorRT plans run on the GPU: the runtime half; ``tensorrt_build`` makes the plans.

    submit: rows -> page-locked input -> device -> network -> page-locked output -> mark      (nothing waits)
    result: wait for the mark, copy the rows out

Two lanes take turns, each with its stream, buffers and scratch memory, so that the rows of one batch are copied while
the other is computed. Every number of rows up to ``GRAPH_ROWS`` has an execution context of its own in each lane, as a
CUDA graph holds for one context in one state; its second batch is captured, and from then on launched as one graph.
"""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import Batch, CheckedEngine, Float32, Pending
from engines.cuda import Gpu
from engines.cuda_graph import Graph
from engines.errors import DeviceLostError, EngineRunError, ModelError, UsageError
from engines.plan_manifest import PlanSection, check_label, check_machine, rebuild_command
from engines.spec import ModelSpec
from engines.tensorrt_api import bindings, complaint, logger, refuse_complaints

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger(__name__)

LANES = 2
GRAPH_ROWS = 16  # beyond, the launches cost nothing beside the computing


class TensorRtEngine(CheckedEngine):
    """A plan on the first NVIDIA GPU.

    Args:
        model: the plan's bytes, whose hash was checked. spec: its manifest. path: where it lies, for sentences.
        device: ``auto`` or ``cuda``. threads: of no meaning on a GPU.
        graphs: False launches every batch piece by piece.

    Batches larger than the plan's largest are computed in parts, smaller ones than its smallest are filled up. The
    engine may pass from thread to thread but serves one at a time. Results are copies; no buffer is ever handed out.

    Raises:
        ModelError: TensorRT, pycuda or the GPU is missing, or the plan is not for this machine.
        UsageError: ``device`` is ``cpu``.
        EngineRunError: the GPU has no memory left.
    """

    in_flight = LANES

    def __init__(
        self, model: bytes, spec: ModelSpec, device: str, threads: int | None, *, path: Path, graphs: bool = True
    ) -> None:
        del threads
        if device == "cpu":
            raise UsageError(f"{path}: a TensorRT plan runs on a GPU only; name its .onnx file for the CPU")
        if spec.plan is None:
            raise ModelError(f"{path}: its manifest has no section 'plan'; make plans with engines build")
        self._gpu = Gpu()
        self.machine = self._gpu.machine(str(bindings().__version__))
        check_machine(path, spec.plan, self.machine)
        machine = self.machine
        super().__init__(spec, "cuda", f"TensorRT {machine.tensorrt} on {machine.gpu}, {spec.plan.precision} plan")
        self._graphs = _GraphSwitch(on=graphs)
        self._lanes: list[_Lane] = []
        self._turn = 0
        with self._gpu.use(f"{path}: loading"):
            self._network = _Network(model, spec, spec.plan, path)
            for _ in range(LANES):
                self._lanes.append(_Lane(self._gpu, self._network, self._graphs))

    def _start(self, batch: Batch) -> Pending:
        most = self._network.most
        return _Answer([self._launch(batch[first : first + most]) for first in range(0, len(batch), most)])

    def _launch(self, rows: Batch) -> _Flight:
        lane = self._lanes[self._turn]
        self._turn = (self._turn + 1) % LANES
        if lane.flight is not None:
            self._land(lane.flight)
        with self._gpu.use(f"{self.spec.name}: inference of {len(rows)} rows"):
            lane.start(rows)
        lane.flight = _Flight(self, lane, len(rows))
        return lane.flight

    def _land(self, flight: _Flight) -> None:
        """Give ``flight`` its answer, or the error that is its own."""
        if self._closed:
            raise EngineRunError(f"{self.spec.name}: the engine was closed before this batch was done; open it again")
        flight.lane.flight = None
        try:
            with self._gpu.use(f"{self.spec.name}: inference of {flight.rows} rows"):
                flight.output = flight.lane.collect(flight.rows)
        except DeviceLostError:
            raise
        except EngineRunError as error:
            flight.error = error

    def describe(self) -> dict[str, str]:
        machine, network = self.machine, self._network
        captured = sum(lane.captured for lane in self._lanes)
        return {
            "runtime": f"TensorRT {machine.tensorrt} on {machine.gpu}, compute capability {machine.compute_capability}",
            "input": network.input_text,
            "output": network.output_text,
            "batches": f"{network.least} to {network.most} rows, {LANES} in flight",
            "memory": "shared by CPU and GPU, nothing is copied" if self._gpu.integrated else "the GPU's own",
            "graphs": f"{captured} captured" if self._graphs.on else "off",
        }

    def close(self) -> None:
        if self._closed:
            return
        super().close()
        try:
            with self._gpu.use(f"{self.spec.name}: closing"):
                while self._lanes:
                    self._lanes.pop().free()
                del self._network
        except EngineRunError as error:
            log.warning("%s: not everything could be given back to the GPU: %s", self.spec.name, error)


class _Flight:
    """One batch of one lane; ``output`` or ``error`` is set when it has landed."""

    def __init__(self, engine: TensorRtEngine, lane: _Lane, rows: int) -> None:
        self._engine, self.lane, self.rows = engine, lane, rows
        self.output: Float32 | None = None
        self.error: EngineRunError | None = None

    def result(self) -> Float32:
        if self.output is None and self.error is None:
            self._engine._land(self)
        if self.error is not None:
            raise self.error
        assert self.output is not None  # noqa: S101 - landed without an error
        return self.output


class _Answer:
    """A batch in one or several flights."""

    def __init__(self, flights: list[_Flight]) -> None:
        self._flights = flights

    def result(self) -> Float32:
        parts = [flight.result() for flight in self._flights]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _GraphSwitch:
    """Whether CUDA graphs are used; the first one that fails turns them off for the engine."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    def turn_off(self, why: EngineRunError) -> None:
        log.warning("CUDA graphs are off, batches are launched piece by piece: %s", why)
        self.on = False


class _Network:
    """A deserialised plan: names, types and shapes, checked against its manifest."""

    def __init__(self, model: bytes, spec: ModelSpec, section: PlanSection, path: Path) -> None:
        import tensorrt as trt

        self.spec = spec
        complaint()
        # ``engine_host_code_allowed`` stays False: a plan that carries code for the CPU is refused.
        self._runtime: trt.Runtime = trt.Runtime(logger())
        refuse_complaints("start its runtime")
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(model)
        if engine is None:
            raise ModelError(
                f"{path}: TensorRT refuses it ({complaint()}); rebuild it here: {rebuild_command(path, section)}"
            )
        check_label(path, section, engine.name)
        self.engine: trt.ICudaEngine = engine
        self._check_tensors(path)
        count = engine.num_optimization_profiles
        shapes = [engine.get_tensor_profile_shape(self.input, index) for index in range(count)]
        self._profiles: list[tuple[int, int]] = [(shape[0][0], shape[2][0]) for shape in shapes]
        self.least = min(low for low, _ in self._profiles)
        self.most = max(high for _, high in self._profiles)
        self.scratch_bytes: int = engine.device_memory_size_v2

    def _check_tensors(self, path: Path) -> None:
        import tensorrt as trt

        spec = self.spec
        engine: trt.ICudaEngine = self.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"{path}: expected one input and one output, the plan has {len(inputs)}, {len(outputs)}")
        self.input, self.output = inputs[0], outputs[0]
        shape, out_shape = tuple(engine.get_tensor_shape(self.input)), tuple(engine.get_tensor_shape(self.output))
        dtype, self.output_dtype = self._dtype(self.input), self._dtype(self.output)
        self.input_text = f"{self.input} {dtype} {shape}"
        self.output_text = f"{self.output} {self.output_dtype} {out_shape}"
        if shape[1:] != spec.input.shape or dtype != spec.input.numpy_dtype:
            wanted = f"(n, {', '.join(map(str, spec.input.shape))}) {spec.input.dtype}"
            raise ModelError(f"{path}: the manifest says input {wanted}, the plan says {self.input_text}")
        if prod(out_shape[1:]) != spec.output.size or self.output_dtype not in (np.float32, np.float16):
            raise ModelError(
                f"{path}: the manifest says output (n, {spec.output.size}) float32, the plan says {self.output_text}"
            )

    def _dtype(self, name: str) -> np.dtype[Any]:
        import tensorrt as trt

        dtype = self.engine.get_tensor_dtype(name)
        try:
            numpy_dtype: np.dtype[Any] = np.dtype(trt.nptype(dtype))
        except TypeError as error:
            raise ModelError(f"{self.spec.name}: tensor {name} is of a type that numpy lacks: {dtype}") from error
        return numpy_dtype

    def filled(self, rows: int) -> int:
        """The number of rows to compute for ``rows``: no less than some profile takes."""
        return min(max(rows, low) for low, high in self._profiles if rows <= high)

    def profile_of(self, rows: int) -> int:
        """The narrowest profile that takes ``rows``."""
        fits = [index for index, (low, high) in enumerate(self._profiles) if low <= rows <= high]
        return min(fits, key=lambda index: self._profiles[index][1] - self._profiles[index][0])

    def context(self, scratch: int) -> trt.IExecutionContext:
        """A new execution context that computes in the memory at ``scratch``."""
        import tensorrt as trt

        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context: trt.IExecutionContext | None = self.engine.create_execution_context(strategy)
        if context is None:
            raise EngineRunError(f"{self.spec.name}: TensorRT makes no execution context: {complaint()}")
        context.set_device_memory(scratch, self.scratch_bytes)
        return context


class _Lane:
    """One batch at a time: a stream, fixed buffers for the largest batch, and a context for each number of rows."""

    def __init__(self, gpu: Gpu, network: _Network, graphs: _GraphSwitch) -> None:
        spec = network.spec
        self.flight: _Flight | None = None
        self.network, self.graphs = network, graphs
        self.stream = gpu.stream()
        self._scratch = gpu.memory(network.scratch_bytes)
        self.input = gpu.buffer((network.most, *spec.input.shape), spec.input.numpy_dtype)
        self.output = gpu.buffer((network.most, spec.output.size), network.output_dtype)
        self._contexts: dict[int, _Context] = {}

    @property
    def scratch(self) -> int:
        """Address of the memory that the lane's contexts compute in, one at a time."""
        return self._scratch.address

    @property
    def captured(self) -> int:
        """Contexts that are launched as a graph."""
        return sum(context.is_captured for context in self._contexts.values())

    def start(self, batch: Batch) -> None:
        rows = self.network.filled(len(batch))
        self.input.host[: len(batch)] = batch
        self._context(rows).run(rows)
        self.stream.mark()

    def collect(self, rows: int) -> Float32:
        self.stream.wait()
        return np.array(self.output.host[:rows], dtype=np.float32)

    def _context(self, rows: int) -> _Context:
        key = rows if rows <= GRAPH_ROWS else 0  # one context for all large batches, with its shape set anew
        if key not in self._contexts:
            self._contexts[key] = _Context(self)
        return self._contexts[key]

    def free(self) -> None:
        self.stream.drain()
        for context in self._contexts.values():
            context.free()
        self._contexts.clear()
        for memory in (self.input, self.output, self._scratch):
            memory.free()
        self.stream.free()


class _Context:
    """An execution context of a lane; runs what lies in the lane's input, plainly or as a graph."""

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane
        self._context: trt.IExecutionContext | None = lane.network.context(lane.scratch)
        self._rows = 0
        self._graph: Graph | None = None

    @property
    def is_captured(self) -> bool:
        return self._graph is not None

    def run(self, rows: int) -> None:
        """Give the stream the computing of ``rows`` rows."""
        fresh = rows != self._rows
        if fresh:
            self._prepare(rows)
        if not fresh and self._graph is None and self._lane.graphs.on and rows <= GRAPH_ROWS:
            self._capture()
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def _prepare(self, rows: int) -> None:
        lane, network = self._lane, self._lane.network
        context: trt.IExecutionContext | None = self._context
        assert context is not None  # noqa: S101 - freed contexts are not run
        profile = network.profile_of(rows)
        self._must(context.set_optimization_profile_async(profile, lane.stream.handle), "profile", rows)
        lane.stream.drain()
        shape = (rows, *network.spec.input.shape)
        self._must(context.set_input_shape(network.input, shape), "shape", rows)
        self._must(context.set_tensor_address(network.input, lane.input.address), "input address", rows)
        self._must(context.set_tensor_address(network.output, lane.output.address), "output address", rows)
        self._must(not context.infer_shapes(), "shapes", rows)
        found, size = tuple(context.get_tensor_shape(network.output)), network.spec.output.size
        if found[0] != rows or prod(found) != rows * size:
            raise EngineRunError(f"{network.spec.name}: expected ({rows}, {size}) values, the plan gives {found}")
        self._rows = rows

    def _capture(self) -> None:
        try:
            self._graph = Graph(self._lane.stream.handle, self._enqueue)
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._lane.graphs.turn_off(error)

    def _enqueue(self) -> None:
        lane = self._lane
        context: trt.IExecutionContext | None = self._context
        assert context is not None  # noqa: S101 - freed contexts are not run
        lane.input.upload(self._rows, lane.stream)
        self._must(context.execute_async_v3(lane.stream.handle), "inference", self._rows)
        lane.output.download(self._rows, lane.stream)

    def _must(self, done: bool, what: str, rows: int) -> None:
        if not done:
            said = complaint()
            raise EngineRunError(f"{self._lane.network.spec.name}: TensorRT refused the {what} of {rows} rows: {said}")

    def free(self) -> None:
        if self._graph is not None:
            self._graph.free()
        self._graph = self._context = None
