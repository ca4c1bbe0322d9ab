"""Tiny true TensorFlow Lite files: the network of ``networks.graph()`` in NHWC, as float32 or quantised to uint8."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from engines import InputSpec, write_spec
from tests.engines import networks

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError:  # what uses this module is marked ``tflite``, and is skipped and counted then
    schema = None

Quantum = tuple[float, int]  # scale and zero point
PIXEL: Quantum = (1.0, 0)
WEIGHT: Quantum = (1 / 32, 64)
OUTPUT: Quantum = (8.0, 64)


class _Graph:
    """Tensors and operators of a model in the making."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.codes: list[Any] = []
        self.operators: list[Any] = []

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, quantum: Quantum | None, data: Any = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), kind, 0
        if quantum is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantum[0]], [quantum[1]]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(self, code: int, inputs: list[int], output: int, options: Any, options_type: int) -> None:
        known, made = schema.OperatorCodeT(), schema.OperatorT()
        known.builtinCode, known.deprecatedBuiltinCode, known.version = code, code, 4 if options_type == 8 else 1
        made.opcodeIndex, made.inputs, made.outputs = len(self.codes), inputs, [output]
        made.builtinOptions, made.builtinOptionsType = options, options_type
        self.codes.append(known)
        self.operators.append(made)

    def serialise(self, inputs: list[int], outputs: list[int]) -> bytes:
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.inputs, graph.outputs, graph.operators = self.tensors, inputs, outputs, self.operators
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def graph(*, quantised: bool = False, side: int = 8, extra_output: bool = False) -> bytes:
    """mean over the picture -> (1, 3) @ WEIGHTS -> (1, 4)."""
    kinds, made = schema.TensorType, _Graph()
    kind = kinds.UINT8 if quantised else kinds.FLOAT32
    weights = networks.WEIGHTS.T
    if quantised:
        weights = np.round(weights / WEIGHT[0] + WEIGHT[1]).astype(np.uint8)

    def tensor(name: str, shape: tuple[int, ...], quantum: Quantum, data: Any = None) -> int:
        return made.tensor(name, shape, kind, quantum if quantised else None, data)

    x = tensor("x", (1, side, side, 3), PIXEL)
    axes = made.tensor("axes", (2,), kinds.INT32, None, np.array([1, 2], np.int32))
    mean = tensor("mean", (1, 3), PIXEL)
    W = tensor("W", (4, 3), WEIGHT, weights)
    bias_kind = kinds.INT32 if quantised else kinds.FLOAT32
    bias = made.tensor(
        "b", (4,), bias_kind, (WEIGHT[0], 0) if quantised else None, np.zeros(4, np.int32 if quantised else np.float32)
    )
    y = tensor("y", (1, 4), OUTPUT)
    pool, full = schema.ReducerOptionsT(), schema.FullyConnectedOptionsT()
    operators, options = schema.BuiltinOperator, schema.BuiltinOptions
    made.operator(operators.MEAN, [x, axes], mean, pool, options.ReducerOptions)
    made.operator(operators.FULLY_CONNECTED, [mean, W, bias], y, full, options.FullyConnectedOptions)
    return made.serialise([x], [y, mean] if extra_output else [y])


def save(folder: Path, model: bytes, **changes: Any) -> Path:
    """Write ``tiny.tflite`` and its manifest into ``folder``; returns the model's path."""
    path = folder / "tiny.tflite"
    path.write_bytes(model)
    changes.setdefault("input", InputSpec(layout="NHWC", height=8, width=8))
    write_spec(path, networks.spec_of(model, sha256=hashlib.sha256(model).hexdigest(), **changes))
    return path
