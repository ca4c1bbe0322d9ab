"""What a TensorRT plan was built from, for which machine and how; and the check that refuses it anywhere else.

The section stands under ``plan`` in the manifest and, as a label, inside the plan itself (TensorRT keeps the
network's name), so that a manifest which speaks of another plan is found out field by field.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.errors import ModelError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
HardwareLevel = Literal["none", "ampere-plus", "same-compute-capability"]
AMPERE = (8, 0)
_LABEL = "parrotgate.plan/1 "
_MAX_LABEL = 4096
_MAX_BATCH = 65_535


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Profile(_Strict):
    """Rows of a batch that the plan takes: from ``min`` to ``max``, fastest at ``opt``."""

    min: Annotated[int, Field(ge=1, le=_MAX_BATCH)] = 1
    opt: Annotated[int, Field(ge=1, le=_MAX_BATCH)]
    max: Annotated[int, Field(ge=1, le=_MAX_BATCH)]

    @model_validator(mode="after")
    def _ordered(self) -> Profile:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"should rise from min over opt to max, not {self.min}, {self.opt}, {self.max}")
        return self


class PlanSection(_Strict):
    """How a plan came to be. ``onnx`` is a file name without its folder, ``workspace_mib`` the bound on the scratch
    memory of one inference in MiB, ``dla`` the DLA core or null for the GPU.

    ``multiprocessors`` and ``memory_gib`` tell GPUs of one name apart, as the modules of the Orin family are; null in
    manifests from before they were written, where the name alone counts.
    """

    onnx: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/\\\x00]+$")]
    onnx_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tensorrt: Annotated[str, Field(pattern=r"^\d+(\.\d+){1,4}$")]
    gpu: Annotated[str, Field(min_length=1, max_length=256)]
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,3}$")]
    multiprocessors: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    memory_gib: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    precision: Precision
    profile: Profile
    workspace_mib: Annotated[int, Field(ge=1, le=1 << 20)]
    dla: Annotated[int, Field(ge=0, le=15)] | None = None
    version_compatible: bool = False
    hardware_compatible: HardwareLevel = "none"

    @property
    def label(self) -> str:
        """The section as the plan carries it: the name of its network."""
        return _LABEL + json.dumps(self.model_dump(mode="json"), separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a plan is to run: ``tensorrt`` as 10.3.0, ``compute_capability`` as 8.7, ``memory_gib`` as
    :func:`memory_class` gives it."""

    tensorrt: str
    gpu: str
    compute_capability: str
    multiprocessors: int
    memory_gib: int


def check_machine(plan: Path, section: PlanSection, machine: Machine) -> None:
    """Raise ``ModelError`` unless a plan made as ``section`` says may run on ``machine``.

    To be called before the plan is deserialised. TensorRT's own rules: a plan is for one version and one GPU, unless it
    was built version-compatible (any later version) or hardware-compatible (its level says which GPUs).
    """
    _refuse(plan, section, [*_version(section, machine), *_hardware(section, machine), *_source(plan, section)])


def check_label(plan: Path, section: PlanSection, label: str) -> None:
    """Raise ``ModelError`` unless ``label``, the name that the deserialised plan bears, tells the same as ``section``.

    A plan that was built by other means bears no such label, and passes: its hash alone binds it to its manifest.
    """
    own = _read_label(plan, section, label)
    if own is None:
        return
    there, here = _flat(section), _flat(own)
    _refuse(
        plan,
        section,
        [
            f"its manifest says {_WORDS[name]} {there[name]}, the plan itself was built with {here[name]}"
            for name in _WORDS
            if there[name] != here[name]
        ],
    )


def rebuild_command(plan: Path, section: PlanSection) -> str:
    """The command line that builds ``plan`` anew on this machine, with the settings of ``section``."""
    beside = plan.with_name(section.onnx)
    profile = section.profile
    words = ["engines", "build", str(beside) if beside.is_file() else section.onnx]
    words += ["--precision", section.precision, "--batch", f"{profile.min},{profile.opt},{profile.max}"]
    words += ["--workspace", str(section.workspace_mib)]
    if section.dla is not None:
        words += ["--dla", str(section.dla)]
    if section.version_compatible:
        words.append("--version-compatible")
    if section.hardware_compatible != "none":
        words += ["--hardware-compatible", section.hardware_compatible]
    return shlex.join([*words, "--out", str(plan)])


