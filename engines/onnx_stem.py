"""The first convolution over blocks of 2x2 pixels, which integer kernels gather in fewer and longer pieces.

A kernel of k x k in steps of 2 over three channels becomes one of about k/2 x k/2 in steps of 1 over twelve: the same
sums, with a few zeros more.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from engines.onnx_graph import Array, Graph, Shape, attributes

_BLOCK = 2
_FEW_CHANNELS = 4


def widen_stem(graph: Graph) -> int:
    """Put SpaceToDepth and a smaller convolution in place of every convolution in steps of 2 over at most four
    channels of an even height and width; returns how many."""
    shapes = graph.shapes()
    nodes: list[NodeProto] = []
    count = 0
    for node in graph.nodes:
        made = _widened(graph, node, shapes) if node.op_type == "Conv" else None
        nodes += made or [node]
        count += made is not None
    graph.set_nodes(nodes)
    return count


def _widened(graph: Graph, conv: NodeProto, shapes: dict[str, Shape]) -> list[NodeProto] | None:
    weights, options = graph.array(conv.input[1]), attributes(conv)
    before, after = (shapes.get(name, ())[2:] for name in (conv.input[0], conv.output[0]))
    if weights is None or weights.ndim != 4 or weights.shape[1] > _FEW_CHANNELS or not _is_plain(options):
        return None
    pads, end = options.get("pads", [0, 0, 0, 0])[:2], []
    for side, made, pad, kernel in zip(before, after, pads, _kernel(weights, pads), strict=False):
        if side is None or made is None or side % _BLOCK:
            return None
        end.append(made - 1 + kernel - _blocks(pad) - side // _BLOCK)
    if len(end) != 2 or min(end) < 0:
        return None
    blocks = graph.fresh(f"{conv.input[0]}.blocks")
    name = graph.add_array(f"{conv.input[1]}.blocks", _in_blocks(weights, pads))
    return [
        helper.make_node("SpaceToDepth", [conv.input[0]], [blocks], blocksize=_BLOCK),
        helper.make_node(
            "Conv",
            [blocks, name, *conv.input[2:]],
            list(conv.output),
            name=conv.name,
            pads=[*map(_blocks, pads), *end],
        ),
    ]


def _is_plain(options: dict[str, object]) -> bool:
    wanted = {"group": 1, "dilations": [1, 1], "strides": [_BLOCK, _BLOCK], "auto_pad": b"NOTSET"}
    usual = {**wanted, "strides": [1, 1]}
    return all(options.get(name, usual[name]) == value for name, value in wanted.items())


def _blocks(pixels: int) -> int:
    """Whole blocks that cover ``pixels``."""
    return -(-pixels // _BLOCK)


def _shift(pad: int) -> int:
    """Pixels from the edge of the first block to the first that the kernel reads."""
    return _BLOCK * _blocks(pad) - pad


def _kernel(weights: Array, pads: list[int]) -> tuple[int, ...]:
    """Height and width of the kernel in blocks."""
    return tuple(_blocks(_shift(pad) + size) for size, pad in zip(weights.shape[2:], pads, strict=True))


def _in_blocks(weights: Array, pads: list[int]) -> Array:
    """``weights`` (m, c, h, w) as (m, 4c, …), channels in SpaceToDepth's order."""
    m, c, h, w = weights.shape
    rows, columns = _kernel(weights, pads)
    wide = np.zeros((m, c, _BLOCK * rows, _BLOCK * columns), weights.dtype)
    top, left = map(_shift, pads)
    wide[:, :, top : top + h, left : left + w] = weights
    parts = wide.reshape(m, c, rows, _BLOCK, columns, _BLOCK).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(m, _BLOCK * _BLOCK * c, rows, columns)
