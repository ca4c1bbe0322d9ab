"""What the builder's half and the runtime's half share: logger, data types, and the form of a plan's bytes.

A plan is MAGIC, the length of its header as four bytes (little endian), the header as JSON, and an ONNX model.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any

import numpy as np
import standin_device

__version__ = standin_device.TENSORRT

MAGIC = b"STANDIN-PLAN\n"
Shape = tuple[int, ...]


class _PybindEnum(enum.Enum):
    """pybind11's enumerations compare only with themselves and turn into int on request."""

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__


class _Severity(_PybindEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = _Severity
    INTERNAL_ERROR = _Severity.INTERNAL_ERROR
    ERROR = _Severity.ERROR
    WARNING = _Severity.WARNING
    INFO = _Severity.INFO
    VERBOSE = _Severity.VERBOSE

    def __init__(self) -> None:
        self._alive = True  # a subclass that forgets super().__init__() breaks the real one too

    def log(self, severity: _Severity, msg: str) -> None:
        raise NotImplementedError('Tried to call pure virtual function "ILogger::log"')


class Logger(ILogger):
    def __init__(self, min_severity: _Severity = _Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: _Severity, msg: str) -> None:
        if int(severity) <= int(self.min_severity):
            print(f"[TRT] [{severity.name}] {msg}")  # noqa: T201 - the real one prints too


def log(logger: ILogger, severity: _Severity, message: str) -> None:
    """Tell the user's logger, as the library does from inside a call."""
    if not getattr(logger, "_alive", False):
        raise TypeError("tensorrt.ILogger.__init__() must be called when overriding __init__")
    logger.log(severity, message)


class DataType(_PybindEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8
    INT4 = 9

    @property
    def itemsize(self) -> int:
        return {"FLOAT": 4, "HALF": 2, "INT32": 4, "BF16": 2, "INT64": 8}.get(self.name, 1)


float32, float16, bfloat16 = DataType.FLOAT, DataType.HALF, DataType.BF16
int8, int32, int64, uint8, bool = DataType.INT8, DataType.INT32, DataType.INT64, DataType.UINT8, DataType.BOOL  # noqa: A001

_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}


def nptype(trt_type: DataType) -> Any:
    if trt_type not in _NUMPY:
        raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype: {trt_type}")
    return _NUMPY[trt_type]


class TensorIOMode(_PybindEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Dims(tuple):  # type: ignore[type-arg]  # the real one is a sequence of at most eight int
    MAX_DIMS = 8


class IHostMemory:
    """Bytes that the library owns; they are read through the buffer protocol, as ``bytes(memory)``."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def nbytes(self) -> int:
        return len(self._content)

    @property
    def dtype(self) -> DataType:
        return DataType.INT8

    def __bytes__(self) -> bytes:
        return self._content

    def __len__(self) -> int:
        return len(self._content)


def plan_header(
    profiles: list[dict[str, tuple[Shape, Shape, Shape]]],
    *,
    precision: str = "fp32",
    version_compatible: Any = False,
    **more: Any,
) -> dict[str, Any]:
    """A header for this device: ``profiles`` gives for each optimisation profile {input: (min, opt, max) shapes}."""
    return {
        "tensorrt": standin_device.TENSORRT,
        "gpu": standin_device.GPU,
        "compute_capability": ".".join(map(str, standin_device.COMPUTE_CAPABILITY)),
        "precision": precision,
        "profiles": [{name: [list(shape) for shape in shapes] for name, shapes in one.items()} for one in profiles],
        "version_compatible": version_compatible,
        "host_code": version_compatible,  # such a plan carries a lean runtime, which is code for the host
        **more,
    }


def write_plan(header: dict[str, Any], onnx_model: bytes) -> bytes:
    """The bytes of a plan; the same header and model give the same bytes."""
    text = json.dumps(header, sort_keys=True).encode()
    return MAGIC + struct.pack("<I", len(text)) + text + onnx_model


def read_plan(plan: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and ONNX model of a plan. Raises ``ValueError`` on anything else."""
    start = len(MAGIC) + 4
    if not plan.startswith(MAGIC) or len(plan) < start:
        raise ValueError("Magic tag does not match")
    (length,) = struct.unpack("<I", plan[len(MAGIC) : start])
    header = json.loads(plan[start : start + length])
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return header, plan[start + length :]
