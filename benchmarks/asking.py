"""Small requests, many at once: `python -m benchmarks.asking URL` prints what they cost here and with aiohttp alone.

Both ask the same server over connections that are kept alive and read the same JSON; they take turns, medians count.
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

_KEY = "nobody-reads-this-key"
_PATH = "/v1/images/generations/830895211326457236"
_COUNT, _ROUNDS = 2000, 7
_CANCELLED = 10_000


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    gateway = ProviderClient(url, bearer(_KEY))

    async def ask() -> None:
        outcome = await gateway.send(Request("query", "GET", _PATH, "query"))
        assert isinstance(outcome, Reply), outcome

    yield ask
    await gateway.aclose()


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, headers={"Authorization": f"Bearer {_KEY}"}) as session:

        async def ask() -> None:
            async with session.get(_PATH) as answer:
                orjson.loads(await answer.read())

        yield ask


async def cost(ask: Callable[[], Awaitable[None]], parallel: int) -> float:
    """CPU seconds of one request."""
    left = iter(range(_COUNT))

    async def hand() -> None:
        for _ in left:
            await ask()

    await asyncio.gather(*(ask() for _ in range(parallel)))  # connections are made
    began = time.process_time()
    await asyncio.gather(*(hand() for _ in range(parallel)))
    return (time.process_time() - began) / _COUNT


async def leaked(url: str) -> int:
    """Connections that are still in use after so many requests were cancelled at whatever point."""
    gateway = ProviderClient(url, bearer(_KEY))
    for number in range(_CANCELLED // 50):
        query = Request("query" if number % 2 else "submit", "GET", _PATH, "query")
        tasks = [asyncio.create_task(gateway.send(query)) for _ in range(50)]
        await asyncio.sleep(number % 20 / 2000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    left = sum(line._transport.open_connections for line in (gateway._single_use, gateway._pooled))  # noqa: SLF001
    await gateway.aclose()
    return left


async def main(url: str) -> dict[str, float]:
    """Microseconds of CPU a request, by how many were in flight; and what cancellations leave behind."""
    told: dict[str, float] = {}
    for parallel in (50, 500):
        async with ours(url) as our_ask, bare(url) as bare_ask:
            rounds = [(await cost(our_ask, parallel), await cost(bare_ask, parallel)) for _ in range(_ROUNDS)]
        for name, costs in zip(("gateway", "aiohttp"), zip(*rounds, strict=True), strict=True):
            told[f"{name} {parallel}"] = 1e6 * median(costs)
    return {**told, "leaked": await leaked(url)}


if __name__ == "__main__":
    tls_context()
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
