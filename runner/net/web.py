"""A read-only server on loopback, for the one who started it.

Every address begins with a key that only the terminal shows, so that neither another user of the machine nor a page of
another site can read anything. A name that is not loopback's is refused (DNS rebinding), and so is whatever a browser
says comes from another site. Only GET and HEAD; nothing here changes anything.
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
#: what each answer says beside its own policy
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
#: who a browser may say is asking: a person, or our own page
_SITES = frozenset({"", "none", "same-origin"})
#: seconds that open streams may take when it ends; requests at once
_PATIENCE, _MOST = 3, 64


class Source(Protocol):
    """What is served."""

    def page(self) -> bytes:
        """The page itself."""

    def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, as they stand on the wire."""

    def file(self, job: str, path: str) -> Path | None:
        """A file of a job that may be shown, or nothing."""

    def close(self) -> None:
        """The server ends: so do all events."""


class _Guard:
    """Refuses who must not ask, before anything is looked at."""

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

        refused = self._refusal(scope)
        await (PlainTextResponse(refused, 403) if refused else self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> str:
        told = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if told.get("host", "") not in self._hosts:
            return "This page is for this machine alone; open the address that `runner serve` printed.\n"
        if told.get("sec-fetch-site", "") not in _SITES or "origin" in told:
            return "Another page must not read this one; open the address that `runner serve` printed yourself.\n"
        return ""


class _Server(uvicorn.Server):
    """Ends its streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, source: Source) -> None:
        super().__init__(config)
        self._source = source

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._source.close()
        await super().shutdown(sockets)


def application(source: Source, key: str, port: int) -> ASGIApp:
    """The application, under `/KEY/`."""

    def page(_: Request) -> Response:
        return Response(source.page(), media_type="text/html")

    def events(_: Request) -> Response:
        return StreamingResponse(source.events(), media_type="text/event-stream")

    def file(request: Request) -> Response:
        found = source.file(request.path_params["job"], request.path_params["path"])
        if found is None or not stat.S_ISREG(found.lstat().st_mode):
            return PlainTextResponse("not here\n", 404)
        return FileResponse(found, content_disposition_type="inline")

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
    """A socket on loopback; 0 takes any port that is free. Raises ConfigError."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen()  # so that whoever is told the address finds somebody there
    except OSError as error:
        found.close()
        raise ConfigError(f"port {port}: {error.strerror}", hint="Choose another with --port; 0 takes any.") from None
    return found


def serve(source: Source, key: str, sock: socket.socket, started: Callable[[], None]) -> None:
    """Answer until Ctrl-C or TERM."""
    app = application(source, key, sock.getsockname()[1])
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False, ws="none",
        lifespan="off", limit_concurrency=_MOST, timeout_graceful_shutdown=_PATIENCE,
    )  # fmt: skip
    started()
    _Server(config, source).run(sockets=[sock])
