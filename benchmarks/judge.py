"""A strict server on loopback, as a process of its own: it refuses when more than q arrive in any sliding second.

`python -m benchmarks.judge QPS LOW HIGH`: each line that arrives is judged at once, and answered after LOW to HIGH
seconds. It prints its port; when its standard input ends, what it saw.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import deque


class Judge:
    """What arrived, and what of it was too much."""

    def __init__(self, most: int, low: float, high: float) -> None:
        self._most, self._delay = most, (low, high)
        self._dice = random.Random(1)
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
            answer = b"yes\n" if self.admits() else b"no\n"
            loop.call_later(self._dice.uniform(*self._delay), writer.write, answer)
        writer.close()


async def main(most: int, low: float, high: float) -> None:
    judge = Judge(most, low, high)
    server = await asyncio.start_server(judge.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    first, last = (judge.arrivals[0], judge.arrivals[-1]) if judge.arrivals else (0.0, 0.0)
    print(json.dumps({"admitted": len(judge.arrivals), "refused": judge.refused, "seconds": last - first}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
