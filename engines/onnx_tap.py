"""A classifier cut at its pooled layer, or at any stage, into a feature engine: taps, each pooled to a row, joined.

    input -> … -> tap (n, c, h, w) -> mean over the picture -> (n, c) -.
                  tap (n, c)       -> as it is              -> (n, c) -+-> joined (n, sum of c)

The generalised mean is ``mean(max(x, 1e-6)^p)^(1/p)`` (Radenović et al., "Fine-tuning CNN Image Retrieval with No
Human Annotation", 2018): p = 1 is the mean, larger p follows the strongest places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, helper

from engines.errors import UsageError
from engines.onnx_fold import fold_casts
from engines.onnx_graph import Graph, Shape
from engines.spec import ModelSpec, OutputSpec

_DENSE = ("Gemm", "MatMul")
_TINY = 1e-6
_MAPS = 4  # axes of a stage: (n, c, h, w)


@dataclass(frozen=True, slots=True)
class Stage:
    """A tensor worth tapping: ``size`` channels over ``side`` (height, width), or None for a pooled row."""

    tensor: str
    operator: str
    size: int
    side: tuple[int, int] | None
    is_pooled: bool


def stages(graph: Graph) -> list[Stage]:
    """The last tensor at every resolution, where a network ends a stage, and the row that its last dense layer reads;
    where no dense layer follows the maps, the first row behind them."""
    graph = graph.copy()
    fold_casts(graph)
    shapes = graph.shapes()
    weights = graph.arrays
    found: dict[tuple[int, int], Stage] = {}
    rows: dict[str, Stage] = {}
    pooled = None
    for node in graph.nodes:
        stage = _stage(node, shapes.get(node.output[0], ()))
        is_dense = node.op_type in _DENSE and node.input[1] in weights
        if is_dense:
            pooled = rows.get(node.input[0], pooled)
        if stage is None or stage.side == (1, 1):
            continue
        if stage.side is None:
            rows[stage.tensor] = stage
            if not is_dense and node.op_type != "Softmax":
                pooled = pooled or stage
        else:
            found[stage.side] = stage
            pooled = None  # rows so far were gates of a map (squeeze-and-excitation), not what a classifier reads
    last = [] if pooled is None else [replace(pooled, is_pooled=True)]
    return [*found.values(), *last]


def tap(graph: Graph, spec: ModelSpec, names: Sequence[str], power: float = 1.0) -> tuple[Graph, ModelSpec]:
    """``graph`` cut at the tensors ``names`` (none: the pooled row), and the manifest that goes with it.

    ``power`` >= 1 is the p of the generalised mean over the picture.

    Raises:
        UsageError: there is no such tensor, or it is neither a row nor a map of known width.
    """
    graph = graph.copy()
    fold_casts(graph)
    shapes = graph.shapes()
    chosen = list(names) or [_pooled(graph)]
    if len(set(chosen)) != len(chosen) or power < 1:
        raise UsageError("each stage is named once, and the generalised mean's power is at least 1")
    nodes: list[NodeProto] = []
    rows, size = [], 0
    for number, name in enumerate(chosen):
        shape = shapes.get(name, ())
        if len(shape) not in (2, _MAPS) or not shape[1]:
            raise UsageError(
                f"{spec.name}: {name!r} is no stage that can be tapped; `engines tap --list` shows those that can"
            )
        rows.append(_row(graph, f"tap{number}", name, shape, power, nodes))
        size += shape[1]
    output = graph.fresh("features")
    nodes.append(helper.make_node("Concat", rows, [output], axis=1))
    graph.model.graph.node.extend(nodes)
    batch = graph.input.type.tensor_type.shape.dim[0].dim_param or "batch"
    graph.set_output(output, [batch, size])
    joined = "+".join(chosen) + (f", generalised mean p={power:g}" if power != 1 else "")
    return graph, replace(
        spec,
        name=f"{spec.name}-features",
        task="features",
        output=OutputSpec(kind="features", size=size),
        labels=None,
        quantized=None,
        source=f"{spec.source or spec.name}, cut at {joined}",
    )


def _pooled(graph: Graph) -> str:
    found = [stage.tensor for stage in stages(graph) if stage.is_pooled]
    if not found:
        raise UsageError(f"{graph.name}: no pooled layer found; name a stage with --at (`engines tap --list`)")
    return found[0]


def _stage(node: NodeProto, shape: Shape) -> Stage | None:
    if len(shape) in (2, _MAPS) and shape[0] is not None:
        return None  # a weight, not a batch
    if len(shape) == _MAPS and all(shape[1:]):
        return Stage(node.output[0], node.op_type, shape[1] or 0, (shape[2] or 0, shape[3] or 0), is_pooled=False)
    if len(shape) == 2 and shape[1]:
        return Stage(node.output[0], node.op_type, shape[1], None, is_pooled=False)
    return None


def _row(graph: Graph, prefix: str, name: str, shape: Shape, power: float, nodes: list[NodeProto]) -> str:
    """Append what makes a row (n, c) of the tensor ``name``; the row's name."""
    if len(shape) == 2:
        return name
    steps: list[tuple[str, list[str]]] = [("GlobalAveragePool", [])]
    if power != 1:
        tiny = graph.add_array(f"{prefix}_tiny", np.array(_TINY, np.float32))
        up = graph.add_array(f"{prefix}_power", np.array(power, np.float32))
        down = graph.add_array(f"{prefix}_root", np.array(1 / power, np.float32))
        steps = [("Max", [tiny]), ("Pow", [up]), ("GlobalAveragePool", []), ("Pow", [down])]
    for number, (operator, others) in enumerate([*steps, ("Flatten", [])]):
        made = graph.fresh(f"{prefix}_{number}")
        nodes.append(helper.make_node(operator, [name, *others], [made]))
        name = made
    return name
