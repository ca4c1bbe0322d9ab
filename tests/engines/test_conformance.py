"""Every name of TensorRT and pycuda that ``engines/`` uses, held against what their releases really offer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.engines.conformance import check, fetch, pycuda_fetch
from tests.engines.conformance.golden import load

KINDS = ("tensorrt", "pycuda")


def test_golden_files_cover_the_versions_of_jetpack_6_to_the_newest() -> None:
    assert list(load("tensorrt")) == ["10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"]
    assert list(load("pycuda")) == ["2026.1"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_use_exists_in_every_version_or_stands_behind_a_capability_check(kind: str) -> None:
    found, apis = check.examine(kind)
    assert len(found.uses) > 20
    assert check.faults(found, apis) == []


def test_every_capability_check_goes_both_ways() -> None:
    answers = check.capabilities(*check.examine("tensorrt"))
    assert answers
    assert {name for name, told in answers.items() if set(told.values()) != {True, False}} == set()


# Planted faults: what stands in a file of ours, what is put in its place, and what the suite must say.
PLANTED = [
    ("tensorrt", "tensorrt_build.py", ".build_serialized_network(", ".build_serialised_network(", "no such method"),
    ("tensorrt", "tensorrt_build.py", "config.set_memory_pool_limit(", "config.set_memory_pool_limit(0, ", "3 arg"),
    ("tensorrt", "tensorrt_build.py", "ignore_mismatch=", "ignore_mismatches=", "ignore_mismatches"),
    ("tensorrt", "tensorrt_build.py", 'if has("BuilderFlag.FP16"):', "if section:", "BuilderFlag.FP16: no such member"),
    ("tensorrt", "tensorrt_build.py", "config.progress_monitor = ", "config.progress = ", "cannot be assigned"),
    ("tensorrt", "tensorrt_runtime.py", ".execute_async_v3(", ".execute_async_v4(", "no such method"),
    ("tensorrt", "tensorrt_runtime.py", ".device_memory_size_v2", ".device_memory_size", "no such member in 11.4"),
    ("pycuda", "cuda.py", ".retain_primary_context(", ".make_primary_context(", "no such method"),
    ("pycuda", "cuda.py", "mem_flags=flags", "flags=flags", "does not take"),
]


@pytest.mark.parametrize(("kind", "file", "right", "wrong", "told"), PLANTED)
def test_planted_fault_turns_the_suite_red(kind: str, file: str, right: str, wrong: str, told: str) -> None:
    sources = check.sources(kind)
    assert right in sources[file]
    sources[file] = sources[file].replace(right, wrong)
    assert [sentence for sentence in check.faults(*check.examine(kind, sources)) if told in sentence]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("trt.Builder(logger()).create_networks()", "no such method"),
        ("trt.BuilderFlag.FP17", "no such member"),
        ("trt.Bilder(logger())", "no class Bilder"),
        ("trt.voluminous", "no such name"),
        ("getattr(trt, 'Builder')", "hides a name"),
        ("whatever.set_tensor_address('x', 1)", "annotate what it belongs to"),
        ("trt.Builder(logger()).max_threads", None),
        ("trt.OnnxParser(trt.Builder(logger()).create_network(), logger()).parse(b'', path='x')", None),
    ],
)
def test_suite_sees_what_a_line_does(body: str, told: str | None) -> None:
    text = f"import tensorrt as trt\n\ndef f(whatever):\n    return {body}\n"
    faults = check.faults(*check.examine("tensorrt", {"tensorrt_x.py": text}))
    assert [fault for fault in faults if told is not None and told in fault] if told else not faults


def test_table_shows_versions_by_calls() -> None:
    shown = check.table("tensorrt")
    assert [column.header for column in shown.columns] == ["use", *load("tensorrt")]
    assert shown.row_count > 20


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.timeout(600)
def test_golden_files_are_what_the_bindings_say() -> None:
    for version in fetch.PACKAGES:
        assert json.loads(fetch.golden_path(version).read_text()) == fetch.members_of(version)


# Logger and progress monitor are classes of ours under classes of theirs, called by theirs.
SUBCLASSES = """
import sys, tensorrt_bindings as trt
sys.modules["tensorrt"] = trt
from engines.tensorrt_api import complaint, has, logger
from engines.tensorrt_build import _monitor, is_strongly_typed, tensorrt_version
trt.ILogger.log(logger(), trt.ILogger.ERROR, "told")
assert complaint() == "told"
seen = []
monitor = _monitor(lambda fraction, phase: seen.append((fraction, phase)) or fraction < 1)
base = trt.IProgressMonitor
base.phase_start(monitor, "build", None, 2)
assert base.step_complete(monitor, "build", 0) is True
assert base.step_complete(monitor, "build", 1) is False
base.phase_finish(monitor, "build")
assert seen == [(0.5, "build"), (1.0, "build")] and monitor.stopped
print(tensorrt_version(), is_strongly_typed())
"""


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.timeout(600)
def test_real_bindings_call_our_logger_and_our_progress_monitor() -> None:
    typed = {version: version.startswith("11.") for version in fetch.PACKAGES}
    for version, is_typed in typed.items():
        assert fetch.run_with(version, SUBCLASSES).split() == [version, str(is_typed)]


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.timeout(1500)
def test_golden_file_is_what_pycuda_says(tmp_path: Path) -> None:
    assert json.loads(pycuda_fetch.PATH.read_text()) == pycuda_fetch.members()
