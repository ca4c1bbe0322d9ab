"""The commands as a user types them, on a tiny true network and drawn pictures."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from calibrate.__main__ import app
from edge.gate_file import load_gate
from engines import OutputSpec, UsageError
from tests.engines import networks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and folders: red pictures in two kinds, green and blue ones, suffixes in any case, one broken file."""
    folder = tmp_path_factory.mktemp("place")
    networks.save(folder, networks.graph(), output=OutputSpec(kind="features", size=4))
    rng = np.random.default_rng(0)
    colours = {
        "red/a": (40, 60, 200),
        "red/b": (60, 40, 200),
        "other/green": (40, 190, 60),
        "other/blue": (200, 50, 60),
    }
    for name, bgr in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(14):
            tint = np.array(bgr) + rng.integers(-25, 25, 3)
            pixels = np.clip(tint + rng.integers(-9, 9, (24, 32, 3)), 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(folder / name / f"{i}.png"), pixels)
    (folder / "red/a/0.png").rename(folder / "red/a/0.PNG")
    (folder / "red/a/broken.jpg").write_bytes(b"no picture")
    (folder / "red/a/notes.txt").write_text("not looked at")
    return folder


def calibrate(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "calibrate", *words]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        command, cwd=place, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, timeout=100
    )


def in_process(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


FIT = ("--model", "tiny.onnx", "--positives", "red", "--out")


@pytest.fixture(scope="module")
def fitted(place: Path) -> subprocess.CompletedProcess[str]:
    return calibrate(place, "fit", *FIT, "gate.npz", "--negatives", "other", "--report", "report")


def test_fit_writes_gate_report_and_table_and_lists_the_unreadable(
    place: Path, fitted: subprocess.CompletedProcess[str]
) -> None:
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stdout == ""
    assert "broken.jpg" in fitted.stderr
    assert "AUROC" in fitted.stderr
    training = load_gate(place / "gate.npz").manifest.training
    assert training.groups == {"red/a": 14, "red/b": 14}
    assert training.negatives == {"other/blue": 14, "other/green": 14}
    assert (place / "report" / "gate.json").is_file()


def test_score_prints_the_csv_of_the_design(place: Path, fitted: subprocess.CompletedProcess[str]) -> None:
    words = ("--gate", "gate.npz", "--model", "tiny.onnx", "red/a/3.png", "other/blue", "red/a/broken.jpg")
    done = calibrate(place, "score", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "path,score,probability,accepted"
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert rows[0]["path"] == "red/a/3.png"
    assert [row["accepted"] for row in rows] == ["true", *["false"] * 14, ""]
    assert list(rows[-1].values()) == ["red/a/broken.jpg", "", "", ""]
    assert float(rows[0]["probability"]) >= 0.5 > float(rows[1]["probability"])


def test_gate_without_negatives_scores_without_probability(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(place)
    assert in_process("fit", *FIT, "alone.npz", "--views", "full,hflip").exit_code == 0
    assert "a conformal p-value decides" in caplog.text
    done = in_process("score", "--gate", "alone.npz", "--model", "tiny.onnx", "red/b/3.png", "other/green/3.png")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["probability"], row["accepted"]) for row in rows] == [("", "true"), ("", "false")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--negatives", "nowhere"), "nowhere: no such folder"),
        (("--negatives", "othr"), "othr: no such folder; give a folder of pictures; did you mean other?"),
        (("--negatives", "red"), "given twice"),
        (("--recipe", "seed", "--components", "512"), "at most 4"),
        (("--views", "upside_down"), "--views takes distinct names"),
        (("--threshold", "1.5"), "--threshold 1.5 must lie between 0 and 1"),
    ],
)
def test_impossible_request_is_refused_in_a_sentence(
    place: Path, words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    refused = in_process("fit", *FIT, "never.npz", *words).exception
    assert isinstance(refused, UsageError)
    assert sentence in str(refused)
    assert not (place / "never.npz").exists()


def test_refusal_ends_the_process_with_exit_code_2_and_no_traceback(place: Path) -> None:
    done = calibrate(place, "fit", *FIT, "never.npz", "--negatives", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "calibrate: nowhere: no such folder; give a folder of pictures\n"
