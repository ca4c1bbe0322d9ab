"""Fetching over a real server on loopback: what is kept is whole, whatever the addresses do."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines import fetch as fetching
from engines.errors import FetchError
from engines.fetch import Wanted, fetch, is_whole
from tests.authority import Authority
from tests.engines.file_server import FileServer, file_server
from tests.mosquitto import free_port

CONTENT = np.random.default_rng(3).bytes(1_500_001)
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
WANTED = Wanted(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        running.files = {f"/{name}": CONTENT for name in ("a", "b")}
        yield running


def bring(server: FileServer, folder: Path, *paths: str, http: bool = True) -> list[int]:
    """Fetch into ``folder / "net.onnx"``; returns what the progress bar was told."""
    told: list[int] = []
    urls = [path if "://" in path else server.url + path for path in paths]
    fetch(urls, folder / "net.onnx", WANTED, http=http, advance=told.append)
    return told


def assert_whole(folder: Path) -> None:
    assert (folder / "net.onnx").read_bytes() == CONTENT
    assert os.listdir(folder) == ["net.onnx"]


def test_file_arrives_whole_and_leaves_nothing_beside_it(server: FileServer, tmp_path: Path) -> None:
    told = bring(server, tmp_path, "/a")
    assert_whole(tmp_path)
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert server.requests == [("/a", None)]


@pytest.mark.parametrize("fault", ["missing", "endless", "long", "too-large", "wrong hash", "to:ftp://127.0.0.1/a"])
def test_next_address_is_asked_when_one_will_not_do(server: FileServer, tmp_path: Path, fault: str) -> None:
    if fault == "wrong hash":
        server.files["/a"] = OTHER
    else:
        server.faults["/a"] = fault
    bring(server, tmp_path, "/a", "/b")
    assert_whole(tmp_path)
    assert [path for path, _ in server.requests] == ["/a", "/b"]


def test_unreachable_address_is_passed_over(server: FileServer, tmp_path: Path) -> None:
    bring(server, tmp_path, f"http://127.0.0.1:{free_port()}/a", "/b")
    assert_whole(tmp_path)


def test_cut_connection_is_resumed_where_it_broke_off(server: FileServer, tmp_path: Path) -> None:
    server.faults["/a"] = "first-cut"
    bring(server, tmp_path, "/a")
    assert_whole(tmp_path)
    assert server.requests == [("/a", None), ("/a", f"bytes={len(CONTENT) // 2}-")]


def test_every_connection_may_be_cut_as_long_as_each_brings_something(server: FileServer, tmp_path: Path) -> None:
    server.faults["/a"] = "cut"
    server.files["/a"] = CONTENT
    # Halves of halves: about log2(n) connections, then one byte that is cut to none.
    with pytest.raises(FetchError, match=r"broke off after 1500000 of 1500001 bytes"):
        bring(server, tmp_path, "/a")
    assert (tmp_path / f".net.onnx.{WANTED.sha256[:12]}.part").read_bytes() == CONTENT[:-1]


def test_another_run_goes_on_at_another_address(server: FileServer, tmp_path: Path) -> None:
    server.faults["/a"] = "cut"
    with pytest.raises(FetchError):
        bring(server, tmp_path, "/a")
    assert not (tmp_path / "net.onnx").exists()
    server.requests.clear()
    bring(server, tmp_path, "/b")
    assert_whole(tmp_path)
    assert server.requests == [("/b", "bytes=1500000-")]


def test_server_without_ranges_sends_everything_again(server: FileServer, tmp_path: Path) -> None:
    server.faults |= {"/a": "cut", "/b": "no-ranges"}
    bring(server, tmp_path, "/a", "/b")
    assert_whole(tmp_path)


def test_half_of_a_wrong_file_does_not_spoil_a_good_address(server: FileServer, tmp_path: Path) -> None:
    part = tmp_path / f".net.onnx.{WANTED.sha256[:12]}.part"
    part.write_bytes(bytes(1000))
    bring(server, tmp_path, "/a")
    assert_whole(tmp_path)
    assert server.requests == [("/a", "bytes=1000-"), ("/a", None)]


def test_part_that_is_already_too_long_is_dropped(server: FileServer, tmp_path: Path) -> None:
    part = tmp_path / f".net.onnx.{WANTED.sha256[:12]}.part"
    part.write_bytes(CONTENT + b"more")
    bring(server, tmp_path, "/a", "/b")
    assert_whole(tmp_path)


def test_range_from_another_place_is_not_joined(server: FileServer, tmp_path: Path) -> None:
    server.faults |= {"/a": "cut"}
    with pytest.raises(FetchError):
        bring(server, tmp_path, "/a")
    server.faults["/a"] = "liar"
    with pytest.raises(FetchError, match="Content-Range does not fit"):
        bring(server, tmp_path, "/a")
    bring(server, tmp_path, "/a", "/b")
    assert_whole(tmp_path)


def test_endless_body_costs_no_more_than_the_file(server: FileServer, tmp_path: Path) -> None:
    server.files["/a"], server.faults["/a"] = b"", "endless"
    with pytest.raises(FetchError, match="goes on after the 1500001 bytes"):
        bring(server, tmp_path, "/a")
    assert os.listdir(tmp_path) == []


def test_silent_server_is_given_up(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)
    server.faults["/a"] = "stalls"
    bring(server, tmp_path, "/a", "/b")
    assert_whole(tmp_path)


def test_wrong_hash_everywhere_keeps_nothing_and_says_so(server: FileServer, tmp_path: Path) -> None:
    server.files = {"/a": OTHER, "/b": OTHER}
    with pytest.raises(FetchError, match=r"/a: its file has another SHA-256.*/b: its file") as caught:
        bring(server, tmp_path, "/a", "/b")
    assert caught.value.exit_code == 75
    assert os.listdir(tmp_path) == []


def test_file_that_is_there_is_replaced_only_by_a_whole_one(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"old")
    server.faults["/a"] = "cut"
    with pytest.raises(FetchError):
        bring(server, tmp_path, "/a")
    assert (tmp_path / "net.onnx").read_bytes() == b"old"
    bring(server, tmp_path, "/b")
    assert_whole(tmp_path)


@pytest.mark.parametrize("address", ["http", "file:///etc/hostname", "data:text/plain,x"])
def test_only_https_is_opened_unless_http_is_allowed(server: FileServer, tmp_path: Path, address: str) -> None:
    with pytest.raises(FetchError, match="only https addresses are opened"):
        bring(server, tmp_path, "/a" if address == "http" else f"{address}?://", http=False)
    assert server.requests == []


@pytest.fixture
def secure(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with a certificate that this process trusts."""
    certificate = authority.issue("files")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.cert, certificate.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    with file_server(tls) as running:
        running.files = {"/a": CONTENT}
        yield running


