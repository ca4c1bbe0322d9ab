"""The shipped broker configuration, in a real mosquitto: who may do what, and what survives."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.mosquitto import Broker
from tests.shipped_broker import DEPLOY, PASSWORDS, ShippedBroker, settings

pytestmark = pytest.mark.mosquitto
REFUSED = 5  # the exit code of mosquitto's clients for "not authorised", MQTT 3.1.1
MIB = 1 << 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ShippedBroker]:
    running = ShippedBroker(tmp_path / "broker")
    running.start()
    yield running
    running.kill()


def client(broker: ShippedBroker, program: str, *words: str, user: str | None = None) -> list[str]:
    who = [] if user is None else ["-u", user, "-P", PASSWORDS.get(user, "wrong")]
    return [f"mosquitto_{program}", "-h", "127.0.0.1", "-p", str(broker.port), *who, *words]


def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, capture_output=True, timeout=20, check=False)


def publish(broker: ShippedBroker, user: str | None, topic: str, payload: bytes = b"frame") -> tuple[int, str]:
    """Exit code and words of an MQTT 5 publisher, which is told when it may not."""
    done = run(*client(broker, "pub", "-V", "5", "-q", "1", "-t", topic, "-s", user=user), stdin=payload)
    return done.returncode, done.stderr.decode()


def wait_for_session(broker: ShippedBroker, user: str, client_id: str, topic: str) -> None:
    """Leave a session with a subscription behind."""
    words = ("-V", "5", "-c", "-x", "3600", "-i", client_id, "-q", "1", "-t", topic, "-E")
    assert run(*client(broker, "sub", *words, user=user)).returncode == 0


def fetch(broker: ShippedBroker, user: str, client_id: str, topic: str, count: int) -> list[bytes]:
    """What a session's queue holds, at most ``count`` messages within three seconds."""
    words = ("-V", "5", "-c", "-x", "3600", "-i", client_id, "-q", "1", "-t", topic, "-C", str(count), "-W", "3")
    return run(*client(broker, "sub", *words, user=user)).stdout.split()


@pytest.mark.parametrize("user", [None, "stranger"])
def test_nobody_comes_in_without_a_password(broker: ShippedBroker, user: str | None) -> None:
    done = run(*client(broker, "sub", "-V", "311", "-t", "#", "-E", user=user))
    assert done.returncode == REFUSED
    assert publish(broker, user, "cameras/feeder/frame")[0] != 0


def test_health_check_tells_a_sound_broker_from_an_open_and_from_a_dead_one(broker: ShippedBroker) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    kind, script = services["broker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    check = ["sh", "-c", script.replace("$$", "$").replace("mosquitto_sub", f"mosquitto_sub -p {broker.port}")]
    assert run(*check).returncode == 0
    os.kill(broker.pid, signal.SIGSTOP)
    assert run(*check).returncode != 0
    broker.kill()
    assert run(*check).returncode != 0
    opened = Broker(broker.folder / "open")
    opened.start()
    assert run(*[word.replace(str(broker.port), str(opened.port)) for word in check]).returncode != 0
    opened.kill()


@pytest.mark.parametrize(
    ("user", "topic", "allowed"),
    [
        ("feeder", "cameras/feeder/frame", True),
        ("feeder", "cameras/garden/frame", False),
        ("feeder", "cameras/feeder/verdict", False),
        ("feeder", "edge/box-1/desired", False),
        ("worker", "cameras/feeder/verdict", True),
        ("feeder", "cameras/_canary-box-1/frame", False),
        ("worker", "cameras/_canary-box-1/frame", True),
        ("worker", "edge/box-1/status", True),
        ("viewer", "cameras/feeder/frame", False),
        ("viewer", "cameras/viewer/frame", False),
        ("viewer", "cameras/_canary-box-1/frame", False),
        ("viewer", "cameras/feeder/verdict", False),
        ("viewer", "edge/box-1/desired", False),
    ],
)
def test_each_user_publishes_only_what_is_its_own(broker: ShippedBroker, user: str, topic: str, allowed: bool) -> None:
    _, words = publish(broker, user, topic)
    assert ("Not authorized" not in words) is allowed


@pytest.mark.parametrize("user", ["feeder", "viewer"])
def test_nobody_else_sends_the_canary_whatever_the_client_id(broker: ShippedBroker, user: str) -> None:
    canary = ("-V", "5", "-q", "1", "-m", "x", "-t", "cameras/_canary-box-1/frame", "-i", "box-1")
    assert b"Not authorized" not in run(*client(broker, "pub", *canary, user="worker")).stderr
    assert b"Not authorized" in run(*client(broker, "pub", *canary, user=user)).stderr


def test_viewer_reads_frames_and_verdicts_of_every_camera(broker: ShippedBroker) -> None:
    wait_for_session(broker, "viewer", "board", "cameras/#")
    publish(broker, "feeder", "cameras/feeder/frame", b"frame")
    publish(broker, "worker", "cameras/feeder/verdict", b"verdict")
    assert fetch(broker, "viewer", "board", "cameras/#", 2) == [b"frame", b"verdict"]


def test_acknowledged_frames_of_an_absent_worker_survive_a_killed_broker(broker: ShippedBroker) -> None:
    wait_for_session(broker, "worker", "box-1", "cameras/+/frame")
    assert publish(broker, "feeder", "cameras/feeder/frame", b"before")[0] == 0
    time.sleep(1.5)
    broker.kill()
    broker.start()
    # The worker is still away: its rights must be known again, although only its session came back.
    assert publish(broker, "feeder", "cameras/feeder/frame", b"after")[0] == 0
    assert fetch(broker, "worker", "box-1", "cameras/+/frame", 2) == [b"before", b"after"]


def test_frame_of_eight_mib_passes_as_base64_and_larger_ones_do_not(broker: ShippedBroker) -> None:
    wait_for_session(broker, "worker", "box-1", "cameras/+/frame")
    assert publish(broker, "feeder", "cameras/feeder/frame", b"x" * (8 * MIB * 4 // 3 + 1024))[0] == 0
    _, words = publish(broker, "feeder", "cameras/feeder/frame", b"y" * (13 * MIB))
    assert words
    received = fetch(broker, "worker", "box-1", "cameras/+/frame", 2)
    assert [frame[:1] for frame in received] == [b"x"]


def test_broker_warns_of_nothing_in_its_configuration(broker: ShippedBroker) -> None:
    complaints = [line for line in broker.log().splitlines() if "Warning" in line or "Error" in line]
    assert not [line for line in complaints if "run as root" not in line]


def test_promised_settings_stand_in_the_file_and_reach_the_broker(broker: ShippedBroker) -> None:
    shipped = settings((DEPLOY / "mosquitto.conf").read_text())
    promised = {
        ("persistence", "true"), ("autosave_on_changes", "true"),
        ("autosave_interval", "1"), ("allow_anonymous", "false"),
    }  # fmt: skip
    assert promised <= set(shipped)
    keys = [key for key, _ in shipped]
    assert "per_listener_settings" not in keys
    for limit in ("max_queued_messages", "max_queued_bytes", "message_size_limit", "max_connections", "memory_limit"):
        assert limit in keys
    assert settings((broker.folder / "mosquitto.conf").read_text()) == shipped
