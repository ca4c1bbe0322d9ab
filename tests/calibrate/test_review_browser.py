"""Review and report in a real browser: the keyboard alone, and the chooser's numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calibrate.chooser import Rules, Use, choose, implied
from calibrate.curves import steps
from calibrate.fit import FitOptions, fit_gate
from calibrate.recipes import RobustRecipe
from calibrate.report import write_report
from calibrate.review_labels import LabelFile
from calibrate.review_queue import Item
from calibrate.study import held_out_study
from edge.gate import Gate
from tests.calibrate.clusters import OTHERS, PARROTS, model, samples
from tests.calibrate.review_site import COMMAND, gate, questions, serving
from tests.edge.chrome import CHROMIUM, Tab, chromium

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
HOSTILE = "<img src=x onerror=document.title=1>{}.png"


@pytest.fixture(scope="module")
def judge() -> Gate:
    return gate()


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(tab: Tab) -> None:
    tab.complaints.clear()
    tab.requests.clear()


def text(tab: Tab, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector({selector!r}).innerText"))


def key(tab: Tab, name: str) -> None:
    codes = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Escape": 27, "?": 191}
    tab.press(name, codes.get(name, ord(name[0].upper())))


def counts(tab: Tab, progress: str) -> None:
    tab.wait(f"document.getElementById('count')?.textContent === '{progress}'")


def kept(path: Path) -> dict[str, str | None]:
    return {label.path.name: label.family for label in LabelFile(path).labels.values()}


def test_review_is_driven_by_the_keyboard_alone(tab: Tab, judge: Gate, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    with serving(judge, questions(tmp_path), labels) as server:
        tab.open(server.url)
        counts(tab, "0 of 4")
        assert text(tab, "#why") == "Folder and gate disagree"
        assert [word in text(tab, "#families") for word in ("parrots", "birds", "objects")] == [True] * 3
        key(tab, "1")
        counts(tab, "1 of 4")
        assert "2 pictures that are nearly the same" in text(tab, "#twins-what")
        key(tab, "2")
        counts(tab, "2 of 4")
        assert kept(labels) == {"0.png": "parrots", "1.png": "birds", "2.png": "birds"}
        key(tab, "u")
        counts(tab, "1 of 4")
        assert kept(labels) == {"0.png": "parrots"}
        key(tab, "s")
        counts(tab, "1 of 5")
        key(tab, "3")
        counts(tab, "2 of 5")
        key(tab, "x")
        counts(tab, "3 of 5")
        assert kept(labels) == {"0.png": "parrots", "1.png": "objects", "2.png": None}
        key(tab, "ArrowRight")
        key(tab, "ArrowLeft")
        key(tab, "n")
        tab.wait("document.getElementById('new').open")
        tab.call("Input.insertText", text="drones")
        key(tab, "Enter")
        counts(tab, "4 of 5")
        assert "drones" in text(tab, "#families")
        key(tab, "4")
        tab.wait("!document.getElementById('done').hidden")
        assert text(tab, "#command") == COMMAND
        assert kept(labels) == {
            "0.png": "parrots",
            "1.png": "objects",
            "2.png": None,
            "3.png": "drones",
            "4.png": "drones",
        }
        assert all(address.startswith(server.url) for address in tab.requests)
        assert tab.complaints == []


def test_review_goes_on_where_it_was_left_and_explains_its_keys(tab: Tab, judge: Gate, tmp_path: Path) -> None:
    labels, queue = tmp_path / "labels.jsonl", questions(tmp_path, HOSTILE)
    LabelFile(labels).give(queue[0].pictures, "parrots", positive=True)
    with serving(judge, queue, labels) as server:
        tab.open(server.url)
        counts(tab, "1 of 4")
        assert text(tab, "#name") == HOSTILE.format(1)
        key(tab, "?")
        tab.wait("document.getElementById('help').open")
        key(tab, "1")
        key(tab, "Escape")
        tab.wait("!document.getElementById('help').open")
        assert len(kept(labels)) == 1
        key(tab, "ArrowLeft")
        tab.wait("document.getElementById('given').textContent === 'parrots'")


def test_review_says_when_a_label_could_not_be_saved(tab: Tab, judge: Gate, tmp_path: Path) -> None:
    with serving(judge, questions(tmp_path), tmp_path / "labels.jsonl") as server:
        tab.open(server.url)
        counts(tab, "0 of 4")
    key(tab, "1")
    tab.wait("!document.getElementById('fault').hidden")
    assert "Not saved" in text(tab, "#fault")
    assert text(tab, "#count") == "0 of 4"


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_never_scroll_sideways(tab: Tab, judge: Gate, tmp_path: Path, width: int) -> None:
    first, twins, *rest = questions(tmp_path, "long-name-" * 12 + "{}.png")
    queue = [first, Item("near", twins.pictures * 8), *rest]
    with serving(judge, queue, tmp_path / "labels.jsonl") as server:
        tab.open(server.url, width)
        counts(tab, "0 of 4")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        key(tab, "ArrowRight")
        tab.wait("!document.getElementById('twins').hidden")
        tab.wait("[...document.images].every((image) => image.complete)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_chooser_says_what_the_json_says_and_the_page_keeps_its_policy(tab: Tab, tmp_path: Path, width: int) -> None:
    fitted = fit_gate(samples(PARROTS, OTHERS, seed=3), model(), RobustRecipe(), FitOptions())
    study = held_out_study("gate", fitted, {digest: [tmp_path / "gone.png"] for digest in fitted.samples.digests})
    use, rules = Use(0.02, 10_000.0), Rules(recall=0.9, precision=0.5, false_a_day=50.0, cost_ratio=3.0)
    page = write_report(tmp_path, study, use, rules)
    found = json.loads((tmp_path / "report.json").read_text())
    tab.open(page.as_uri(), width)
    tab.wait("(document.getElementById('o-recall')?.textContent ?? '–') !== '–'")
    for rule in ("recall", "promise", "precision", "false_a_day", "cost"):
        tab.evaluate(f"document.querySelector('input[value={rule}]').click()")
        chosen = found["chosen"][rule]
        if chosen is None:
            assert re.search("No threshold|cannot promise", text(tab, "#said"))
            continue
        assert float(text(tab, "#t")) == pytest.approx(chosen["threshold"], rel=1e-3)
        assert float(text(tab, "#o-precision").rstrip(" %")) == pytest.approx(100 * chosen["precision"], abs=0.06)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.complaints == []
    assert tab.requests == [page.as_uri()]
    ladder = steps(study.decisive, study.samples.positive, study.threshold)
    tab.evaluate("document.getElementById('prior').value = 20")
    tab.evaluate("document.querySelector('input[value=own]').click()")
    tab.evaluate("document.querySelector('input[value=cost]').click()")
    cut = choose(ladder, rules, Use(0.2, 10_000.0))["cost"]
    (step,) = [step for step in ladder if step.threshold == cut]
    shown = float(text(tab, "#o-false").replace(",", ""))
    assert shown == pytest.approx(implied(step, Use(0.2, 10_000.0))["false_a_day"], abs=0.6)
    assert np.isclose(float(text(tab, "#t")), step.threshold, rtol=1e-3)
