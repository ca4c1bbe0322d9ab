"""ONNX graphs that are to be rewritten: read with their manifest, seen by their edges, checked and written again.

The ``onnx`` package, which the box does not carry, is imported by the files that rewrite graphs alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper, version_converter

from engines.base import read_verified
from engines.errors import ModelError, UsageError
from engines.onnx_file import external_data
from engines.spec import ModelSpec, load_spec, write_spec

OPSET = 17
_OLDEST_OPSET = 13  # from which on quantisation knows an axis and ReduceSum takes its axes as an input
_DOMAINS = ("", "ai.onnx")

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]


class Graph:
    """The main graph of a model, by its edges. The tensors that stay keep their names.

    ``name`` stands in front of every error. Every node has a name of its own.
    """

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.model = _modern(model, name)
        self.name = name
        self._name_nodes()
        self._constants_to_initializers()

    def copy(self) -> Graph:
        """A graph of its own with the same content."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Graph(model, self.name)

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """Nodes in an order in which each comes after what it reads."""
        return list(self.model.graph.node)

    @property
    def input(self) -> onnx.ValueInfoProto:
        """The one input that is not a weight."""
        weights = self.arrays
        inputs = [value for value in self.model.graph.input if value.name not in weights]
        if len(inputs) != 1:
            raise ModelError(f"{self.name}: the graph has {len(inputs)} inputs; only graphs with one can be rewritten")
        return cast(onnx.ValueInfoProto, inputs[0])

    @property
    def output(self) -> onnx.ValueInfoProto:
        """The one output."""
        if len(self.model.graph.output) != 1:
            raise ModelError(f"{self.name}: the graph has {len(self.model.graph.output)} outputs; one is expected")
        return cast(onnx.ValueInfoProto, self.model.graph.output[0])

    @property
    def arrays(self) -> dict[str, onnx.TensorProto]:
        """Weights by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def array(self, name: str) -> Array | None:
        """The values of the weight ``name``, None where it is computed."""
        tensor = self.arrays.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def makers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes a tensor, by the tensor's name."""
        return {output: node for node in self.nodes for output in node.output if output}

    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read a tensor, by the tensor's name."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    def shapes(self) -> dict[str, Shape]:
        """What ONNX infers of every tensor's shape; a free axis is None. Tensors of unknown rank are left out."""
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        return {
            value.name: tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in _dims(value))
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.HasField("shape")
        }

    def fresh(self, name: str) -> str:
        """``name``, with a number behind it where the graph knows it already."""
        taken = {*self.arrays, *self.makers(), *(value.name for value in self.model.graph.input)}
        return next(new for i in range(len(taken) + 1) if (new := f"{name}_{i}" if i else name) not in taken)

    def add_array(self, name: str, array: Array) -> str:
        """Add a weight; returns the name it got."""
        name = self.fresh(name)
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def set_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Put ``nodes``, in a valid order, in place of all nodes, and forget what nobody reads any more."""
        kept = _needed(list(nodes), {value.name for value in self.model.graph.output})
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        read = {name for node in kept for name in (*node.input, *_captured(node))}
        read |= {value.name for value in self.model.graph.output}
        weights = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(weights)
        self._name_nodes()
        del self.model.graph.value_info[:]  # the old shapes may no longer be true

    def sort(self) -> None:
        """Put every node after those whose tensors it reads."""
        known = {"", *self.arrays, *(value.name for value in self.model.graph.input)}
        made = set(self.makers())
        ordered: list[onnx.NodeProto] = []
        waiting = self.nodes
        while waiting:
            later = []
            for node in waiting:
                if known.issuperset((*node.input, *(_captured(node) & made))):
                    known.update(node.output)
                    ordered.append(node)
                else:
                    later.append(node)
            if len(later) == len(waiting):
                raise ModelError(f"{self.name}: the graph has a cycle at {later[0].name}")
            waiting = later
        self.set_nodes(ordered)

    def set_output(self, name: str, shape: Sequence[int | str]) -> None:
        """Let the float32 tensor ``name`` be the only output."""
        del self.model.graph.output[:]
        self.model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)))
        self.set_nodes(self.nodes)

    def finished(self) -> onnx.ModelProto:
        """The model, checked. Raises :class:`ModelError` if it is not valid ONNX."""
        self.model.producer_name = "parrotgate"
        try:
            onnx.checker.check_model(self.model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ModelError(f"{self.name}: the rewritten graph is not valid ONNX: {error}") from error
        return self.model

    def _name_nodes(self) -> None:
        seen: set[str] = set()
        for node in self.model.graph.node:
            if not node.name or node.name in seen:
                node.name = f"{node.op_type}:{next(iter(node.output), '')}"
            seen.add(node.name)

    def _constants_to_initializers(self) -> None:
        kept = []
        for node in self.model.graph.node:
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            if node.op_type != "Constant" or not values:
                kept.append(node)
                continue
            values[0].name = node.output[0]
            self.model.graph.initializer.append(values[0])
        if len(kept) != len(self.model.graph.node):
            self.set_nodes(kept)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def read_graph(path: Path) -> tuple[Graph, ModelSpec]:
    """The graph and the manifest of the ONNX file ``path``, its hash checked.

    Raises:
        ModelError: the file is no ONNX, is not the one of its manifest, or keeps weights elsewhere.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: only .onnx files can be rewritten; give the model's ONNX file")
    spec = load_spec(path)
    content = read_verified(path, spec)
    if external_data(content):
        raise ModelError(f"{path}: the weights lie in other files; save the model as one file")
    return parse_graph(content, spec.name), spec


def parse_graph(content: bytes, name: str) -> Graph:
    """The graph in ``content`` (serialised ONNX); raises :class:`ModelError` if it is none."""
    try:
        return Graph(onnx.load_from_string(content), name)
    except DecodeError as error:
        raise ModelError(f"{name}: not an ONNX file: {error}") from error


def write_model(path: Path, graph: Graph, spec: ModelSpec, *, new_origin: bool = False) -> ModelSpec:
    """Write the checked graph to ``path`` and its manifest beside it; the same graph gives the same bytes.

    Returns ``spec`` with the file's own hash; its origin stays unless ``new_origin`` says that this is a new float
    model. Raises :class:`UsageError` where the files cannot be written.
    """
    content: bytes = graph.finished().SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    written = replace(spec, sha256=digest, origin=digest if new_origin else spec.origin)
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
        write_spec(path, written)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose a folder that exists") from error
    return written


def _modern(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    version = max((entry.version for entry in model.opset_import if entry.domain in _DOMAINS), default=1)
    if version >= _OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{name}: cannot be raised to ONNX opset {OPSET} ({error}); export it again") from error


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _needed(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Those of ``nodes``, in order, on which a tensor in ``wanted`` depends."""
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted = wanted.union(node.input, _captured(node))
    return kept[::-1]


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names that the branches and loops inside ``node`` read, or give back as they are."""
    graphs = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    read = {name for graph in graphs for inner in graph.node for name in (*inner.input, *_captured(inner))}
    return read | {value.name for graph in graphs for value in graph.output}
