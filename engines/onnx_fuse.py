"""The input's preparation inside the graph: cast, normalisation and NHWC -> NCHW, so that the batch is plain pixels.

A quarter of the bytes goes to the device, and no processor normalises anything.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from engines.errors import ModelError
from engines.onnx_graph import Graph
from engines.spec import ModelSpec

_PIXELS = "pixels"


def fuse_uint8(graph: Graph, spec: ModelSpec) -> tuple[Graph, ModelSpec]:
    """``graph`` with a uint8 NHWC input in front of its own, and the manifest that goes with it (hash still the old).

    ``y = pixel * 1 / (255 std) - mean / std``, in float32 with both constants rounded once. The cast stands first:
    TensorRT takes uint8 at the edge of a network only.

    Raises:
        ModelError: the model takes pixels already.
    """
    if spec.input.dtype == "uint8":
        raise ModelError(f"{spec.name}: takes uint8 pixels already; nothing to fuse")
    graph = graph.copy()
    wanted = graph.input.name
    mean, std = np.array(spec.input.mean), np.array(spec.input.std)
    # Plane by plane: against three interleaved channels ONNX Runtime multiplies thirteen times as slowly.
    scale = graph.add_array("pixels_scale", (1 / (255 * std)).astype(np.float32).reshape(3, 1, 1))
    shift = graph.add_array("pixels_shift", (-mean / std).astype(np.float32).reshape(3, 1, 1))
    pixels, cast, planes, scaled, normal = (
        graph.fresh(name) for name in (_PIXELS, "pixels_float", "pixels_planes", "pixels_scaled", "pixels_normal")
    )
    nodes = [
        helper.make_node("Cast", [pixels], [cast], to=TensorProto.FLOAT),
        helper.make_node("Transpose", [cast], [planes], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", [planes, scale], [scaled]),
        helper.make_node("Add", [scaled, shift], [normal]),
        helper.make_node("Identity", [normal], [wanted])
        if spec.input.layout == "NCHW"
        else helper.make_node("Transpose", [normal], [wanted], perm=[0, 2, 3, 1]),
    ]
    batch = graph.input.type.tensor_type.shape.dim[0].dim_param or "batch"
    picture = spec.input.model_copy(update={"layout": "NHWC", "dtype": "uint8"})
    weights = [value for value in graph.model.graph.input if value.name != wanted]
    del graph.model.graph.input[:]
    graph.model.graph.input.append(helper.make_tensor_value_info(pixels, TensorProto.UINT8, [batch, *picture.shape]))
    graph.model.graph.input.extend(weights)
    graph.set_nodes([*nodes, *graph.nodes])
    return graph, replace(spec, input=picture)
