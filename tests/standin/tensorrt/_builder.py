"""The builder's half: a network is an ONNX model, and building it writes a plan that holds it.

Which flags there are is read from the golden files of the real bindings for the version that is played. More variables:

    STANDIN_BUILD_S     seconds that a build with an empty timing cache takes, default 0
    STANDIN_DLA         DLA cores, default 0
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import standin_device
from tensorrt._common import (
    DataType,
    Dims,
    IHostMemory,
    ILogger,
    Shape,
    _PybindEnum,
    log,
    plan_header,
    write_plan,
)

_GOLDEN = Path(__file__).resolve().parents[2] / "engines" / "conformance" / "golden"
_DLA_CORES = int(os.environ.get("STANDIN_DLA", "0"))
_BUILD_S = float(os.environ.get("STANDIN_BUILD_S", "0"))
_ELEMENTS = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.UINT8: DataType.UINT8,
}
_SMALLEST_WORKSPACE = 1 << 20


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _golden() -> dict[str, Any]:
    """The golden file of the played version, else of the newest one before it, else the oldest."""
    files = sorted(_GOLDEN.glob("tensorrt-*.json"), key=lambda path: _numbers(path.stem.partition("-")[2]))
    fitting = [path for path in files if _numbers(path.stem.partition("-")[2]) <= _numbers(standin_device.TENSORRT)]
    told: dict[str, Any] = json.loads((fitting or files)[-1 if fitting else 0].read_text())["classes"]
    return told


_CLASSES = _golden()


def _enumeration(name: str) -> Any:
    return _PybindEnum(name, {member: index for index, member in enumerate(_CLASSES[name])}, module="tensorrt")


BuilderFlag = _enumeration("BuilderFlag")
NetworkDefinitionCreationFlag = _enumeration("NetworkDefinitionCreationFlag")
OnnxParserFlag = _enumeration("OnnxParserFlag")
HardwareCompatibilityLevel = _enumeration("HardwareCompatibilityLevel")
MemoryPoolType = _enumeration("MemoryPoolType")
DeviceType = _enumeration("DeviceType")


class _Closed:
    """pybind11's classes take no attribute that they do not have."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and _CLASSES[type(self).__name__].get(name) not in ("r", "rw"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)


class IProgressMonitor:
    def __init__(self) -> None:
        self._alive = True

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError("Tried to call pure virtual function")

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError("Tried to call pure virtual function")

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError("Tried to call pure virtual function")


class ITensor(_Closed):
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        self.name = value.name
        self.dtype = _ELEMENTS.get(tensor.elem_type, DataType.INT64)
        sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        self.shape = Dims(sizes)


class INetworkDefinition(_Closed):
    def __init__(self, logger: ILogger, flags: int) -> None:
        self.name = "Unnamed Network 0"
        self.flags = flags
        self._logger = logger
        self._model: onnx.ModelProto | None = None
        self._content = b""

    @property
    def num_inputs(self) -> int:
        return len(self._values("input"))

    @property
    def num_outputs(self) -> int:
        return len(self._values("output"))

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._values("input")[index])

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._values("output")[index])

    def _values(self, side: str) -> list[onnx.ValueInfoProto]:
        if self._model is None:
            return []
        weights = {tensor.name for tensor in self._model.graph.initializer}
        return [value for value in getattr(self._model.graph, side) if value.name not in weights]


class ParserError:
    def __init__(self, description: str) -> None:
        self._description = description

    def desc(self) -> str:
        return self._description

    def __str__(self) -> str:
        return f"In node -1 with name:  and operator:  (parse): MODEL_DESERIALIZE_FAILED: {self._description}"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        if not isinstance(network, INetworkDefinition) or not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments")
        self._network, self._errors = network, list[ParserError]()
        self._flags: set[Any] = set()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def set_flag(self, flag: Any) -> None:
        assert isinstance(flag, OnnxParserFlag)
        self._flags.add(flag)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            parsed = onnx.load_from_string(bytes(memoryview(model)))
            onnx.checker.check_model(parsed)
        except Exception as error:  # noqa: BLE001 - protobuf's and the checker's errors share no base
            self._errors.append(ParserError(str(error).splitlines()[0]))
            return False
        self._network._model, self._network._content = parsed, bytes(memoryview(model))
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:  # noqa: A002
        least, best, most = tuple(min), tuple(opt), tuple(max)
        if not len(least) == len(best) == len(most) or not all(
            0 <= low <= middle <= high for low, middle, high in zip(least, best, most, strict=True)
        ):
            raise ValueError("Shape provided for min is inconsistent with other shapes")
        self._shapes[input] = (least, best, most)

    def get_shape(self, input: str) -> list[Dims]:  # noqa: A002 - the bindings' name
        return [Dims(shape) for shape in self._shapes.get(input, ())]


class ITimingCache:
    """Which networks were timed before, on which device: an entry that is there need not be timed again."""

    def __init__(self, device: str, entries: set[str]) -> None:
        self._device, self._entries = device, entries

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps({"device": self._device, "entries": sorted(self._entries)}).encode())

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if input_cache._device != self._device and not ignore_mismatch:
            return False
        self._entries |= input_cache._entries
        return True


def _device() -> str:
    return f"{standin_device.TENSORRT} {standin_device.GPU}"


