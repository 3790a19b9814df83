"""Measure how fast a job progresses from state counts that another process observes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: seconds of history that a rate covers, and seconds below which it is unknown
_OVER, _FEWEST = 60.0, 2.0
_UNSENT = frozenset({"queued", "submitting"})
_AT_REST = frozenset({"done", "failed", "stranded", "held"})


class Gauge:
    """Rates of a provider or a job over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def look(self, counts: Mapping[str, int], now: float) -> None:
        """Record the counts by state at `now` (seconds)."""
        sent = sum(count for state, count in counts.items() if state not in _UNSENT)
        inactive = sum(count for state, count in counts.items() if state in _AT_REST)
        self._seen.append((now, sent, inactive))
        while now - self._seen[0][0] > _OVER:
            self._seen.popleft()

    @property
    def submits(self) -> float:
        """Return submits per second, or 0.0 with less than two seconds of history."""
        return self._rate(1)

    @property
    def rests(self) -> float:
        """Return finished tasks per second, or 0.0 with less than two seconds of history."""
        return self._rate(2)

    def eta(self, counts: Mapping[str, int]) -> float | None:
        """Return seconds until no task is left, or None if the rate is zero."""
        remaining = sum(count for state, count in counts.items() if state not in _AT_REST)
        return remaining / self.rests if self.rests > 0 else None

    def _rate(self, index: int) -> float:
        first, last = (self._seen[0], self._seen[-1]) if self._seen else ((0.0,), (0.0,))
        seconds = last[0] - first[0]
        return max(0.0, (last[index] - first[index]) / seconds) if seconds >= _FEWEST else 0.0
