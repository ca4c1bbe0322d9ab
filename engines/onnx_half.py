"""A float32 network rewritten to compute in half precision, for a TensorRT that types networks strongly.

The same graph with weights, constants and casts of the shorter type; input and output keep theirs. What ONNX demands in
float32 (the scales of a Resize) stays so. Needs the ``onnx`` package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from engines.errors import ModelError

if TYPE_CHECKING:
    import onnx

Half = Literal["fp16", "bf16"]

# Operator -> the inputs that ONNX wants as float32, whatever the rest computes in.
_ALWAYS_FLOAT = {"Resize": (1, 2), "Upsample": (1,)}
_BFLOAT16_OPSET = 22  # before, Conv and others know no bfloat16
_CONSTANTS = ("Constant", "ConstantOfShape")


def to_half(content: bytes, precision: Half, name: str) -> bytes:
    """``content`` (serialised ONNX, one float32 or uint8 input, one float32 output) computing in ``precision``.

    Raises:
        ModelError: ``onnx`` is not installed, the graph has branches, a weight is too large for the type, or what comes
            out is no valid ONNX.
    """
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            f"{name}: this TensorRT takes its precision from the network, and rewriting a float32 one to {precision} "
            "needs the package onnx; install parrotgate[tensorrt], or build with --precision fp32"
        ) from error
    model = onnx.load_from_string(content)
    if precision == "bf16":
        model = _modern(model, name)
    _Rewriter(model, precision, name).rewrite()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"{name}: cannot be rewritten to {precision} ({error}); build with --precision fp32"
        ) from error
    return bytes(model.SerializeToString())


def _modern(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    from onnx import version_converter

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset >= _BFLOAT16_OPSET:
        return model
    try:
        return version_converter.convert_version(model, _BFLOAT16_OPSET)
    except RuntimeError as error:
        raise ModelError(
            f"{name}: cannot be raised to ONNX opset {_BFLOAT16_OPSET}, which bf16 needs: {error}"
        ) from error


class _Rewriter:
    def __init__(self, model: onnx.ModelProto, precision: Half, name: str) -> None:
        from onnx import TensorProto

        self.graph, self.name, self.precision = model.graph, name, precision
        self.float, self.half = (
            TensorProto.FLOAT,
            {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision],
        )
        if model.functions or any(a.HasField("g") or a.graphs for node in self.graph.node for a in node.attribute):
            raise ModelError(
                f"{name}: networks with branches or functions are not rewritten; build with --precision fp32"
            )

    def rewrite(self) -> None:
        kept = self._kept_float()
        del self.graph.value_info[:]
        for tensor in self.graph.initializer:
            if tensor.name not in kept:
                self._shorten(tensor)
        for node in self.graph.node:
            self._convert(node, kept)
        self._cast_input()
        self._cast_output()

    def _kept_float(self) -> set[str]:
        return {
            node.input[index]
            for node in self.graph.node
            for index in _ALWAYS_FLOAT.get(node.op_type, ())
            if index < len(node.input)
        }

    def _convert(self, node: onnx.NodeProto, kept: set[str]) -> None:
        if node.op_type in _CONSTANTS:
            self._as_tensor(node)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == self.float:
                attribute.i = self.half
            elif node.op_type in _CONSTANTS and attribute.HasField("t") and node.output[0] not in kept:
                self._shorten(attribute.t)

    def _as_tensor(self, node: onnx.NodeProto) -> None:
        """Write a constant's float32 values, given in short or left out, as a tensor with a type."""
        from onnx import helper, numpy_helper

        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "ConstantOfShape" and not given:
            values = np.zeros(1, np.float32)  # ONNX's default
        elif "value_float" in given:
            values = np.array(given["value_float"], np.float32)
        elif "value_floats" in given:
            values = np.array(given["value_floats"], np.float32)
        else:
            return
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(values)))

    def _shorten(self, tensor: onnx.TensorProto) -> None:
        from onnx import numpy_helper

        if tensor.data_type != self.float:
            return
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):  # told below
            raw = values.astype(np.float16) if self.precision == "fp16" else _to_bfloat16(values)
        if self.precision == "fp16" and not np.array_equal(np.isfinite(values), np.isfinite(raw)):
            largest = float(np.abs(values[np.isfinite(values)]).max())
            raise ModelError(f"{self.name}: weights as large as {largest:.3g} do not fit into fp16; take bf16 or fp32")
        del tensor.float_data[:]
        tensor.raw_data = raw.tobytes()
        tensor.data_type = self.half

    def _cast_input(self) -> None:
        from onnx import helper

        weights = {tensor.name for tensor in self.graph.initializer}
        (value,) = [value for value in self.graph.input if value.name not in weights]
        if value.type.tensor_type.elem_type != self.float:
            return  # pixels: the graph's own Cast is rewritten
        half = f"{value.name}_{self.precision}"
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name == value.name:
                    node.input[index] = half
        self.graph.node.insert(0, helper.make_node("Cast", [value.name], [half], name=half, to=self.half))

    def _cast_output(self) -> None:
        from onnx import helper

        (value,) = self.graph.output
        half = f"{value.name}_{self.precision}"
        for node in self.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == value.name:
                        names[index] = half
        self.graph.node.append(helper.make_node("Cast", [half], [value.name], name=half, to=self.float))


def _to_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The upper halves of float32 values, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded
