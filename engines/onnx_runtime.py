"""ONNX models on ONNX Runtime; the only file that imports it."""

from __future__ import annotations

import contextlib
import logging
import sys
from functools import cache
from typing import Any

import numpy as np

from engines.base import Batch, CheckedEngine, Done, available_threads
from engines.cuda_alive import why_lost
from engines.errors import DeviceLostError, EngineRunError, ModelError
from engines.onnx_file import external_data, summarize
from engines.spec import ModelSpec

try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
except ImportError as error:
    raise ModelError(
        "ONNX Runtime is not installed; install parrotgate[cpu], or parrotgate[cuda] for NVIDIA GPUs"
    ) from error

log = logging.getLogger(__name__)

# Its own classes share no base but Exception; what has no class of its own comes as a RuntimeError.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(value for value in vars(ort_errors).values() if isinstance(value, type) and issubclass(value, Exception)),
    RuntimeError,
)
_ELEMENT = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
_INTEGER = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


class OnnxEngine(CheckedEngine):
    """A network with one input and one output, both with a free first dimension (the batch).

    Inference happens inside ``submit``; its result is a new array at every call. Values are as the graph gives them:
    the manifest's ``output.kind`` says whether they are logits or probabilities.

    On CUDA a session plans its convolutions anew whenever the number of rows changes (0.1 to 1.5 s on an H100, since
    ONNX Runtime 1.20), so that batches are filled up to a power of two and each of those has a session of its own.

    Raises:
        ModelError: the model or what it needs is missing, or they contradict each other.
        EngineRunError: ``device`` is ``cuda`` and the GPU does not take the model, which the CPU does.
    """

    def __init__(self, model: bytes, spec: ModelSpec, device: str, threads: int | None) -> None:
        if names := external_data(model):
            raise ModelError(
                f"{spec.name}: the weights lie in other files ({', '.join(names[:3])}), which no hash protects; "
                "save the model as one file (onnx.save with save_as_external_data=False)"
            )
        _check_declared(model, spec)
        self._session = _open(model, spec, device, threads)
        on_cuda = _is_on_cuda(self._session)
        self._model, self._threads = model if on_cuda else b"", threads  # on the CPU one session serves all
        self._for_rows = {1: self._session} if on_cuda else {}
        super().__init__(spec, "cuda" if on_cuda else "cpu", _why(device, spec, on_cuda=on_cuda))
        self._input, self._output = _check_signature(self._session, spec)

    def _start(self, batch: Batch) -> Done:
        try:
            if self.device == "cuda":
                filled = _filled(batch)
                (output,) = self._session_for(len(filled)).run([self._output], {self._input: filled})
                output = output[: len(batch)]
            else:
                (output,) = self._session.run([self._output], {self._input: batch})
        except _ORT_ERRORS as error:
            failed = f"{self.spec.name}: inference failed on a batch of {len(batch)}: {error}"
            if self.device == "cuda":
                _refuse_lost(failed, error)
            raise EngineRunError(failed) from error
        if len(output) != len(batch) or output.size != len(batch) * self.spec.output.size:
            raise EngineRunError(
                f"{self.spec.name}: expected ({len(batch)}, {self.spec.output.size}) values, got {output.shape}"
            )
        return Done(output.reshape(len(batch), self.spec.output.size))

    def _session_for(self, rows: int) -> Any:
        """The session that has planned its convolutions for ``rows`` alone."""
        if rows not in self._for_rows:
            self._for_rows[rows] = _session(self._model, [_CUDA, _CPU], self._threads)
        return self._for_rows[rows]

    def describe(self) -> dict[str, str]:
        tensors = {"input": self._session.get_inputs()[0], "output": self._session.get_outputs()[0]}
        return {
            "runtime": f"ONNX Runtime {ort.__version__} on {self.device}",
            **{what: f"{t.name} {t.type} ({', '.join(map(str, t.shape))})" for what, t in tensors.items()},
        }

    def close(self) -> None:
        super().close()
        self._session = None
        self._for_rows.clear()


def _check_declared(model: bytes, spec: ModelSpec) -> None:
    """Raise ``ModelError`` if the graph is an integer form of another model and its manifest does not say so."""
    if spec.origin != spec.sha256 and spec.quantized is None:
        found = _INTEGER & set(summarize(model).operators)
        if found:
            raise ModelError(
                f"{spec.name}: the graph is quantised ({', '.join(sorted(found))}), the manifest names another origin "
                "and no 'quantized' section; make the model with `engines quantize`"
            )


