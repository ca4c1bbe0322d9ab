"""Plans for this machine: built once for each network, GPU and setting, kept in a cache, never half written."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engines.base import read_verified
from engines.build_progress import Progress
from engines.errors import ModelError
from engines.files import replacing, write_whole
from engines.onnx_file import external_data, summarize
from engines.plan_manifest import HardwareLevel, Machine, PlanSection, Precision, Profile
from engines.spec import ModelSpec, load_spec, write_spec

log = logging.getLogger(__name__)

WantedPrecision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
DEFAULT_WORKSPACE_MIB = 1024
_MAX_TIMING_CACHE = 256 << 20
_QUANTISED = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a plan is to be built; the rest of its section is the machine's.

    ``precision`` ``auto`` takes int8 for a network with Q/DQ nodes, else fp16.
    """

    profile: Profile
    precision: WantedPrecision = "auto"
    workspace_mib: int = DEFAULT_WORKSPACE_MIB
    dla: int | None = None
    version_compatible: bool = False
    hardware_compatible: HardwareLevel = "none"


@dataclass(frozen=True, slots=True)
class Source:
    """An ONNX model, read and verified: its path, bytes and manifest."""

    path: Path
    content: bytes
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan in the cache: ``cached`` tells whether it was there already."""

    path: Path
    section: PlanSection
    cached: bool

    def layers(self) -> list[dict[str, Any]]:
        """What the engine inspector told of its layers when it was built; empty where it told nothing."""
        try:
            told: list[dict[str, Any]] = json.loads(_layers_path(self.path).read_bytes())
        except (OSError, ValueError):
            return []
        return told


def default_cache() -> Path:
    """Where plans are kept: ``$PARROTGATE_CACHE/plans``, else ``parrotgate/plans`` in the user's cache folder."""
    own = os.environ.get("PARROTGATE_CACHE")
    if own:
        return Path(own) / "plans"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrotgate" / "plans"


def read_source(model: Path, sha256: str | None = None, manifest_sha256: str | None = None) -> Source:
    """Read the ONNX file ``model`` with its manifest; the hashes pin them.

    Raises:
        ModelError: it is no whole ONNX file with a manifest, or not the pinned one.
    """
    if model.suffix != ".onnx":
        raise ModelError(f"{model}: a plan is built from an .onnx file, not from {model.suffix or 'this'!r}")
    spec = load_spec(model, manifest_sha256=manifest_sha256)
    content = read_verified(model, spec, sha256)
    if names := external_data(content):
        raise ModelError(
            f"{model}: the weights lie in other files ({', '.join(names[:3])}), which no hash protects; "
            "save the model as one file (onnx.save with save_as_external_data=False)"
        )
    return Source(model, content, spec)


def this_machine() -> Machine:
    """TensorRT and GPU as they are here. Raises ``ModelError`` where one is missing."""
    from engines.cuda import Gpu
    from engines.tensorrt_build import tensorrt_version

    version, gpu = tensorrt_version(), Gpu()
    return gpu.machine(version)


def plan_section(source: Source, wanted: Wanted, machine: Machine) -> PlanSection:
    """The manifest's section of the plan that ``wanted`` describes, on ``machine``. Raises ``ModelError``."""
    return PlanSection(
        onnx=source.path.name,
        onnx_sha256=source.spec.sha256,
        tensorrt=machine.tensorrt,
        gpu=machine.gpu,
        compute_capability=machine.compute_capability,
        multiprocessors=machine.multiprocessors,
        memory_gib=machine.memory_gib,
        precision=_precision(source, wanted.precision),
        profile=wanted.profile,
        workspace_mib=wanted.workspace_mib,
        dla=wanted.dla,
        version_compatible=wanted.version_compatible,
        hardware_compatible=wanted.hardware_compatible,
    )


def find(source: Source, section: PlanSection, cache: Path, *, detailed: bool = False) -> Plan | None:
    """The whole plan of ``section`` in ``cache``, or None; ``detailed``: one that keeps its layers' types.

    One whose manifest no longer says what that of ``source`` says does not count: it would prepare pictures as before.
    """
    path = _plan_path(source, section, cache, detailed=detailed)
    if not path.is_file():
        return None
    try:
        spec = load_spec(path)
        read_verified(path, spec)
    except ModelError as error:
        log.warning("a plan in the cache cannot be used and is built anew: %s", error)
        return None
    made_of = replace(source.spec, sha256=spec.sha256, plan=section)
    return Plan(path, section, cached=True) if spec == made_of else None


