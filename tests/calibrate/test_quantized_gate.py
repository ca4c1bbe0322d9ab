"""A quantised variant and a gate: the report that a worker demands, and the variants that it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calibrate.__main__ import main as calibrate_main
from calibrate.parity import Limits, Pictures, measure_parity, write_parity
from edge.gate_file import load_gate
from edge.parity import check_parity, load_report, report_path
from engines import ModelError, load_spec, write_spec
from engines.plan_manifest import PlanSection, Profile
from engines.quantize import QuantizeOptions, quantize_model
from tests.calibrate import drawn
from tests.engines import convolutions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, drawn pictures, a gate fitted on them, and the network's INT8 variant."""
    folder = drawn.draw(tmp_path_factory.mktemp("variant"))
    convolutions.save(folder)
    calibrate(folder, "fit", *drawn.FIT, "--out", "gate.npz", "--no-cache")
    quantize_model(folder / "tiny.onnx", [folder / "red", folder / "other"], folder, QuantizeOptions(("cpu",)))
    return folder


def calibrate(folder: Path, *words: str) -> int:
    """``calibrate`` in ``folder``; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["calibrate", *words])
        with pytest.raises(SystemExit) as ended:
            calibrate_main()
    return int(ended.value.code or 0)


def parity(folder: Path, *words: str) -> int:
    pictures = ("--positives", "red", "--negatives", "other", "--no-cache")
    variant = ("--gate", "gate.npz", "--model", "tiny.onnx", "--variant", "tiny.int8.onnx")
    return calibrate(folder, "parity", *variant, *pictures, *words)


def check(folder: Path, model: str = "tiny.int8.onnx") -> None:
    spec = load_spec(folder / model)
    check_parity(folder / model, spec, load_gate(folder / "gate.npz", features=spec))


@pytest.fixture(autouse=True)
def no_report(place: Path) -> None:
    report_path(place / "tiny.int8.onnx").unlink(missing_ok=True)


def test_variant_without_report_is_refused_with_the_command_to_type(place: Path) -> None:
    with pytest.raises(ModelError, match="calibrate parity --gate") as refused:
        check(place)
    assert refused.value.exit_code == 78
    check(place, "tiny.onnx")  # the float model needs none


def test_variant_that_decides_alike_is_accepted_after_its_report(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity(place, "--json") == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["passed"] is True
    assert entry["seen"] is True
    assert entry["positives"] == 28
    assert entry["before"]["sha256"] == load_spec(place / "tiny.onnx").sha256
    assert abs(entry["before"]["auroc"] - entry["after"]["auroc"]) <= 0.003
    check(place)


def test_variant_that_moves_the_gate_ends_with_1_and_stays_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity(place, "--max-auroc-loss", "-1") == 1
    assert "moves the gate" in capsys.readouterr().err
    with pytest.raises(ModelError, match="moves the gate"):
        check(place)


def test_too_many_changed_decisions_are_a_reason_of_their_own(place: Path) -> None:
    entry = measure_parity(
        place / "gate.npz", place / "tiny.onnx", place / "tiny.int8.onnx",
        Pictures(place / "red", without_cache=True), Limits(flipped=-1.0 + 1.0), "cpu", 1,
    )  # fmt: skip
    assert entry.before.auroc is None
    assert entry.passed == (entry.flipped == 0)


def test_report_of_another_file_or_gate_does_not_count(place: Path) -> None:
    assert parity(place) == 0
    path = report_path(place / "tiny.int8.onnx")
    report = load_report(path)
    path.write_text(report.model_copy(update={"variant": "0" * 64}).model_dump_json())
    with pytest.raises(ModelError, match="says nothing of this file"):
        check(place)
    other = report.gates[0].model_copy(update={"gate": f"sha256:{'1' * 64}"})
    path.write_text(report.model_copy(update={"gates": (other,)}).model_dump_json())
    with pytest.raises(ModelError, match="says nothing of this file"):
        check(place)
    write_parity(place / "tiny.int8.onnx", report.origin, report.gates[0])
    assert [entry.gate for entry in load_report(path).gates] == [other.gate, report.gates[0].gate]
    check(place)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', "\udcff"])
def test_damaged_report_is_refused_in_a_sentence(place: Path, text: str) -> None:
    report_path(place / "tiny.int8.onnx").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match="calibrate parity"):
        check(place)


def test_integer_plan_is_covered_by_the_report_of_the_file_it_was_built_from(place: Path) -> None:
    assert parity(place) == 0
    source = load_spec(place / "tiny.int8.onnx")
    section = PlanSection(
        onnx="tiny.int8.onnx", onnx_sha256=source.sha256, tensorrt="10.3.0", gpu="Orin", compute_capability="8.7",
        precision="int8", profile=Profile(opt=4, max=8), workspace_mib=64,
    )  # fmt: skip
    plan = replace(source, sha256="2" * 64, quantized=None, plan=section)
    gate = load_gate(place / "gate.npz", features=plan)
    check_parity(place / "tiny.plan", plan, gate)
    rebuilt = replace(plan, plan=section.model_copy(update={"onnx_sha256": "3" * 64}))
    with pytest.raises(ModelError, match="says nothing of this file"):
        check_parity(place / "tiny.plan", rebuilt, gate)
    check_parity(place / "t.plan", replace(plan, plan=section.model_copy(update={"precision": "fp16"})), gate)


def test_model_that_is_no_variant_cannot_be_compared(place: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "tiny.int8.onnx"
    stranger.write_bytes((place / "tiny.int8.onnx").read_bytes())
    own = load_spec(place / "tiny.int8.onnx")
    write_spec(stranger, own)
    with pytest.raises(ModelError, match="no variant"):
        measure_parity(
            place / "gate.npz", place / "tiny.onnx", place / "tiny.onnx",
            Pictures(place / "red", without_cache=True), Limits(), "cpu", 1,
        )  # fmt: skip