def test_https_is_followed_to_https_and_never_to_http(secure: FileServer, server: FileServer, tmp_path: Path) -> None:
    secure.faults["/moved"] = f"to:{secure.url}/a"
    bring(secure, tmp_path, "/moved", http=False)
    assert_whole(tmp_path)
    secure.faults["/moved"] = f"to:{server.url}/a"
    with pytest.raises(FetchError, match=r"leads to http://.*, which is not https"):
        bring(secure, tmp_path, "/moved", http=False)
    assert server.requests == []
    bring(secure, tmp_path, "/moved", http=True)


def test_certificate_of_a_stranger_is_refused(
    secure: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "other").ca_file))
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        bring(secure, tmp_path, "/a", http=False)


def test_redirect_to_a_local_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.faults["/a"] = "to:file:///etc/hostname"
    with pytest.raises(FetchError, match=r"file:///etc/hostname"):
        bring(server, tmp_path, "/a")
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_written_is_told_from_a_bad_address(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="cannot be written: No such file"):
        bring(server, tmp_path / "nowhere", "/a")


def test_one_flipped_bit_or_a_missing_byte_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for content, whole in ((CONTENT, True), (OTHER, False), (CONTENT[:-1], False)):
        path.write_bytes(content)
        assert is_whole(path, WANTED) is whole


def test_offline_sentence_names_every_address_and_what_to_look_at(tmp_path: Path) -> None:
    dead = [f"http://127.0.0.1:{free_port()}/{name}" for name in "ab"]
    with pytest.raises(FetchError) as caught:
        fetch(dead, tmp_path / "net.onnx", WANTED, http=True, advance=lambda _: None)
    sentence = str(caught.value)
    assert re.search(r"check the network \(or a proxy: HTTPS_PROXY\)", sentence)
    assert all(f"{url}: cannot be reached" in sentence for url in dead)
