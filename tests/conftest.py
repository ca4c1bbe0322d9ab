"""What the tests of every room share: the given networks and photos, real brokers, and an honest closing count."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import mosquitto as brokers
from tests import standin as standin_gpu
from tests.authority import Authority
from tests.embedded import Embedded
from tests.mosquitto import Broker

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PARROTGATE_SHARED") or ROOT.parent / "shared")
REQUIRE_MOSQUITTO = os.environ.get("PARROTGATE_REQUIRE_MOSQUITTO") == "1"
REQUIRE_GPU = os.environ.get("PARROTGATE_REQUIRE_GPU") == "1"
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/nvhost-gpu")  # a card's driver, and two generations of Jetson
TORCH = ("torchvision", "timm")
BROKER_FIXTURES = {"mosquitto", "broker_with"}

settings.register_profile("busy", deadline=None)  # 200 ms for an example say nothing on a machine that is shared
settings.load_profile("busy")

# Group -> what is missing, and how to have it.
LEFT_OUT = {
    "mosquitto": "mosquitto and its clients are not installed: `apt-get install mosquitto mosquitto-clients`",
    "shared": f"the real networks and photos are not in {SHARED}: set PARROTGATE_SHARED",
    "tflite": "LiteRT is not installed: `pip install 'parrotgate[tflite]'`",
    "gpu": "no NVIDIA GPU here: tests/gpu/run.sh on a machine that has one",
    "timm": "torch or timm is not installed: `pip install 'parrotgate[export]'`",
    "torchvision": "torch or torchvision is not installed: `pip install 'parrotgate[export]'`",
    "soak": "takes minutes: `make soak`",
    "browser": "needs chromium: `make browser`",
}
# The files that take longest, which would else come last as they hold few tests, and leave one process to run alone.
LONG = (
    *("edge/test_worker.py", "edge/test_worker_gpu.py", "edge/test_commands.py", "edge/test_faults.py"),
    *("edge/test_isolated.py", "edge/test_access.py", "edge/test_life.py", "edge/test_plan_build.py"),
    *("edge/test_chaos.py", "edge/test_delivery_model.py", "engines/test_build_command.py", "edge/test_watchdog.py"),
)
left_out: Counter[str] = Counter()  # skipped as they came
deselected: Counter[str] = Counter()  # every process collects, and so counts, them all


def is_missing(group: str) -> bool:
    """Whether this machine lacks what the group needs."""
    missing = {
        "mosquitto": brokers.MOSQUITTO is None,
        "shared": not SHARED.is_dir(),
        "tflite": find_spec("ai_edge_litert") is None,
        "gpu": not REQUIRE_GPU and not any(Path(device).exists() for device in GPU_DEVICES),
        **{name: find_spec("torch") is None or find_spec(name) is None for name in TORCH},
    }
    return missing.get(group, False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, and leave soak and browser out unless ``-m`` names them."""
    chosen = config.getoption("markexpr")
    kept, dropped = [], []
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & BROKER_FIXTURES:
            item.add_marker("mosquitto")
        if "shared" in names:
            item.add_marker("shared")
        slow = [group for group in ("soak", "browser") if item.get_closest_marker(group) and group not in chosen]
        deselected.update(slow[:1])
        (dropped if slow else kept).append(item)
    items[:] = sorted(kept, key=_place)
    config.hook.pytest_deselected(items=dropped)


def _place(item: pytest.Item) -> int:
    name = item.nodeid.partition("::")[0].removeprefix("tests/")
    return LONG.index(name) if name in LONG else len(LONG)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, by name, what cannot run here; a machine that promised mosquitto must have it."""
    for group in ("mosquitto", "shared", "tflite", "gpu", *TORCH):
        if item.get_closest_marker(group) is None or not is_missing(group):
            continue
        if group == "mosquitto" and REQUIRE_MOSQUITTO:
            pytest.fail(f"PARROTGATE_REQUIRE_MOSQUITTO=1, but {LEFT_OUT[group]}", pytrace=False)
        left_out[group] += 1
        pytest.skip(LEFT_OUT[group])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand this process's counts to the one that sums up, where tests run in several."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"], output["deselected"] = dict(left_out), dict(deselected)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the counts of a process that has ended."""
    output = getattr(node, "workeroutput", {})
    left_out.update(output.get("left_out", {}))
    deselected.update(Counter(output.get("deselected", {})) - deselected)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name and count every group that was left out."""
    found = left_out + deselected
    if found:
        terminalreporter.section("left out")
    for group, count in sorted(found.items()):
        terminalreporter.line(f"{group}: {count} test{'s' if count != 1 else ''}; {LEFT_OUT[group]}")


@pytest.fixture(autouse=True)
def _engines_log() -> None:
    """As a worker has it; ``calibrate`` raises the level for the rest of its process, here the tests that follow."""
    logging.getLogger("engines").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the real networks and photos; its tests are skipped where it is not."""
    return SHARED


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``import tensorrt`` and ``import pycuda.driver`` meet the stand-in device until the test ends."""
    standin_gpu.put_in_place(monkeypatch)
    yield
    standin_gpu.forget()


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    return brokers.free_port()


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the whole run: use topics of your own, and leave it running."""
    broker = Broker(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    """The demo's own broker for the whole run."""
    broker = Embedded()
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def broker(request: pytest.FixtureRequest) -> Broker | Embedded:
    """Both brokers in turn: the embedded one everywhere, mosquitto where it is installed. ``version`` is its best."""
    running: Broker | Embedded = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def broker_with(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Starts a broker of this test's own: ``broker_with("listener lines", …)``."""
    started: list[Broker] = []

    def start(*lines: str) -> Broker:
        broker = Broker(tmp_path / f"mosquitto-{len(started)}", lines)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A throw-away certificate authority."""
    return Authority(tmp_path_factory.mktemp("authority"))
