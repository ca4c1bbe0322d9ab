"""The TensorRT bindings, imported when they are first needed: what the installed version can do, and what it says."""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any

from engines.errors import ModelError

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger(__name__)

_COMPLAINTS_KEPT = 4


def bindings() -> Any:
    """The module ``tensorrt``. Raises ``ModelError`` where it is not installed or finds no library.

    Look for the GPU before anything is made of it: without a driver a ``Runtime`` is hollow and crashes the process.
    """
    try:
        import tensorrt
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(
            f"TensorRT cannot be used here ({error}); on a Jetson it comes with JetPack (make the virtual environment "
            "with --system-site-packages), on other machines install parrotgate[tensorrt]"
        ) from error
    return tensorrt


def has(name: str) -> bool:
    """Whether the installed TensorRT knows ``name``, as ``BuilderFlag.FP16`` or ``IExecutionContext.set_aux_streams``.

    The one place where versions are told apart: by what they can do, never by their number. The conformance suite
    follows each ``if has("…")`` for every version.
    """
    found = bindings()
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


@cache
def logger() -> trt.ILogger:
    """The one logger of this process, which outlives every builder, runtime and engine as TensorRT demands.

    Warnings and errors go to the log; ``complaint()`` gives the last ones.
    """
    bindings()
    import tensorrt as trt

    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Log(trt.ILogger):  # type: ignore[misc]  # the bindings carry no types
        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            level = levels[severity]
            log.log(level, "TensorRT: %s", msg)
            if level >= logging.ERROR:
                _complaints.append(msg)

    return Log()


def complaint() -> str:
    """What TensorRT has complained of since the last call, oldest first; a plain clause where it was silent."""
    said = "; ".join(_complaints) or "TensorRT gave no reason"
    _complaints.clear()
    return said


def refuse_complaints(what: str) -> None:
    """Raise ``ModelError`` if TensorRT has complained since ``complaint()`` was last called.

    To be called after each constructor: one that failed (a driver too old, say) returns an object all the same, around
    a null pointer, and the first call on it kills the process (seen with TensorRT 11.4).
    """
    if _complaints:
        raise ModelError(f"TensorRT cannot {what} on this machine: {complaint()}")


_complaints: deque[str] = deque(maxlen=_COMPLAINTS_KEPT)
