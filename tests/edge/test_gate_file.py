"""Gate files: the same bytes for the same gate, and a sentence for every file that is none."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import GateError
from edge.gate_archive import write_arrays
from edge.gate_file import load_gate, save_gate
from engines import InputSpec, OutputSpec
from tests.edge import gates


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "gate.npz"
    save_gate(target, gates.manifest(), gates.arrays())
    return target


def rewrite(path: Path, **changes: Any) -> None:
    """The file at ``path`` with arrays replaced (None: removed), its manifest and golden outputs as they were."""
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    arrays.update(changes)
    path.write_bytes(write_arrays({name: array for name, array in arrays.items() if array is not None}))


def rewrite_manifest(path: Path, **changes: Any) -> None:
    values = {**gates.manifest().model_dump(mode="json"), **changes}
    rewrite(path, manifest=np.frombuffer(json.dumps(values).encode(), np.uint8))


def test_saved_gate_judges_as_before_and_is_named_by_its_hash(path: Path) -> None:
    gate = load_gate(path, features=gates.spec())
    x = gates.arrays()["golden.features"]
    np.testing.assert_array_equal(gate.judge(x).score, gates.gate().judge(x).score)
    assert gate.name == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert gate.manifest == gates.manifest()


def test_same_gate_gives_the_same_bytes_at_any_time(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 2e9)
    again = tmp_path / "again.npz"
    shuffled = dict(reversed(gates.arrays().items()))
    digest = save_gate(again, gates.manifest(), shuffled)
    assert again.read_bytes() == path.read_bytes()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.npz", "gate.npz"]


def test_numpy_itself_reads_a_gate_file_without_pickle(path: Path) -> None:
    with np.load(path, allow_pickle=False) as content:
        assert json.loads(content["manifest"].tobytes())["recipe"] == "robust"


def test_pin_of_another_file_is_refused(path: Path) -> None:
    load_gate(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(GateError, match="pinned"):
        load_gate(path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"origin": "d" * 64}, "fitted on features of tiny .*configure that model or fit the gate again"),
        ({"output": OutputSpec(kind="features", size=7)}, "7 numbers"),
        ({"input": InputSpec(layout="NCHW", height=8, width=8, resize="crop")}, "preprocessing.*resize"),
        ({"input": InputSpec(layout="NCHW", height=8, width=8, mean=(0.5, 0.5, 0.5))}, "preprocessing.*mean"),
    ],
)
def test_gate_of_other_features_is_refused(path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GateError, match=sentence):
        load_gate(path, features=gates.spec(**changes))


def test_variant_of_the_same_origin_with_another_layout_is_taken(path: Path) -> None:
    load_gate(path, features=gates.spec(sha256="e" * 64, input=InputSpec(layout="NHWC", height=8, width=8)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"density.basis": np.zeros((5, 2))}, "shape"),
        ({"density.centre": np.zeros(6, np.float32)}, "float64"),
        ({"density.centre": np.array([0.9, 0, 0, 0, 0, np.nan])}, "not finite"),
        ({"density.residual_variance": np.asarray(-1.0)}, "positive"),
        ({"density.centre": None}, "found nothing"),
        ({"conformal.scores": None}, "conformal.scores"),
        ({"golden.features": np.zeros((3, 6), np.float32)}, "golden.features"),
        ({"golden.score": np.zeros(16)}, "self-test failed"),
        ({"golden.accepted": None}, "golden.accepted"),
        ({"density.log_norm": np.asarray(1.6)}, "self-test failed"),
        ({"manifest": None}, "holds no manifest"),
        ({"manifest": np.frombuffer(b"{", np.uint8)}, "not readable"),
        ({"manifest": np.frombuffer(b"[]", np.uint8)}, "JSON object"),
    ],
)
def test_changed_array_is_refused_with_its_reason(path: Path, changes: dict[str, Any], sentence: str) -> None:
    rewrite(path, **changes)
    with pytest.raises(GateError, match=sentence):
        load_gate(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "format 2 is not format 1"),
        ({"surprise": 1}, "surprise"),
        ({"views": ["full", "upside_down"]}, "views"),
        ({"members": [{"name": "density", "kind": "pickle"}]}, "members"),
        ({"join": "clipped_sum"}, "clipped_sum"),
        ({"decision": {"by": "probability", "threshold": 7}}, "threshold"),
        ({"calibration": "none"}, "no probability to decide by"),
    ],
)
def test_changed_manifest_is_refused_with_its_reason(path: Path, changes: dict[str, Any], sentence: str) -> None:
    rewrite_manifest(path, **changes)
    with pytest.raises(GateError, match=sentence):
        load_gate(path)


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="cannot be read"):
        load_gate(tmp_path / "none.npz")
    huge = tmp_path / "huge.npz"
    with huge.open("wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(GateError, match="larger than 256 MiB"):
        load_gate(huge)


def test_pickled_object_array_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, manifest=np.array([{"a": 1}], dtype=object))
    with pytest.raises(GateError, match="manifest"):
        load_gate(path)


def member(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = repr(header).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    ("name", "content", "compression"),
    [
        ("a.npy", member({"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}), zipfile.ZIP_STORED),
        ("a.npy", member({"descr": "<f8", "fortran_order": False, "shape": (-1,)}), zipfile.ZIP_STORED),
        ("a.npy", member({"descr": "|O", "fortran_order": False, "shape": ()}), zipfile.ZIP_STORED),
        ("a.npy", member({"descr": ">f8", "fortran_order": False, "shape": (1,)}, bytes(8)), zipfile.ZIP_STORED),
        ("a.npy", member({"descr": [("x", "<f8")], "fortran_order": False, "shape": (1,)}, bytes(8)), 0),
        ("a.npy", b"\x93NUMPY\x02\x00" + b"\xff" * 64, zipfile.ZIP_STORED),
        ("a.npy", bytes(1 << 20), zipfile.ZIP_DEFLATED),
        ("../a.npy", member({"descr": "<f8", "fortran_order": False, "shape": ()}, bytes(8)), zipfile.ZIP_STORED),
    ],
)
def test_hostile_archive_member_is_refused_before_anything_is_allocated(
    tmp_path: Path, name: str, content: bytes, compression: int
) -> None:
    path = tmp_path / "hostile.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)
    with pytest.raises(GateError, match="hostile"):
        load_gate(path)


def test_archive_with_a_vast_directory_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(2000):
            archive.writestr(f"a{i}.npy", b"")
    path = tmp_path / "vast.npz"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(GateError, match="directory"):
        load_gate(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_file_is_refused_or_judges_alike(path: Path, data: st.DataObject) -> None:
    good = path.read_bytes()
    x = gates.arrays()["golden.features"]
    if data.draw(st.booleans(), label="cut"):
        damaged = good[: data.draw(st.integers(0, len(good) - 1), label="length")]
    else:
        at = data.draw(st.integers(0, len(good) - 1), label="at")
        damaged = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255), label="flip")]) + good[at + 1 :]
    broken = path.with_name("broken.npz")
    broken.write_bytes(damaged)
    try:
        gate = load_gate(broken)
    except GateError:
        return
    np.testing.assert_array_equal(gate.judge(x).score, gates.gate().judge(x).score)
