"""The report as a user asks for it, and what its page says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from calibrate.__main__ import app
from calibrate.fit import FitOptions, fit_gate
from calibrate.priors import estimate_prior
from calibrate.recipes import RobustRecipe
from calibrate.report import write_report
from calibrate.study import fresh_study, held_out_study
from edge.gate import Gate
from engines import UsageError
from tests.calibrate import clusters
from tests.calibrate.drawn import FIT, draw, place

HOSTILE = "<img src=x onerror=alert(1)>"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def done(result: Result) -> None:
    assert result.exit_code == 0, result.exception


@pytest.fixture(scope="module", autouse=True)
def _folds_of_single_pictures() -> Iterator[None]:
    """In four features every red is a near-duplicate of every other: no fold could keep them together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibrate.folds.near_duplicates", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = place(tmp_path_factory.mktemp("home"))
    shutil.copytree(folder / "other/green", folder / "other" / HOSTILE)
    draw(folder, {f"other/{HOSTILE}": (40, 190, 90)}, seed=5)
    shutil.copy(folder / "other/green/3.png", folder / "other/green/copy.png")
    shutil.copy(folder / "other/blue/5.png", folder / "red/b/torn.png")
    blue = cv2.imread(str(folder / "other/blue/3.png"))
    assert cv2.imwrite(str(folder / "red/a/blue.png"), blue, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done(run("fit", *FIT, "--out", "gate.npz", "--report", "first"))
        done(run("report", "--gate", "gate.npz", *FIT, "--out", "second"))
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def found(folder: Path, name: str = "first") -> dict[str, Any]:
    return dict(json.loads((folder / name / "report.json").read_text(encoding="utf-8")))


def test_report_of_fit_and_of_the_gate_file_are_the_same(home: Path) -> None:
    for name, time in (("report.html", r"\d+\.\d+ ms"), ("report.json", r'"full": \d+\.\d+')):
        first, second = (
            re.subn(time, "", (home / which / name).read_text(encoding="utf-8")) for which in ("first", "second")
        )
        assert first == second
        assert first[1] == 1


def test_scores_shown_are_the_held_out_ones_that_the_gate_carries(home: Path) -> None:
    report, manifest = found(home), json.loads((home / "first/gate.json").read_text())
    recall = manifest["metrics"]["recall"]
    assert report["scores"] == "held-out"
    assert report["confusion"]["true_accepts"] == recall["hits"]
    assert report["figures"]["recall"] == recall
    assert sum(report["confusion"].values()) == recall["n"] + sum(manifest["training"]["negatives"].values())


def test_duplicates_and_contradicting_labels_are_named(home: Path) -> None:
    duplicates = found(home)["duplicates"]
    assert ["other/green/3.png", "other/green/copy.png"] in [sorted(group) for group in duplicates["copies"]]
    assert any({"red", "other"} <= {p["source"] for p in group} for group in duplicates["both_sides"])


def test_picture_on_both_sides_is_left_out_counted_and_named(home: Path) -> None:
    report, manifest = found(home), json.loads((home / "first/gate.json").read_text())
    assert [sorted(paths) for paths in report["duplicates"]["left_out"]] == [["other/blue/5.png", "red/b/torn.png"]]
    assert manifest["options"]["left_out_on_both_sides"] == 1
    assert manifest["training"]["groups"]["red/b"] == 14
    assert manifest["training"]["negatives"]["other/blue"] == 13
    page = (home / "first/report.html").read_text(encoding="utf-8")
    assert "1 pictures lie among the positives and the negatives" in page
    assert re.search(r"<code>(red/b/torn.png = other/blue/5.png|other/blue/5.png = red/b/torn.png)</code>", page)


def test_worst_pictures_begin_with_the_mislabelled_one(home: Path) -> None:
    worst = found(home)["worst"]["positives"]
    assert worst[0]["path"] == "red/a/blue.png"
    assert [p["decisive"] for p in worst] == sorted(p["decisive"] for p in worst)


def test_page_asks_for_nothing_from_outside_and_allows_no_other_script(home: Path) -> None:
    page = (home / "first/report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:|//|/|\.)""", page)
    assert re.search(r"default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-", page)
    assert "unsafe" not in page


def test_page_shows_hostile_folder_names_as_words(home: Path) -> None:
    page = (home / "first/report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_page_has_every_part(home: Path) -> None:
    page = (home / "first/report.html").read_text(encoding="utf-8")
    assert re.search(r"1 inference of the feature network.*full \d+\.\d ms.*A second view", page, re.DOTALL)
    parts = ("choose", "proof", "curves", "families", "worst", "map", "twins", "made")
    assert all(f'id="{part}"' in page for part in parts)
    for chart in ("ROC: recall", "Precision against recall", "Reliability", "Variance explained by"):
        assert chart in page
    assert page.count("data:image/jpeg;base64,") > 40


def test_report_on_other_pictures_is_refused_unless_they_are_fresh(here: Path, tmp_path: Path) -> None:
    draw(tmp_path, seed=9)
    folders = ("--positives", str(tmp_path / "red"), "--negatives", str(tmp_path / "other"))
    words = ("--gate", "gate.npz", "--model", "tiny.onnx", *folders, "--out", str(tmp_path / "out"))
    refused = run("report", *words).exception
    assert isinstance(refused, UsageError)
    assert "fitted on other pictures" in str(refused)
    done(run("report", *words, "--fresh"))
    assert found(tmp_path, "out")["scores"] == "fresh"
    assert "stated to be fresh" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_report_without_negatives_says_what_it_cannot_know(here: Path, tmp_path: Path) -> None:
    alone = ("--model", "tiny.onnx", "--positives", "red")
    done(run("fit", *alone, "--out", str(tmp_path / "alone.npz"), "--report", str(tmp_path / "out")))
    report = found(tmp_path, "out")
    assert any("Without negatives nothing can be said" in sentence for sentence in report["proof"])
    assert set(report["chosen"]) == {"recall", "promise"}
    assert "p-value is at least" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_prior_is_estimated_from_unlabelled_frames(here: Path, tmp_path: Path) -> None:
    draw(tmp_path / "frames", {"red": (40, 60, 200)}, count=3, seed=11)
    draw(tmp_path / "frames", {"green": (40, 190, 60)}, count=27, seed=12)
    words = ("--gate", "gate.npz", *FIT, "--prior-from", str(tmp_path / "frames"), "--out", str(tmp_path / "out"))
    done(run("report", *words))
    report = found(tmp_path, "out")
    rows = run("score", "--gate", "gate.npz", "--model", "tiny.onnx", str(tmp_path / "frames")).stdout.splitlines()
    probability = np.array([float(row.split(",")[2]) for row in rows[1:]])
    confusion = report["confusion"]
    fitted = (confusion["true_accepts"] + confusion["missed"]) / sum(confusion.values())
    assert report["use"]["prior"] == pytest.approx(estimate_prior(probability, fitted), abs=1e-3)
    assert report["use"]["estimate"]["pictures"] == len(probability) == 30
    assert "from 30 pictures as cameras gave them" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("others", [clusters.OTHERS, {}])
def test_gate_without_figures_of_its_own_is_reported(tmp_path: Path, others: dict[str, int]) -> None:
    fitted = fit_gate(
        clusters.samples(clusters.PARROTS, clusters.OTHERS), clusters.model(), RobustRecipe(), FitOptions()
    )
    bare = Gate(fitted.manifest.model_copy(update={"metrics": {}}), fitted.arrays)
    fresh = clusters.samples(clusters.PARROTS, others, seed=4)
    study = fresh_study(bare, fresh, {digest: [tmp_path / "gone.png"] for digest in fresh.digests})
    write_report(tmp_path, study)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert ("sources" in report["figures"]) == ("brier" in report["figures"]) == bool(others)


def test_page_tells_in_words_how_members_are_joined_and_what_views_cost(tmp_path: Path) -> None:
    samples = clusters.samples(clusters.PARROTS, {**clusters.OTHERS, "far/things": 30, "far/more": 30})
    fitted = fit_gate(samples, clusters.model(), RobustRecipe(), FitOptions(views=("full", "centre")))
    assert fitted.manifest.join == "product"
    study = held_out_study("a gate", fitted, {digest: [tmp_path / "gone.png"] for digest in samples.digests})
    cost = {"inferences": 2, "ms": {"full": 6.0, "centre": 9.0}, "device": "cpu"}
    pages = [write_report(tmp_path / "out", study, cost=given).read_text(encoding="utf-8") for given in (cost, None)]
    assert all("a product of probabilities" in page and "neighbourhood birds" in page for page in pages)
    assert re.search(r"2 inferences of .*full 6.0 ms, centre 9.0 ms, .*full alone would cost 40 %", pages[0], re.DOTALL)
    assert "2 inferences of" in pages[1]
    assert "ms, " not in pages[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--prior", "1.5"), "--prior is a share and must lie between 0 and 1, not 1.5"),
        (("--frames-a-day", "0"), "--frames-a-day must be a positive number, not 0"),
        (("--out", "gate.npz"), "cannot be written"),
    ],
)
def test_impossible_report_is_refused_in_a_sentence(here: Path, words: tuple[str, ...], sentence: str) -> None:
    refused = run("report", "--gate", "gate.npz", *FIT, "--out", "never", *words).exception
    assert isinstance(refused, UsageError)
    assert sentence in str(refused)
