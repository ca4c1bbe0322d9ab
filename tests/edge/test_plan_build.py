"""``build: auto`` of both engines on the stand-in device: the first start builds, the next ones do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.check import Finding, check
from edge.config_file import load_config
from edge.errors import ConfigError
from edge.plan_build import ROLES, logged, planned, ready_plan
from engines import EngineRunError, ModelError
from tests import standin
from tests.edge.worker_process import MODELS, WorkerProcess, demo_config, wait_for
from tests.mosquitto import Broker, free_port

AUTO = {"model": str(MODELS / "features.onnx"), "build": "auto"}
SPECIES = {"model": str(MODELS / "species.onnx"), "build": "auto"}


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a process on the stand-in device with a cache of its own, for this process's children too."""
    settings = standin.environment(PARROTGATE_CACHE=str(tmp_path / "cache"))
    own = {name: settings[name] for name in ("PYTHONPATH", "PARROTGATE_CACHE")}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return own


@pytest.fixture
def worker(mosquitto: Broker, tmp_path: Path, surroundings: dict[str, str]) -> Iterator[WorkerProcess]:
    """A worker that is to build for two seconds; not started."""
    config = demo_config(mosquitto.url, worker=tmp_path.name.replace("_", "-")[:60], features=AUTO)
    process = WorkerProcess(tmp_path, config, {**surroundings, "STANDIN_BUILD_S": "2"})
    yield process
    if process.is_running():
        process.kill()


def plans(folder: Path) -> list[Path]:
    return list((folder / "cache" / "plans").glob("*.plan"))