def build(source: Source, section: PlanSection, cache: Path, progress: Progress, *, detailed: bool = False) -> Plan:
    """The plan of ``section``: from ``cache``, else built now and put there.

    Two processes that want the same plan build it once. A build that is stopped or fails leaves nothing.

    Raises:
        ModelError: TensorRT cannot build it, or ``cache`` cannot be written.
        BuildStoppedError: ``progress`` has answered False.
    """
    try:
        with _alone(cache):
            found = find(source, section, cache, detailed=detailed)
            return found or _build(source, section, cache, progress, detailed=detailed)
    except OSError as error:
        raise ModelError(
            f"{cache}: the plan cannot be kept here ({error.strerror or error}); name a folder that can be written, "
            "with --cache or PARROTGATE_CACHE"
        ) from error


def place(plan: Plan, out: Path) -> None:
    """Put ``plan`` with manifest and labels at ``out``; a link where the file system can, else a copy.

    Raises ``ModelError`` if ``out`` cannot be written.
    """
    spec = load_spec(plan.path)
    try:
        with replacing(out) as part:
            try:
                os.link(plan.path, part)
            except OSError:
                shutil.copyfile(plan.path, part)
        write_spec(out, spec)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror or error}") from error


def _build(source: Source, section: PlanSection, cache: Path, progress: Progress, *, detailed: bool) -> Plan:
    from engines.cuda import Gpu
    from engines.tensorrt_build import build_plan, is_strongly_typed

    path = _plan_path(source, section, cache, detailed=detailed)
    timing = cache / f"timing-{_slug(f'{section.tensorrt}-{section.gpu}-{section.multiprocessors}')}.cache"
    onnx = source.content
    if is_strongly_typed() and section.precision in ("fp16", "bf16"):
        from engines.onnx_half import to_half

        onnx = to_half(onnx, section.precision, source.spec.name)
    elif is_strongly_typed() and section.precision == "int8":
        log.warning(
            "%s: TensorRT %s takes precisions from the network alone: what has no Q/DQ nodes stays in float32, which "
            "is slower than the fp16 that TensorRT 10 takes there",
            source.path,
            section.tensorrt,
        )
    with Gpu().use("building a plan"):
        built = build_plan(onnx, section, timing_cache=_kept(timing), detailed=detailed, progress=progress)
    write_whole(timing, built.timing_cache)
    write_whole(_layers_path(path), json.dumps(built.layers).encode())
    write_whole(path, built.plan)
    digest = hashlib.sha256(built.plan).hexdigest()
    write_spec(path, replace(source.spec, sha256=digest, plan=section))
    return Plan(path, section, cached=False)


def _precision(source: Source, wanted: WantedPrecision) -> Precision:
    quantised = any(name in summarize(source.content).operators for name in _QUANTISED)
    if wanted == "auto":
        return "int8" if quantised else "fp16"
    if wanted == "int8" and not quantised:
        raise ModelError(
            f"{source.path}: int8 needs a network with Q/DQ nodes, and this one has none; "
            "make one with engines quantize --for tensorrt"
        )
    if wanted != "int8" and quantised:
        raise ModelError(
            f"{source.path}: this network holds Q/DQ nodes, which make it int8; write --precision int8, "
            "or take the float network"
        )
    return wanted


def _plan_path(source: Source, section: PlanSection, cache: Path, *, detailed: bool) -> Path:
    key = hashlib.sha256(f"{section.label}{' detailed' if detailed else ''}".encode()).hexdigest()
    return cache / f"{_slug(source.path.stem)}-{section.precision}-{key[:16]}.plan"


def _layers_path(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.layers")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text)[:100]


def _kept(timing: Path) -> bytes:
    try:
        return timing.read_bytes() if timing.stat().st_size <= _MAX_TIMING_CACHE else b""
    except OSError:
        return b""


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold ``cache`` for this process, and clear away what a killed one has left."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process builds into %s; waiting for it", cache)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for part in cache.glob("*.part"):
            part.unlink(missing_ok=True)
        yield
