"""Static INT8 with Q/DQ nodes, by ONNX Runtime's quantiser: calibrate on pictures once, then write for each target.

``cpu`` is U8S8: ONNX Runtime's x86 kernels are fast with unsigned activations and signed weights only. ``tensorrt`` is
S8S8 with every zero point 0, which TensorRT demands; Q/DQ stand before convolutions and dense layers alone, biases stay
float, and a residual branch shares the quantised tensor of the convolution beside it, so that TensorRT can fuse
convolution, addition and activation. In both the pooling at the end stays float: features are means over many
quantised values, and keep more than 8 bits.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from engines.base import Batch
from engines.errors import ModelError
from engines.onnx_fold import fold_batch_norms, fold_casts, rewrite_batch_norms
from engines.onnx_graph import Graph
from engines.onnx_stem import widen_stem

Target = Literal["cpu", "tensorrt"]
Method = Literal["percentile", "entropy", "minmax"]
_METHODS = {
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    "minmax": CalibrationMethod.MinMax,
}
_WEIGHTED = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
_CPU_OPERATORS = [*_WEIGHTED, "Add", "Clip", "Concat", "LeakyRelu", "MaxPool", "Relu"]
_TENSORRT_OPERATORS = [*_WEIGHTED, "MaxPool"]
_MEASURED = [*_CPU_OPERATORS, "BatchNormalization", "SpaceToDepth"]  # whose inputs and outputs get a range
_DEQUANTIZED = "_DequantizeLinear_Output"  # the quantiser's name for what it makes of a tensor


def simplified(graph: Graph, target: Target) -> Graph:
    """The float graph to be quantised, a new one: weights folded, and for the CPU no BatchNorm left inside and the
    first convolution over blocks of pixels.

    TensorRT fuses a BatchNorm that is left with its activation; it stays as it is.
    """
    graph = graph.copy()
    fold_casts(graph)
    fold_batch_norms(graph)
    if target == "cpu":
        rewrite_batch_norms(graph)
        widen_stem(graph)
    return graph


def calibrate(graph: Graph, batches: Iterable[Batch], method: Method) -> Any:
    """The range of every tensor of ``graph`` over ``batches``, for :func:`quantize`.

    ``minmax`` takes the extremes, ``percentile`` leaves out the rarest 1 in 100,000 values of a tensor, ``entropy``
    minimises the Kullback-Leibler divergence. Raises :class:`ModelError` if there is no batch.
    """
    name = graph.input.name
    with tempfile.TemporaryDirectory(prefix="parrotgate-") as folder:
        source = Path(folder, "float.onnx")
        onnx.save(onnx.shape_inference.infer_shapes(graph.model), source)
        calibrator = create_calibrator(
            source, _MEASURED, str(Path(folder, "augmented.onnx")), calibrate_method=_METHODS[method]
        )
        seen = 0
        for batch in batches:  # one at a time: the calibrator keeps every tensor of what it is given
            with redirect_stdout(StringIO()):  # it prints its progress
                calibrator.collect_data(_Once({name: batch}))
            seen += len(batch)
        if not seen:
            raise ModelError(f"{graph.name}: no calibration picture could be read; give other pictures")
        with redirect_stdout(StringIO()):
            return calibrator.compute_data()


def quantize(graph: Graph, ranges: Any, target: Target, *, seven_bit: bool = False) -> Graph:
    """A new graph: ``graph`` in INT8 for ``target``, weights for each channel, activations for each tensor.

    ``seven_bit`` leaves a bit of the weights free: x86 CPUs without VNNI add two products in 16 bits and saturate.
    """
    cpu = target == "cpu"
    options = {
        "ActivationSymmetric": not cpu,
        "QuantizeBias": cpu,
        "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"] if cpu else _TENSORRT_OPERATORS,
    }
    activations = QuantType.QUInt8 if cpu else QuantType.QInt8
    operators = _CPU_OPERATORS if cpu else _TENSORRT_OPERATORS
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises steps that are done here by other means
    try:
        quantizer = QDQQuantizer(
            graph.copy().model, True, seven_bit, QuantType.QInt8, activations, ranges, [], [], operators, options
        )
        quantizer.quantize_model()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{graph.name}: cannot be quantised: {error}") from error
    finally:
        logging.disable(before)
    made = Graph(quantizer.model.model, graph.name)
    made.sort()
    if not cpu:
        share_residuals(made)
    return made


def quantized_tensors(graph: Graph) -> dict[str, str]:
    """Activations that went through 8 bits: the float tensor's name -> the name of what came back."""
    weights = set(graph.arrays)
    pairs = {
        node.output[0].removesuffix(_DEQUANTIZED): node.output[0]
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and node.input[0] not in weights
    }
    return {tensor: back for tensor, back in pairs.items() if tensor != back}


def share_residuals(graph: Graph) -> int:
    """Let an addition read the quantised form of one input where there is one; returns how many do."""
    twins = quantized_tensors(graph)
    shared = 0
    for node in graph.nodes:
        if node.op_type == "Add":
            index = next((i for i, name in enumerate(node.input) if name in twins), None)
            if index is not None:
                node.input[index] = twins[node.input[index]]
                shared += 1
    graph.sort()
    return shared


class _Once(CalibrationDataReader):  # type: ignore[misc, unused-ignore]  # onnxruntime has no type information
    """One batch, as ONNX Runtime's calibrators want to be fed."""

    def __init__(self, feed: dict[str, Batch]) -> None:
        self._feeds: Iterator[dict[str, Batch]] = iter([feed])

    def get_next(self) -> dict[str, Batch] | None:
        return next(self._feeds, None)
