"""From questions over labels to a gate that is compared with the one before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from calibrate.__main__ import app
from calibrate.folders import find_pictures
from calibrate.review_apply import Change, WorseGateError, changes_table, link_training, worse_sentence
from calibrate.review_labels import Label, LabelFile
from calibrate.review_queue import Candidate, build_queue
from calibrate.review_session import Session, load_session, make_queue, open_labels
from edge.gate_file import load_gate
from engines import UsageError, open_engine
from tests.calibrate.drawn import FIT, draw, place


def candidate(number: int, decisive: float, positive: bool | None = None) -> Candidate:
    path = Path(f"{number}.jpg")
    return Candidate(f"{number:064d}", path, decisive, decisive >= 0.5, None if positive is None else "kind", positive)


def asked(decisive: Sequence[float], positive: Sequence[bool | None], limit: int) -> list[tuple[str, int]]:
    candidates = [candidate(i, p, label) for i, (p, label) in enumerate(zip(decisive, positive, strict=True))]
    queue = build_queue(candidates, np.eye(len(candidates)), 0.5, limit)
    return [(item.why, int(item.pictures[0].path.stem)) for item in queue]


def test_queue_begins_with_the_surest_disagreements_then_comes_near_the_threshold() -> None:
    decisive = [0.02, 0.97, 0.4, 0.9, 0.52, 0.45, 0.001, 0.002, 0.003]
    positive = [True, False, True, True, True, False, False, False, False]
    assert asked(decisive, positive, 5)[:4] == [("disagreement", 0), ("disagreement", 1), ("near", 4), ("near", 5)]
    assert asked(decisive, positive, 5)[4][0] == "random"
    assert asked(decisive, positive, 5)[4][1] in (6, 7, 8)


def test_queue_without_labels_has_no_disagreement_and_fills_up() -> None:
    questions = asked([0.1, 0.9, 0.45, 0.6, 0.95], [None] * 5, 4)
    assert len(questions) == 4
    assert {why for why, _ in questions} <= {"near", "random"}
    assert questions[0] == ("near", 2)


def test_queue_asks_first_about_what_has_no_label() -> None:
    questions = asked([0.5, 0.01, 0.02, 0.85, 0.2, 0.1], [True, False, False, None, None, None], 4)
    assert questions[:2] == [("near", 4), ("near", 3)]
    assert {number for _, number in questions} >= {3, 4, 5}


def test_queue_asks_once_about_near_duplicates() -> None:
    features = np.array([[1.0, 0.0], [0.999, 0.001], [0.0, 1.0]])
    queue = build_queue([candidate(i, 0.4 + 0.05 * i) for i in range(3)], features, 0.5, 10)
    assert sorted(len(item.pictures) for item in queue) == [1, 2]


def test_labels_outlive_their_file_handle_and_the_last_line_counts(tmp_path: Path) -> None:
    file, first, second = LabelFile(tmp_path / "labels.jsonl"), candidate(1, 0.4), candidate(2, 0.6)
    file.give([first, second], "drones", positive=False)
    file.give([first], None, positive=False)
    file.take_back([second])
    again = LabelFile(tmp_path / "labels.jsonl").labels
    assert {digest: label.family for digest, label in again.items()} == {first.digest: None}
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert lines[0]["family"] == "drones"
    assert lines[0]["gate_said"] == 0.4


def test_line_cut_by_a_power_failure_is_dropped_and_a_damaged_one_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    LabelFile(path).give([candidate(1, 0.4)], "drones", positive=False)
    with path.open("a") as file:
        file.write('{"digest": "ab')
    LabelFile(path).give([candidate(2, 0.4)], "drones", positive=False)
    assert len(LabelFile(path).labels) == 2
    path.write_text("no label\n")
    with pytest.raises(UsageError, match="line 1 is no label"):
        LabelFile(path)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "new\nline"])
def test_family_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a family"):
        LabelFile(tmp_path / "labels.jsonl").give([candidate(1, 0.4)], name, positive=False)
    assert not (tmp_path / "labels.jsonl").exists()


def tree(folder: Path) -> dict[str, list[str]]:
    """Names of link targets per folder below ``folder``."""
    found: dict[str, list[str]] = {}
    for link in sorted(folder.rglob("*.png")):
        found.setdefault(str(link.parent.relative_to(folder)), []).append(link.resolve().name)
    return {name: sorted(targets) for name, targets in found.items()}


def test_links_follow_the_labels(tmp_path: Path) -> None:
    draw(tmp_path, {"red/a": (0, 0, 200), "other/blue": (200, 0, 0), "flat": (0, 200, 0)}, count=2)
    pictures = find_pictures(tmp_path / "red", [tmp_path / "other", tmp_path / "flat"])
    digests = {f"{p.family}/{p.path.name}": str(i) * 64 for i, p in enumerate(pictures)}
    new = tmp_path / "new.png"
    shutil.copy(tmp_path / "red/a/0.png", new)
    wishes: list[tuple[str, Path, str | None, bool]] = [
        (digests["red/a/0.png"], tmp_path / "red/a/0.png", "red", True),
        (digests["red/a/1.png"], tmp_path / "red/a/1.png", "drones", False),
        (digests["other/blue/0.png"], tmp_path / "other/blue/0.png", None, False),
        (digests["flat/1.png"], tmp_path / "flat/1.png", "other", False),
        ("f" * 64, new, "red", True),
    ]
    labels = {digest: Label(digest, path, family, positive) for digest, path, family, positive in wishes}
    with_digests = [(p, str(i) * 64) for i, p in enumerate(pictures)]
    positives, negatives = link_training(tmp_path / "out", with_digests, labels)
    assert tree(tmp_path / "out") == {
        "positives/red/a": ["0.png"],
        "positives/red/reviewed": ["new.png"],
        "negatives/drones": ["1.png"],
        "negatives/flat": ["0.png"],
        "negatives/other/blue": ["1.png"],
        "negatives/other/reviewed": ["1.png"],
    }
    assert positives == tmp_path / "out/positives/red"
    assert [folder.name for folder in negatives] == ["drones", "flat", "other"]


def test_family_is_worse_only_beyond_the_interval_of_the_gate_before() -> None:
    few, many = Change("birds", False, 10, 0, 3), Change("birds", False, 10, 0, 4)  # 0 of 10: at most 30.8 %
    assert (few.worse, many.worse) == (False, True)
    assert Change("parrots", True, 100, 95, 80).worse
    assert not Change("parrots", True, 100, 80, 95).worse
    assert worse_sentence([few]) is None
    assert "birds (false accepts 0.0% before, 40.0% after, of 10)" in str(worse_sentence([few, many]))
    assert changes_table([few, many]).row_count == 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = place(tmp_path_factory.mktemp("home"))
    draw(folder, {"pool/grey": (90, 170, 80), "pool/dim": (30, 45, 120)}, count=6, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("fit", *FIT, "--out", "gate.npz").exit_code == 0
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def reviewed(home: Path, out: Path, **labels: tuple[str, bool]) -> list[Candidate]:
    """A review of the pool kept in ``out``, every question about folder ``name`` answered with ``labels[name]``."""
    gate = load_gate(home / "gate.npz")
    session = Session(
        str(home / "gate.npz"),
        str(home / "tiny.onnx"),
        str(gate.sha256),
        (str(home / "pool"),),
        str(home / "red"),
        (str(home / "other"),),
    )
    session.save(out)
    assert load_session(out) == session
    with open_engine(home / "tiny.onnx", "cpu") as engine:
        queue = make_queue(gate, engine, session, 100)
    pictures = [picture for item in queue for picture in item.pictures]
    file = open_labels(out)
    for picture in pictures:
        if picture.path.parent.name in labels:
            family, positive = labels[picture.path.parent.name]
            file.give([picture], family, positive=positive)
    return pictures


def test_apply_fits_again_with_the_labels_and_keeps_the_gate_that_is_no_worse(home: Path, tmp_path: Path) -> None:
    pictures = reviewed(home, tmp_path, grey=("fog", False))
    assert {picture.path.parent.name for picture in pictures} == {"a", "b", "green", "blue", "grey", "dim"}
    done = run("review", "--apply", "--out", str(tmp_path))
    assert done.exit_code == 0, done.exception
    manifest = load_gate(tmp_path / "gate.npz").manifest
    assert manifest.training.negatives == {"fog": 6, "other/blue": 14, "other/green": 14}
    assert manifest.training.groups == {"red/a": 14, "red/b": 14}
    names = {change["name"] for change in comparison(tmp_path)}
    assert {"red", "red/a", "red/b", "fog", "other", "other/blue"} <= names
    assert not (tmp_path / "candidate.npz").exists()


def comparison(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / "comparison.json").read_text())["changes"])


def test_gate_that_got_worse_by_a_family_is_refused_until_it_is_accepted(home: Path, tmp_path: Path) -> None:
    reviewed(home, tmp_path, green=("red", True))  # a person who calls green red
    refused = run("review", "--apply", "--out", str(tmp_path))
    assert isinstance(refused.exception, WorseGateError)
    assert refused.exception.exit_code == 1
    assert "got worse beyond the interval" in str(refused.exception)
    assert not (tmp_path / "gate.npz").exists()
    assert run("review", "--apply", "--accept", "--out", str(tmp_path)).exit_code == 0
    assert (tmp_path / "gate.npz").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pool",), "labelling needs --gate and --model"),
        (("--gate", "gate.npz", "--model", "tiny.onnx"), "nothing to look at"),
        (("--gate", "gate.npz", "--model", "tiny.onnx", "nowhere"), "nowhere: no such folder"),
        (("--apply",), "holds no review"),
    ],
)
def test_impossible_review_is_refused_in_a_sentence(
    home: Path, tmp_path: Path, words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    refused = run("review", "--out", str(tmp_path / "out"), *words).exception
    assert isinstance(refused, UsageError)
    assert sentence in str(refused)


def test_broken_picture_in_the_pool_is_passed_over(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/broken.jpg").write_bytes(b"no picture")
    assert cv2.imwrite(str(tmp_path / "pool/good.png"), np.full((24, 32, 3), 80, np.uint8))
    gate = load_gate(home / "gate.npz")
    session = Session("", "", "", (str(tmp_path / "pool"),), None, ())
    with open_engine(home / "tiny.onnx", "cpu") as engine:
        queue = make_queue(gate, engine, session, 10)
    assert [picture.path.name for item in queue for picture in item.pictures] == ["good.png"]
