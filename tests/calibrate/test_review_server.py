from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibrate.review_labels import LabelFile
from edge.gate import Gate
from edge.web import StatusServer
from tests.calibrate.review_site import COMMAND, gate, questions, serving

JSON = {"Content-Type": "application/json"}
DRONES = {"pictures": [0], "family": "drones", "positive": False}


@pytest.fixture(scope="module")
def judge() -> Gate:
    return gate()


@pytest.fixture
def server(judge: Gate, tmp_path: Path) -> Iterator[StatusServer]:
    with serving(judge, questions(tmp_path), tmp_path / "labels.jsonl") as running:
        yield running


def ask(
    server: StatusServer, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_queue_tells_families_positive_first_and_every_question(server: StatusServer) -> None:
    response, body = ask(server, "GET", "/api/queue")
    queue = json.loads(body)
    assert response.status == 200
    assert [family["name"] for family in queue["families"]] == ["parrots", "birds", "objects"]
    assert [len(item["pictures"]) for item in queue["items"]] == [1, 2, 1, 1]
    assert queue["command"] == COMMAND


def test_picture_is_a_jpeg_of_bounded_size(server: StatusServer) -> None:
    response, body = ask(server, "GET", "/api/pictures/4/small")
    assert (response.status, response.headers["Content-Type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")


@pytest.mark.parametrize("path", ["/api/pictures/5/small", "/api/pictures/0/huge", "/api/pictures/..%2Flabels/small"])
def test_nothing_but_the_questions_pictures_is_served(server: StatusServer, path: str) -> None:
    assert ask(server, "GET", path)[0].status == 404


def test_vanished_picture_is_404_with_a_sentence(server: StatusServer, tmp_path: Path) -> None:
    (tmp_path / "0.png").unlink()
    response, body = ask(server, "GET", "/api/pictures/0/large")
    assert response.status == 404
    assert "can no longer be read" in json.loads(body)["error"]


def test_label_is_on_the_disk_when_the_answer_comes(server: StatusServer, tmp_path: Path) -> None:
    response, body = ask(server, "POST", "/api/labels", DRONES, JSON)
    assert response.status == 200
    assert {"name": "drones", "positive": False} in json.loads(body)["families"]
    (label,) = LabelFile(tmp_path / "labels.jsonl").labels.values()
    assert (label.family, label.positive, label.path) == ("drones", False, tmp_path / "0.png")
    ask(server, "POST", "/api/labels", {"pictures": [0], "take_back": True}, JSON)
    assert not LabelFile(tmp_path / "labels.jsonl").labels


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (DRONES, {"Content-Type": "text/plain"}, 403),
        (DRONES, {**JSON, "Origin": "http://evil.example"}, 403),
        (DRONES, {**JSON, "Host": "evil.example"}, 421),
        ({**DRONES, "pictures": [5]}, JSON, 400),
        ({**DRONES, "pictures": [-1]}, JSON, 400),
        ({**DRONES, "pictures": [True]}, JSON, 400),
        ({**DRONES, "family": "../up"}, JSON, 422),
        ([], JSON, 400),
        (b"{", JSON, 400),
        (b"[" * 70_000, JSON, 400),
    ],
)
def test_label_from_elsewhere_or_of_nonsense_is_refused_and_not_kept(
    server: StatusServer, tmp_path: Path, body: Any, headers: dict[str, str], status: int
) -> None:
    assert ask(server, "POST", "/api/labels", body, headers)[0].status == status
    assert not (tmp_path / "labels.jsonl").exists()


def test_every_answer_carries_the_strict_policy(server: StatusServer) -> None:
    for path in ("/", "/page/review.js", "/api/queue", "/nowhere"):
        assert "default-src 'none'" in ask(server, "GET", path)[0].headers["Content-Security-Policy"]
