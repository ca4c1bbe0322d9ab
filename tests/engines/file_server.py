"""A real HTTP server on loopback that hands out files with the faults that a test asks for."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """``files`` by path; ``faults`` by path:

    ``missing`` 404 · ``cut`` closes after half of what it should send · ``first-cut`` only the first time ·
    ``no-ranges`` ignores Range · ``endless`` says no length and never stops · ``liar`` answers 206 from another place ·
    ``long`` says no length and sends more than the file · ``too-large`` says a larger Content-Length ·
    ``stalls`` sends nothing · ``to:URL`` redirects.
    """

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []  # path and Range, in order
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up on an endless body is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        fault = server.faults.get(self.path, "")
        if fault.startswith("to:"):
            self.send_response(302)
            self.send_header("Location", fault[3:])
            self.end_headers()
            return
        if fault == "missing" or self.path not in server.files:
            self.send_error(404)
            return
        if fault == "stalls":
            server.closing.wait(20)
            return
        self._send(server.files[self.path], wanted, fault)

    def _send(self, content: bytes, wanted: str | None, fault: str) -> None:
        start = 0
        if wanted and fault not in ("no-ranges", "endless", "long"):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            place = start + 1 if fault == "liar" else start
            self.send_header("Content-Range", f"bytes {place}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if fault not in ("endless", "long"):
            self.send_header("Content-Length", str(len(body) + (1000 if fault == "too-large" else 0)))
        self.end_headers()
        if fault == "first-cut":
            self.server.faults[self.path] = ""
        if fault in ("cut", "first-cut"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        if fault == "long":
            self.wfile.write(b"more")
        while fault == "endless" and not self.server.closing.is_set():
            self.wfile.write(b"x" * 65536)


@contextmanager
def file_server(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    server = FileServer(tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
