"""A look into an ONNX file without the ``onnx`` package, which the box does not carry.

Reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) and the few field numbers of
``onnx.proto3`` that are needed here; everything else is stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from engines.errors import ModelError

# Field numbers of onnx.proto3.
_MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTIONS = 2, 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP_TYPE, _NODE_ATTRIBUTE = 4, 5
_FUNCTION_NODE = 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_DIMS, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

# Which fields lead to a tensor, by the kind of message they stand in.
_CHILDREN = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTIONS: "function"},
    "graph": {_GRAPH_NODE: "node", _GRAPH_INITIALIZER: "weight", _GRAPH_SPARSE: "sparse"},
    "function": {_FUNCTION_NODE: "node"},
    "node": {_NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        _ATTRIBUTE_TENSOR: "tensor",
        _ATTRIBUTE_TENSORS: "tensor",
        _ATTRIBUTE_GRAPH: "graph",
        _ATTRIBUTE_GRAPHS: "graph",
        _ATTRIBUTE_SPARSE: "sparse",
        _ATTRIBUTE_SPARSES: "sparse",
    },
    "sparse": {_SPARSE_VALUES: "tensor", _SPARSE_INDICES: "tensor"},
}
_MAX_DEPTH = 64

Field = tuple[int, int | memoryview]


@dataclass(frozen=True, slots=True)
class OnnxSummary:
    """What ``engines info`` tells of a file; ``parameters`` counts the elements of all initialisers."""

    producer: str
    opset: int
    nodes: int
    parameters: int
    operators: dict[str, int]


def external_data(model: bytes) -> list[str]:
    """The files outside ``model`` (serialised ONNX) in which it keeps weights; empty if it is whole.

    Raises:
        ModelError: the bytes are no protobuf message.
    """
    names = []
    for kind, message in _walk(model):
        if kind in ("tensor", "weight"):
            fields = list(_fields(message))
            if any(number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value) for number, value in fields):
                names.append(_location(fields))
    return sorted(set(names))


def summarize(model: bytes) -> OnnxSummary:
    """Count what is inside ``model`` (serialised ONNX). Raises ``ModelError`` if it is no protobuf message."""
    producer, opset, parameters = "", 0, 0
    operators: dict[str, int] = {}
    for kind, message in _walk(model):
        if kind == "model":
            producer, opset = _head(message)
        elif kind == "node":
            name = _text(message, _NODE_OP_TYPE)
            operators[name] = operators.get(name, 0) + 1
        elif kind == "weight":
            parameters += prod(_dims(message))
    return OnnxSummary(producer, opset, sum(operators.values()), parameters, operators)


def _walk(model: bytes) -> Iterator[tuple[str, memoryview]]:
    """Every message that may hold a tensor, parents first."""
    todo = [("model", memoryview(model), 0)]
    while todo:
        kind, message, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise ModelError(f"not an ONNX file that we read: graphs nested deeper than {_MAX_DEPTH}")
        yield kind, message
        children = _CHILDREN.get(kind)
        if children:
            for number, value in _fields(message):
                if number in children and isinstance(value, memoryview):
                    todo.append((children[number], value, depth + 1))


def _fields(message: memoryview) -> Iterator[Field]:
    """(field number, value) of a protobuf message; varints as int, length-delimited as a view, fixed ones as 0."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(message, at)
            if size > end - at:
                raise ModelError("not an ONNX file, or cut short: a field is longer than what is left")
            yield number, message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            yield number, 0
        else:
            raise ModelError(f"not an ONNX file: wire type {wire} at byte {at}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ModelError("not an ONNX file, or cut short: a number has no end")


def _text(message: memoryview, wanted: int) -> str:
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            return bytes(value).decode("utf-8", "replace")
    return ""


def _head(message: memoryview) -> tuple[str, int]:
    opset = 0
    for number, value in _fields(message):
        if number == _MODEL_OPSET and isinstance(value, memoryview) and _text(value, _OPSET_DOMAIN) in ("", "ai.onnx"):
            opset = max([opset, *(v for n, v in _fields(value) if n == _OPSET_VERSION and isinstance(v, int))])
    return _text(message, _MODEL_PRODUCER), opset


def _dims(tensor: memoryview) -> list[int]:
    dims = []
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS and isinstance(value, memoryview):  # packed
            at = 0
            while at < len(value):
                dim, at = _varint(value, at)
                dims.append(dim)
        elif number == _TENSOR_DIMS and isinstance(value, int):
            dims.append(value)
    return dims


def _location(fields: list[Field]) -> str:
    for number, value in fields:
        if number == _TENSOR_EXTERNAL and isinstance(value, memoryview) and _text(value, _ENTRY_KEY) == "location":
            return _text(value, _ENTRY_VALUE)
    return "unnamed"
