"""One changed bit in a gate, a manifest or a labels file: what is pinned never loads, and nothing loads changed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.gate_file import load_gate, save_gate
from engines import ModelError, ParrotgateError, load_spec
from engines.spec import manifest_path, manifest_sha256
from tests.edge import gates
from tests.edge.worker_process import MODELS


def flips(data: bytes, bits: Iterator[int] | None = None) -> Iterator[bytes]:
    """``data`` with one bit changed, for every bit or for those given."""
    for bit in bits if bits is not None else range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def accepted(path: Path, versions: Iterator[bytes], load: Callable[[], object]) -> list[object]:
    """What ``load`` gives for those of ``versions`` that it does not refuse, each written to ``path``."""
    found = []
    for content in versions:
        path.write_bytes(content)
        try:
            found.append(load())
        except ParrotgateError:
            continue
    return found


@pytest.fixture
def gate_path(tmp_path: Path) -> Path:
    path = tmp_path / "gate.npz"
    save_gate(path, gates.manifest(), gates.arrays())
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    shutil.copytree(MODELS, folder)
    return folder


def test_pinned_gate_with_any_bit_changed_is_never_loaded(gate_path: Path) -> None:
    data = gate_path.read_bytes()
    pin = hashlib.sha256(data).hexdigest()
    assert len(data) <= 8192
    assert not accepted(
        gate_path, flips(data, iter(range(0, 8 * len(data), 97))), lambda: load_gate(gate_path, sha256=pin)
    )
    assert accepted(gate_path, iter([data]), lambda: load_gate(gate_path, sha256=pin))


def test_unpinned_gate_with_a_bit_changed_is_refused_or_judges_as_before(gate_path: Path) -> None:
    data, x = gate_path.read_bytes(), gates.arrays()["golden.features"]
    expected = load_gate(gate_path).judge(x)
    for gate in accepted(gate_path, flips(data, iter(range(3, 8 * len(data), 61))), lambda: load_gate(gate_path)):
        judged = gate.judge(x)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(judged.decisive, expected.decisive)
        np.testing.assert_array_equal(judged.accepted, expected.accepted)


@pytest.mark.parametrize("model", ["features.onnx", "species.onnx"])
def test_manifest_with_any_bit_changed_is_refused_by_its_own_digest(models: Path, model: str) -> None:
    path = manifest_path(models / model)
    spec = load_spec(models / model)
    data = path.read_bytes()
    found = accepted(path, flips(data, iter(range(5, 8 * len(data), 17))), lambda: load_spec(models / model))
    assert all(other == spec for other in found)


def test_pinned_manifest_is_taken_and_another_is_refused(models: Path) -> None:
    model = models / "species.onnx"
    pin = manifest_sha256(model)
    assert load_spec(model, manifest_sha256=pin).labels
    path = manifest_path(model)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ModelError, match="pins"):
        load_spec(model, manifest_sha256=pin)


def test_labels_with_any_bit_changed_are_refused(models: Path) -> None:
    labels = models / "species.onnx.labels.txt"
    data = labels.read_bytes()
    assert not accepted(
        labels, flips(data, iter(range(0, 8 * len(data), 97))), lambda: load_spec(models / "species.onnx")
    )


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_every_bit_of_a_gate_its_manifests_and_labels(gate_path: Path, models: Path) -> None:
    """Exhaustive where the tests above sample; prints what an unpinned gate lets through without judging otherwise."""
    data, x = gate_path.read_bytes(), gates.arrays()["golden.features"]
    pin, expected = hashlib.sha256(data).hexdigest(), load_gate(gate_path).judge(x).decisive
    assert not accepted(gate_path, flips(data), lambda: load_gate(gate_path, sha256=pin))
    through = accepted(gate_path, flips(data), lambda: load_gate(gate_path).judge(x).decisive)
    assert all(np.array_equal(decisive, expected) for decisive in through)
    print(f"unpinned: {len(through)} of {8 * len(data)} changed gates load, all judge as before")  # noqa: T201
    for model in ("features.onnx", "species.onnx"):
        path, spec = manifest_path(models / model), load_spec(models / model)
        found = accepted(path, flips(path.read_bytes()), lambda model=model: load_spec(models / model))  # type: ignore[misc]
        assert all(other == spec for other in found)
        print(f"unpinned: {len(found)} changed manifests of {model} load, all of the same content")  # noqa: T201
