"""A client of the judge with the real limiter alone: `python -m benchmarks.pacer PORT QPS COUNT HANDS [HOME]`.

Each hand has a connection of its own and one request on the wire. With a HOME its bucket is shared with every process
that has the same. It ends when COUNT were admitted, and prints the seconds of CPU that it took.
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
    """So many requests, as fast as the limiter lets them go."""

    def __init__(self, limiter: Limiter, port: int, count: int) -> None:
        self._limiter, self._port, self._left = limiter, port, count

    async def hand(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while self._left > 0:
            self._left -= 1
            with await self._limiter.acquire() as permit:
                sent = time.monotonic()
                permit.sent(sent)
                writer.write(b"request\n")
                answer = await reader.readline()
                permit.answered(time.monotonic() - sent)
                if answer != b"yes\n":
                    permit.throttled()
                    self._left += 1
        writer.close()


async def main(port: int, qps: float, count: int, hands: int, home: str | None = None) -> None:
    bucket, loop = SlidingWindow(qps), asyncio.get_running_loop()
    shared = None
    if home is not None:
        budget = SharedRateState(Path(home), "submit", Clock().boot)
        shared = SharedSlidingWindow(bucket, budget, time.monotonic, loop.call_later, print)
    pacer = Pacer(Limiter(shared or bucket, time.monotonic), port, count)
    async with asyncio.TaskGroup() as group:
        for _ in range(hands):
            group.create_task(pacer.hand())
    if shared is not None:
        shared.close()
    print(time.process_time())


if __name__ == "__main__":
    port, qps, count, hands, *home = sys.argv[1:]
    asyncio.run(main(int(port), float(qps), int(count), int(hands), *home))
