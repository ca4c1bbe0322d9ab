"""The test broker itself: what other tests rely on."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable

import pytest

from tests.authority import Authority
from tests.embedded import Embedded
from tests.mosquitto import Broker, password_lines


def ask(broker: Broker, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", "a/b", "-m", "x", "-q", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_either_broker_accepts_a_connection(broker: Broker | Embedded) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), 5) as raw:
        raw.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01z")
        assert raw.recv(4) == b"\x20\x02\x00\x00"  # CONNACK, accepted


def listen(broker: Broker, *options: str) -> str:
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", "a/b", "-i", "box", "-c", "-q", "1"]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=20, check=True).stdout


def test_broker_keeps_what_waits_for_a_session_through_restart(broker_with: Callable[..., Broker]) -> None:
    broker = broker_with()
    listen(broker, "-E")
    assert ask(broker).returncode == 0
    broker.restart()
    assert listen(broker, "-C", "1", "-W", "5") == "x\n"


def test_broker_with_passwords_refuses_a_stranger(
    broker_with: Callable[..., Broker], tmp_path_factory: pytest.TempPathFactory
) -> None:
    broker = broker_with(*password_lines(tmp_path_factory.mktemp("users"), {"orin": "secret"}))
    assert ask(broker).returncode != 0
    assert ask(broker, "-u", "orin", "-P", "secret").returncode == 0


def test_broker_with_tls_shows_a_certificate_of_its_authority(
    broker_with: Callable[..., Broker], authority: Authority
) -> None:
    server = authority.issue("broker")
    broker = broker_with(f"cafile {authority.ca_file}", f"certfile {server.cert}", f"keyfile {server.key}")
    assert broker.url.startswith("mqtts://")
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    with (
        socket.create_connection(("127.0.0.1", broker.port), 5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert tls.version() == "TLSv1.3"
