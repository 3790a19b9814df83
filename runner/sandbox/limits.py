"""Limits of a credential (requests in any time window, and tasks that run at once), and counts of all requests."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Pairs of endpoint and credential that are remembered. Beyond it all are forgotten, which can only admit too much.
MAX_REMEMBERED = 10_000
#: Arrival times kept for each endpoint.
MAX_ARRIVALS = 100_000


class WindowLimit:
    """A sliding-window limit on requests, for each endpoint and account. Refused requests do not count."""

    def __init__(self) -> None:
        self._admitted: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def admit(self, endpoint: str, account: str, now: float, qps: float, window_s: float) -> bool:
        """Return whether one more request is within the limit, and count it if so.

        `window_s` is in seconds. A `qps` below 1 admits one request in a window of `window_s / qps`.
        """
        limit = max(1, int(qps))
        if len(self._admitted) > MAX_REMEMBERED:
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

    def count_taken(self, pack: tuple[str, ...], now: float) -> int:
        """Return the number of occupied slots."""
        ends = self._ends[pack]
        while ends and ends[0][0] <= now:
            self._taken[pack] -= heappop(ends)[1]
        return self._taken[pack]


class RequestCounters:
    """Counters and arrival times, by endpoint. Memory is bounded, because the number of endpoints is fixed."""

    def __init__(self) -> None:
        #: Requests by endpoint.
        self.requests: Counter[str] = Counter()
        self.arrivals: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_ARRIVALS))
        #: Refused requests by the provider's code.
        self.refused: Counter[str] = Counter()
        #: Requests over the rate limit, by endpoint.
        self.violations: Counter[str] = Counter()
        #: Other events, such as tokens issued, downloads and connections.
        self.counts: Counter[str] = Counter()

    def record_arrival(self, endpoint: str, at: float) -> None:
        """Count a request that arrived at this time (Unix time, seconds)."""
        self.requests[endpoint] += 1
        self.arrivals[endpoint].append(at)

    def peaks(self, window_s: float) -> dict[str, int]:
        """Return the largest number of arrivals in any window of `window_s` seconds, by endpoint."""
        return {endpoint: peak_within(stamps, window_s) for endpoint, stamps in self.arrivals.items()}


def peak_within(stamps: Iterable[float], window_s: float) -> int:
    """Return the largest number of these ascending times in any half-open window of `window_s` seconds."""
    window: deque[float] = deque()
    most = 0
    for at in stamps:
        window.append(at)
        while window[0] <= at - window_s:
            window.popleft()
        most = max(most, len(window))
    return most
