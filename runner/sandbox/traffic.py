"""Counters of requests and their outcomes, apart from charges, which are in the ledger."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable

#: Arrival times kept for each endpoint.
STAMPS = 100_000


class Traffic:
    """Counters and arrival times, by endpoint. Memory is bounded, because the number of endpoints is fixed."""

    def __init__(self) -> None:
        #: Requests by endpoint.
        self.requests: Counter[str] = Counter()
        self.arrivals: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=STAMPS))
        #: Refused requests by the provider's code.
        self.refused: Counter[str] = Counter()
        #: Requests over the rate limit, by endpoint.
        self.violations: Counter[str] = Counter()
        #: Other events, such as tokens issued, downloads and connections.
        self.counts: Counter[str] = Counter()

    def arrived(self, endpoint: str, at: float) -> None:
        """Count a request that arrived at this time (Unix time, seconds)."""
        self.requests[endpoint] += 1
        self.arrivals[endpoint].append(at)

    def peaks(self, window_s: float) -> dict[str, int]:
        """Return the largest number of arrivals in any window of `window_s` seconds, by endpoint."""
        return {endpoint: most_within(stamps, window_s) for endpoint, stamps in self.arrivals.items()}


def most_within(stamps: Iterable[float], window_s: float) -> int:
    """Return the largest number of these ascending times in any half-open window of `window_s` seconds."""
    window: deque[float] = deque()
    most = 0
    for at in stamps:
        window.append(at)
        while window[0] <= at - window_s:
            window.popleft()
        most = max(most, len(window))
    return most
