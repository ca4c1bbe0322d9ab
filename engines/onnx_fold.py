"""Exact simplifications that quantisation wants: every weight a plain float32 array, no BatchNorm left inside.

BatchNorm after a convolution disappears into its weights. BatchNorm that stands before its activation (pre-activation
ResNets: He et al., "Identity Mappings in Deep Residual Networks", 2016) has no convolution to go into: it becomes a
depthwise 1x1 convolution, which integer kernels exist for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper, numpy_helper

from engines.onnx_graph import Graph, attributes

Float64 = npt.NDArray[np.float64]
_EPSILON = 1e-5  # ONNX's default


def fold(graph: Graph) -> None:
    """All simplifications of this file, in place."""
    fold_casts(graph)
    fold_batch_norms(graph)
    rewrite_batch_norms(graph)


def fold_casts(graph: Graph) -> int:
    """Cast weights once, here, instead of at every start (float16 weights of float32 networks); returns how many."""
    kept, folded = [], 0
    for node in graph.nodes:
        array = graph.array(node.input[0]) if node.op_type in ("Cast", "Identity") else None
        if array is None or node.output[0] == graph.output.name:
            kept.append(node)
            continue
        if node.op_type == "Cast":
            array = array.astype(helper.tensor_dtype_to_np_dtype(attributes(node)["to"]))
        graph.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), node.output[0]))
        folded += 1
    graph.set_nodes(kept)
    return folded


def fold_batch_norms(graph: Graph) -> int:
    """Let every BatchNorm that alone reads a convolution disappear into that convolution; returns how many."""
    makers, readers, arrays = graph.makers(), graph.readers(), graph.arrays
    swapped: dict[str, NodeProto] = {}
    dropped = set()
    for norm in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
        conv, affine = makers.get(norm.input[0]), _affine(graph, norm)
        if conv is None or conv.op_type != "Conv" or affine is None or not set(conv.input[1:]) <= set(arrays):
            continue
        if len(readers[conv.output[0]]) == 1 and conv.output[0] != graph.output.name:
            swapped[conv.name] = _merged(graph, conv, norm, *affine)
            dropped.add(norm.name)
    _replace(graph, swapped, dropped)
    return len(swapped)


def rewrite_batch_norms(graph: Graph) -> int:
    """Put a depthwise 1x1 convolution in place of every BatchNorm of maps that is left; returns how many.

    One that reads the network's own input stays: in float it costs a tenth, and the picture is rounded once, not twice.
    """
    shapes, picture = graph.shapes(), graph.input.name
    swapped: dict[str, NodeProto] = {}
    for norm in graph.nodes:
        affine = _affine(graph, norm) if norm.op_type == "BatchNormalization" else None
        if affine is None or len(shapes.get(norm.input[0], ())) != 4 or norm.input[0] == picture:
            continue
        scale, shift = affine
        weights = graph.add_array(f"{norm.output[0]}.weights", scale.astype(np.float32).reshape(-1, 1, 1, 1))
        bias = graph.add_array(f"{norm.output[0]}.bias", shift.astype(np.float32))
        swapped[norm.name] = helper.make_node(
            "Conv", [norm.input[0], weights, bias], [norm.output[0]], name=norm.name, group=len(scale)
        )
    _replace(graph, swapped, set())
    return len(swapped)


def _affine(graph: Graph, norm: NodeProto) -> tuple[Float64, Float64] | None:
    """Factor and summand (c,) of an inference BatchNorm with known statistics: gamma / sqrt(var + eps), …"""
    parts = [graph.array(name) for name in norm.input[1:5]]
    options = attributes(norm)
    if any(part is None for part in parts) or options.get("training_mode") or sum(map(bool, norm.output)) > 1:
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + options.get("epsilon", _EPSILON))
    return scale, beta - mean * scale


def _merged(graph: Graph, conv: NodeProto, norm: NodeProto, scale: Float64, shift: Float64) -> NodeProto:
    """``conv`` with the BatchNorm in its weights, writing what ``norm`` wrote."""
    weights, *bias = (np.asarray(graph.array(name), np.float64) for name in conv.input[1:])
    weights = weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
    shift = shift + sum(part * scale for part in bias)
    made = NodeProto()
    made.CopyFrom(conv)
    del made.input[1:], made.output[:]
    made.input.append(graph.add_array(f"{conv.input[1]}.folded", weights.astype(np.float32)))
    made.input.append(graph.add_array(f"{norm.output[0]}.bias", shift.astype(np.float32)))
    made.output.append(norm.output[0])
    return made


def _replace(graph: Graph, swapped: dict[str, NodeProto], dropped: set[str]) -> None:
    """Swap and drop nodes by their names."""
    graph.set_nodes([swapped.get(node.name, node) for node in graph.nodes if node.name not in dropped])
