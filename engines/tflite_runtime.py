"""TensorFlow Lite models on LiteRT; the only file that imports it."""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.base import Batch, CheckedEngine, Done, Float32, available_threads
from engines.errors import EngineRunError, ModelError
from engines.spec import ModelSpec

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError as error:
    raise ModelError("LiteRT is not installed; install parrotgate[tflite], or use the .onnx file") from error

_ELEMENTS = {"float32": np.float32, "uint8": np.uint8}
_QUANTISED = (np.uint8, np.int8)


class TfliteEngine(CheckedEngine):
    """One interpreter with one input and one output, on the CPU.

    Published files fix their batch at one, and a graph may hold that one in a reshape; so rows run one after another,
    each on all threads. A quantised output q becomes scale * (q - zero point) in float32, by the file's own figures; a
    uint8 input is plain pixels, whose meaning the file holds too.
    """

    def __init__(self, model: bytes, spec: ModelSpec, device: str, threads: int | None) -> None:
        if device == "cuda":
            raise ModelError(f"{spec.name}: LiteRT runs on the CPU; set device to cpu, or use the .onnx file")
        super().__init__(spec, "cpu", "LiteRT, which runs on the CPU alone")
        self._interpreter = _interpreter(model, spec, threads)
        self._input, self._output = _check_signature(self._interpreter, spec)
        self._scale, self._zero = _quantisation(self._output, spec)

    def _start(self, batch: Batch) -> Done:
        output = np.empty((len(batch), self.spec.output.size), np.float32)
        try:
            for number in range(len(batch)):
                output[number] = self._run(batch[number : number + 1])
        except (RuntimeError, ValueError) as error:
            raise EngineRunError(f"{self.spec.name}: inference failed on a batch of {len(batch)}: {error}") from error
        return Done(output)

    def _run(self, row: Batch) -> Float32:
        self._interpreter.set_tensor(self._input["index"], row)
        self._interpreter.invoke()
        answer = self._interpreter.get_tensor(self._output["index"]).reshape(-1).astype(np.float32)
        dequantised: Float32 = (answer - self._zero) * self._scale
        return dequantised

    def describe(self) -> dict[str, str]:
        return {"runtime": "LiteRT on cpu", "input": _tensor(self._input), "output": _tensor(self._output)}

    def close(self) -> None:
        super().close()
        self._interpreter = None


def _interpreter(model: bytes, spec: ModelSpec, threads: int | None) -> Any:
    try:
        interpreter = Interpreter(model_content=model, num_threads=threads or available_threads())
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{spec.name}: LiteRT cannot load this model: {error}") from error
    return interpreter


def _check_signature(interpreter: Any, spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The details of input and output; ``ModelError`` unless they agree with the manifest."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{spec.name}: expected one input and one output, the graph has {len(inputs)} and {len(outputs)}; "
            "export the model with only those"
        )
    (given,), (answer,) = inputs, outputs
    if given["dtype"] is not _ELEMENTS[spec.input.dtype]:
        raise ModelError(
            f"{spec.name}: the manifest says input {spec.input.dtype}, the graph says {given['dtype'].__name__}"
        )
    if tuple(given["shape"]) != (1, *spec.input.shape):
        raise ModelError(
            f"{spec.name}: the manifest says input {(1, *spec.input.shape)}, the graph says {_shape(given)}; "
            "TensorFlow Lite pictures are NHWC, and their batch here is one"
        )
    if answer["dtype"] is not np.float32 and answer["dtype"] not in _QUANTISED:
        raise ModelError(f"{spec.name}: an output of {answer['dtype'].__name__} is not known; use float32 or uint8")
    if int(np.prod(answer["shape"])) != spec.output.size:
        raise ModelError(f"{spec.name}: the manifest says output {(1, spec.output.size)}, the graph {_shape(answer)}")
    return given, answer


def _quantisation(tensor: dict[str, Any], spec: ModelSpec) -> tuple[np.float32, np.float32]:
    """Scale and zero point of the output; 1 and 0 for a float one."""
    scales, zeros = (tensor["quantization_parameters"][name] for name in ("scales", "zero_points"))
    if tensor["dtype"] is np.float32:
        return np.float32(1), np.float32(0)
    if len(scales) != 1 or not scales[0] > 0:
        raise ModelError(f"{spec.name}: the quantised output has {len(scales)} scales, expected one above zero")
    return np.float32(scales[0]), np.float32(zeros[0])


def _shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor["shape"])


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype'].__name__} {_shape(tensor)}"
