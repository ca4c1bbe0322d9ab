"""A small pre-activation ResNet as real files have it: float16 weights behind Casts, BatchNorm before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines import InputSpec, OutputSpec
from tests.engines import networks

SIDE = 16
WIDTH = 8
CLASSES = 5
INPUT = InputSpec(layout="NCHW", height=SIDE, width=SIDE, mean=(0.48, 0.45, 0.4), std=(0.23, 0.22, 0.25))
FEATURES = OutputSpec(kind="features", size=WIDTH)
CLASSIFIER: dict[str, Any] = {"task": "classifier", "output": OutputSpec(kind="probabilities", size=CLASSES)}


class Builder:
    """Nodes and weights in the order in which they are asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, around: float = 0.0, spread: float = 0.5) -> str:
        """A float16 weight behind a Cast."""
        values = self.rng.normal(around, spread, shape).astype(np.float16)
        self.weights.append(numpy_helper.from_array(values, f"{name}.f16"))
        self.nodes.append(helper.make_node("Cast", [f"{name}.f16"], [name], to=TensorProto.FLOAT))
        return name

    def node(self, operator: str, *inputs: str, to: str, **options: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [to], **options))
        return to

    def conv(self, x: str, to: str, c_in: int, size: int = 3, stride: int = 1) -> str:
        weight = self.weight(f"{to}.w", WIDTH, c_in, size, size, spread=1 / (size * c_in**0.5))
        pads = [size // 2] * 4
        return self.node("Conv", x, weight, to=to, strides=[stride] * 2, pads=pads, kernel_shape=[size] * 2)

    def norm(self, x: str, to: str, epsilon: float = 1e-5) -> str:
        parts = [self.weight(f"{to}.{p}", WIDTH, around=a) for p, a in (("g", 1.0), ("b", 0.0), ("m", 0.0))]
        variance = np.abs(self.rng.normal(1, 0.2, WIDTH)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(variance, f"{to}.v"))
        return self.node("BatchNormalization", x, *parts, f"{to}.v", to=to, epsilon=epsilon)


def resnet(*, classes: int = 0, seed: int = 0, epsilon: float = 1e-5) -> onnx.ModelProto:
    """(n, 3, 16, 16) -> stem, one pre-activation block, pooled (n, 8), or ``classes`` probabilities."""
    b = Builder(seed)
    stem = b.node("Relu", b.norm(b.conv("x", "stem", 3, stride=2), "stem.bn", epsilon), to="stem.out")
    before = b.node("Relu", b.norm(stem, "pre.bn", epsilon), to="pre.out")
    inner = b.node("Relu", b.norm(b.conv(before, "inner", WIDTH), "inner.bn", epsilon), to="inner.out")
    block = b.node("Add", b.conv(inner, "outer", WIDTH, size=1), stem, to="block")
    last = b.node("Relu", b.norm(block, "last.bn", epsilon), to="last.out")
    end = b.node("Flatten", b.node("GlobalAveragePool", last, to="pool"), to="features")
    if classes:
        dense = b.weight("dense", WIDTH, classes, spread=2.0)
        end = b.node("Softmax", b.node("MatMul", end, dense, to="logits"), to="y", axis=1)
    graph = helper.make_graph(
        b.nodes,
        "resnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", classes or WIDTH])],
        b.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(folder: Path, **changes: Any) -> Path:
    """The feature network as ``tiny.onnx`` with its manifest."""
    return networks.save(folder, resnet(), **{"input": INPUT, "output": FEATURES, **changes})


def save_classifier(folder: Path) -> Path:
    """The classifier as ``tiny.onnx`` with its manifest and labels."""
    labels = tuple(f"kind {i}" for i in range(CLASSES))
    return networks.save(folder, resnet(classes=CLASSES), input=INPUT, labels=labels, **CLASSIFIER)
