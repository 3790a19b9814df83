"""How often something happens, and whether that says anything about what comes."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

#: times that a pace is measured over
_RECENT = 60
#: times before which nobody can say how long the rest will take
_FEWEST = 3
#: seconds of silence that are no reason yet to doubt a pace; where pauses were longer before, twice those
_PATIENT = 60.0


class Pace:
    """How often something happens: the latest of it, since what came before them."""

    def __init__(self) -> None:
        self._stamps: deque[float] = deque(maxlen=_RECENT)
        self._since: float | None = None

    def start(self, now: float) -> None:
        """Nothing has happened yet; from now on time counts."""
        self._since = now

    def beat(self, now: float) -> None:
        """It has happened."""
        if self._since is None:
            self._since = now  # what the others are measured from
            return
        if len(self._stamps) == _RECENT:
            self._since = self._stamps[0]
        self._stamps.append(now)

    def rate(self, now: float) -> float:
        """Times a second; 0.0 until there are two."""
        if len(self._stamps) < 2 or self._since is None or now <= self._since:  # noqa: PLR2004 - one is an anecdote
            return 0.0
        return len(self._stamps) / (now - self._since)

    def steady(self, now: float) -> bool:
        """Whether the rate says anything about what comes: enough has happened, and not too long ago."""
        if len(self._stamps) < _FEWEST or self._since is None:
            return False
        stamps = [self._since, *self._stamps]
        longest = max(later - sooner for sooner, later in pairwise(stamps))
        return now - stamps[-1] <= max(_PATIENT, 2 * longest)
