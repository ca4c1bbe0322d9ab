"""The status server: page, JSON, pictures, probes and metrics; the only file that imports starlette and uvicorn.

It is read-only and has no login: it listens on loopback unless the configuration says otherwise, and a page from
elsewhere can neither frame it, nor read it through a name that it points at this machine (DNS rebinding): on a
loopback connection only ``localhost`` and bare addresses are accepted as ``Host``. No answer and no link is
ever built from ``Host``. Request bodies are not read, and every answer is bounded by what ``Health`` keeps.
"""

from __future__ import annotations

import errno
import hashlib
import json
import socket
from importlib.resources import files
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.errors import ConfigError
from edge.health import Health
from edge.metrics import Exposition
from engines.errors import EXIT_TRANSIENT, ParrotgateError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MAX_CONNECTIONS = 128
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class StatusPortError(ParrotgateError):
    """The status page's port is taken now; it may be free after a restart."""

    exit_code = EXIT_TRANSIENT


class StatusServer(uvicorn.Server):
    """A uvicorn server whose socket is bound from the beginning, so that a taken port is an error of its builder.

    ``run()`` serves in the calling thread until ``should_exit`` is set; ``url`` is where the page is.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener
        host, self.port = listener.getsockname()[:2]
        self.url = f"http://{_reachable(host)}:{self.port}/"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the bound socket, or on ``sockets``; returns once ``should_exit`` is set."""
        super().run(sockets or [self._listener])


def create_app(health: Health) -> Starlette:
    """The application that shows ``health``: the page at ``/``, see the routes below."""
    status = _Endpoints(health)
    routes: list[BaseRoute] = [
        Route("/api/status", status.snapshot),
        Route("/api/cameras/{camera}/frame", status.camera_frame),
        Route("/api/positives/{serial:int}/frame", status.positive_frame),
        Route("/healthz", status.healthz),
        Route("/readyz", status.readyz),
        Route("/metrics", status.metrics),
        *page_routes(files("edge") / "page"),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # a redirect would be built from the Host header
    app.add_middleware(Guard)
    return app


def build_server(app: ASGIApp, host: str, port: int) -> StatusServer:
    """Bind ``host``:``port`` (port 0 takes a free one) and return the server, ready for ``run()`` in a thread.

    Raises ``StatusPortError`` when the port is taken, ``ConfigError`` when the address cannot be used at all.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        log_level="warning",
        lifespan="off",
        ws="none",
        http="h11",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=MAX_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16 * 1024,
    )
    return StatusServer(config, listener)


class _Endpoints:
    def __init__(self, health: Health) -> None:
        self._health = health
        self._exposition = Exposition(health)

    async def snapshot(self, _: Request) -> Response:
        return _json(self._health.snapshot(pin=True))

    async def camera_frame(self, request: Request) -> Response:
        serial = request.query_params.get("v", "")
        wanted = int(serial) if serial.isascii() and serial.isdigit() and len(serial) < 20 else None
        return _picture(self._health.camera_image(request.path_params["camera"], wanted))

    async def positive_frame(self, request: Request) -> Response:
        return _picture(self._health.positive_image(request.path_params["serial"]))

    async def healthz(self, _: Request) -> Response:
        return _probe("live", *self._health.live())

    async def readyz(self, _: Request) -> Response:
        return _probe("ready", *self._health.ready())

    async def metrics(self, request: Request) -> Response:
        body, content_type = self._exposition.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


class Guard:
    """Refuses what a browser was tricked into, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        app = self._app if host_is_known(scope) else _UNKNOWN_HOST

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await app(scope, receive, guarded)


def host_is_known(scope: Scope) -> bool:
    """Whether the request's ``Host`` may name this server; anything may where it listens beyond loopback.

    ``scope`` is ASGI's: ``server`` is the local address of the connection, never taken from the request.
    """
    server = scope.get("server")
    if not server or not _is_address(server[0], loopback=True):
        return True
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    name = (hosts[0] if len(hosts) == 1 else "").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _is_address(name)


_UNKNOWN_HOST = PlainTextResponse(
    "This page is served on loopback only; ask for it as http://localhost or by its address.\n", 421
)


def _is_address(name: str, *, loopback: bool = False) -> bool:
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not loopback


def page_routes(folder: Traversable) -> list[BaseRoute]:
    """A route for each file of a page: ``index.html`` at ``/``, the others below ``/page/``."""
    routes: list[BaseRoute] = []
    for file in folder.iterdir():
        media_type = _MEDIA_TYPES.get(file.name[file.name.rfind(".") :])
        if media_type:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            routes.append(Route(path, _file(file.read_bytes(), media_type)))
    return routes


def _file(body: bytes, media_type: str) -> Any:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Type": media_type}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)

    return endpoint


def _json(content: dict[str, Any], status: int = 200) -> Response:
    body = json.dumps(content, allow_nan=False, separators=(",", ":"), default=str)
    return Response(body, status, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})


def _probe(what: str, good: bool, sentence: str) -> Response:
    return _json({"status": what if good else f"not {what}", "reason": sentence}, 200 if good else 503)


def _picture(picture: tuple[bytes, str] | None) -> Response:
    if picture is None:
        return JSONResponse({"error": "no picture is held of this camera or positive"}, 404)
    data, content_type = picture
    return Response(data, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("status", [f"host {host!r} is no address of this machine: {error}"]) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StatusPortError(
                f"the status page cannot listen on {host}:{port}: the port is taken; "
                "stop what uses it, or set status.port (0 takes a free one)"
            ) from error
        raise ConfigError("status", [f"cannot listen on {host}:{port}: {error.strerror}"]) from error
    return listener


def _reachable(host: str) -> str:
    address = ip_address(host.partition("%")[0])
    if address.is_unspecified:
        return "localhost"
    return f"[{host}]" if address.version == 6 else host
