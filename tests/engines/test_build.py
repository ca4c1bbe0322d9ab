"""Plans built on the stand-in device: cache, progress, precisions, and builds that do not come to their end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import ModelError, build, open_engine, tensorrt_build
from engines.build import Plan, Source, Wanted
from engines.errors import BuildStoppedError
from engines.plan_manifest import Profile
from engines.spec import OutputSpec, load_spec, write_spec
from tests.engines import networks

pytestmark = pytest.mark.usefixtures("standin")

ROWS = Profile(min=1, opt=4, max=8)
VERSIONS = ["10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"]


def quiet(fraction: float, phase: str) -> bool:
    return True


def quantised() -> onnx.ModelProto:
    """``networks.graph()`` with a Q/DQ pair at its input, signed and symmetric."""
    model = networks.graph()
    cast = model.graph.node[0]
    cast.input[0] = "dq"
    scale, zero = numpy_helper.from_array(np.float32(0.05), "s"), numpy_helper.from_array(np.int8(0), "z")
    model.graph.initializer.extend([scale, zero])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]))
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]))
    return model


def make(
    folder: Path,
    model: onnx.ModelProto | None = None,
    progress: Callable[[float, str], bool] = quiet,
    **wanted: Any,
) -> Plan:
    source = build.read_source(networks.save(folder, model or networks.graph()))
    return make_from(source, folder / "cache", progress, **wanted)


def make_from(source: Source, cache: Path, progress: Callable[[float, str], bool] = quiet, **wanted: Any) -> Plan:
    section = build.plan_section(source, Wanted(**{"profile": ROWS, **wanted}), build.this_machine())
    return build.build(source, section, cache, progress)


def header_of(plan: Plan) -> dict[str, Any]:
    header: dict[str, Any] = import_module("tensorrt").read_plan(plan.path.read_bytes())[0]
    return header


def test_plan_computes_what_the_network_does(tmp_path: Path) -> None:
    plan = make(tmp_path, precision="fp32")
    batch = np.random.default_rng(0).standard_normal((5, 3, 8, 8), dtype=np.float32)
    with open_engine(tmp_path / "tiny.onnx", "cpu") as network, open_engine(plan.path) as engine:
        np.testing.assert_allclose(engine.infer(batch), network.infer(batch), atol=1e-6)


def test_plan_that_does_not_load_where_it_was_built_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, header: dict[str, Any]) -> None:  # as TensorRT for RTX 1.7 does on an H100
        raise ValueError("The engine cannot run on this GPU, which has compute capability 9.0")

    monkeypatch.setattr(import_module("tensorrt").Runtime, "_refuse", refuse)
    with pytest.raises(ModelError, match=r"has built it and cannot load it here.*compute capability 9\.0"):
        make(tmp_path)
    assert not list((tmp_path / "cache").glob("*.plan"))
    assert make(tmp_path, version_compatible=True).layers() == []  # which this process may not load


def test_manifest_tells_how_the_plan_was_built_and_keeps_the_origin(tmp_path: Path) -> None:
    plan = make(tmp_path)
    spec, network = load_spec(plan.path), load_spec(tmp_path / "tiny.onnx")
    assert spec.plan == plan.section
    assert (spec.plan.tensorrt, spec.plan.gpu, spec.plan.compute_capability) == ("10.3.0", "Orin", "8.7")
    assert (spec.origin, spec.plan.onnx_sha256) == (network.origin, network.sha256)
    assert spec.sha256 == hashlib.sha256(plan.path.read_bytes()).hexdigest()


def test_second_build_is_answered_by_the_cache(tmp_path: Path) -> None:
    first = make(tmp_path)
    second = make(tmp_path, progress=lambda fraction, phase: pytest.fail("nothing is to be built"))
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path


@pytest.mark.parametrize(
    "wanted",
    [
        {"precision": "fp32"},
        {"profile": Profile(min=1, opt=4, max=16)},
        {"workspace_mib": 512},
        {"version_compatible": True},
        {"hardware_compatible": "ampere-plus"},
    ],
)
def test_another_setting_is_another_plan(tmp_path: Path, wanted: dict[str, Any]) -> None:
    assert make(tmp_path).path != make(tmp_path, **wanted).path


@pytest.mark.parametrize(
    ("name", "value"),
    [("gpu", "Thor"), ("tensorrt", "10.7.0"), ("compute_capability", "8.9"), ("multiprocessors", 8), ("memory_gib", 8)],
)
def test_another_machine_is_another_plan(tmp_path: Path, name: str, value: Any) -> None:
    here = make(tmp_path)
    other = replace(build.this_machine(), **{name: value})
    source = build.read_source(tmp_path / "tiny.onnx")
    section = build.plan_section(source, Wanted(ROWS), other)
    assert build.find(source, section, tmp_path / "cache") is None
    assert build.find(source, here.section, tmp_path / "cache") is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"input": networks.spec_of(b"").input.model_copy(update={"mean": (0.5, 0.5, 0.5)})},
        {"input": networks.spec_of(b"").input.model_copy(update={"color": "BGR"})},
        {"origin": "c" * 64},
        {"licence": "MIT"},
        {"task": "classifier", "output": OutputSpec(kind="logits", size=4), "labels": ("a", "b", "c", "d")},
    ],
)
def test_corrected_manifest_is_that_of_the_next_plan(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = make(tmp_path)
    networks.save(tmp_path, networks.graph(), **changes)
    source = build.read_source(tmp_path / "tiny.onnx")
    assert build.find(source, first.section, tmp_path / "cache") is None
    build.place(make_from(source, tmp_path / "cache"), tmp_path / "tiny.plan")
    placed = load_spec(tmp_path / "tiny.plan")
    assert placed == replace(source.spec, sha256=placed.sha256, plan=first.section)


def test_damaged_plan_in_the_cache_is_built_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = make(tmp_path)
    first.path.write_bytes(b"half a plan")
    second = make(tmp_path)
    assert not second.cached
    assert "built anew" in caplog.text
    open_engine(second.path).close()


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    make(tmp_path, progress=lambda fraction, phase: told.append((fraction, phase)) or True)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert (fractions[-1], len(told)) == (1.0, 23)
    assert {phase for _, phase in told} == {"Building Engine", "Computing profile 0"}


def test_timings_are_kept_for_the_next_build(tmp_path: Path) -> None:
    told: list[str] = []
    make(tmp_path)
    make(tmp_path, progress=lambda fraction, phase: told.append(phase) or True, profile=Profile(opt=2, max=2))
    assert len(told) == 5  # two kernels to time instead of twenty


@pytest.mark.parametrize("kept", [b"", b"nonsense", b'{"device": "10.3.0 Thor", "entries": []}'])
def test_timings_of_another_device_or_damaged_ones_are_left_aside(tmp_path: Path, kept: bytes) -> None:
    make(tmp_path)
    (timing,) = (tmp_path / "cache").glob("timing-*")
    timing.write_bytes(kept)
    assert not make(tmp_path, profile=Profile(opt=2, max=2)).cached
    assert b"10.3.0 Orin" in timing.read_bytes()


@pytest.mark.parametrize("ending", ["said no", "interrupted"])
def test_stopped_build_leaves_nothing(tmp_path: Path, ending: str) -> None:
    def stop(fraction: float, phase: str) -> bool:
        if fraction > 0.5 and ending == "interrupted":
            raise KeyboardInterrupt
        return fraction < 0.5

    with pytest.raises(BuildStoppedError, match="nothing was written"):
        make(tmp_path, progress=stop)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_write_that_fails_leaves_the_old_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(tmp_path)
    build.place(plan, tmp_path / "tiny.plan")
    kept = (tmp_path / "tiny.plan").read_bytes()

    def full_disk(source: object, target: object) -> None:
        Path(str(target)).write_bytes(kept[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full_disk)
    monkeypatch.setattr("shutil.copyfile", full_disk)
    with pytest.raises(ModelError, match="cannot be written: No space left"):
        build.place(plan, tmp_path / "tiny.plan")
    assert (tmp_path / "tiny.plan").read_bytes() == kept
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_precision_in_every_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, precision: str
) -> None:
    monkeypatch.setattr(import_module("standin_device"), "TENSORRT", version)
    if (version, precision) == (VERSIONS[-1], "bf16"):  # ONNX Runtime, in which the stand-in's plans run, has no bf16
        monkeypatch.setattr(tensorrt_build, "_layers", lambda plan, section: [])
    plan = make(tmp_path, quantised() if precision == "int8" else None, precision=precision)
    assert header_of(plan)["precision"] == precision


@pytest.mark.parametrize(("version", "told"), [("10.16.1.11", False), ("11.4.0.106", True)])
def test_int8_that_leaves_the_rest_in_float32_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str, told: bool
) -> None:
    monkeypatch.setattr(import_module("standin_device"), "TENSORRT", version)
    make(tmp_path, quantised())
    assert ("stays in float32" in caplog.text) is told


def test_batch_profile_reaches_the_plan(tmp_path: Path) -> None:
    assert header_of(make(tmp_path))["profiles"] == [{"x": [[1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]}]


def test_auto_is_int8_for_a_quantised_network_and_else_fp16(tmp_path: Path) -> None:
    assert make(tmp_path).section.precision == "fp16"
    assert make(tmp_path, quantised()).section.precision == "int8"


def test_pixels_stay_pixels_at_the_input(tmp_path: Path) -> None:
    pixels = networks.save(
        tmp_path,
        networks.graph(element=TensorProto.UINT8),
        input=load_spec(networks.save(tmp_path, networks.graph())).input.model_copy(update={"dtype": "uint8"}),
    )
    plan = make_from(build.read_source(pixels), tmp_path / "cache")
    with open_engine(plan.path) as engine:
        assert engine.infer(np.full((2, 3, 8, 8), 7, np.uint8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("model", "wanted", "words"),
    [
        (networks.graph, {"precision": "int8"}, "int8 needs a network with Q/DQ nodes"),
        (quantised, {"precision": "fp16"}, "write --precision int8"),
        (networks.graph, {"dla": 0}, "DLA core 0 was asked for, and TensorRT 10.3.0 finds 0"),
        (networks.graph, {"hardware_compatible": "same-compute-capability"}, "leave it out, or write ampere-plus"),
        (lambda: networks.graph(input_shape=(1, 3, 8, 8)), {}, "export the model with a free first dimension"),
        (lambda: networks.graph(input_shape=("n", 3, "h", 8)), {}, "export the model with a free first dimension"),
        (lambda: networks.graph(extra_output=True), {}, "expected one input and one output"),
    ],
)
def test_what_cannot_be_built_is_refused(
    tmp_path: Path, model: Callable[[], onnx.ModelProto], wanted: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as refusal:
        make(tmp_path, model(), **wanted)
    assert refusal.value.exit_code == 78
    assert not list((tmp_path / "cache").glob("*.plan"))


def test_parser_and_builder_are_quoted_when_they_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = networks.graph()
    broken.graph.node[2].input[0] = "nobody"
    with pytest.raises(ModelError, match=r"TensorRT cannot read this network: .*nobody"):
        make(tmp_path, broken)
    section = make(tmp_path).section.model_copy(update={"profile": Profile(opt=1, max=2)})
    source = build.read_source(tmp_path / "tiny.onnx")
    monkeypatch.setattr(import_module("tensorrt._builder"), "_SMALLEST_WORKSPACE", 1 << 40)
    with pytest.raises(ModelError, match=r"cannot build it: .*insufficient workspace"):
        build.build(source, section, tmp_path / "cache", quiet)


def test_dla_and_compatibility_reach_the_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tensorrt._builder"), "_DLA_CORES", 2)
    header = header_of(make(tmp_path, dla=1, version_compatible=True, hardware_compatible="ampere-plus"))
    assert header["dla"] == 1
    assert header["hardware_compatible"]
    assert (header["version_compatible"], header["host_code"]) == (True, False)  # a plan is never code


@pytest.mark.parametrize("name", ["tiny.plan", "tiny"])
def test_only_onnx_is_built(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"built from an \.onnx file"):
        build.read_source(tmp_path / name)


def test_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    networks.save(tmp_path, networks.graph())
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ModelError, match="--cache or PARROTGATE_CACHE"):
        make(tmp_path)


# Field of the manifest -> a value that is not the plan's, and what the refusal must say.
MISMATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "onnx_sha256": ({"onnx_sha256": "b" * 64}, "tiny.onnx beside it has changed since"),
    "tensorrt": ({"tensorrt": "10.7.0"}, "built with TensorRT 10.7.0, and here is 10.3.0"),
    "gpu": ({"gpu": "NVIDIA L4"}, "built on NVIDIA L4, and this is Orin"),
    "compute_capability": ({"compute_capability": "8.9"}, "compute capability 8.9, and Orin has 8.7"),
    "multiprocessors": ({"multiprocessors": 8}, "on another Orin, with 8 multiprocessors, and this one has 16"),
    "memory_gib": ({"memory_gib": 8}, "on another Orin, with 8 GiB, and this one has 64"),
    "precision": ({"precision": "int8"}, "precision int8, the plan itself was built with fp16"),
    "profile.min": ({"profile": Profile(min=2, opt=4, max=8)}, "smallest batch 2, the plan itself was built with 1"),
    "profile.opt": ({"profile": Profile(min=1, opt=2, max=8)}, "best batch 2, the plan itself was built with 4"),
    "profile.max": ({"profile": Profile(min=1, opt=4, max=32)}, "largest batch 32, the plan itself was built with 8"),
    "workspace_mib": ({"workspace_mib": 512}, "workspace in MiB 512, the plan itself was built with 1024"),
    "dla": ({"dla": 1}, "DLA core 1, the plan itself was built with None"),
    "version_compatible": ({"version_compatible": True}, "version-compatible True, the plan itself"),
    "hardware_compatible": ({"hardware_compatible": "ampere-plus"}, "hardware-compatible ampere-plus, the plan itself"),
}


@pytest.mark.parametrize("field", MISMATCHES)
def test_opening_a_plan_whose_manifest_speaks_of_another_is_refused_with_the_rebuild_command(
    tmp_path: Path, field: str
) -> None:
    changes, words = MISMATCHES[field]
    path = tmp_path / "tiny.plan"
    build.place(make(tmp_path), path)
    spec = load_spec(path)
    assert spec.plan is not None
    write_spec(path, replace(spec, plan=spec.plan.model_copy(update=changes)))
    with pytest.raises(ModelError) as refusal:
        open_engine(path)
    assert words in str(refusal.value)
    assert f"rebuild it here: engines build {tmp_path / 'tiny.onnx'} --precision" in str(refusal.value)
    assert refusal.value.exit_code == 78
