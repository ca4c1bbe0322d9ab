"""Plans for the stand-in device, made from the tiny true networks without a builder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

from engines import load_spec, write_spec
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
        "multiprocessors": device.MULTIPROCESSORS,
        "memory_gib": 64,
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


def of(model: Path, folder: Path, rows: Rows = (1, 4, 8)) -> Path:
    """The plan of the ONNX file ``model``, as a builder would make it for the stand-in device, in ``folder``."""
    common = import_module("tensorrt")
    content, spec = model.read_bytes(), load_spec(model)
    section = section_of(content, rows, onnx=model.name)
    (name,) = (tensor.name for tensor in onnx.load_from_string(content).graph.input)
    profile = {name: tuple((n, *spec.input.shape) for n in rows)}
    plan: bytes = common.write_plan(common.plan_header([profile], name=section.label), content)
    path = folder / f"{model.stem}.plan"
    path.write_bytes(plan)
    write_spec(path, replace(spec, sha256=hashlib.sha256(plan).hexdigest(), plan=section))
    return path


def beside(models: Path, folder: Path) -> Path:
    """A copy of the folder ``models`` within ``folder``, with a plan beside each ONNX file."""
    copied = Path(shutil.copytree(models, folder / "models"))
    for model in sorted(copied.glob("*.onnx")):
        of(model, copied)
    return copied


def rewrite(plan: Path, content: bytes) -> None:
    """Put ``content`` in the plan's place, with a manifest that vouches for it."""
    spec = load_spec(plan)
    plan.write_bytes(content)
    write_spec(plan, replace(spec, sha256=hashlib.sha256(content).hexdigest()))
