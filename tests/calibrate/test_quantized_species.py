"""A quantised species classifier: the report that a worker demands, and the variants that it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from calibrate.__main__ import main as calibrate_main
from calibrate.species_parity import Named, SpeciesLimits, compare_names, measure_species_parity
from edge.check import check
from edge.parity import check_species_parity, load_report, report_path
from engines import ModelError, UsageError, load_spec, write_spec
from engines.plan_manifest import PlanSection, Profile
from engines.quantize import QuantizeOptions, quantize_model
from tests.calibrate import drawn
from tests.edge.worker_process import demo_config
from tests.engines import convolutions
from tests.mosquitto import free_port

Float32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, drawn pictures, and the classifier's INT8 variant."""
    folder = drawn.draw(tmp_path_factory.mktemp("species"))
    model = convolutions.save_classifier(folder)
    quantize_model(model, [folder / "red", folder / "other"], folder, QuantizeOptions(("cpu",)))
    return folder


@pytest.fixture(autouse=True)
def no_report(place: Path) -> None:
    report_path(place / "tiny.int8.onnx").unlink(missing_ok=True)


def parity(folder: Path, *words: str) -> int:
    """``calibrate parity`` in ``folder``; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fixed = ("--model", "tiny.onnx", "--variant", "tiny.int8.onnx")
        patch.setattr("sys.argv", ["calibrate", "parity", *fixed, *words])
        with pytest.raises(SystemExit) as ended:
            calibrate_main()
    return int(ended.value.code or 0)


SHOWN = ("--pictures", "red", "--pictures", "other")


def species_finding(folder: Path) -> Any:
    """What ``edge check`` says of a worker that names the variant as its species model."""
    path = folder / "edge.yaml"
    config = demo_config(f"mqtt://127.0.0.1:{free_port()}", species={"model": "tiny.int8.onnx"})
    path.write_text(yaml.safe_dump(config))
    return next(finding for finding in check(path, {}) if finding.stage in ("models", "species"))


def test_variant_without_report_is_refused_at_start_with_the_command_to_type(place: Path) -> None:
    refused = species_finding(place)
    assert refused.exit_code == 78
    assert "calibrate parity --model ITS-FLOAT-MODEL --variant tiny.int8.onnx --pictures FOLDER" in refused.sentence
    check_species_parity(place / "tiny.onnx", load_spec(place / "tiny.onnx"))  # the float model needs none


def test_variant_that_names_alike_is_accepted_after_its_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(place, *SHOWN, "--min-agreement", "0.5", "--max-confident-flipped", "1", "--json") == 0
    entry = json.loads(capsys.readouterr().out)
    assert (entry["passed"], entry["pictures"], entry["min_agreement"]) == (True, 56, 0.5)
    assert entry["before"] == load_spec(place / "tiny.onnx").sha256
    assert entry["agreement_low"] < entry["agreed"] / 56
    assert species_finding(place).exit_code == 0


def test_variant_below_the_bound_ends_with_1_and_stays_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(place, *SHOWN, "--min-agreement", "1") == 1
    assert "names other species" in capsys.readouterr().err
    refused = species_finding(place)
    assert refused.exit_code == 78
    assert "names other species" in refused.sentence


def test_report_of_another_file_does_not_count(place: Path) -> None:
    parity(place, *SHOWN)
    path = report_path(place / "tiny.int8.onnx")
    report = load_report(path)
    path.write_text(report.model_copy(update={"variant": "0" * 64}).model_dump_json())
    with pytest.raises(ModelError, match="says nothing of this file as a species model"):
        check_species_parity(place / "tiny.int8.onnx", load_spec(place / "tiny.int8.onnx"))


def test_integer_plan_is_covered_by_the_report_of_the_file_it_was_built_from(place: Path) -> None:
    assert parity(place, *SHOWN, "--min-agreement", "0.5", "--max-confident-flipped", "1") == 0
    source = load_spec(place / "tiny.int8.onnx")
    section = PlanSection(
        onnx="tiny.int8.onnx", onnx_sha256=source.sha256, tensorrt="10.3.0", gpu="Orin", compute_capability="8.7",
        precision="int8", profile=Profile(opt=4, max=8), workspace_mib=64,
    )  # fmt: skip
    plan = replace(source, sha256="2" * 64, quantized=None, plan=section)
    check_species_parity(place / "tiny.plan", plan)
    rebuilt = replace(plan, plan=section.model_copy(update={"onnx_sha256": "3" * 64}))
    with pytest.raises(ModelError, match="says nothing of this file"):
        check_species_parity(place / "tiny.plan", rebuilt)


@pytest.mark.parametrize(
    "words", [("--gate", "g.npz", "--positives", "red"), (), ("--pictures", "red", "--negatives", "other")]
)
def test_species_model_is_compared_with_pictures_alone(
    place: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity(place, *words) == 2
    assert "is a species model: compare it with --pictures alone" in capsys.readouterr().err


def test_classifiers_of_other_networks_or_labels_cannot_be_compared(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no variant"):
        measure_species_parity(place / "tiny.onnx", place / "tiny.onnx", [place / "red"], SpeciesLimits(), "cpu", 1)
    renamed = tmp_path / "tiny.int8.onnx"
    renamed.write_bytes((place / "tiny.int8.onnx").read_bytes())
    write_spec(renamed, replace(load_spec(place / "tiny.int8.onnx"), labels=tuple("abcde")))
    with pytest.raises(ModelError, match="labels are not those"):
        measure_species_parity(place / "tiny.onnx", renamed, [place / "red"], SpeciesLimits(), "cpu", 1)


def test_pictures_that_cannot_be_read_prove_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="none of the pictures can be read"):
        measure_species_parity(place / "tiny.onnx", place / "tiny.int8.onnx", [tmp_path], SpeciesLimits(), "cpu", 1)


def named(place: Path, best: list[int], probability: float) -> Named:
    """Answers whose best classes are ``best``, each with ``probability``."""
    rows: Float32 = np.full((len(best), 5), (1 - probability) / 4, np.float32)
    rows[np.arange(len(best)), best] = probability
    return Named(load_spec(place / "tiny.onnx"), rows)


@pytest.mark.parametrize(
    ("pictures", "changed", "passed"),
    [(28, 0, False), (29, 0, True), (100, 5, False), (100, 4, True), (519, 57, False), (519, 40, True)],
)
def test_few_pictures_prove_little(place: Path, pictures: int, changed: int, passed: bool) -> None:
    was = named(place, [0] * pictures, 0.4)
    now = named(place, [1] * changed + [0] * (pictures - changed), 0.4)
    entry = compare_names(was, now, SpeciesLimits())
    assert (entry.passed, entry.agreed, entry.confident) == (passed, pictures - changed, 0)
    assert ("show it more pictures" in entry.verdict) == (not passed and changed < pictures / 10)


def test_a_label_that_the_float_model_was_sure_of_must_stay(place: Path) -> None:
    was, now = named(place, [0] * 200, 0.9), named(place, [1] * 5 + [0] * 195, 0.6)
    entry = compare_names(was, now, SpeciesLimits())
    assert (entry.passed, entry.confident, entry.confident_flipped) == (False, 200, 5)
    assert "2.5% of the pictures on which the float model was sure" in entry.verdict
    assert compare_names(was, now, SpeciesLimits(confident_flipped=0.03)).passed
    assert entry.moved == pytest.approx((195 * 0.3 + 5 * 0.8) / 200)
