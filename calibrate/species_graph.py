"""One ONNX classifier out of feature graphs and a linear head.

    input -> feature graph(s) -> L2 -> join -> (x - centre) W + b -> softmax -> probabilities

Several feature graphs share one input: that of the first. Where another wants the same pixels normalised otherwise,
a multiplication and an addition before it put that right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import compose, helper, numpy_helper, version_converter

from calibrate.species_heads import Head
from engines import InputSpec, ModelError, ModelSpec

OPSET = 17
_OLDEST_OPSET = 13  # from which on ReduceSum takes its axes as an input
INPUT, OUTPUT = "input", "probabilities"
_TINY = 1e-12
_IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class FeatureGraph:
    """A feature model's file content and its manifest."""

    model: bytes
    spec: ModelSpec


def check_inputs(specs: Sequence[ModelSpec]) -> None:
    """Raise :class:`ModelError` unless all feature models can take the first one's input inside one graph."""
    first = specs[0].input
    for spec in specs[1:]:
        free = {"mean", "std"} if _can_renormalise(first) else set()
        ours, theirs = first.model_dump(exclude=free), spec.input.model_dump(exclude=free)
        if ours != theirs:
            names = ", ".join(key for key in ours if ours[key] != theirs[key])
            raise ModelError(
                f"{specs[0].name} and {spec.name} want different inputs ({names}), which one graph cannot take; "
                "fuse models of the same input, or export one species engine from one of them"
            )


def build_classifier(graphs: Sequence[FeatureGraph], head: Head, labels: Sequence[str]) -> bytes:
    """The classifier, serialised; its metadata name the label order (SHA-256) and the feature models. Deterministic.

    Raises:
        ModelError: a feature file is not the one of its manifest, or ONNX cannot join the graphs.
    """
    check_inputs([graph.spec for graph in graphs])
    models = _same_opset([_loaded(graph) for graph in graphs])
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    parts = []
    for number, (graph, model) in enumerate(zip(graphs, models, strict=True)):
        parts.append(_add_features(f"f{number}_", graph.spec, graphs[0].spec.input, model, nodes, weights))
    _add_head(parts, head, nodes, weights)
    spec = graphs[0].spec.input
    kind = onnx.TensorProto.UINT8 if spec.dtype == "uint8" else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "species",
        [helper.make_tensor_value_info(INPUT, kind, ["batch", *spec.shape])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", len(labels)])],
        weights,
    )
    return _finished(graph, models, graphs, labels)


def labels_sha256(labels: Sequence[str]) -> str:
    """The hash of the labels file that :func:`engines.write_spec` writes: one label a line, UTF-8."""
    return hashlib.sha256("".join(f"{label}\n" for label in labels).encode()).hexdigest()


def _finished(
    graph: onnx.GraphProto, models: Sequence[onnx.ModelProto], graphs: Sequence[FeatureGraph], labels: Sequence[str]
) -> bytes:
    opsets = {entry.domain: entry for model in models for entry in model.opset_import}
    model = helper.make_model(graph, producer_name="parrotgate", opset_imports=list(opsets.values()))
    model.ir_version = max([_IR_VERSION, *(part.ir_version for part in models)])
    model.functions.extend(function for part in models for function in part.functions)
    origins = ",".join(one.spec.origin for one in graphs)
    helper.set_model_props(model, {"labels_sha256": labels_sha256(labels), "features": origins})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the joined graph is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _loaded(graph: FeatureGraph) -> onnx.ModelProto:
    name = graph.spec.name
    if hashlib.sha256(graph.model).hexdigest() != graph.spec.sha256:
        raise ModelError(f"{name}: the model file is not the one of its manifest; fetch both again")
    model = onnx.load_from_string(graph.model)
    version = _opset(model)
    if version >= _OLDEST_OPSET:
        return model
    return _converted(model, OPSET, name)


