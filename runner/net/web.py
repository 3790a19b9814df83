"""Read-only web server on loopback for the user who started it.

Every path begins with a secret key that only the terminal shows, so that neither another user of the machine nor a page
of another site can read anything. Requests for a host name other than loopback are rejected (DNS rebinding), and so are
requests that a browser marks as coming from another site. Only GET and HEAD are served, and no request changes state.
"""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
#: security headers of every answer
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
#: accepted values of Sec-Fetch-Site: the user's own navigation, or the served page
_SITES = frozenset({"", "none", "same-origin"})
#: seconds that open streams may take at shutdown, and maximum concurrent requests
_PATIENCE, _MOST = 3, 64


class Source(Protocol):
    """Content of the server."""

    def page(self) -> bytes:
        """Return the HTML page."""

    def events(self) -> AsyncIterator[bytes]:
        """Yield server-sent events in their wire format."""

    def file(self, job: str, path: str) -> Path | None:
        """Return the path of a job's file that may be shown, or None."""

    def close(self) -> None:
        """End all streams of events, since the server ends."""


class _Guard:
    """ASGI middleware that rejects requests of other sites and hosts before the application sees them."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        await (PlainTextResponse(refusal, 403) if refusal else self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> str:
        """Return the message of a rejection, or "" for an allowed request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host", "") not in self._hosts:
            return "This page is for this machine alone; open the address that `runner serve` printed.\n"
        if headers.get("sec-fetch-site", "") not in _SITES or "origin" in headers:
            return "Another page must not read this one; open the address that `runner serve` printed yourself.\n"
        return ""


class _Server(uvicorn.Server):
    """Uvicorn server that ends its streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, source: Source) -> None:
        super().__init__(config)
        self._source = source

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._source.close()
        await super().shutdown(sockets)


def application(source: Source, key: str, port: int) -> ASGIApp:
    """Return the ASGI application, which serves everything under `/KEY/`."""

    def page(_: Request) -> Response:
        return Response(source.page(), media_type="text/html")

    def events(_: Request) -> Response:
        return StreamingResponse(source.events(), media_type="text/event-stream")

    def file(request: Request) -> Response:
        path = source.file(request.path_params["job"], request.path_params["path"])
        if path is None or not stat.S_ISREG(path.lstat().st_mode):
            return PlainTextResponse("not here\n", 404)
        return FileResponse(path, content_disposition_type="inline")

    def no_icon(_: Request) -> Response:
        return Response(status_code=204)  # every browser asks for one

    routes = [
        Route(f"/{key}/", page),
        Route(f"/{key}/events", events),
        Route(f"/{key}/jobs/{{job}}/{{path:path}}", file),
        Route("/favicon.ico", no_icon),
    ]
    return _Guard(Starlette(routes=routes), port)


def listening(port: int) -> socket.socket:
    """Return a listening socket on loopback; port 0 selects any free port. Raises ConfigError."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen()  # listening before the address is printed, so that a connection to it succeeds
    except OSError as error:
        sock.close()
        raise ConfigError(f"port {port}: {error.strerror}", hint="Choose another with --port; 0 takes any.") from None
    return sock


def serve(source: Source, key: str, sock: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; `started` is called before the first request is accepted."""
    app = application(source, key, sock.getsockname()[1])
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False, ws="none",
        lifespan="off", limit_concurrency=_MOST, timeout_graceful_shutdown=_PATIENCE,
    )  # fmt: skip
    started()
    _Server(config, source).run(sockets=[sock])
