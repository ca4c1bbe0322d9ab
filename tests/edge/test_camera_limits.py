"""Threshold and band of uncertain verdicts: the configuration's, else the gate file's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cascade import Limits
from edge.config import Config
from edge.config_file import load_config
from edge.errors import ConfigError
from edge.parts import camera_limits
from tests.edge import gates

GATE = gates.gate(decision={"by": "probability", "threshold": 0.5, "abstain": (0.4, 0.8)})


def config(folder: Path, gate: str = "", cameras: str = "") -> Config:
    path = folder / "edge.yaml"
    path.write_text(
        f"worker: box\nfeatures: {{model: net.onnx}}\ngate: {{file: gate.npz{gate}}}\ncameras: {{{cameras}}}\n"
    )
    return load_config(path, {})


def test_null_is_the_files_own_threshold_and_band(tmp_path: Path) -> None:
    limits = camera_limits(config(tmp_path, cameras="feeder: {threshold: 0.7}"), GATE)
    assert limits == {None: Limits(0.5, (0.4, 0.8)), "feeder": Limits(0.7, (0.4, 0.8))}


def test_configured_band_replaces_the_files_own(tmp_path: Path) -> None:
    assert camera_limits(config(tmp_path, ", abstain: [0.5, 0.6]"), GATE) == {None: Limits(0.5, (0.5, 0.6))}


def test_band_without_width_is_none_whatever_the_thresholds(tmp_path: Path) -> None:
    limits = camera_limits(config(tmp_path, ", threshold: 0.9, abstain: [0, 0]", "feeder: {threshold: 0.7}"), GATE)
    assert [limits[None].outcome(value).value for value in (0.0, 0.89, 0.9)] == ["negative", "negative", "positive"]
    assert [limits["feeder"].outcome(value).value for value in (0.69, 0.7)] == ["negative", "positive"]


@pytest.mark.parametrize(
    ("gate", "cameras", "words"),
    [
        (
            ", threshold: 0.9",
            "",
            "gate.threshold, 0.9, should lie in the gate file's own band .*abstain: .0, 0. for no band",
        ),
        ("", "a: {}, b: {threshold: 0.3}", "the threshold of camera b, 0.3, should lie in the gate file's own band"),
        (", abstain: [0.6, 0.7]", "", "gate.abstain .0.6, 0.7. should hold the gate file's own threshold 0.5"),
    ],
)
def test_threshold_outside_the_band_is_told_by_its_name(tmp_path: Path, gate: str, cameras: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        camera_limits(config(tmp_path, gate, cameras), GATE)
