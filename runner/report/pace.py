"""Measure the rate of an event, and tell whether it is steady enough to predict from."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

#: latest events that a rate covers
_RECENT = 60
#: events below which no remaining time is predicted
_FEWEST = 3
#: seconds without an event after which a rate is stale, unless twice the longest earlier pause is more
_PATIENT = 60.0


class Pace:
    """Rate of an event over its latest occurrences."""

    def __init__(self) -> None:
        self._stamps: deque[float] = deque(maxlen=_RECENT)
        self._since: float | None = None

    def start(self, now: float) -> None:
        """Start the measurement at `now` (seconds), before the first event."""
        self._since = now

    def beat(self, now: float) -> None:
        """Record an event at `now` (seconds)."""
        if self._since is None:
            self._since = now  # the first event is the origin of the others
            return
        if len(self._stamps) == _RECENT:
            self._since = self._stamps[0]
        self._stamps.append(now)

    def rate(self, now: float) -> float:
        """Return events per second, or 0.0 with fewer than two."""
        if len(self._stamps) < 2 or self._since is None or now <= self._since:  # noqa: PLR2004 - one event is no rate
            return 0.0
        return len(self._stamps) / (now - self._since)

    def steady(self, now: float) -> bool:
        """Return whether the rate may be used for a prediction: enough events, the last one recent."""
        if len(self._stamps) < _FEWEST or self._since is None:
            return False
        stamps = [self._since, *self._stamps]
        longest_pause = max(later - earlier for earlier, later in pairwise(stamps))
        return now - stamps[-1] <= max(_PATIENT, 2 * longest_pause)
