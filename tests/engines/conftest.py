"""The engines' tests see no CUDA in ONNX Runtime, wherever they run: ``tests/gpu`` is for machines that have it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """``device: auto`` takes the CPU."""
    if find_spec("onnxruntime") is not None:
        monkeypatch.setattr(import_module("onnxruntime"), "get_available_providers", lambda: ["CPUExecutionProvider"])
