"""Tiny true ONNX files with their manifests: a pooled projection of the three channels, a few hundred bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines import InputSpec, ModelSpec, OutputSpec, write_spec

WEIGHTS = np.array([[1, 0, 2, -1], [0, 1, 0.5, 3], [0.25, 0, -1, 1]], np.float32)
Dim = int | str


def graph(
    *,
    input_shape: Sequence[Dim] = ("n", 3, 8, 8),
    output_shape: Sequence[Dim] = ("n", 4),
    element: int = TensorProto.FLOAT,
    keep_axes: bool = False,
    extra_output: bool = False,
) -> onnx.ModelProto:
    """mean over the picture -> (n, 3) @ WEIGHTS -> (n, 4); ``keep_axes`` leaves (n, 4, 1, 1)."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "W"], ["p" if keep_axes else "y"]),
    ]
    weights = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(WEIGHTS, "W")]
    if keep_axes:
        nodes.append(helper.make_node("Unsqueeze", ["p", "axes"], ["y"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)]
    if extra_output:
        outputs.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ["n", 3]))
    inputs = [helper.make_tensor_value_info("x", element, input_shape)]
    made = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, producer_name="tests")


def half_output_graph() -> onnx.ModelProto:
    """``graph()`` with float16 at its output."""
    model = graph()
    model.graph.node[-1].output[0] = "p"
    model.graph.node.append(helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def indices_graph() -> onnx.ModelProto:
    """A graph whose number of rows depends on the values: where the (n, 4) of ``graph()`` is not zero, (k, 2)."""
    model = graph(output_shape=("k", 2))
    model.graph.node[-1].output[0] = "p"
    for operator, source, target, options in (
        ("NonZero", "p", "q", {}),
        ("Transpose", "q", "r", {}),
        ("Cast", "r", "y", {"to": TensorProto.FLOAT}),
    ):
        model.graph.node.append(helper.make_node(operator, [source], [target], **options))
    return model


def spec_of(model: bytes, **changes: Any) -> ModelSpec:
    """The right manifest for ``graph()``, save for ``changes``."""
    digest = hashlib.sha256(model).hexdigest()
    values: dict[str, Any] = {
        "name": "tiny",
        "task": "features",
        "input": InputSpec(layout="NCHW", height=8, width=8),
        "output": OutputSpec(kind="features", size=4),
        "sha256": digest,
        "origin": digest,
    }
    return ModelSpec(**{**values, **changes})


def save(folder: Path, model: onnx.ModelProto | bytes, **changes: Any) -> Path:
    """Write ``tiny.onnx`` and its manifest into ``folder``; returns the model's path."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    path = folder / "tiny.onnx"
    path.write_bytes(content)
    write_spec(path, spec_of(content, **changes))
    return path
