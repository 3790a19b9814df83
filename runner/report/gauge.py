"""How fast a job goes, from counts that are looked at now and then, by one who is not the run."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: seconds that a rate is measured over, and below which it says nothing
_OVER, _FEWEST = 60.0, 2.0
_UNSENT = frozenset({"queued", "submitting"})
_AT_REST = frozenset({"done", "failed", "stranded", "held"})


class Gauge:
    """Counts of a provider, or of a job, over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def look(self, counts: Mapping[str, int], now: float) -> None:
        """Remember how many were sent and how many rest now."""
        sent = sum(count for state, count in counts.items() if state not in _UNSENT)
        rested = sum(count for state, count in counts.items() if state in _AT_REST)
        self._seen.append((now, sent, rested))
        while now - self._seen[0][0] > _OVER:
            self._seen.popleft()

    @property
    def submits(self) -> float:
        """Submits a second; 0.0 while there are none, or it was not watched for long."""
        return self._rate(1)

    @property
    def rests(self) -> float:
        """Tasks a second that came to an end."""
        return self._rate(2)

    def eta(self, counts: Mapping[str, int]) -> float | None:
        """Seconds until nothing is left to do; None where nobody knows."""
        left = sum(count for state, count in counts.items() if state not in _AT_REST)
        return left / self.rests if self.rests > 0 else None

    def _rate(self, at: int) -> float:
        first, last = (self._seen[0], self._seen[-1]) if self._seen else ((0.0,), (0.0,))
        seconds = last[0] - first[0]
        return max(0.0, (last[at] - first[at]) / seconds) if seconds >= _FEWEST else 0.0
