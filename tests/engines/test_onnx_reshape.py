"""Graphs made ready for 8 bits answer as before: the first convolution over blocks, channels of one range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engines.onnx_equalize import channel_peaks, depthwise_pairs, equalize
from engines.onnx_fold import rewrite_batch_norms
from engines.onnx_graph import Graph
from engines.onnx_layers import cosines
from engines.onnx_quantize import calibrate, quantize
from engines.onnx_stem import widen_stem

Array = npt.NDArray[Any]
WIDTH = 6


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, Array], sides: tuple[int, int], channels: int = 3
) -> Graph:
    """A graph from ``x`` (n, channels, *sides) to ``y``."""
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", channels, *sides]), ("y", None))
    }
    arrays = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"]], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Graph(onnx.shape_inference.infer_shapes(model), "g")


def answers(graph: Graph, x: Array) -> Array:
    session = ort.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def stem(sides: tuple[int, int], kernel: tuple[int, int], pads: list[int], channels: int = 3, **options: Any) -> Graph:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((5, channels // options.get("group", 1), *kernel)), "b": rng.standard_normal(5)}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **{"pads": pads, "strides": [2, 2], **options})
    return graph_of([node], weights, sides, channels)


@settings(max_examples=40, deadline=None)
@given(
    half=st.tuples(st.integers(4, 8), st.integers(4, 8)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    data=st.data(),
)
def test_first_convolution_over_blocks_answers_as_before(half: Any, kernel: Any, data: st.DataObject) -> None:
    sides = (2 * half[0], 2 * half[1])
    pads = [data.draw(st.integers(0, size - 1)) for size in kernel * 2]
    graph = stem(sides, kernel, pads)
    x = np.random.default_rng(1).standard_normal((2, 3, *sides), dtype=np.float32)
    expected = answers(graph, x)
    assert widen_stem(graph) == 1
    assert [node.op_type for node in graph.nodes] == ["SpaceToDepth", "Conv"]
    assert graph.array(graph.nodes[1].input[1]).shape[1] == 12  # type: ignore[union-attr]
    np.testing.assert_allclose(answers(graph, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sides", "options"),
    [
        ((16, 15), {}),
        ((16, 16), {"strides": [1, 1]}),
        ((16, 16), {"dilations": [2, 2]}),
        ((16, 16), {"channels": 8}),
        ((16, 16), {"auto_pad": "SAME_UPPER", "pads": [0, 0, 0, 0]}),
    ],
)
def test_other_convolutions_stay_as_they_are(sides: tuple[int, int], options: dict[str, Any]) -> None:
    graph = stem(sides, (3, 3), options.pop("pads", [1, 1, 1, 1]), **options)
    assert widen_stem(graph) == 0
    assert [node.op_type for node in graph.nodes] == ["Conv"]


def test_batch_norm_of_the_picture_itself_stays_in_float() -> None:
    parts = {name: np.ones(3) for name in "gbmv"}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *"gbmv"], ["own"]),
        helper.make_node("Relu", ["own"], ["seen"]),
        helper.make_node("BatchNormalization", ["seen", *"gbmv"], ["y"]),
    ]
    graph = graph_of(nodes, parts, (8, 8))
    assert rewrite_batch_norms(graph) == 1
    assert [node.op_type for node in graph.nodes] == ["BatchNormalization", "Relu", "Conv"]


def uneven(rectifier: str) -> Graph:
    """Convolution, rectifier, depthwise convolution that undoes what the first does to its channels' size, sum."""
    rng = np.random.default_rng(2)
    size = np.array([1.0, 0.3, 0.05, 0.01, 0.2, 0.02]).reshape(-1, 1, 1, 1)
    weights = {
        "first": rng.standard_normal((WIDTH, 3, 3, 3)) * size,
        "bias": rng.standard_normal(WIDTH) * size.ravel() / 9,
        "low": np.array(0.0),
        "high": np.array(6.0),
        "second": rng.standard_normal((WIDTH, 1, 3, 3)) / size,
        "last": rng.standard_normal((4, WIDTH, 1, 1)),
    }
    limits = ["low", "high"] if rectifier == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias"], ["a"], pads=[1] * 4),
        helper.make_node(rectifier, ["a", *limits], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1] * 4, group=WIDTH),
        helper.make_node("Conv", ["c", "last"], ["y"]),
    ]
    used = {name: array for name, array in weights.items() if any(name in node.input for node in nodes)}
    return graph_of(nodes, used, (12, 12))


@pytest.mark.parametrize("rectifier", ["Relu", "Clip"])
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_channels_of_one_range_answer_as_before_and_lose_less_in_8_bits(rectifier: str, target: Any) -> None:
    pictures = np.random.default_rng(3).standard_normal((8, 3, 12, 12), dtype=np.float32) / 2
    graph = uneven(rectifier)
    expected = answers(graph, pictures)
    even = graph.copy()
    (pair,) = depthwise_pairs(even)
    assert (pair.first, pair.between, pair.second) == ("a", "b", "c")
    peaks = channel_peaks(even, [pair], [pictures[:4], pictures[4:]])
    assert peaks["b"].shape == (WIDTH,)
    equalize(even, [pair], peaks)
    np.testing.assert_allclose(answers(even, pictures), expected, rtol=1e-3, atol=1e-3)
    found = channel_peaks(even, [pair], [pictures])["b"]
    assert found.max() / np.median(found) < peaks["b"].max() / np.median(peaks["b"]) / 3
    close = []
    for one in (graph, even):
        small = quantize(one, calibrate(one, [pictures], "minmax"), target)
        close.append(cosines(answers(small, pictures), expected).mean())
    assert 1 - close[1] < (1 - close[0]) / 2


def test_convolutions_whose_output_others_read_too_stay_as_they_are() -> None:
    graph = uneven("Relu")
    nodes = graph.nodes
    nodes[-1].input[0] = "sum"
    nodes.insert(-1, helper.make_node("Add", ["b", "c"], ["sum"]))
    graph.set_nodes(nodes)
    assert depthwise_pairs(graph) == []
