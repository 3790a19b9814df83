"""A submit over TLS at 100 ms from the server and back: connections opened ahead against new ones.

Each request has a connection of its own in both halves, ten requests a second. A relay in this process holds back each
byte for 50 ms each way, so a TLS handshake takes 100 ms; that of TCP is the relay's own and takes no time, which a real
provider adds. The times are those from the start of a request to the end of its answer.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING

import httpx
from yarl import URL

from benchmarks.downloads import signed
from benchmarks.figure import Figure
from benchmarks.provider import file_server
from runner.net.addresses import GuardedResolver
from runner.net.transport import AiohttpTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.bench import Bench

_REQUESTS, _PAUSE, _DELAY = 100, 0.1, 0.05


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure both kinds of connections."""
    pem, key = signed(bench.directory)
    context = ssl.create_default_context(cafile=pem)
    with file_server(0, str(pem), str(key)) as url:
        times = {
            ahead: asyncio.run(_times(url, context, bench.size(_REQUESTS), ahead=ahead)) for ahead in (False, True)
        }
    yield Figure("time of a request / with a new connection", median(times[True]) / median(times[False]), 0.6)
    yield Figure("time of a request with a new connection", median(times[False]), unit="s")


async def _times(url: str, context: ssl.SSLContext, requests: int, *, ahead: bool) -> list[float]:
    """Return the seconds that each request took."""
    far, loop, seconds = URL(url), asyncio.get_running_loop(), []
    relay = await asyncio.start_server(_relay_to(far.host or "", far.port or 0), "127.0.0.1", 0)
    near = far.with_port(relay.sockets[0].getsockname()[1])
    transport = AiohttpTransport(
        resolver=GuardedResolver(loopback=True), context=context, force_close=True, open_ahead=ahead
    )
    for _ in range(requests):
        begun = loop.time()
        request = httpx.Request("POST", str(near), content=b"{}")
        response = await transport.handle_async_request(request)
        await response.aread()
        seconds.append(loop.time() - begun)
        await asyncio.sleep(max(0.0, begun + _PAUSE - loop.time()))
    await transport.aclose()
    relay.close()
    await asyncio.sleep(4 * _DELAY)  # until the relay has seen every end
    return seconds


def _relay_to(host: str, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65536):
            loop.call_later(_DELAY, writer.write, data)
        loop.call_later(_DELAY, writer.close)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, port)
        with suppress(OSError):
            await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    return relay
