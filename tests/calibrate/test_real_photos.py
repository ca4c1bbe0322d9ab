"""What the default gate must do with real photos: the macaw in, ducks and objects out."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibrate.extract import extract
from calibrate.fit import FitOptions, fit_gate
from calibrate.recipes import make_recipe
from calibrate.samples import Samples
from edge.gate import Gate
from engines import load_spec, open_engine

MODEL = "mobilenet_v2_features.onnx"


@pytest.fixture(scope="module")
def gate(shared: Path, real_samples: Samples) -> Gate:
    without_macaws = real_samples.take(real_samples.family != "parrots/scarlet_macaw")
    recipe = make_recipe("robust", None, None, 0)
    fitted = fit_gate(without_macaws, load_spec(shared / "models" / MODEL), recipe, FitOptions())
    return Gate(fitted.manifest, fitted.arrays)


def test_scarlet_macaw_is_accepted_though_its_kind_was_never_shown(gate: Gate, shared: Path) -> None:
    with open_engine(shared / "models" / MODEL, "cpu") as engine:
        extracted = extract(engine, [shared / "images" / "scarlet_macaw.jpg"])
    assert gate.judge(extracted.views["full"]).accepted.all()


def test_objects_and_ducks_never_shown_are_refused(gate: Gate, shared: Path) -> None:
    unseen = sorted((shared / "images" / "objects").iterdir())[60:90] + sorted(
        (shared / "images" / "rubber_ducks").iterdir()
    )[20:]  # fmt: skip
    with open_engine(shared / "models" / MODEL, "cpu") as engine:
        extracted = extract(engine, unseen)
    assert gate.judge(extracted.views["full"]).accepted.sum() <= 1


def test_held_out_figures_beat_the_bar(gate: Gate) -> None:
    figures = gate.manifest.metrics
    assert figures["sources"]["other_birds"]["auroc"]["value"] > 0.95
    assert figures["sources"]["objects"]["auroc"]["value"] > 0.98
    assert figures["recall"]["value"] > 0.75
