"""The plan section of a manifest, and every way in which a plan can belong to another machine, network or manifest."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engines import ModelError, load_spec, write_spec
from engines.plan_manifest import (
    Machine,
    PlanSection,
    Profile,
    check_label,
    check_machine,
    memory_class,
    rebuild_command,
)
from tests.engines.networks import spec_of

ORIN = Machine(tensorrt="10.3.0", gpu="Orin", compute_capability="8.7", multiprocessors=16, memory_gib=64)
PLAN = Path("models/tiny.plan")


def section(**changes: Any) -> PlanSection:
    values: dict[str, Any] = {
        "onnx": "tiny.onnx",
        "onnx_sha256": "a" * 64,
        "tensorrt": "10.3.0",
        "gpu": "Orin",
        "compute_capability": "8.7",
        "multiprocessors": 16,
        "memory_gib": 64,
        "precision": "fp16",
        "profile": Profile(min=1, opt=8, max=16),
        "workspace_mib": 1024,
    }
    return PlanSection(**{**values, **changes})


# What the manifest says instead -> what the sentence must name.
MISMATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "onnx": ({"onnx_sha256": "b" * 64}, "comes from the network with SHA-256 bbbb"),
    "tensorrt": ({"tensorrt": "10.7.0"}, "TensorRT 10.7.0"),
    "gpu": ({"gpu": "NVIDIA L4"}, "GPU NVIDIA L4"),
    "capability": ({"compute_capability": "8.9"}, "compute capability 8.9"),
    "multiprocessors": ({"multiprocessors": 8}, "multiprocessors 8"),
    "memory": ({"memory_gib": 8}, "memory in GiB 8"),
    "precision": ({"precision": "int8"}, "precision int8"),
    "smallest batch": ({"profile": Profile(min=2, opt=8, max=16)}, "smallest batch 2"),
    "best batch": ({"profile": Profile(min=1, opt=4, max=16)}, "best batch 4"),
    "largest batch": ({"profile": Profile(min=1, opt=8, max=32)}, "largest batch 32"),
    "workspace": ({"workspace_mib": 512}, "workspace in MiB 512"),
    "dla": ({"dla": 1}, "DLA core 1"),
    "version-compatible": ({"version_compatible": True}, "version-compatible True"),
    "hardware-compatible": ({"hardware_compatible": "ampere-plus"}, "hardware-compatible ampere-plus"),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_manifest_that_differs_from_the_plans_own_label_is_refused_by_its_own_sentence(what: str) -> None:
    changes, words = MISMATCHES[what]
    told = section(**changes)
    with pytest.raises(ModelError) as refusal:
        check_label(PLAN, told, section().label)
    assert words in str(refusal.value)
    assert str(refusal.value).count("the plan itself was built with") == 1
    assert str(refusal.value).endswith(f"rebuild it here: {rebuild_command(PLAN, told)}")
    assert refusal.value.exit_code == 78


def test_every_field_that_a_build_depends_on_has_its_mismatch() -> None:
    flat = {name for name in PlanSection.model_fields if name not in ("onnx", "profile")}
    assert len(MISMATCHES) == len(flat) + len(Profile.model_fields) == 14


def test_label_of_the_same_build_passes_and_a_foreign_plan_has_none() -> None:
    check_label(PLAN, section(), section().label)
    check_label(PLAN, section(), "Unnamed Network 0")


@pytest.mark.parametrize("rest", ["{", '{"onnx": 1}', "x" * 5000])
def test_label_that_cannot_be_read_is_refused(rest: str) -> None:
    with pytest.raises(ModelError, match="label inside the plan cannot be read"):
        check_label(PLAN, section(), f"parrotgate.plan/1 {rest}")


@pytest.mark.parametrize(
    ("built", "machine", "words"),
    [
        ({}, {"tensorrt": "10.3.1"}, "built with TensorRT 10.3.0, and here is 10.3.1"),
        ({"version_compatible": True}, {"tensorrt": "10.2.9"}, "older"),
        ({}, {"gpu": "Orin Nano"}, "built on Orin, and this is Orin Nano"),
        ({}, {"multiprocessors": 8}, "on another Orin, with 16 multiprocessors, and this one has 8"),
        ({}, {"memory_gib": 16}, "on another Orin, with 64 GiB, and this one has 16"),
        ({}, {"gpu": "Thor", "compute_capability": "11.0"}, "capability 8.7, and Thor has 11.0"),
        ({"hardware_compatible": "ampere-plus"}, {"gpu": "T4", "compute_capability": "7.5"}, "T4 has 7.5"),
        (
            {"hardware_compatible": "same-compute-capability"},
            {"gpu": "L4", "compute_capability": "8.9"},
            "L4 has 8.9",
        ),
    ],
)
def test_plan_of_another_machine_is_refused(built: dict[str, Any], machine: dict[str, Any], words: str) -> None:
    here = Machine(**{**{name: getattr(ORIN, name) for name in ORIN.__slots__}, **machine})
    with pytest.raises(ModelError, match=r"rebuild it here: engines build tiny\.onnx") as refusal:
        check_machine(PLAN, section(**built), here)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("built", "machine"),
    [
        ({}, ORIN),
        ({"version_compatible": True}, Machine("11.4.0.106", "Orin", "8.7", 16, 64)),
        ({"hardware_compatible": "ampere-plus"}, Machine("10.3.0", "NVIDIA H200", "9.0", 132, 256)),
        ({"hardware_compatible": "same-compute-capability"}, Machine("10.3.0", "Orin Nano", "8.7", 8, 8)),
        ({"multiprocessors": None, "memory_gib": None}, Machine("10.3.0", "Orin", "8.7", 8, 8)),
    ],
)
def test_plan_runs_where_tensorrt_says_that_it_may(built: dict[str, Any], machine: Machine) -> None:
    check_machine(PLAN, section(**built), machine)


def test_manifest_from_before_the_size_of_a_gpu_was_written_still_vouches_for_its_plan() -> None:
    old = section().model_dump(mode="json", exclude={"multiprocessors", "memory_gib"})
    label = "parrotgate.plan/1 " + json.dumps(old)
    made = PlanSection.model_validate_json(json.dumps(old))
    check_label(PLAN, made, label)
    check_machine(PLAN, made, ORIN)
    with pytest.raises(ModelError, match="multiprocessors 16, the plan itself was built with None"):
        check_label(PLAN, section(), label)


@pytest.mark.parametrize(
    ("gib", "sold"),
    [
        *[(3.3, 4), (7.4, 8), (7.99, 8), (15.3, 16), (30.0, 32), (61.4, 64), (122.8, 128), (0.2, 1)],
        *[(10.0, 10), (11.6, 12), (23.5, 24), (39.4, 40), (44.4, 48), (79.2, 80), (93.1, 96)],
    ],
)
def test_memory_is_told_as_it_is_sold_whatever_the_kernel_keeps(gib: float, sold: int) -> None:
    assert memory_class(int(gib * (1 << 30))) == sold


def test_network_that_changed_beside_its_plan_is_noticed(tmp_path: Path) -> None:
    onnx, plan = tmp_path / "tiny.onnx", tmp_path / "tiny.plan"
    onnx.write_bytes(b"first")
    built = section(onnx_sha256=hashlib.sha256(b"first").hexdigest())
    check_machine(plan, built, ORIN)
    onnx.write_bytes(b"second")
    with pytest.raises(ModelError, match=r"tiny\.onnx beside it has changed since") as refusal:
        check_machine(plan, built, ORIN)
    assert f"engines build {onnx} " in str(refusal.value)


def test_rebuild_command_gives_every_setting() -> None:
    made = section(dla=1, version_compatible=True, hardware_compatible="ampere-plus")
    command = rebuild_command(Path("my models/tiny.plan"), made)
    assert shlex.split(command)[3:] == [
        *("--precision", "fp16", "--batch", "1,8,16", "--workspace", "1024", "--dla", "1"),
        *("--version-compatible", "--hardware-compatible", "ampere-plus", "--out", "my models/tiny.plan"),
    ]


@pytest.mark.parametrize("rows", [(0, 1, 1), (2, 1, 4), (1, 8, 4)])
def test_profile_rises_from_one(rows: tuple[int, int, int]) -> None:
    with pytest.raises(ValidationError):
        Profile(min=rows[0], opt=rows[1], max=rows[2])


def test_section_survives_the_manifest_and_stays_out_of_others(tmp_path: Path) -> None:
    plan = tmp_path / "tiny.plan"
    plan.write_bytes(b"plan")
    manifest = write_spec(plan, spec_of(b"plan", plan=section(dla=0)))
    assert load_spec(plan).plan == section(dla=0)
    write_spec(plan, spec_of(b"plan"))
    assert '"plan"' not in manifest.read_text()
