"""What arrived and what became of it, counted: the part of the record that is no charge."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable

#: Arrival stamps kept for each endpoint.
STAMPS = 100_000


class Traffic:
    """Counters and arrival times; memory is bounded by the number of endpoints, which is fixed."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.arrivals: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=STAMPS))
        #: By the provider's code.
        self.refused: Counter[str] = Counter()
        #: Requests over the rate limit, by endpoint.
        self.violations: Counter[str] = Counter()
        #: Any other count: tokens issued, downloads, connections.
        self.counts: Counter[str] = Counter()

    def arrived(self, endpoint: str, at: float) -> None:
        self.requests[endpoint] += 1
        self.arrivals[endpoint].append(at)

    def peaks(self, window_s: float) -> dict[str, int]:
        """Return for each endpoint the most arrivals in any window of this length."""
        return {endpoint: most_within(stamps, window_s) for endpoint, stamps in self.arrivals.items()}


def most_within(stamps: Iterable[float], window_s: float) -> int:
    """Return the most of these rising times that lie within any half-open window of this length."""
    window: deque[float] = deque()
    most = 0
    for at in stamps:
        window.append(at)
        while window[0] <= at - window_s:
            window.popleft()
        most = max(most, len(window))
    return most
