"""A stand-in for an NVIDIA GPU: modules named ``tensorrt`` and ``pycuda`` that enforce what the real ones enforce.

Its plans hold ONNX and run on ONNX Runtime. The folder itself goes on the module path: the fixture ``standin`` does so
within a test, ``environment()`` for a child process. What the device is, and when it fails, is told by environment
variables (see ``standin_device``), so that both ways meet the same device.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent.parent
MODULES = ("tensorrt", "pycuda", "cuda", "standin_device", "standin_libcuda")
# What our modules remember of the library they met first.
CACHES = {"engines.cuda": ["_primary_context"], "engines.cuda_graph": ["_calls"], "engines.tensorrt_api": ["logger"]}


def environment(**settings: str) -> dict[str, str]:
    """The environment of a child process that meets the stand-in; ``settings`` are ``STANDIN_*`` variables."""
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(str(part) for part in (SITE, ROOT, inherited) if str(part))
    return {**os.environ, "PYTHONPATH": path, **settings}


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``import tensorrt`` and ``import pycuda.driver`` find fresh stand-ins until the test ends."""
    for name in _loaded():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(SITE))
    for module, names in CACHES.items():
        for name in names:
            getattr(import_module(module), name).cache_clear()


def forget() -> None:
    """Leave no stand-in behind for tests that want none."""
    for name in _loaded():
        del sys.modules[name]


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in MODULES]
