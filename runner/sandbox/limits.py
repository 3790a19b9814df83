"""How much a credential may do: requests in any window, and tasks at once."""

from collections import defaultdict, deque
from heapq import heappop, heappush

#: Credentials and endpoints remembered; beyond it all are forgotten, which can only allow too much.
LARGEST = 10_000


class SlidingWindow:
    """Admits at most `limit` requests in any window; refused ones take no room."""

    def __init__(self) -> None:
        self._admitted: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def admit(self, endpoint: str, account: str, now: float, qps: float, window_s: float) -> bool:
        """Say whether one more request fits; below 1 a `qps` stretches the window."""
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
    """Counts the places that running tasks take, for each account and kind."""

    def __init__(self) -> None:
        self._ends: defaultdict[tuple[str, ...], list[tuple[float, int]]] = defaultdict(list)
        self._taken: defaultdict[tuple[str, ...], int] = defaultdict(int)

    def take(self, pack: tuple[str, ...], end: float, places: int) -> None:
        """Take places until the end of a task."""
        heappush(self._ends[pack], (end, places))
        self._taken[pack] += places

    def taken(self, pack: tuple[str, ...], now: float) -> int:
        ends = self._ends[pack]
        while ends and ends[0][0] <= now:
            self._taken[pack] -= heappop(ends)[1]
        return self._taken[pack]