def memory_class(total_bytes: int) -> int:
    """A GPU's memory as its maker sells it: the least of 16, 20, 24, 32, 40, 48, 64, 80, 96, … GiB that is not smaller,
    powers of two and what is a quarter or a half more.

    What CUDA counts of a Jetson's memory changes with the kernel's own share, from one release to the next.
    """
    gib = max(1, -(-total_bytes // (1 << 30)))
    if gib <= 4:
        return gib
    step = 1 << ((gib - 1).bit_length() - 3)  # a quarter of the power of two below
    sizes = (5 * step, 6 * step, 8 * step)
    return next(size for size in sizes if gib <= size)


def gpu_text(section: Mapping[str, Any]) -> str:
    """The GPU of a section's JSON form in words: ``Orin (compute capability 8.7, 16 SMs, 64 GiB)``."""
    parts = [f"compute capability {section['compute_capability']}"]
    if section.get("multiprocessors") is not None:
        parts.append(f"{section['multiprocessors']} SMs")
    if section.get("memory_gib") is not None:
        parts.append(f"{section['memory_gib']} GiB")
    return f"{section['gpu']} ({', '.join(parts)})"


def version_numbers(text: str) -> tuple[int, ...]:
    """``10.16.1.11`` as numbers that compare."""
    return tuple(int(part) for part in text.split("."))


# Field of the section -> how a sentence names it.
_WORDS = {
    "onnx_sha256": "it comes from the network with SHA-256",
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "multiprocessors": "multiprocessors",
    "memory_gib": "memory in GiB",
    "precision": "precision",
    "profile.min": "smallest batch",
    "profile.opt": "best batch",
    "profile.max": "largest batch",
    "workspace_mib": "workspace in MiB",
    "dla": "DLA core",
    "version_compatible": "version-compatible",
    "hardware_compatible": "hardware-compatible",
}


def _refuse(plan: Path, section: PlanSection, faults: list[str]) -> None:
    if faults:
        raise ModelError(f"{plan}: {'; '.join(faults)}; rebuild it here: {rebuild_command(plan, section)}")


def _version(section: PlanSection, machine: Machine) -> Iterator[str]:
    built, here = version_numbers(section.tensorrt), version_numbers(machine.tensorrt)
    if not section.version_compatible and built != here:
        yield f"the plan was built with TensorRT {section.tensorrt}, and here is {machine.tensorrt}"
    elif section.version_compatible and here < built:
        yield (
            f"the plan is version-compatible from TensorRT {section.tensorrt} on, "
            f"and {machine.tensorrt} here is older (such plans only go forward)"
        )


def _hardware(section: PlanSection, machine: Machine) -> Iterator[str]:
    same_capability = section.compute_capability == machine.compute_capability
    if section.hardware_compatible == "ampere-plus":
        if version_numbers(machine.compute_capability) < AMPERE:
            yield (
                f"the plan runs on GPUs of compute capability 8.0 (Ampere) and above, "
                f"and {machine.gpu} has {machine.compute_capability}"
            )
    elif not same_capability:
        yield (
            f"the plan was built for compute capability {section.compute_capability}, "
            f"and {machine.gpu} has {machine.compute_capability}"
        )
    elif section.hardware_compatible == "none" and section.gpu != machine.gpu:
        yield f"the plan was built on {section.gpu}, and this is {machine.gpu}"
    elif section.hardware_compatible == "none":
        yield from _namesake(section, machine)


def _namesake(section: PlanSection, machine: Machine) -> Iterator[str]:
    """Another GPU of the same name: every module of the Orin family says ``Orin``."""
    if section.multiprocessors not in (None, machine.multiprocessors):
        yield (
            f"the plan was built on another {section.gpu}, with {section.multiprocessors} multiprocessors, "
            f"and this one has {machine.multiprocessors}"
        )
    elif section.memory_gib not in (None, machine.memory_gib):
        yield (
            f"the plan was built on another {section.gpu}, with {section.memory_gib} GiB, "
            f"and this one has {machine.memory_gib}"
        )


def _source(plan: Path, section: PlanSection) -> Iterator[str]:
    onnx = plan.with_name(section.onnx)
    if not onnx.is_file():
        return
    try:
        digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{onnx}: cannot be read: {error.strerror or error}") from error
    if digest != section.onnx_sha256:
        yield f"{onnx.name} beside it has changed since (SHA-256 {digest[:16]}…, then {section.onnx_sha256[:16]}…)"


def _read_label(plan: Path, section: PlanSection, label: str) -> PlanSection | None:
    if not label.startswith(_LABEL):
        return None
    try:
        if len(label) > _MAX_LABEL:
            raise ValueError(f"it has {len(label)} characters")
        return PlanSection.model_validate_json(label.removeprefix(_LABEL))
    except (ValueError, ValidationError):
        _refuse(plan, section, ["the label inside the plan cannot be read"])
        raise


def _flat(section: PlanSection) -> dict[str, Any]:
    values = section.model_dump(mode="json")
    values.update({f"profile.{name}": rows for name, rows in values.pop("profile").items()})
    return values
