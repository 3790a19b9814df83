"""Measure small concurrent requests with our client and with aiohttp alone: `python -m benchmarks.asking URL`.

Both send to the same server over connections that are kept alive, and read the same JSON. They take turns, and medians
are printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING

import aiohttp
import orjson

from runner.net.auth import bearer
from runner.net.client import ProviderClient
from runner.net.transport import tls_context
from runner.providers.requests import Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_KEY = "benchmark-key"
_PATH = "/v1/images/generations/830895211326457236"
_COUNT, _ROUNDS = 2000, 7
_CANCELLED = 10_000


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    client = ProviderClient(url, bearer(_KEY))

    async def ask() -> None:
        outcome = await client.send(Request("query", "GET", _PATH, "query"))
        assert isinstance(outcome, Reply), outcome

    yield ask
    await client.aclose()


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, headers={"Authorization": f"Bearer {_KEY}"}) as session:

        async def ask() -> None:
            async with session.get(_PATH) as response:
                orjson.loads(await response.read())

        yield ask


async def cost(ask: Callable[[], Awaitable[None]], parallel: int) -> float:
    """Return CPU seconds of one request."""
    left = iter(range(_COUNT))

    async def worker() -> None:
        for _ in left:
            await ask()

    await asyncio.gather(*(ask() for _ in range(parallel)))  # connections are made
    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(parallel)))
    return (time.process_time() - began) / _COUNT


async def leaked(url: str) -> int:
    """Return the number of connections still in use after requests were cancelled at many different points."""
    client = ProviderClient(url, bearer(_KEY))
    for number in range(_CANCELLED // 50):
        query = Request("query" if number % 2 else "submit", "GET", _PATH, "query")
        tasks = [asyncio.create_task(client.send(query)) for _ in range(50)]
        await asyncio.sleep(number % 20 / 2000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    left = sum(line._transport.open_connections for line in (client._single_use, client._pooled))  # noqa: SLF001
    await client.aclose()
    return left


async def main(url: str) -> dict[str, float]:
    """Return microseconds of CPU a request by client and number in flight, and connections left by cancellations."""
    figures: dict[str, float] = {}
    for parallel in (50, 500):
        async with ours(url) as our_ask, bare(url) as bare_ask:
            rounds = [(await cost(our_ask, parallel), await cost(bare_ask, parallel)) for _ in range(_ROUNDS)]
        for name, costs in zip(("client", "aiohttp"), zip(*rounds, strict=True), strict=True):
            figures[f"{name} {parallel}"] = 1e6 * median(costs)
    return {**figures, "leaked": await leaked(url)}


if __name__ == "__main__":
    tls_context()
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
