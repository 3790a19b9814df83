"""Base of the raw servers on loopback, whose answers can misbehave at any byte."""

from __future__ import annotations

import asyncio


class LoopbackServer:
    """Server on a port of its own, while its block lasts. Subclasses define `_serve(reader, writer)`."""

    tls = None

    async def __aenter__(self):
        self._tasks = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"{'https' if self.tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def read_request(reader):
    """Return method, path, headers and body of the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))
