"""``engines quantize`` on a small pre-activation ResNet and drawn pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines import ModelError, UsageError, load_spec, open_engine, write_spec
from engines.__main__ import main as engines_main
from engines.onnx_graph import Graph
from engines.onnx_layers import cosines
from engines.quantize import QuantizeOptions, pictures_digest, quantize_model, split_pictures
from tests.engines import convolutions


def draw(folder: Path, count: int = 20) -> Path:
    """Blurred noise of several tints."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for i in range(count):
        noise = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
        picture = cv2.GaussianBlur(noise, (0, 0), 1 + i % 5)
        assert cv2.imwrite(str(folder / "pictures" / f"{i:02}.png"), picture)
    return folder / "pictures"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("quantized")
    model = convolutions.save(folder)
    options = QuantizeOptions(("cpu", "tensorrt"), "percentile")
    return folder, quantize_model(model, [draw(folder)], folder, options)


def scales(path: Path) -> dict[str, set[Any]]:
    """Of a Q/DQ file: the types of activations and weights, and the zero points."""
    graph = Graph(onnx.load(path), "tiny")
    weights = set(graph.arrays)
    found: dict[str, set[Any]] = {"activations": set(), "weights": set(), "zeros": set()}
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear":
            zero = numpy_helper.to_array(graph.arrays[node.input[2]])
            found["weights" if node.input[0] in weights else "activations"].add(zero.dtype.name)
            found["zeros"] |= set(np.ravel(zero).tolist())
    return found


def test_cpu_file_is_u8s8_with_every_layer_in_8_bits(made: tuple[Path, list[dict[str, Any]]]) -> None:
    path = made[0] / "tiny.int8.onnx"
    assert scales(path)["activations"] == {"uint8"}
    assert scales(path)["weights"] == {"int8", "int32"}  # int32: biases
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert not {"Cast", "BatchNormalization", "Relu"} & set(operators)
    assert operators.count("Conv") == 5


def test_tensorrt_file_is_s8s8_with_zero_points_of_zero_and_float_biases(
    made: tuple[Path, list[dict[str, Any]]],
) -> None:
    found = scales(made[0] / "tiny.int8-tensorrt.onnx")
    assert (found["activations"], found["weights"], found["zeros"]) == ({"int8"}, {"int8"}, {0})


def test_weights_have_a_scale_for_each_channel(made: tuple[Path, list[dict[str, Any]]]) -> None:
    for name in ("tiny.int8.onnx", "tiny.int8-tensorrt.onnx"):
        graph = Graph(onnx.load(made[0] / name), "tiny")
        convolution = next(node for node in graph.nodes if node.op_type == "Conv")
        scale = graph.array(graph.makers()[convolution.input[1]].input[1])
        assert scale is not None
        assert scale.shape == (convolutions.WIDTH,)


def test_report_tells_families_cosine_and_sizes(made: tuple[Path, list[dict[str, Any]]]) -> None:
    for report in made[1]:
        assert report["calibrated_on"] == 16
        assert report["compared_on"] == 4
        assert report["cosine"]["mean"] > 0.98
        assert report["top1_agreement"] is None
        assert report == json.loads(Path(report["file"] + ".report.json").read_text())
    families = {row["family"]: row for row in made[1][0]["families"]}
    assert {"convolution 3x3", "normalisation", "addition"} <= set(families)
    assert all(0.95 < row["worst"] <= row["cosine"] <= 1 for row in families.values())


def test_manifest_names_origin_and_calibration(made: tuple[Path, list[dict[str, Any]]]) -> None:
    spec = load_spec(made[0] / "tiny.int8.onnx")
    plain = load_spec(made[0] / "tiny.onnx")
    assert spec.origin == plain.sha256 != spec.sha256
    assert spec.quantized is not None
    assert (spec.quantized.target, spec.quantized.pictures) == ("cpu", 16)
    assert spec.is_quantized_variant
    assert not plain.is_quantized_variant