def _same_opset(models: list[onnx.ModelProto]) -> list[onnx.ModelProto]:
    newest = max(_opset(model) for model in models)
    return [model if _opset(model) == newest else _converted(model, newest, "a feature model") for model in models]


def _converted(model: onnx.ModelProto, opset: int, name: str) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{name}: cannot be raised to ONNX opset {opset} ({error}); export it again") from error


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _add_features(
    prefix: str,
    spec: ModelSpec,
    given: InputSpec,
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
) -> str:
    """Append one feature graph under ``prefix``, from the shared input to unit rows; the name of those."""
    model = compose.add_prefix(model, prefix)
    constants = {tensor.name for tensor in model.graph.initializer}
    (own,) = [value.name for value in model.graph.input if value.name not in constants]
    nodes.extend(_renormalise(prefix, own, spec.input, given, weights))
    nodes.extend(model.graph.node)
    weights.extend(model.graph.initializer)
    names = {key: f"{prefix}head_{key}" for key in ("flat", "square", "sum", "length", "safe", "unit", "axes", "tiny")}
    weights.append(numpy_helper.from_array(np.array([1], np.int64), names["axes"]))
    weights.append(numpy_helper.from_array(np.array(_TINY, np.float32), names["tiny"]))
    nodes += [
        helper.make_node("Flatten", [model.graph.output[0].name], [names["flat"]], axis=1),
        helper.make_node("Mul", [names["flat"], names["flat"]], [names["square"]]),
        helper.make_node("ReduceSum", [names["square"], names["axes"]], [names["sum"]], keepdims=1),
        helper.make_node("Sqrt", [names["sum"]], [names["length"]]),
        helper.make_node("Max", [names["length"], names["tiny"]], [names["safe"]]),
        helper.make_node("Div", [names["flat"], names["safe"]], [names["unit"]]),
    ]
    return names["unit"]


def _renormalise(
    prefix: str, own: str, wanted: InputSpec, given: InputSpec, weights: list[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Nodes from the shared input, normalised as ``given``, to the graph's ``own`` input, normalised as ``wanted``."""
    if wanted == given:
        return [helper.make_node("Identity", [INPUT], [own])]
    shape = (1, 3, 1, 1) if wanted.layout == "NCHW" else (1, 1, 1, 3)
    factor = np.divide(given.std, wanted.std).astype(np.float32).reshape(shape)
    shift = (np.subtract(given.mean, wanted.mean) / np.array(wanted.std)).astype(np.float32).reshape(shape)
    factor_name, shift_name, scaled = (f"{prefix}input_{key}" for key in ("factor", "shift", "scaled"))
    weights += [numpy_helper.from_array(factor, factor_name), numpy_helper.from_array(shift, shift_name)]
    return [
        helper.make_node("Mul", [INPUT, factor_name], [scaled]),
        helper.make_node("Add", [scaled, shift_name], [own]),
    ]


def _add_head(parts: Sequence[str], head: Head, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    # A joined row is a unit row: its parts are divided by sqrt(m), which the weights take over.
    scale = np.sqrt(len(parts))
    arrays: dict[str, npt.NDArray[np.float64]] = {
        "head_centre": head.centre * scale,
        "head_weights": head.weights / scale,
        "head_bias": head.bias,
    }
    weights += [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    joined = "head_joined"
    nodes += [
        helper.make_node("Concat", list(parts), [joined], axis=1),
        helper.make_node("Sub", [joined, "head_centre"], ["head_centred"]),
        helper.make_node("Gemm", ["head_centred", "head_weights", "head_bias"], ["head_logits"]),
        helper.make_node("Softmax", ["head_logits"], [OUTPUT], axis=1),
    ]


def _can_renormalise(spec: InputSpec) -> bool:
    """uint8 graphs normalise by themselves; a letterbox is padded with the mean colour of one model."""
    return spec.dtype == "float32" and spec.resize != "letterbox"
