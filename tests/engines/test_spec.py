"""Manifests: what is taken, what is refused and in which words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import InputSpec, ModelError, OutputSpec, load_spec, write_spec
from tests.engines import networks

DIGEST = "ab" * 32


def manifest(**changes: Any) -> dict[str, Any]:
    """The smallest full manifest, as DESIGN gives it, save for ``changes``."""
    content = {
        "format": 1,
        "name": "net",
        "task": "features",
        "input": {"layout": "NCHW", "height": 8, "width": 6, "color": "RGB", "resize": "stretch"}
        | {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "output": {"kind": "features", "size": 4},
        "labels": None,
        "sha256": DIGEST,
    }
    return content | changes


def write(folder: Path, content: object, name: str = "net.onnx.json") -> Path:
    model = folder / "net.onnx"
    model.write_bytes(b"")
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return model


def test_load_spec_fills_in_dtype_and_origin(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, manifest()))
    assert (spec.input.dtype, spec.origin, spec.labels) == ("float32", DIGEST, None)
    assert spec.input.shape == (3, 8, 6)
    assert spec.input.mean == (0.5, 0.5, 0.5)


def test_input_shape_of_nhwc_puts_channels_last() -> None:
    assert InputSpec(layout="NHWC", height=8, width=6).shape == (8, 6, 3)


def test_load_spec_prefers_the_manifest_named_after_the_whole_file(tmp_path: Path) -> None:
    write(tmp_path, manifest(name="by stem"), "net.json")
    assert load_spec(tmp_path / "net.onnx").name == "by stem"
    write(tmp_path, manifest(name="by file"), "net.onnx.json")
    assert load_spec(tmp_path / "net.onnx").name == "by file"


def test_load_spec_without_manifest_names_the_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no manifest; write net\.onnx\.json"):
        load_spec(tmp_path / "net.onnx")


def test_load_spec_of_absent_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        load_spec(tmp_path / "net.onnx")


def wrong_input(**changes: Any) -> dict[str, Any]:
    return manifest(input=manifest()["input"] | changes)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (manifest(format=2), "format"),
        (manifest(colour="RGB"), "colour: unknown key, remove it"),
        ({k: v for k, v in manifest().items() if k != "sha256"}, "sha256: is missing"),
        (manifest(sha256="AB" * 32), "sha256"),
        (manifest(origin="short"), "origin"),
        (manifest(task="classifier"), "does not go with output kind"),
        (manifest(output={"kind": "logits", "size": 4}), "does not go with output kind"),
        (manifest(output={"kind": "features", "size": 0}), "output.size"),
        (manifest(output={"kind": "features", "size": "4"}), "output.size"),
        (wrong_input(std=[0.25, 0.0, 0.25]), "input.std.1"),
        (wrong_input(std=[0.25, -1, 0.25]), "input.std.1"),
        (wrong_input(mean=[0.5, 0.5]), "input.mean"),
        (wrong_input(height=0), "input.height"),
        (wrong_input(width=100_000), "input.width"),
        (wrong_input(height=True), "input.height"),
        (wrong_input(layout="CHW"), "input.layout"),
        (wrong_input(size=3), "input.size: unknown key"),
        (manifest(labels="../secret.txt"), "in the manifest's own folder"),
        (manifest(labels="/etc/passwd"), "in the manifest's own folder"),
        (manifest(labels="none.txt"), "cannot be read"),
        (manifest(labels_sha256=DIGEST), "labels_sha256 is given but no labels"),
        ([1], "must be a JSON object"),
        ('{"format": 1, "format": 1}', "stands twice"),
        ('{"format": NaN}', "not valid JSON"),
        ("{", "not valid JSON"),
        (" " * ((1 << 20) + 1), "larger than"),
    ],
)
def test_load_spec_refuses_manifest(tmp_path: Path, content: object, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        load_spec(write(tmp_path, content))
    assert caught.value.exit_code == 78
    assert "net.onnx.json" in str(caught.value)


def test_load_spec_names_every_fault_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input\.height.*; extra: unknown key"):
        load_spec(write(tmp_path, wrong_input(height=0) | {"extra": 1}))


def classifier(**changes: Any) -> dict[str, Any]:
    base = manifest(task="classifier", output={"kind": "logits", "size": 3}, labels="names.txt")
    return base | changes


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_load_spec_reads_labels_with_any_line_ending(tmp_path: Path, ending: str) -> None:
    (tmp_path / "names.txt").write_bytes(("\r\n" if ending == "\r\n" else "\n").join("abc").encode() + ending.encode())
    assert load_spec(write(tmp_path, classifier())).labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("names", "changes", "reason"),
    [
        (b"a\nb\n", {}, "2 labels for 3 outputs"),
        (b"a\n\nc\n", {}, "nothing on line 2"),
        (b"a\nb\nc\n", {"labels_sha256": DIGEST}, "fetch it again"),
        (b"\xff\nb\nc\n", {}, "not UTF-8"),
    ],
)
def test_load_spec_refuses_labels(tmp_path: Path, names: bytes, changes: dict[str, Any], reason: str) -> None:
    (tmp_path / "names.txt").write_bytes(names)
    with pytest.raises(ModelError, match=reason):
        load_spec(write(tmp_path, classifier(**changes)))


def test_load_spec_takes_labels_of_the_right_hash(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"a\nb\nc\n")
    digest = hashlib.sha256(b"a\nb\nc\n").hexdigest()
    assert load_spec(write(tmp_path, classifier(labels_sha256=digest))).labels == ("a", "b", "c")


unit = st.floats(-10, 10)
inputs = st.builds(
    InputSpec,
    layout=st.sampled_from(["NCHW", "NHWC"]),
    dtype=st.sampled_from(["float32", "uint8"]),
    height=st.integers(1, 4096),
    width=st.integers(1, 4096),
    color=st.sampled_from(["RGB", "BGR"]),
    resize=st.sampled_from(["stretch", "crop", "letterbox"]),
    mean=st.tuples(unit, unit, unit),
    std=st.tuples(*[st.floats(1e-3, 10)] * 3),
)


@given(given_input=inputs, labels=st.none() | st.just(("a b", "ç", "d,e")))
def test_write_spec_then_load_spec_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, given_input: InputSpec, labels: tuple[str, ...] | None
) -> None:
    folder = tmp_path_factory.mktemp("spec")
    model = folder / "tiny.onnx"
    model.write_bytes(b"x")
    output = OutputSpec(kind="probabilities", size=3)
    spec = networks.spec_of(b"x", task="classifier", input=given_input, output=output, labels=labels, origin=DIGEST)
    first = write_spec(model, spec).read_bytes()
    assert load_spec(model) == spec
    assert write_spec(model, spec).read_bytes() == first


def test_manifest_that_does_not_match_its_digest_is_refused_until_the_digest_is_removed(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"m")
    spec = networks.spec_of(b"m")
    path = write_spec(model, spec)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, indent=None, sort_keys=True))
    assert load_spec(model) == spec
    path.write_text(json.dumps({**content, "name": "another"}))
    with pytest.raises(ModelError, match="digest"):
        load_spec(model)
    path.write_text(json.dumps({**content, "name": "another", "digest": None}))
    assert load_spec(model).name == "another"
