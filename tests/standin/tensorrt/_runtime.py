"""The runtime's half: plans that hold ONNX, engines and execution contexts that run them on ONNX Runtime.

Like the real library, most calls answer False (or None) and tell the logger why; they never raise for wrong values.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import numpy as np
import onnxruntime as ort
import standin_device
from standin_device import CudaError, Work, device
from tensorrt import _common as common
from tensorrt._common import DataType, Dims, ILogger, TensorIOMode, _PybindEnum, log, nptype

_ELEMENTS = {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF, "tensor(uint8)": DataType.UINT8}


class ExecutionContextAllocationStrategy(_PybindEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class TensorLocation(_PybindEnum):
    DEVICE = 0
    HOST = 1


class LayerInformationFormat(_PybindEnum):
    ONELINE = 0
    JSON = 1


class ProfilingVerbosity(_PybindEnum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments. 1. (logger: tensorrt.ILogger)")
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        content = bytes(memoryview(serialized_engine))
        try:
            header, model = common.read_plan(content)
            if header.get("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)  # what some versions do with a plan of another version
            self._refuse(header)
            return ICudaEngine(header, model, self.logger)
        except (ValueError, KeyError, *_ort_errors()) as error:
            log(self.logger, ILogger.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: Serialization ({error})")
            return None

    def _refuse(self, header: dict[str, Any]) -> None:
        built, here = (tuple(map(int, text.split("."))) for text in (header["tensorrt"], standin_device.TENSORRT))
        if built != here and not (header["version_compatible"] and built < here):
            raise ValueError(
                f"The engine plan file is not compatible with this version of TensorRT, expecting library version "
                f"{standin_device.TENSORRT} got {header['tensorrt']}, please rebuild"
            )
        if header["host_code"] and not self.engine_host_code_allowed:
            raise ValueError("Cannot deserialize engine with lean runtime: engine_host_code_allowed is false")
        capability = ".".join(map(str, standin_device.COMPUTE_CAPABILITY))
        if header["compute_capability"] != capability and not header.get("hardware_compatible"):
            raise ValueError(
                f"The engine plan file is generated on an incompatible device, expecting compute {capability} "
                f"got compute {header['compute_capability']}, please rebuild"
            )


def _ort_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))


class ICudaEngine:
    def __init__(self, header: dict[str, Any], model: bytes, logger: ILogger) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._header, self._logger = header, logger
        self._inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        self._outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        self.name = header.get("name", "Unnamed Network 0")

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._header["profiles"])

    @property
    def num_layers(self) -> int:
        return 1

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 16

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name in self._inputs:
            return TensorIOMode.INPUT
        return TensorIOMode.OUTPUT if name in self._outputs else TensorIOMode.NONE

    def get_tensor_dtype(self, name: str) -> DataType:
        return _ELEMENTS.get({**self._inputs, **self._outputs}[name].type, DataType.INT64)

    def get_tensor_shape(self, name: str) -> Dims:
        shape = {**self._inputs, **self._outputs}[name].shape
        return Dims(size if isinstance(size, int) else -1 for size in shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self._header["profiles"][profile_index][name]]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        if device.lost is not None or not device.stack():
            log(self._logger, ILogger.ERROR, "createExecutionContext: Cuda Runtime (invalid device context)")
            return None
        return IExecutionContext(self, strategy)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:  # noqa: A002 - the bindings' name
        assert isinstance(format, LayerInformationFormat)
        layers = self._engine._header.get("layers", ["onnxruntime"])
        return json.dumps({"Layers": layers, "Bindings": [*self._engine._inputs, *self._engine._outputs]})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        self.engine = engine
        self._user_managed = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._scratch: int | None = None
        self._profile = 0
        self._shapes: dict[str, Dims] = {}
        self._addresses: dict[str, int] = {}
        self._state = 0  # changes whenever something is set: a captured graph holds for one state alone
        self._warm = -1  # the state in which it was last run

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._user_managed or size < self.engine.device_memory_size_v2:
            self._complain("setDeviceMemoryV2", "the memory is not the user's to give, or too small")
            return
        self._scratch = _integer(memory)
        self._state += 1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self.engine.num_optimization_profiles or stream_handle not in device.streams:
            return self._complain("setOptimizationProfileAsync", f"no profile {profile_index} or no such stream")
        if profile_index != self._profile:
            self._shapes.clear()
        self._profile = profile_index
        self._state += 1
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if not isinstance(shape, (tuple, list)):
            raise TypeError("set_input_shape(): incompatible function arguments")
        if name not in self.engine._inputs:
            return self._complain("setInputShape", f"Given invalid tensor name: {name}")
        least, _, most = self.engine.get_tensor_profile_shape(name, self._profile)
        fits = len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )
        if not fits:
            return self._complain("setInputShape", f"{name}: {tuple(shape)} is outside profile {self._profile}")
        self._shapes[name] = Dims(shape)
        self._state += 1
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self.engine._inputs:
            return self._shapes.get(name, self.engine.get_tensor_shape(name))
        known = {
            symbol: size
            for given, shape in self._shapes.items()
            for symbol, size in zip(self.engine._inputs[given].shape, shape, strict=True)
        }
        # What no input's shape tells depends on values, and stays -1 until the network has run.
        return Dims(known.get(size, -1) if isinstance(size, str) else size for size in self.engine._outputs[name].shape)

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine._inputs if name not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self.engine.get_tensor_mode(name) is TensorIOMode.NONE:
            return self._complain("setTensorAddress", f"Given invalid tensor name: {name}")
        self._addresses[name] = _integer(memory)
        self._state += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        try:
            state = device.stream("enqueueV3", _integer(stream_handle))
        except CudaError as error:
            return self._complain("enqueueV3", f"Cuda Runtime ({error})")
        missing = self.infer_shapes() or [n for n in self._all_names() if n not in self._addresses]
        if missing or (self._user_managed and self._scratch is None):
            return self._complain("enqueueV3", f"shape, address or device memory not set: {missing}")
        if state.captured is not None and self._warm != self._state:
            state.broken = True
            return self._complain("enqueueV3", "first run in this state: lazy initialisation cannot be captured")
        self._warm = self._state
        device.give(state, self._work())
        return True

    def _work(self) -> Work:
        shapes, addresses, now = dict(self._shapes), dict(self._addresses), self._state
        outputs = {name: self._bytes(name, self.get_tensor_shape(name)) for name in self.engine._outputs}

        def ahead() -> None:
            for name, nbytes in outputs.items():
                standin_device.poison(device.at(addresses[name], nbytes))

        def run() -> None:
            device.count_inference()
            feeds = {}
            for name, shape in shapes.items():
                raw = device.at(addresses[name], self._bytes(name, shape))
                feeds[name] = raw.view(nptype(self.engine.get_tensor_dtype(name))).reshape(shape).copy()
            for name, array in zip(outputs, self.engine._session.run(list(outputs), feeds), strict=True):
                device.at(addresses[name], array.nbytes)[:] = standin_device.bytes_of(np.ascontiguousarray(array))

        return Work(run, ahead, self._scratch, still_valid=lambda: self._state == now)

    def _all_names(self) -> list[str]:
        return [*self.engine._inputs, *self.engine._outputs]

    def _bytes(self, name: str, shape: Any) -> int:
        return int(np.prod(shape)) * self.engine.get_tensor_dtype(name).itemsize

    def _complain(self, call: str, message: str) -> bool:
        log(self.engine._logger, ILogger.ERROR, f"IExecutionContext::{call}: Error Code 3: API Usage Error ({message})")
        return False


def _integer(value: Any) -> int:
    """pybind11 turns whatever has ``__index__`` into a number, and nothing else."""
    if not hasattr(value, "__index__"):
        raise TypeError("incompatible function arguments")
    return int(value)
