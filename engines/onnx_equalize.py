"""Channels before a depthwise convolution brought to one range, so that 8 bits for the whole tensor serve each of them.

MobileNets have channels of which the largest value is a hundredth of their neighbour's: rounded on the neighbour's
scale they are lost, and the depthwise convolution behind enlarges what is left. Both convolutions have a scale for each
channel in INT8, so that a factor moved from one to the other costs nothing (Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from engines.base import Batch
from engines.onnx_graph import Graph, attributes
from engines.onnx_layers import session

_LARGEST_FACTOR = 8.0  # beyond it nothing is gained (measured with MobileNet v2), and the clipping below comes closer

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two convolutions by what they write, the second depthwise, and the activation ``between`` them."""

    first: str
    between: str
    second: str


def depthwise_pairs(graph: Graph) -> list[Pair]:
    """Every convolution whose rectified output a depthwise convolution reads, and nothing else."""
    makers, readers = graph.makers(), graph.readers()
    found = []
    for node in graph.nodes:
        rectifier = makers.get(node.input[0]) if _is_depthwise(graph, node) else None
        if rectifier is None or not _is_rectifier(graph, rectifier):
            continue
        first = makers.get(rectifier.input[0])
        if first is None or first.op_type != "Conv" or not _known(graph, first):
            continue
        own = [first.output[0], rectifier.output[0]]
        if all(len(readers[name]) == 1 and name != graph.output.name for name in own):
            found.append(Pair(first.output[0], rectifier.output[0], node.output[0]))
    return found


def channel_peaks(graph: Graph, pairs: Sequence[Pair], batches: Iterable[Batch]) -> dict[str, Float64]:
    """For each pair's ``between``: the largest value of every channel over ``batches``, (c,)."""
    tapped = graph.copy()
    peaks = {pair.between: tapped.fresh(f"{pair.between}.peak") for pair in pairs}
    nodes = [helper.make_node("ReduceMax", [name], [peak], axes=[0, 2, 3], keepdims=0) for name, peak in peaks.items()]
    tapped.model.graph.node.extend(nodes)
    running = session(tapped, list(peaks.values()))
    found = {name: np.zeros(1) for name in peaks}
    for batch in batches:
        rows = running.run(list(peaks.values()), {graph.input.name: batch})
        found = {name: np.maximum(found[name], row) for name, row in zip(peaks, rows, strict=True)}
    return found


def equalize(graph: Graph, pairs: Sequence[Pair], peaks: Mapping[str, Float64]) -> None:
    """Bring the channels between each of ``pairs`` to one peak, in place.

    With Relu the answers stay; a Clip cuts no value that is below the peak of its channel.
    """
    makers = graph.makers()
    for pair in pairs:
        peak = peaks[pair.between]
        factor = np.clip(peak.max() / np.maximum(peak, 1e-9), 1.0, _LARGEST_FACTOR)
        for index in range(1, len(makers[pair.first].input)):
            _scale(graph, makers[pair.first], index, factor)
        _scale(graph, makers[pair.second], 1, 1.0 / factor)
    graph.set_nodes(graph.nodes)


def _scale(graph: Graph, conv: NodeProto, index: int, factor: Float64) -> None:
    array = np.asarray(graph.array(conv.input[index]), np.float64)
    scaled = (array * factor.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32)
    conv.input[index] = graph.add_array(f"{conv.input[index]}.equal", scaled)


def _is_depthwise(graph: Graph, node: NodeProto) -> bool:
    weights = graph.array(node.input[1]) if node.op_type == "Conv" else None
    return weights is not None and weights.shape[1] == 1 and attributes(node).get("group", 1) == len(weights)


def _is_rectifier(graph: Graph, node: NodeProto) -> bool:
    if node.op_type == "Relu":
        return True
    least = graph.array(node.input[1]) if node.op_type == "Clip" and len(node.input) > 1 else None
    return least is not None and float(least) == 0.0


def _known(graph: Graph, conv: NodeProto) -> bool:
    return all(graph.array(name) is not None for name in conv.input[1:])
