"""Where a quantised graph loses what: the cosine between its tensors and the float graph's, by family of layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import NodeProto, helper

from engines.base import Batch, available_threads
from engines.onnx_graph import Graph, attributes
from engines.onnx_quantize import quantized_tensors

_PASSED_BY = ("Relu", "Clip", "LeakyRelu")  # belongs to the layer before it

_FAMILIES = {
    "Add": "addition",
    "BatchNormalization": "normalisation",
    "Gemm": "dense",
    "MatMul": "dense",
    "MaxPool": "pooling",
}


@dataclass(frozen=True, slots=True)
class FamilyFigure:
    """``tensors`` quantised activations of one family; cosines are means over pictures, then over tensors (worst:
    the smallest of the tensors)."""

    family: str
    tensors: int
    cosine: float
    worst: float
    worst_tensor: str


def layer_families(plain: Graph, quantized: Graph, batches: Iterable[Batch]) -> list[FamilyFigure]:
    """Compare every activation that went through 8 bits with the float graph's, over ``batches``, by family.

    Errors of earlier layers are inside a later layer's figure.
    """
    makers = plain.makers()
    pairs = {name: back for name, back in quantized_tensors(quantized).items() if name in makers}
    ours, theirs = session(quantized, list(pairs.values())), session(plain, list(pairs))
    sums = np.zeros(len(pairs))
    count = 0
    for batch in batches:
        got = ours.run(list(pairs.values()), {quantized.input.name: batch})
        wanted = theirs.run(list(pairs), {plain.input.name: batch})
        sums += [cosines(a, b).sum() for a, b in zip(got, wanted, strict=True)]
        count += len(batch)
    means = dict(zip(pairs, sums / max(count, 1), strict=True))
    families: dict[str, list[str]] = {}
    for name in pairs:
        families.setdefault(_family(plain, makers, name), []).append(name)
    return [_figure(family, {name: means[name] for name in names}) for family, names in sorted(families.items())]


def cosines(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The cosine of the angle between each row of ``a`` and of ``b`` (n, …): (n,); two zero rows agree fully."""
    x, y = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    same = (x == y).all(axis=1)
    return np.where(same, 1.0, (x * y).sum(axis=1) / np.maximum(lengths, 1e-300))


def _figure(family: str, cosine: dict[str, float]) -> FamilyFigure:
    worst = min(cosine, key=lambda name: cosine[name])
    mean = float(np.mean(list(cosine.values())))
    return FamilyFigure(family, len(cosine), round(mean, 6), round(float(cosine[worst]), 6), worst)


def _family(graph: Graph, makers: dict[str, NodeProto], name: str) -> str:
    node = makers[name]
    while node.op_type in _PASSED_BY and node.input[0] in makers:
        node = makers[node.input[0]]
    if node.op_type != "Conv":
        return _FAMILIES.get(node.op_type, node.op_type)
    weights = graph.array(node.input[1])
    if weights is None:
        return "convolution"
    groups, size = attributes(node).get("group", 1), "x".join(map(str, weights.shape[2:]))
    if groups == 1:
        return f"convolution {size}"
    if weights[0].size == 1:
        return "normalisation"
    return f"depthwise {size}" if weights.shape[1] == 1 else f"grouped {size}"


def session(graph: Graph, outputs: list[str]) -> Any:
    """A session of ONNX Runtime on the CPU that also gives ``outputs``."""
    tapped = graph.copy().model
    own = {value.name for value in tapped.graph.output}
    for name in outputs:
        if name not in own:
            tapped.graph.output.append(helper.make_empty_tensor_value_info(name))
    model = onnx.shape_inference.infer_shapes(tapped)
    types = {value.name: value for value in model.graph.value_info}
    for value in model.graph.output:
        if not value.type.WhichOneof("value"):
            value.CopyFrom(types.get(value.name) or helper.make_tensor_value_info(value.name, 1, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
