"""Limits of a credential: requests in any time window, and tasks that run at once."""

from collections import defaultdict, deque
from heapq import heappop, heappush

#: Pairs of endpoint and credential that are remembered. Beyond it all are forgotten, which can only admit too much.
LARGEST = 10_000


class SlidingWindow:
    """A sliding-window limit on requests, for each endpoint and account. Refused requests do not count."""

    def __init__(self) -> None:
        self._admitted: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def admit(self, endpoint: str, account: str, now: float, qps: float, window_s: float) -> bool:
        """Return whether one more request is within the limit, and count it if so.

        `window_s` is in seconds. A `qps` below 1 admits one request in a window of `window_s / qps`.
        """
        limit = max(1, int(qps))
        if len(self._admitted) > LARGEST:
            self._admitted.clear()
        stamps = self._admitted[endpoint, account]
        while stamps and stamps[0] <= now - window_s * limit / qps:
            stamps.popleft()
        if len(stamps) >= limit:
            return False
        stamps.append(now)
        return True


class Slots:
    """The slots that running tasks occupy, for each resource pack (provider, account and kind)."""

    def __init__(self) -> None:
        self._ends: defaultdict[tuple[str, ...], list[tuple[float, int]]] = defaultdict(list)
        self._taken: defaultdict[tuple[str, ...], int] = defaultdict(int)

    def take(self, pack: tuple[str, ...], end: float, count: int) -> None:
        """Occupy slots until the end of a task (Unix time, seconds)."""
        heappush(self._ends[pack], (end, count))
        self._taken[pack] += count

    def taken(self, pack: tuple[str, ...], now: float) -> int:
        """Return the number of occupied slots."""
        ends = self._ends[pack]
        while ends and ends[0][0] <= now:
            self._taken[pack] -= heappop(ends)[1]
        return self._taken[pack]
