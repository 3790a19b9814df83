"""Send requests to the strict server with the limiter: `python -m benchmarks.pacer PORT QPS COUNT WORKERS [HOME]`.

Each worker has a connection of its own and one request in flight. With a HOME the limit is shared with every process
that has the same one. The client ends when COUNT requests were admitted, and prints its CPU time in seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from runner.ratelimit.limiter import Limiter
from runner.ratelimit.shared import SharedSlidingWindow
from runner.ratelimit.window import SlidingWindow
from runner.scheduler.clock import Clock
from runner.store.rate_state import SharedRateState


class Pacer:
    """Client that sends `count` requests as fast as the limiter allows."""

    def __init__(self, limiter: Limiter, port: int, count: int) -> None:
        self._limiter, self._port, self._left = limiter, port, count

    async def worker(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while self._left > 0:
            self._left -= 1
            with await self._limiter.acquire() as permit:
                sent = time.monotonic()
                permit.sent(sent)
                writer.write(b"request\n")
                response = await reader.readline()
                permit.answered(time.monotonic() - sent)
                if response != b"yes\n":
                    permit.throttled()
                    self._left += 1
        writer.close()


async def main(port: int, qps: float, count: int, workers: int, home: str | None = None) -> None:
    window, loop = SlidingWindow(qps), asyncio.get_running_loop()
    shared = None
    if home is not None:
        state = SharedRateState(Path(home), "submit", Clock().boot)
        shared = SharedSlidingWindow(window, state, time.monotonic, loop.call_later, print)
    pacer = Pacer(Limiter(shared or window, time.monotonic), port, count)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(pacer.worker())
    if shared is not None:
        shared.close()
    print(time.process_time())


if __name__ == "__main__":
    port, qps, count, workers, *home = sys.argv[1:]
    asyncio.run(main(int(port), float(qps), int(count), int(workers), *home))
