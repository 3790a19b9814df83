"""The sandbox as a server in the running event loop.

`async with Sandbox(Options(qps=5)) as sandbox:` gives a URL, an environment for the client and a ledger.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

from runner.sandbox.application import App
from runner.sandbox.faults import Faults
from runner.sandbox.ledger import Ledger
from runner.sandbox.options import Options
from runner.sandbox.state import SandboxState
from runner.sandbox.wire import HttpConnection

__all__ = ["Faults", "Options", "Sandbox"]

MAX_CONNECTIONS = 4096


class Sandbox:
    """The providers on a loopback port for the duration of a context. `clock` returns Unix time in seconds."""

    def __init__(self, options: Options | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._state = SandboxState(options or Options(), clock)
        self._app = App(self._state)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        options = self._state.options
        self._server = await asyncio.start_server(self._on_connection, options.host, options.port, backlog=1024)
        self._state.url = f"http://{options.host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._app.close()
        self._state.ledger.close()

    def __repr__(self) -> str:
        return f"<Sandbox {self.url or 'not started'}, {len(self.ledger.accepted)} accepted>"

    @property
    def url(self) -> str:
        """Return the base URL, or `""` before the start."""
        return self._state.url

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of accepted tasks."""
        return self._state.ledger

    @property
    def options(self) -> Options:
        """Return the options in force now."""
        return self._state.options

    @property
    def stats(self) -> dict[str, Any]:
        """Return the counters, as `GET /_sandbox/stats` shows them."""
        return self._app.stats()

    @property
    def env(self) -> dict[str, str]:
        """Return the environment variables that a client needs."""
        return {
            "CHANJING_BASE_URL": self.url,
            "CHANJING_APP_ID": "sandbox-app",
            "CHANJING_SECRET_KEY": "sandbox-secret",
            "KLING_BASE_URL": self.url,
            "KLING_API_KEY": "sandbox-kling-key",
            "KLING_GATEWAY_BASE_URL": self.url,
            "KLING_GATEWAY_API_KEY": "sandbox-gateway-key",
        }

    def change(self, **changes: Any) -> None:
        """Change options while the sandbox runs. The values are those of `POST /_sandbox/options`."""
        self._state.change(changes)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            self._state.counters.counts["connections_refused"] += 1
            writer.transport.abort()
            return
        self._state.counters.counts["connections"] += 1
        task = asyncio.ensure_future(HttpConnection(reader, writer, self._app).serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
