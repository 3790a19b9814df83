"""Refuse requests beyond a limit in any sliding second: `python -m benchmarks.strict_server QPS LOW HIGH`.

Each line is a request. It is counted on arrival, and answered after LOW to HIGH seconds. The server prints its port,
and its counters when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import deque


class StrictServer:
    """Sliding-window limit on requests, with the times of those admitted and the number of those refused."""

    def __init__(self, most: int, low: float, high: float) -> None:
        self._most, self._delay = most, (low, high)
        self._random = random.Random(1)
        self._window: deque[float] = deque()
        self.arrivals: list[float] = []
        self.refused = 0

    def admits(self) -> bool:
        now = time.monotonic()
        while self._window and self._window[0] <= now - 1.0:
            self._window.popleft()
        if len(self._window) >= self._most:
            self.refused += 1
            return False
        self._window.append(now)
        self.arrivals.append(now)
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while await reader.readline():
            response = b"yes\n" if self.admits() else b"no\n"
            loop.call_later(self._random.uniform(*self._delay), writer.write, response)
        writer.close()


async def main(most: int, low: float, high: float) -> None:
    strict = StrictServer(most, low, high)
    server = await asyncio.start_server(strict.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    first, last = (strict.arrivals[0], strict.arrivals[-1]) if strict.arrivals else (0.0, 0.0)
    print(json.dumps({"admitted": len(strict.arrivals), "refused": strict.refused, "seconds": last - first}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
