"""``engines export``: what is written answers as torch does. Weights are random; nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import ModelError, UsageError, load_spec, open_engine
from engines.__main__ import main as engines_main


def run(*words: object) -> int:
    """``engines`` in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["engines", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            engines_main()
    return int(ended.value.code or 0)


def exported(name: str, out: Path, **options: Any) -> float:
    from engines.torch_export import ExportOptions, export

    spec, difference = export(name, out, ExportOptions(**{"weights": "random", "size": 64, **options}))
    assert spec == load_spec(out)
    assert spec.origin == spec.sha256
    assert "random weights" in spec.source or "weights of" in spec.source
    return difference


@pytest.mark.torchvision
@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 512), ("resnet50", 2048), ("mobilenet_v3_small", 1024), ("densenet121", 1024)]
)
def test_network_of_torchvision_answers_as_torch_does(tmp_path: Path, name: str, size: int) -> None:
    assert exported(name, tmp_path / "net.onnx") <= 1e-5
    spec = load_spec(tmp_path / "net.onnx")
    assert (spec.task, spec.output.size, spec.input.height) == ("features", size, 64)
    assert spec.input.mean == (0.485, 0.456, 0.406)


@pytest.mark.timm
def test_network_of_timm_answers_as_torch_does(tmp_path: Path) -> None:
    assert exported("resnet18", tmp_path / "net.onnx", library="timm") <= 1e-5
    assert load_spec(tmp_path / "net.onnx").output.size == 512


@pytest.mark.torchvision
def test_classifier_tapped_is_the_feature_network(tmp_path: Path) -> None:
    exported("resnet18", tmp_path / "features.onnx")
    exported("resnet18", tmp_path / "classes.onnx", classifier=True)
    assert run("tap", tmp_path / "classes.onnx", "--out", tmp_path / "tapped.onnx") == 0
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    with open_engine(tmp_path / "features.onnx", "cpu") as one, open_engine(tmp_path / "tapped.onnx", "cpu") as other:
        np.testing.assert_allclose(one.infer(x), other.infer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.torchvision
def test_weights_of_a_file_are_loaded_and_strangers_refused(tmp_path: Path) -> None:
    import torch
    from torchvision.models import resnet18

    torch.manual_seed(5)
    torch.save(resnet18().state_dict(), tmp_path / "own.pth")
    exported("resnet18", tmp_path / "own.onnx", weights=str(tmp_path / "own.pth"))
    exported("resnet18", tmp_path / "other.onnx", seed=1)
    assert load_spec(tmp_path / "own.onnx").sha256 != load_spec(tmp_path / "other.onnx").sha256
    torch.save({"something": torch.zeros(1)}, tmp_path / "stranger.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    for name in ("stranger", "damaged"):
        with pytest.raises(ModelError):
            exported("resnet18", tmp_path / "net.onnx", weights=str(tmp_path / f"{name}.pth"), classifier=True)
    with pytest.raises(UsageError):
        exported("resnet18", tmp_path / "net.onnx", weights=str(tmp_path / "nothing.pth"))


@pytest.mark.torchvision
def test_weights_that_lack_more_than_the_dropped_layer_are_refused(tmp_path: Path) -> None:
    import torch
    from torchvision.models import resnet18

    state = resnet18().state_dict()
    whole = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(whole, tmp_path / "headless.pth")
    exported("resnet18", tmp_path / "net.onnx", weights=str(tmp_path / "headless.pth"))
    kept = (tmp_path / "net.onnx").read_bytes()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "wrapped.pth")
    torch.save({key: value for key, value in whole.items() if key != "layer4.1.conv2.weight"}, tmp_path / "lacking.pth")
    for name, words in (("wrapped", "tensors are missing"), ("lacking", r"1 tensors.*layer4\.1\.conv2\.weight")):
        with pytest.raises(ModelError, match=words):
            exported("resnet18", tmp_path / "net.onnx", weights=str(tmp_path / f"{name}.pth"))
    assert (tmp_path / "net.onnx").read_bytes() == kept


@pytest.mark.timm
def test_weights_of_another_network_of_timm_are_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "own.pth")
    with pytest.raises(ModelError, match="tensors are missing"):
        exported("resnet18", tmp_path / "net.onnx", library="timm", weights=str(tmp_path / "own.pth"))


@pytest.mark.torchvision
def test_answers_that_differ_from_torch_leave_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported("resnet18", tmp_path / "net.onnx")
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("engines.torch_export.TOLERANCE", -1.0)
    for name in ("net.onnx", "new.onnx"):
        with pytest.raises(ModelError, match="differs from torch"):
            exported("resnet18", tmp_path / name, seed=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


@pytest.mark.torchvision
def test_folder_that_is_missing_is_a_wrong_usage(tmp_path: Path) -> None:
    assert run("export", "resnet18", "--weights", "random", "--out", tmp_path / "no" / "net.onnx") == 2


@pytest.mark.torchvision
def test_unknown_network_is_a_wrong_usage(tmp_path: Path) -> None:
    assert run("export", "no_such_network", "--weights", "random", "--out", tmp_path / "net.onnx") == 2


def test_without_torch_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "engines.torch_export", raising=False)
    assert run("export", "resnet18", "--out", tmp_path / "net.onnx") == 78
    assert "parrotgate[export]" in capsys.readouterr().err


def test_senseless_words_end_with_2(tmp_path: Path) -> None:
    assert run("export", "resnet18", "--from", "elsewhere", "--out", tmp_path / "net.onnx") == 2
