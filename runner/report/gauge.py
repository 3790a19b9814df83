"""Measure how fast a job progresses from state counts that another process observes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: seconds of history that a rate covers, and seconds below which it is unknown
_WINDOW, _MIN_WINDOW = 60.0, 2.0
_UNSENT = frozenset({"queued", "submitting"})
_INACTIVE = frozenset({"done", "failed", "stranded", "held"})


class RateMeter:
    """Rates of a provider or a job over the last minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def observe(self, counts: Mapping[str, int], now: float) -> None:
        """Record the counts by state at `now` (seconds)."""
        sent = sum(count for state, count in counts.items() if state not in _UNSENT)
        inactive = sum(count for state, count in counts.items() if state in _INACTIVE)
        self._samples.append((now, sent, inactive))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()

    @property
    def submit_rate(self) -> float:
        """Return submits per second, or 0.0 with less than two seconds of history."""
        return self._rate(1)

    @property
    def completion_rate(self) -> float:
        """Return finished tasks per second, or 0.0 with less than two seconds of history."""
        return self._rate(2)

    def eta(self, counts: Mapping[str, int]) -> float | None:
        """Return seconds until no task is left, or None if the rate is zero."""
        remaining = sum(count for state, count in counts.items() if state not in _INACTIVE)
        return remaining / self.completion_rate if self.completion_rate > 0 else None

    def _rate(self, index: int) -> float:
        first, last = (self._samples[0], self._samples[-1]) if self._samples else ((0.0,), (0.0,))
        seconds = last[0] - first[0]
        return max(0.0, (last[index] - first[index]) / seconds) if seconds >= _MIN_WINDOW else 0.0