def test_integer_graph_whose_manifest_hides_it_is_refused(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "hidden.onnx"
    path.write_bytes((made[0] / "tiny.int8.onnx").read_bytes())
    spec = replace(load_spec(made[0] / "tiny.int8.onnx"), quantized=None)
    write_spec(path, spec)
    with pytest.raises(ModelError, match="engines quantize"):
        open_engine(path, "cpu")
    write_spec(path, replace(spec, origin=spec.sha256))  # it speaks for itself: nobody's variant
    open_engine(path, "cpu").close()


def test_same_pictures_give_the_same_file(made: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder = made[0]
    options = QuantizeOptions(("cpu",), "percentile")
    (report,) = quantize_model(folder / "tiny.onnx", [folder / "pictures"], tmp_path, options)
    assert report["sha256"] == made[1][0]["sha256"]


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_classifier_with_pixels_as_input_agrees_on_the_best_class(tmp_path: Path, method: Any) -> None:
    model = convolutions.save_classifier(tmp_path)
    options = QuantizeOptions(("cpu",), method, uint8_input=True, seven_bit=True)
    (report,) = quantize_model(model, [draw(tmp_path)], tmp_path, options)
    assert report["top1_agreement"] >= 0.75
    spec = load_spec(Path(report["file"]))
    assert (spec.input.dtype, spec.input.layout, spec.labels) == ("uint8", "NHWC", load_spec(model).labels)


def test_quantised_model_is_not_quantised_again(made: tuple[Path, list[dict[str, Any]]]) -> None:
    folder = made[0]
    with pytest.raises(ModelError, match="already"):
        quantize_model(folder / "tiny.int8.onnx", [folder / "pictures"], folder, QuantizeOptions(("cpu",)))


def test_no_other_models_file_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, pictures = convolutions.save(tmp_path), draw(tmp_path, 4)
    before = model.read_bytes()
    for name in ("tiny.uint8.onnx", "tiny.int8.onnx"):
        (tmp_path / name).write_bytes(b"somebody's")
    assert run("fuse", model) == 2
    assert run("fuse", model, "--out", model) == 2
    assert run("quantize", model, "--pictures", pictures) == 2
    assert run("tap", model, "--at", "last.out", "--out", model) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    for words in (
        "not as the uint8 form of",
        "is the float32 model itself",
        "not as an INT8 form of",
        "is MODEL itself",
    ):
        assert words in said
    assert model.read_bytes() == before
    for name in ("tiny.uint8.onnx", "tiny.int8.onnx"):
        assert (tmp_path / name).read_bytes() == b"somebody's"
        (tmp_path / name).unlink()
    for _ in range(2):  # its own earlier form may be replaced
        assert run("fuse", model) == run("quantize", model, "--pictures", pictures) == 0


def test_calibration_pictures_are_demanded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = convolutions.save(tmp_path)
    assert run("quantize", model) == 2  # no --pictures
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    assert run("quantize", model, "--pictures", tmp_path / "empty") == 2
    assert "no picture found" in capsys.readouterr().err
    assert not list(tmp_path.glob("*int8*"))


def test_unreadable_pictures_alone_are_refused(tmp_path: Path) -> None:
    model = convolutions.save(tmp_path)
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"no picture")
    with pytest.raises(ModelError, match="no calibration picture"):
        quantize_model(model, [tmp_path], tmp_path, QuantizeOptions(("cpu",)))


def test_only_pictures_that_were_read_are_counted_and_hashed(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, pictures = convolutions.save(tmp_path), draw(tmp_path, 10)
    damaged = sorted(pictures.iterdir())[::3]
    for path in damaged:
        path.write_bytes(b"no picture")
    (report,) = quantize_model(model, [pictures], tmp_path, QuantizeOptions(("cpu",)))
    chosen, others = split_pictures(sorted(pictures.iterdir()), 128)
    read = [path for path in chosen if path not in damaged]
    spec = load_spec(tmp_path / "tiny.int8.onnx")
    assert spec.quantized is not None
    assert report["calibrated_on"] == spec.quantized.pictures == len(read) < len(chosen)
    assert report["pictures_sha256"] == pictures_digest(read)
    assert report["compared_on"] == len(set(others) - set(damaged))
    assert f"{len(chosen) - len(read)} of {len(chosen)} pictures left out" in caplog.text


def test_pixels_are_not_asked_twice_before_anything_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = convolutions.save(tmp_path)
    assert run("fuse", model) == 0
    monkeypatch.setattr("engines.quantize.calibrate", lambda *_: pytest.fail("nothing is to be calibrated"))
    with pytest.raises(UsageError, match="takes uint8 pixels already"):
        quantize_model(
            tmp_path / "tiny.uint8.onnx", [draw(tmp_path, 4)], tmp_path, QuantizeOptions(("cpu",), uint8_input=True)
        )


@pytest.mark.parametrize(("count", "wanted"), [(2, 128), (10, 128), (200, 128), (200, 5)])
def test_pictures_to_compare_on_were_not_calibrated_on(count: int, wanted: int) -> None:
    chosen, others = split_pictures([Path(str(i)) for i in range(count)], wanted)
    assert 1 <= len(chosen) <= wanted
    assert others
    assert not set(chosen) & set(others)


def test_one_picture_is_too_few() -> None:
    with pytest.raises(UsageError, match="too few"):
        split_pictures([Path("a")], 5)


def test_cosine_of_known_rows() -> None:
    a = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    b = np.array([[0.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosines(a, b), [0, 1, 1], atol=1e-12)


def run(*words: object) -> int:
    """``engines`` in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["engines", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            engines_main()
    return int(ended.value.code or 0)


def test_commands_make_and_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = convolutions.save(tmp_path)
    assert run("quantize", model, "--pictures", draw(tmp_path), "--out", tmp_path) == 0
    assert "calibrate parity --gate GATE" in capsys.readouterr().err.replace("\n", " ")
    assert run("fuse", model) == 0
    variants = [tmp_path / "tiny.int8.onnx", tmp_path / "tiny.uint8.onnx"]
    capsys.readouterr()
    assert run("bench", model, *variants, "--seconds", 0.2, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["input_bytes"] for row in report["models"]] == [3072, 3072, 768]
    assert report["models"][0]["ratio"] == report["models"][0]["cpu_ratio"] == 1
    first = report["models"][0]
    for row in report["models"]:
        assert row["cpu_ratio"] == pytest.approx(first["engine_cpu_ms"] / row["engine_cpu_ms"], rel=0.02)
    assert all(row["images_per_s"] > 0 and row["engine_cpu_ms"] > 0 for row in report["models"])
    assert run("tap", model, "--list") == 0
    assert "last.out" in capsys.readouterr().out
    assert run("tap", model) == 2
    assert run("tap", model, "--at", "last.out", "--out", tmp_path / "tap.onnx") == 0
    assert load_spec(tmp_path / "tap.onnx").output.size == convolutions.WIDTH
