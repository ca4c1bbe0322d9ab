"""The given networks on the given photo: what comes out must be the network's own answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines import decode_image, load_spec, open_engine, prepare_input


def test_bird_network_knows_the_macaw_by_its_own_probability(shared: Path) -> None:
    photo = (shared / "images/scarlet_macaw.jpg").read_bytes()
    with open_engine(shared / "models/mobilenet_v2_inat_birds.onnx", "cpu") as engine:
        wanted = engine.spec.input
        pixels = decode_image(photo, minimum=(wanted.height, wanted.width)).pixels
        (probabilities,) = engine.infer(prepare_input(pixels, wanted)[None])
    assert engine.spec.labels is not None
    assert engine.spec.labels[int(probabilities.argmax())] == "Ara macao (Scarlet Macaw)"
    assert probabilities.max() == pytest.approx(0.775, abs=0.002)
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["mobilenet_v2_features", "resnet50v2_stage3_features"])
def test_features_of_a_batch_are_those_of_its_rows(shared: Path, name: str) -> None:
    photo = (shared / "images/scarlet_macaw.jpg").read_bytes()
    with open_engine(shared / "models" / f"{name}.onnx", "cpu") as engine:
        row = prepare_input(decode_image(photo).pixels, engine.spec.input)
        together = engine.infer(np.stack([row, np.flip(row, axis=-1)]))
        alone = engine.infer(row[None])
    assert together.shape == (2, engine.spec.output.size)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-3, atol=1e-4)


def test_manifest_named_after_the_whole_file_wins(shared: Path) -> None:
    tflite, onnx = (load_spec(shared / f"models/mobilenet_v2_inat_birds.{kind}") for kind in ("tflite", "onnx"))
    assert (tflite.input.dtype, onnx.input.dtype) == ("uint8", "float32")
    assert tflite.labels == onnx.labels
    assert onnx.labels is not None
    assert len(onnx.labels) == 965
