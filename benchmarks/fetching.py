"""Measure downloads alone: `python -m benchmarks.fetching ours|bare URL DIRECTORY FILES PARALLEL [ROOTS]`.

Prints wall time and CPU time in seconds, without imports. `ours` connects, writes, hashes, checks,
syncs, gives the name and syncs the directory; `bare` is aiohttp with sha256, write and fsync in the loop's own thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio

from runner.net.downloader import DownloadedFile, Downloader
from runner.net.partial_file import publish
from runner.net.transport import tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Fetch = Callable[[str, int], Awaitable[None]]


@asynccontextmanager
async def ours(directory: Path, parallel: int, roots: str) -> AsyncIterator[Fetch]:
    downloader = Downloader(loopback=True, per_host=parallel, context=tls_context(roots or None))

    async def fetch(url: str, number: int) -> None:
        part = directory / "parts" / f"{number}.part"
        fetched = await downloader.fetch(url, part)
        assert isinstance(fetched, DownloadedFile), fetched
        await anyio.to_thread.run_sync(publish, part, directory, f"{number}", fetched.extension)

    yield fetch
    await downloader.aclose()


@asynccontextmanager
async def bare(directory: Path, _parallel: int, roots: str) -> AsyncIterator[Fetch]:
    connector = aiohttp.TCPConnector(ssl=tls_context(roots or None))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def fetch(url: str, number: int) -> None:
            digest = hashlib.sha256()
            file = os.open(directory / f"{number}.png", os.O_CREAT | os.O_WRONLY)
            async with session.get(url) as response:
                async for piece in response.content.iter_any():
                    digest.update(piece)
                    os.write(file, piece)
            os.fsync(file)
            os.close(file)

        yield fetch


WAYS: dict[str, Callable[[Path, int, str], AbstractAsyncContextManager[Fetch]]] = {"ours": ours, "bare": bare}


async def main(way: str, url: str, directory: Path, files: int, parallel: int, roots: str) -> tuple[float, float]:
    """Return wall time and CPU time in seconds."""
    left = iter(range(files))
    async with WAYS[way](directory, parallel, roots) as fetch:

        async def worker() -> None:
            for number in left:
                await fetch(f"{url}/{number}.png", number)

        began, worked = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(worker())
        return time.perf_counter() - began, time.process_time() - worked


if __name__ == "__main__":
    how, where, folder, count, at_once, *more = sys.argv[1:]
    print(*asyncio.run(main(how, where, Path(folder), int(count), int(at_once), *more, *([] if more else [""]))))