def _open(model: bytes, spec: ModelSpec, device: str, threads: int | None) -> Any:
    """A session on CUDA, tried with one row, where ``device`` and this machine allow it; else one on the CPU."""
    has_cuda = _CUDA in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ModelError(
            f"{spec.name}: this ONNX Runtime has no CUDA; install parrotgate[cuda] in place of parrotgate[cpu], "
            "or set device to cpu"
        )
    refused: Exception | None = None
    if has_cuda and device != "cpu":
        _load_cuda()
        try:
            session = _session(model, [_CUDA, _CPU], threads)
            if _is_on_cuda(session):
                _try(session, spec)
            elif device == "cuda":
                raise ModelError(f"{spec.name}: CUDA could not be started; see ONNX Runtime's own message above")
            return session
        except _ORT_ERRORS as error:
            refused = error
    try:
        session = _session(model, [_CPU], threads)
    except _ORT_ERRORS as error:
        raise ModelError(f"{spec.name}: ONNX Runtime cannot load this model: {error}") from error
    if refused is not None:  # by the GPU then, not by what is wrong with the model
        failed = f"{spec.name}: the GPU does not take this model ({refused}); free the GPU, or set device to cpu"
        _refuse_lost(failed, refused)
        if device == "cuda":
            lacking = isinstance(refused, ort_errors.NotImplemented)  # no cuDNN, which is looked for when it is needed
            raise (ModelError if lacking else EngineRunError)(failed) from refused
        log.warning("slower than it could be: %s", failed)
    return session


def _session(model: bytes, providers: list[str], threads: int | None) -> Any:
    """Raises one of ``_ORT_ERRORS`` where the model cannot be loaded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning workers burn a core for nothing while the cameras are quiet, and steal from the decoders when not.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Trying every algorithm of every convolution takes up to five times as long, and the choice is seldom better.
    settings = [{"cudnn_conv_algo_search": "HEURISTIC"} if name == _CUDA else {} for name in providers]
    # Left to itself it falls back to the CPU with words on stdout.
    return ort.InferenceSession(model, options, providers=providers, provider_options=settings, enable_fallback=0)


def _try(session: Any, spec: ModelSpec) -> None:
    """Let ``session`` answer one row. Raises one of ``_ORT_ERRORS``, or ``ModelError`` where ``spec`` differs."""
    name, output = _check_signature(session, spec)
    session.run([output], {name: np.zeros((1, *spec.input.shape), spec.input.numpy_dtype)})


def _is_on_cuda(session: Any) -> bool:
    return bool(session.get_providers()[0] == _CUDA)


def _refuse_lost(failed: str, error: Exception) -> None:
    """Raise ``DeviceLostError`` if the GPU serves this process no more."""
    if (lost := why_lost()) is not None:
        raise DeviceLostError(f"{failed}; the GPU is lost to this process: {lost}; start it again") from error


def _filled(batch: Batch) -> Batch:
    """``batch`` with rows of zeros behind it, up to a power of two."""
    rows = 1 << (len(batch) - 1).bit_length()
    if rows == len(batch):
        return batch
    filled = np.zeros((rows, *batch.shape[1:]), batch.dtype)
    filled[: len(batch)] = batch
    return filled


@cache
def _load_cuda() -> None:
    """Load CUDA's libraries where pip has put them (``nvidia-*``), which the loader does not find by itself."""
    if hasattr(ort, "preload_dlls"):  # 1.21
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses; stdout is for answers
            ort.preload_dlls()


def _why(device: str, spec: ModelSpec, *, on_cuda: bool) -> str:
    if on_cuda:
        return "ONNX Runtime on CUDA"
    if device == "cpu":
        return "ONNX Runtime on the CPU, as asked"
    if _CUDA in ort.get_available_providers():
        log.warning("%s: CUDA could not be started, and the CPU is slower; see the messages above", spec.name)
        return "ONNX Runtime on the CPU: its CUDA could not be started"
    return "ONNX Runtime on the CPU: it was installed without CUDA"


def _check_signature(session: Any, spec: ModelSpec) -> tuple[str, str]:
    """The names of input and output; ``ModelError`` unless they agree with the manifest."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{spec.name}: expected one input and one output, the graph has {len(inputs)} and {len(outputs)}; "
            "export the model with only those"
        )
    _check_tensor(spec, "input", inputs[0], spec.input.shape, spec.input.dtype)
    _check_tensor(spec, "output", outputs[0], (spec.output.size,), "float32")
    return inputs[0].name, outputs[0].name


def _check_tensor(spec: ModelSpec, what: str, tensor: Any, shape: tuple[int, ...], dtype: str) -> None:
    if tensor.type != _ELEMENT[dtype]:
        raise ModelError(f"{spec.name}: the manifest says {what} {dtype}, the graph says {tensor.type}")
    batch, *rest = tensor.shape or [None]
    if isinstance(batch, int):
        raise ModelError(
            f"{spec.name}: the {what} has a fixed batch of {batch}; export the model with a free first dimension"
        )
    # Pooled features often keep their two empty axes: (n, 2048, 1, 1).
    while what == "output" and len(rest) > 1 and rest[-1] == 1:
        rest.pop()
    fits = len(rest) == len(shape) and all(
        got == want or not isinstance(got, int) for got, want in zip(rest, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, ("n", *shape)))
        raise ModelError(f"{spec.name}: the manifest says {what} ({wanted}), the graph says {tensor.shape}")
