"""Plans for the stand-in device, made from the tiny true networks without a builder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

from engines import write_spec
from engines.plan_manifest import PlanSection, Profile
from tests.engines import networks

Rows = tuple[int, int, int]


def section_of(model: bytes, rows: Rows = (1, 4, 8), **changes: Any) -> PlanSection:
    """How a plan of ``model`` would have been built on the stand-in device as it is, save for ``changes``."""
    device = import_module("standin_device")
    values: dict[str, Any] = {
        "onnx": "tiny.onnx",
        "onnx_sha256": hashlib.sha256(model).hexdigest(),
        "tensorrt": device.TENSORRT,
        "gpu": device.GPU,
        "compute_capability": ".".join(map(str, device.COMPUTE_CAPABILITY)),
        "precision": "fp32",
        "profile": Profile(min=rows[0], opt=rows[1], max=rows[2]),
        "workspace_mib": 1024,
    }
    return PlanSection(**{**values, **changes})


def save(
    folder: Path,
    model: onnx.ModelProto,
    *,
    profiles: Sequence[Rows] = ((1, 4, 8),),
    section: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write ``tiny.plan`` and its manifest into ``folder``; ``section``, ``header`` and ``changes`` (of the manifest)
    make it wrong where that is wanted. Returns the plan's path."""
    content = model.SerializeToString()
    spec = networks.spec_of(content, **changes)
    rows = [{"x": tuple((n, *spec.input.shape) for n in one)} for one in profiles]
    least, most = min(one[0] for one in profiles), max(one[2] for one in profiles)
    plan_section = section_of(content, (least, most, most), **(section or {}))
    common = import_module("tensorrt")
    plan: bytes = common.write_plan({**common.plan_header(rows, name=plan_section.label), **(header or {})}, content)
    path = folder / "tiny.plan"
    path.write_bytes(plan)
    write_spec(path, replace(spec, sha256=hashlib.sha256(plan).hexdigest(), plan=plan_section))
    return path