def test_first_start_builds_and_tells_how_far_it_is_and_the_second_does_not(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    worker.start()
    assert wait_for(lambda: _while_building(worker), 60, "readiness that tells of the build") == 503
    assert worker.get("/healthz")[0] == 200
    worker.wait_ready()
    log = worker.log.read_text()
    assert "building a plan of features.onnx for Orin with TensorRT 10.3.0: fp16, batches of 1 to 8" in log
    assert log.count("building the features engine: ") in range(5, 13)
    assert len(plans(tmp_path)) == 1
    assert worker.terminate() == 0
    worker.log.write_text("")
    worker.start().wait_ready()
    assert "building" not in worker.log.read_text()
    assert "TensorRT 10.3.0 on Orin" in worker.log.read_text()


def _while_building(worker: WorkerProcess, role: str = "features") -> int | None:
    code, said = worker.get("/readyz")
    return code if f"building the {role} engine" in said else None


def test_worker_stopped_while_it_builds_ends_with_0_and_leaves_no_plan(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.start()
    wait_for(lambda: "building the features engine" in worker.log.read_text(), 60, "the build")
    assert worker.terminate() == 0
    assert "stopped while the engine was being built" in worker.log.read_text()
    assert not plans(tmp_path)


def configuration(folder: Path, **features: Any) -> Path:
    path = folder / "edge.yaml"
    config = demo_config(f"mqtt://127.0.0.1:{free_port()}", features={**AUTO, **features})
    path.write_text(yaml.safe_dump(config))
    return path


def findings(path: Path) -> dict[str, Finding]:
    return {finding.stage: finding for finding in check(path, {})}


@pytest.mark.usefixtures("standin")
def test_check_says_what_would_be_built_and_tries_it_once_it_is(tmp_path: Path, surroundings: dict[str, str]) -> None:
    path = configuration(tmp_path)
    before = findings(path)
    assert before["build"].warning
    assert "edge run builds a plan first" in before["build"].sentence
    assert "features.onnx for Orin with TensorRT 10.3.0: fp16, batches of 1 to 8" in before["build"].sentence
    assert (before["features"].exit_code, plans(tmp_path)) == (0, [])
    ready_plan(load_config(path, {}), "features", logged(lambda sentence: None, lambda: True))
    after = findings(path)
    assert "build" not in after
    assert "loads in a child process" in after["plan"].sentence
    assert "on cuda" in after["features"].sentence


@pytest.mark.usefixtures("standin")
def test_plan_is_for_the_largest_batch_of_the_configuration(tmp_path: Path, surroundings: dict[str, str]) -> None:
    wanted = planned(load_config(configuration(tmp_path), {"EDGE_BATCH__MAX": "3"}), "features")
    assert wanted is not None
    assert (wanted.section.profile.opt, wanted.section.profile.max) == (3, 3)


def test_box_without_tensorrt_runs_on_without_a_plan_unless_cuda_is_demanded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert ready_plan(load_config(configuration(tmp_path), {}), "features", None) is None
    assert "slower than it could be: no plan is built here" in caplog.text
    with pytest.raises(ModelError, match="TensorRT cannot be used here"):
        planned(load_config(configuration(tmp_path, device="cuda"), {}), "features")


def test_full_gpu_leaves_the_worker_without_a_plan_unless_cuda_is_demanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise EngineRunError("the GPU is out of memory")

    monkeypatch.setattr("edge.plan_build.this_machine", full)
    assert planned(load_config(configuration(tmp_path), {}), "features") is None
    assert "no plan is built here for features.onnx: the GPU is out of memory" in caplog.text
    with pytest.raises(EngineRunError):
        planned(load_config(configuration(tmp_path, device="cuda"), {}), "features")


def test_pinned_file_must_be_the_one_that_is_built(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the configuration pins"):
        planned(load_config(configuration(tmp_path, sha256="0" * 64), {}), "features")


@pytest.mark.parametrize(
    ("features", "words"),
    [({"model": "x.plan"}, r"needs an \.onnx file"), ({"device": "cpu"}, "needs a GPU")],
)
def test_what_cannot_be_built_is_a_fault_of_the_configuration(
    tmp_path: Path, features: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(configuration(tmp_path, **features), {})


def test_species_engine_is_built_at_the_first_start_too(worker: WorkerProcess, tmp_path: Path) -> None:
    config = yaml.safe_load(worker.config.read_text())
    worker.config.write_text(yaml.safe_dump({**config, "species": SPECIES}))
    worker.start()
    assert wait_for(lambda: _while_building(worker, "species"), 60, "readiness that tells of the second build") == 503
    worker.wait_ready(90)
    log = worker.log.read_text()
    assert "building a plan of species.onnx for Orin with TensorRT 10.3.0: fp16, batches of 1 to 8" in log
    assert [log.count(f"building the {role} engine: ") in range(5, 13) for role in ("features", "species")] == [
        True
    ] * 2
    assert (
        log.index("building the features engine") < log.index("building the species engine") < log.index("opened model")
    )
    assert len(plans(tmp_path)) == 2
    assert worker.terminate() == 0
    worker.log.write_text("")
    worker.start().wait_ready(90)
    log = worker.log.read_text()
    assert "building" not in log
    assert log.count("TensorRT 10.3.0 on Orin") == 2


@pytest.mark.usefixtures("standin")
def test_check_says_what_would_be_built_of_either_engine(tmp_path: Path, surroundings: dict[str, str]) -> None:
    path = configuration(tmp_path)
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "species": SPECIES}))
    found = [finding for finding in check(path, {}) if finding.stage == "build"]
    assert [one.warning for one in found] == [True, True]
    assert "species.onnx for Orin" in found[1].sentence
    read = load_config(path, {})
    for role in ROLES:
        ready_plan(read, role, logged(lambda sentence: None, lambda: True))
    after = [finding for finding in check(path, {}) if finding.stage in ("build", "plan")]
    assert [(one.stage, one.exit_code) for one in after] == [("plan", 0), ("plan", 0)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"species": {"model": "x.plan", "build": "auto"}}, r"species\.build.*needs an \.onnx file"),
        ({"species": SPECIES, "features": {"model": "x.onnx", "device": "cpu"}}, r"species\.build.*needs a GPU"),
    ],
)
def test_species_that_cannot_be_built_are_a_fault_of_the_configuration(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump({**demo_config("mqtt://127.0.0.1:1"), **changes}))
    with pytest.raises(ConfigError, match=words):
        load_config(path, {})
