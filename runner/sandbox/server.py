"""The sandbox as a server in the running event loop.

`async with Sandbox(Options(qps=5)) as sandbox:` gives a URL, an environment for the client and a ledger.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

from runner.sandbox.app import App
from runner.sandbox.faults import Faults
from runner.sandbox.ledger import Ledger
from runner.sandbox.options import Options
from runner.sandbox.wire import Wire
from runner.sandbox.world import World

__all__ = ["Faults", "Options", "Sandbox"]

MOST_CONNECTIONS = 4096


class Sandbox:
    """The providers on a loopback port for the duration of a context. `clock` returns Unix time in seconds."""

    def __init__(self, options: Options | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._world = World(options or Options(), clock)
        self._app = App(self._world)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        options = self._world.options
        self._server = await asyncio.start_server(self._connected, options.host, options.port, backlog=1024)
        self._world.url = f"http://{options.host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._app.close()
        self._world.ledger.close()

    def __repr__(self) -> str:
        return f"<Sandbox {self.url or 'not started'}, {len(self.ledger.accepted)} accepted>"

    @property
    def url(self) -> str:
        """Return the base URL, or `""` before the start."""
        return self._world.url

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of accepted tasks."""
        return self._world.ledger

    @property
    def options(self) -> Options:
        """Return the options in force now."""
        return self._world.options

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
        self._world.change(changes)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MOST_CONNECTIONS:
            self._world.traffic.counts["connections_refused"] += 1
            writer.transport.abort()
            return
        self._world.traffic.counts["connections"] += 1
        task = asyncio.ensure_future(Wire(reader, writer, self._app).serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
