"""``engines build``, ``info`` and ``bench`` as a user starts them, on the stand-in device."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines import UsageError, build_command
from engines.spec import load_spec
from tests import standin
from tests.engines import convolutions, networks

ENGINES = [sys.executable, "-m", "engines"]
# The same where neither TensorRT nor pycuda is installed.
_BARE = "import sys; sys.modules |= {'tensorrt': None, 'pycuda': None}; from engines.__main__ import main; main()"
WITHOUT_TENSORRT = [sys.executable, "-c", _BARE]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return networks.save(tmp_path, networks.graph())


def environment(folder: Path, **settings: str) -> dict[str, str]:
    return standin.environment(PARROTGATE_CACHE=str(folder / "cache"), **settings)


def engines(tiny: Path, *words: object, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [*ENGINES, *map(str, words)]
    own = environment(tiny.parent, **settings)
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=60)


def test_build_info_and_bench_follow_each_other(tiny: Path) -> None:
    built = json.loads(engines(tiny, "build", tiny, "--layers", "--json").stdout)
    again = engines(tiny, "build", tiny, "--layers")
    assert "nothing was built: the cache held this plan" in again.stderr
    assert "Orin (compute capability 8.7, 16 SMs, 64 GiB), TensorRT 10.3.0" in again.stdout
    assert "MatMul" in again.stdout
    assert (built["gpu"], built["precision"], len(built["layers"])) == ("Orin", "fp16", 3)
    plan = tiny.with_suffix(".plan")
    assert built["plan"] == str(plan)
    shown = engines(tiny, "info", plan)
    assert "TensorRT 10.3.0" in shown.stdout
    assert "1 to 16 rows" in shown.stdout
    rows = json.loads(engines(tiny, "bench", plan, "--batch", "1,8", "--seconds", 0.2, "--json").stdout)
    assert (rows["device"], [row["batch"] for row in rows["batches"]]) == ("cuda", [1, 8])


def test_terminal_sees_a_bar(tiny: Path) -> None:
    ours, theirs = pty.openpty()
    own = environment(tiny.parent, STANDIN_BUILD_S="0.4")
    with subprocess.Popen([*ENGINES, "build", str(tiny)], env=own, stdout=subprocess.DEVNULL, stderr=theirs) as child:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
        assert child.wait(30) == 0
    os.close(ours)
    assert b"building tiny fp16" in seen
    assert b"Computing profile 0" in seen


def _read(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError:  # the other end is closed
        return b""


def test_rebuild_command_of_a_refusal_mends_what_was_refused(tiny: Path) -> None:
    engines(tiny, "build", tiny, "--batch", "1,2,4")
    plan = tiny.with_suffix(".plan")
    refused = engines(tiny, "info", plan, STANDIN_GPU="Thor")
    assert refused.returncode == 78
    sentence, _, command = refused.stderr.strip().partition("; rebuild it here: engines ")
    assert sentence == f"engines: {plan}: the plan was built on Orin, and this is Thor"
    assert engines(tiny, *shlex.split(command), STANDIN_GPU="Thor").returncode == 0
    assert engines(tiny, "info", plan, STANDIN_GPU="Thor").returncode == 0
    section = load_spec(plan).plan
    assert section is not None
    assert (section.gpu, section.profile.max) == ("Thor", 4)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGKILL, -9)])
def test_interrupted_build_leaves_no_plan_and_the_next_one_succeeds(tiny: Path, number: int, code: int) -> None:
    own = environment(tiny.parent, STANDIN_BUILD_S="30")
    command = [*ENGINES, "build", str(tiny)]
    with subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        lock = tiny.parent / "cache" / "plans" / ".lock"
        deadline = time.monotonic() + 30
        while not lock.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        child.send_signal(number)
        said = child.communicate(timeout=30)[1]
    assert child.returncode == code
    assert "Traceback" not in said
    assert not list(tiny.parent.rglob("*.plan*"))
    (lock.parent / ".old.plan.123.part").write_bytes(b"what a kill leaves")
    assert engines(tiny, "build", tiny).returncode == 0
    assert not list(lock.parent.glob(".*.part"))


def test_two_processes_build_one_plan_once(tiny: Path) -> None:
    own = environment(tiny.parent, STANDIN_BUILD_S="1")
    command = [*ENGINES, "build", str(tiny), "--json"]
    children = [subprocess.Popen(command, env=own, stdout=subprocess.PIPE) for _ in range(2)]
    reports = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    assert sorted(report["cached"] for report in reports) == [False, True]


@pytest.mark.parametrize("text", ["8", "8,4,1", "1,x,2", "0,1,2", ""])
def test_batch_wants_three_rising_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="--batch wants three rising numbers"):
        build_command._profile(text)


def test_senseless_words_end_with_2(tiny: Path) -> None:
    ended = engines(tiny, "build", tiny, "--precision", "fp8")
    assert ended.returncode == 2
    assert "--precision should be one of auto, fp32, fp16, bf16, int8, not 'fp8'" in ended.stderr


def test_machine_without_tensorrt_is_told_what_to_install(tiny: Path) -> None:
    command = [*WITHOUT_TENSORRT, "build", str(tiny)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 78
    assert "parrotgate[tensorrt]" in ended.stderr


def test_pixels_as_input_are_fused_before_the_plan_is_built(tmp_path: Path) -> None:
    model = convolutions.save(tmp_path)
    (tmp_path / "plans").mkdir()
    built = json.loads(engines(model, "build", model, "--input", "uint8", "--json").stdout)
    assert built["plan"] == str(tmp_path / "tiny.uint8.plan")
    plan, plain = load_spec(Path(built["plan"])), load_spec(model)
    assert (plan.input.dtype, plan.input.layout, plan.origin) == ("uint8", "NHWC", plain.sha256)
    assert plan.plan is not None
    assert plan.plan.onnx_sha256 == load_spec(tmp_path / "tiny.uint8.onnx").sha256
    named = engines(model, "build", model, "--input", "uint8", "--out", tmp_path / "plans" / "own.plan")
    assert named.returncode == 0, named.stderr
    assert (tmp_path / "plans" / "own.onnx").is_file()
    assert engines(model, "build", model, "--input", "int4").returncode == 2


def test_fused_form_replaces_itself_and_no_other_model(tmp_path: Path) -> None:
    model = convolutions.save(tmp_path)
    (tmp_path / "plans").mkdir()
    theirs = networks.save(tmp_path / "plans", networks.graph())
    kept = [path.read_bytes() for path in (theirs, theirs.with_name("tiny.onnx.json"))]
    refused = engines(model, "build", model, "--input", "uint8", "--out", tmp_path / "plans" / "tiny.plan")
    assert (refused.returncode, f"{theirs}: is there, and not as the uint8 form of" in refused.stderr) == (2, True)
    assert [path.read_bytes() for path in (theirs, theirs.with_name("tiny.onnx.json"))] == kept
    for _ in range(2):
        assert engines(model, "build", model, "--input", "uint8").returncode == 0


def test_nothing_is_fused_where_nothing_can_be_built(tmp_path: Path) -> None:
    model = convolutions.save(tmp_path)
    command = [*WITHOUT_TENSORRT, "build", str(model), "--input", "uint8"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 78
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx", "tiny.onnx.json"]
