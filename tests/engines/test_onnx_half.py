"""Networks rewritten to half precision compute the same, are whole ONNX, and say no where they cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from engines import ModelError
from engines.onnx_half import Half, _to_bfloat16, to_half
from tests.engines import networks


def run(content: bytes, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(output)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.UINT8])
def test_weights_and_casts_are_short_and_the_ends_keep_their_types(precision: Half, element: int) -> None:
    content = networks.graph(element=element).SerializeToString()
    model = onnx.load_from_string(to_half(content, precision, "tiny"))
    onnx.checker.check_model(model, full_check=True)
    short = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    assert {tensor.data_type for tensor in model.graph.initializer} == {short, TensorProto.INT64}
    assert model.graph.input[0].type.tensor_type.elem_type == element
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_tiny_network_computes_the_same() -> None:
    batch = np.random.default_rng(0).standard_normal((3, 3, 8, 8), dtype=np.float32)
    content = networks.graph().SerializeToString()
    np.testing.assert_allclose(run(to_half(content, "fp16", "tiny"), batch), run(content, batch), atol=5e-3)


@pytest.mark.parametrize("file", ["mobilenet_v2_features.onnx", "resnet50v2_stage3_features.onnx"])
def test_real_networks_keep_their_features(shared: Path, file: str) -> None:
    content = (shared / "models" / file).read_bytes()
    shape = [1, *ort.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()[0].shape[1:]]
    batch = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    whole, half = run(content, batch).ravel(), run(to_half(content, "fp16", file), batch).ravel()
    assert whole @ half / np.linalg.norm(whole) / np.linalg.norm(half) > 0.9999


def with_constants() -> onnx.ModelProto:
    """``networks.graph()`` behind constants in all the short forms that ONNX knows."""
    model = networks.graph()
    nodes = model.graph.node
    nodes[-1].output[0] = "p"
    made = onnx.helper.make_node
    nodes.extend(
        [
            made("Constant", [], ["half"], value_float=0.5),
            made("Constant", [], ["many"], value_floats=[1.0, 2.0, 3.0, 4.0]),
            made("Constant", [], ["shape"], value_ints=[4]),
            made("ConstantOfShape", ["shape"], ["zeros"]),
            made("Mul", ["p", "half"], ["q"]),
            made("Add", ["q", "many"], ["r"]),
            made("Add", ["r", "zeros"], ["y"]),
        ]
    )
    return model


def test_constants_in_short_are_of_the_short_type_too() -> None:
    batch = np.random.default_rng(0).standard_normal((3, 3, 8, 8), dtype=np.float32)
    content = with_constants().SerializeToString()
    np.testing.assert_allclose(run(to_half(content, "fp16", "tiny"), batch), run(content, batch), atol=5e-3)


def test_graph_that_comes_out_wrong_is_refused() -> None:
    model = networks.graph()
    model.graph.node[-1].output[0] = "p"
    model.graph.node.append(onnx.helper.make_node("RandomNormal", [], ["noise"], shape=[4], dtype=TensorProto.FLOAT))
    model.graph.node.append(onnx.helper.make_node("Add", ["p", "noise"], ["y"]))
    with pytest.raises(ModelError, match="cannot be rewritten to fp16"):
        to_half(model.SerializeToString(), "fp16", "tiny")


def test_weight_beyond_fp16_is_refused_and_fits_bf16() -> None:
    model = networks.graph()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(networks.WEIGHTS * np.float32(1e6), "W"))
    with pytest.raises(ModelError, match=r"weights as large as 3e\+06 do not fit into fp16; take bf16"):
        to_half(model.SerializeToString(), "fp16", "tiny")
    assert to_half(model.SerializeToString(), "bf16", "tiny")


def test_network_with_branches_is_refused() -> None:
    model = networks.graph()
    branch = onnx.helper.make_attribute("then_branch", onnx.helper.make_graph([], "empty", [], []))
    model.graph.node[0].attribute.append(branch)
    with pytest.raises(ModelError, match="branches or functions"):
        to_half(model.SerializeToString(), "fp16", "tiny")


def test_box_without_onnx_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match="needs the package onnx; install parrotgate"):
        to_half(b"", "fp16", "tiny")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127))
def test_bfloat16_is_the_nearest(value: float) -> None:
    bits = _to_bfloat16(np.array([value], np.float32))
    near = (bits.astype(np.uint32) << 16).view(np.float32)[0]
    assert abs(float(near) - value) <= abs(value) * 2**-8 + 1e-38
