"""TensorFlow Lite models on LiteRT: what is theirs alone, beside the promises of ``test_backends``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import InputSpec, ModelError, decode_image, open_engine, prepare_input
from tests.engines import networks, tflite_networks

TINY = "LiteRT cannot load this model"


@pytest.mark.tflite
@pytest.mark.parametrize("content", [b"", b"no model at all", b"\0" * 400])
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match=TINY):
        open_engine(tflite_networks.save(tmp_path, content), "cpu")


@pytest.mark.tflite
def test_every_cut_of_a_model_is_refused(tmp_path: Path) -> None:
    whole = tflite_networks.graph()
    for length in range(0, len(whole) - 1, 41):
        with pytest.raises(ModelError, match=TINY):
            open_engine(tflite_networks.save(tmp_path, whole[:length]), "cpu")


@pytest.mark.tflite
@pytest.mark.parametrize(
    ("options", "changes", "reason"),
    [
        ({}, {"input": InputSpec(layout="NHWC", height=8, width=8, dtype="uint8")}, "the graph says float32"),
        ({"quantised": True}, {}, "manifest says input float32, the graph says uint8"),
        ({}, {"input": InputSpec(layout="NCHW", height=8, width=8)}, "pictures are NHWC"),
        ({"extra_output": True}, {}, "one output, the graph has 1 and 2"),
    ],
)
def test_model_unlike_its_manifest_is_refused(
    tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        open_engine(tflite_networks.save(tmp_path, tflite_networks.graph(**options), **changes), "cpu")


@pytest.mark.tflite
def test_cuda_is_refused_rather_than_quietly_left_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LiteRT runs on the CPU"):
        open_engine(tflite_networks.save(tmp_path, tflite_networks.graph()), "cuda")


@pytest.mark.tflite
def test_info_tells_of_a_model_that_is_no_onnx(tmp_path: Path) -> None:
    path = tflite_networks.save(tmp_path, tflite_networks.graph())
    done = [
        subprocess.run(
            [sys.executable, "-m", "engines", "info", path, *more], capture_output=True, text=True, check=True
        )
        for more in ([], ["--json"])
    ]
    assert "LiteRT on cpu" in done[0].stdout
    facts = json.loads(done[1].stdout)
    assert facts["runtime"]["input"] == "x float32 (1, 8, 8, 3)"
    assert "nodes" not in facts


def test_without_litert_the_extra_is_named(tmp_path: Path) -> None:
    path = networks.save(tmp_path, networks.graph()).rename(tmp_path / "tiny.tflite")
    script = (
        f"import sys; sys.modules['ai_edge_litert'] = None; from engines import open_engine; open_engine({str(path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ModelError: LiteRT is not installed; install parrotgate[tflite]" in done.stderr


def answers(shared: Path, suffix: str, photos: list[Path]) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """The bird network's probabilities for photos, and its labels."""
    with open_engine(shared / f"models/mobilenet_v2_inat_birds.{suffix}", "cpu") as engine:
        wanted = engine.spec.input
        pixels = [decode_image(photo.read_bytes(), minimum=(224, 224)).pixels for photo in photos]
        assert engine.spec.labels is not None
        return engine.infer(np.stack([prepare_input(each, wanted) for each in pixels])), engine.spec.labels


@pytest.mark.tflite
def test_published_bird_network_answers_as_its_onnx_twin_does(shared: Path) -> None:
    birds = sorted((shared / "images/other_birds").glob("*/*"))[::20]
    photos = [shared / "images/scarlet_macaw.jpg", *birds]
    (quantised, labels), (plain, _) = (answers(shared, suffix, photos) for suffix in ("tflite", "onnx"))
    assert labels[int(quantised[0].argmax())] == "Ara macao (Scarlet Macaw)"
    assert quantised[0].max() == pytest.approx(0.758, abs=0.02)
    np.testing.assert_array_equal(quantised * 256, np.round(quantised * 256))
    same = quantised.argmax(axis=1) == plain.argmax(axis=1)
    assert same.mean() >= 0.7
    assert same[plain.max(axis=1) > 0.5].mean() >= 0.9
    assert np.abs(quantised - plain).max(axis=1).mean() < 0.1