class IBuilderConfig(_Closed):
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._set: set[Any] = set()
        self._limits: dict[Any, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._cache = ITimingCache(_device(), set())
        self.progress_monitor: IProgressMonitor | None = None
        self.profiling_verbosity: Any = None
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1

    def set_flag(self, flag: Any) -> None:
        if not isinstance(flag, BuilderFlag):
            raise TypeError("set_flag(): incompatible function arguments")
        self._set.add(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._set

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        if not isinstance(pool, MemoryPoolType) or not isinstance(pool_size, int):
            raise TypeError("set_memory_pool_limit(): incompatible function arguments")
        self._limits[pool] = pool_size

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        content = bytes(memoryview(serialized_timing_cache))
        if not content:
            return ITimingCache(_device(), set())
        try:
            told = json.loads(content)
            return ITimingCache(told["device"], set(told["entries"]))
        except (ValueError, KeyError, TypeError):
            log(self._logger, ILogger.ERROR, "ITimingCache: Error Code 1: cannot read the serialized cache")
            return None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, ITimingCache):
            raise TypeError("set_timing_cache(): incompatible function arguments")
        if cache._device != _device() and not ignore_mismatch:
            log(self._logger, ILogger.ERROR, "setTimingCache: the cache was made on another device")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile._shapes:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1


class Builder(_Closed):
    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments. 1. (logger: tensorrt.ILogger)")
        self.logger = logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802 - the bindings' name
        return _DLA_CORES

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(self.logger, flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self.logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        fault = _fault(network, config)
        if fault:
            log(
                self.logger, ILogger.ERROR, f"IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error ({fault})"
            )
            return None
        key = hashlib.sha256(network._content + _precision(network, config).encode()).hexdigest()
        timed_before = key in config._cache._entries
        if not _work(config.progress_monitor, 2 if timed_before else 20):
            log(self.logger, ILogger.ERROR, "Error Code 10: Internal Error (Build was cancelled)")
            return None
        config._cache._entries.add(key)
        return IHostMemory(write_plan(_header(network, config), network._content))


def _fault(network: INetworkDefinition, config: IBuilderConfig) -> str | None:
    dynamic = [v.name for v in network._values("input") if -1 in ITensor(v).shape]
    shapes = [profile._shapes for profile in config._profiles]
    if network._model is None:
        return "the network is empty"
    if any(name not in own for name in dynamic for own in shapes or [{}]):
        return f"Network has dynamic or shape inputs {dynamic}, but no optimization profile has been defined"
    for own in shapes:
        for name, (least, _, most) in own.items():
            wanted = next((ITensor(v).shape for v in network._values("input") if v.name == name), ())
            if len(wanted) != len(least) or any(
                w not in (-1, low) or w not in (-1, high) for w, low, high in zip(wanted, least, most, strict=True)
            ):
                return f"{name}: profile {least}..{most} does not fit {tuple(wanted)}"
    if config._limits.get(MemoryPoolType.WORKSPACE, 1 << 40) < _SMALLEST_WORKSPACE:
        return "Could not find any implementation for node: insufficient workspace"
    if config.default_device_type is DeviceType.DLA and not 0 <= config.DLA_core < _DLA_CORES:
        return f"DLA core {config.DLA_core} does not exist"
    return None


def _work(monitor: IProgressMonitor | None, kernels: int) -> bool:
    """Pretend to time ``kernels`` kernels; whether the monitor let it come to its end."""
    if monitor is None:
        return True
    if not isinstance(monitor, IProgressMonitor) or not getattr(monitor, "_alive", False):
        raise TypeError("tensorrt.IProgressMonitor.__init__() must be called when overriding __init__")
    monitor.phase_start("Building Engine", None, 3)  # type: ignore[arg-type]  # the real one passes None as well
    going = monitor.step_complete("Building Engine", 0)
    monitor.phase_start("Computing profile 0", "Building Engine", kernels)
    for kernel in range(kernels if going else 0):
        time.sleep(_BUILD_S / 20)
        going = going and monitor.step_complete("Computing profile 0", kernel)
        if not going:
            break
    monitor.phase_finish("Computing profile 0")
    for step in (1, 2) if going else ():
        going = going and monitor.step_complete("Building Engine", step)
    monitor.phase_finish("Building Engine")
    return going


def _precision(network: INetworkDefinition, config: IBuilderConfig) -> str:
    """What the plan computes in: by flags where the version has them, by the network's types where it has not."""
    set_ = {flag.name for flag in config._set}
    for flag, name in (("INT8", "int8"), ("BF16", "bf16"), ("FP16", "fp16")):
        if flag in set_:
            return name
    assert network._model is not None
    if any(node.op_type == "QuantizeLinear" for node in network._model.graph.node):
        return "int8"
    types = {tensor.data_type for tensor in network._model.graph.initializer}
    if onnx.TensorProto.BFLOAT16 in types:
        return "bf16"
    return "fp16" if onnx.TensorProto.FLOAT16 in types else "fp32"


def _header(network: INetworkDefinition, config: IBuilderConfig) -> dict[str, Any]:
    assert network._model is not None
    set_ = {flag.name for flag in config._set}
    nodes = network._model.graph.node
    detailed = getattr(config.profiling_verbosity, "name", "") == "DETAILED"
    return plan_header(
        [profile._shapes for profile in config._profiles],
        precision=_precision(network, config),
        version_compatible="VERSION_COMPATIBLE" in set_,
        host_code="VERSION_COMPATIBLE" in set_ and "EXCLUDE_LEAN_RUNTIME" not in set_,
        hardware_compatible=config.hardware_compatibility_level is not HardwareCompatibilityLevel.NONE,
        name=network.name,
        layers=[
            {"Name": n.name or n.output[0], "LayerType": n.op_type} if detailed else n.name or n.output[0]
            for n in nodes
        ],
        dla=config.DLA_core if config.default_device_type is DeviceType.DLA else None,
    )


def _layer(node: onnx.NodeProto, *, detailed: bool) -> Any:
    name = node.name or node.output[0]
    return {"Name": name, "LayerType": node.op_type, "Outputs": []} if detailed else name
