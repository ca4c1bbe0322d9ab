from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from edge.errors import ConfigError
from edge.health import Health
from edge.records import Outcome
from edge.web import StatusPortError, StatusServer, build_server, create_app, host_is_known
from engines.errors import EXIT_TRANSIENT
from tests.edge.status import get, ready_health, serving, verdict


@pytest.fixture
def health() -> Health:
    return ready_health()


@pytest.fixture
def server(health: Health) -> Iterator[StatusServer]:
    with serving(health) as running:
        yield running


@pytest.fixture(scope="module")
def resting() -> Iterator[StatusServer]:
    """A server with one camera, for tests that change nothing."""
    health = ready_health()
    health.verdict(verdict(), b"private", "image/jpeg")
    with serving(health) as running:
        yield running


def test_probes_of_a_ready_worker_are_200_with_a_sentence(resting: StatusServer) -> None:
    for path, status in (("/healthz", "live"), ("/readyz", "ready")):
        response, body = get(resting, path)
        assert response.status == 200
        assert json.loads(body)["status"] == status
        assert json.loads(body)["reason"]


def test_probes_of_a_faulty_worker_are_503_with_the_fault(server: StatusServer, health: Health) -> None:
    health.fault("the engine thread ended")
    for path in ("/healthz", "/readyz"):
        response, body = get(server, path)
        assert response.status == 503
        assert json.loads(body)["reason"] == "the engine thread ended"


def test_readyz_of_a_starting_worker_is_503_while_healthz_is_200() -> None:
    with serving(Health("orin-07")) as server:
        assert get(server, "/readyz")[0].status == 503
        assert get(server, "/healthz")[0].status == 200


def test_status_is_strict_json_that_is_never_stored(server: StatusServer, health: Health) -> None:
    health.verdict(verdict(), b"jpeg", "image/jpeg")
    response, body = get(server, "/api/status")
    assert response.headers["Cache-Control"] == "no-store"
    assert json.loads(body)["cameras"][0]["last"]["verdict"] == "positive"


def test_frame_comes_as_it_is_with_its_own_type(server: StatusServer, health: Health) -> None:
    health.verdict(verdict(), b"jpeg bytes", "image/jpeg")
    (row,) = health.snapshot()["cameras"]
    (positive,) = health.snapshot()["positives"]
    for path in (f"/api/cameras/feeder/frame?v={row['picture']}", f"/api/positives/{positive['picture']}/frame"):
        response, body = get(server, path)
        assert (response.status, response.headers["Content-Type"], body) == (200, "image/jpeg", b"jpeg bytes")


@pytest.mark.parametrize(
    "path",
    [
        "/api/cameras/nobody/frame",
        "/api/cameras/..%2f..%2fetc/frame",
        "/api/positives/99/frame",
        "/api/positives/x/frame",
        "/page/../web.py",
        "/page/%2e%2e/web.py",
        "/docs",
        "/healthz/",
    ],
)
def test_what_is_not_there_is_404_with_a_small_body_and_no_redirect(resting: StatusServer, path: str) -> None:
    response, body = get(resting, path)
    assert response.status == 404
    assert len(body) < 200


@pytest.mark.parametrize("version", ["", "x", "-1", "1" * 500, "%00", "٣"])
def test_frame_with_a_strange_version_is_the_last_frame(resting: StatusServer, version: str) -> None:
    path = "/api/cameras/feeder/frame?v=" + "".join(c if c.isascii() else "%D9%A3" for c in version)
    assert get(resting, path)[1] == b"private"


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/api/status", "/metrics", "/healthz", "/nothing"])
def test_every_answer_carries_the_security_headers(resting: StatusServer, path: str) -> None:
    headers = get(resting, path)[0].headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Server" not in headers


def test_page_has_nothing_inline_and_nothing_from_elsewhere(resting: StatusServer) -> None:
    page = get(resting, "/")[1].decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", page)
    linked = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page))
    scripts = {f"page/{name}" for name in re.findall(r'from "\./(\w+\.js)"', get(resting, "/page/app.js")[1].decode())}
    assert {"page/app.js", "page/style.css"} < linked
    for address in linked | scripts:
        assert "//" not in address
        assert get(resting, f"/{address}")[0].status in (200, 503), address


def test_page_that_has_not_changed_is_304(resting: StatusServer) -> None:
    response, body = get(resting, "/page/style.css")
    assert body
    again, nothing = get(resting, "/page/style.css", **{"If-None-Match": response.headers["ETag"]})
    assert (again.status, nothing) == (304, b"")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8088", "localhost.evil.example", "", "127.0.0.1.nip.io"]
)
def test_unknown_host_on_loopback_is_refused_and_not_repeated(resting: StatusServer, host: str) -> None:
    for path in ("/", "/api/status", "/api/cameras/feeder/frame"):
        response, body = get(resting, path, Host=host)
        assert response.status == 421
        assert b"evil" not in body
        assert b"private" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8088", "127.0.0.1:1", "[::1]:8088", "orin.localhost"])
def test_known_host_on_loopback_is_served(resting: StatusServer, host: str) -> None:
    assert get(resting, "/healthz", Host=host)[0].status == 200


def test_host_beyond_loopback_may_be_any_name() -> None:
    headers = [(b"host", b"orin-07.farm.example")]
    assert host_is_known({"type": "http", "server": ("10.0.0.7", 8088), "headers": headers})
    assert not host_is_known({"type": "http", "server": ("127.0.0.1", 8088), "headers": headers})


def test_only_reading_is_allowed(resting: StatusServer) -> None:
    with socket.create_connection(("127.0.0.1", resting.port), timeout=10) as client:
        client.sendall(
            b"POST /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1000
        )
        assert b" 405 " in client.recv(4096)


def test_endless_header_is_refused_and_the_server_goes_on(resting: StatusServer) -> None:
    with socket.create_connection(("127.0.0.1", resting.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)
        assert b" 400 " in client.recv(4096)
    assert get(resting, "/healthz")[0].status == 200


def test_status_of_a_thousand_cameras_is_bounded_and_fast(server: StatusServer, health: Health) -> None:
    for i in range(1500):
        health.verdict(verdict(f"cam-{i}", Outcome.ERROR, error="e" * 5000), None, None)
    began = time.perf_counter()
    _, body = get(server, "/api/status")
    assert len(json.loads(body)["cameras"]) == 1000
    assert len(body) < 2_000_000
    assert time.perf_counter() - began < 2.0


def test_build_server_on_a_taken_port_is_transient_and_says_what_to_do(server: StatusServer) -> None:
    with pytest.raises(StatusPortError, match=r"port is taken.*status\.port") as caught:
        build_server(create_app(Health("two")), "127.0.0.1", server.port)
    assert caught.value.exit_code == EXIT_TRANSIENT


def test_build_server_on_a_foreign_address_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        build_server(create_app(Health("two")), "192.0.2.1", 0)
