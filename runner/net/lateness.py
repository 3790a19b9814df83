"""How much later than its bytes left a request may have arrived, as far as its reply can tell.

1. A reply that is late against the best round trip may mean that the request was late: at most 250 ms are believed.
2. A server whose replies always vary says nothing by it. What is believed costs the rate, so it has a budget, a share
   of the window: `blind` grows until the mean of what is believed keeps to it. It never outgrows what is usual, so that
   a stall among steady replies is believed whole, whatever it costs.
3. What cannot be seen that way is covered by a margin: 4 ms in a second, and up to 16 ms more where we are blind.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LATE = 0.25
#: the best round trip seen is not the best there is: seconds, as a share of the window and at the most
_LEAST_SHARE, _LEAST = 0.004, 0.25
_BLIND_SHARE, _BLIND = 0.016, 0.25
#: the mean of what is believed, as a share of the window
_BUDGET = 0.024
#: how far a window full of surprises moves `blind`, and one of them at the most
_GAIN, _MOST_GAIN = 3.0, 0.5
#: what is usual: so many of the latest samples, so often in a window, four in five of them below, and twice that
_SAMPLES, _OFTEN, _SHARE, _USUAL = 64, 16, 0.8, 2.0
#: so many times what is usual is no chance
_STRANGE = 1.5
#: replies until the best round trip means anything; after n of them the best there is may be shorter by so much of
#: what is usual, divided by the root of n, less what the margin covers
_FIRST, _UNSURE, _SURE = 12, 1.6, 0.06
#: the best round trip is the best of this many seconds, at least: routes change
_MEMORY = 30.0


class Lateness:
    """Arithmetic over round trips; `window` is the length in seconds that the rate is judged by."""

    def __init__(self) -> None:
        self.blind = 0.0
        self._usual = 0.0
        self._best = self._best_before = float("inf")
        self._best_since = float("-inf")
        self._replies = 0.0
        self._samples = array("d")

    @property
    def best(self) -> float:
        """The shortest round trip, as far as it can be trusted."""
        if self._replies < _FIRST:
            return 0.0
        unsure = self._usual / _USUAL * max(0.0, _UNSURE / math.sqrt(self._replies) - _SURE)
        return max(0.0, min(self._best, self._best_before) - unsure)

    def most(self, window: float) -> float:
        """What is believed at the most."""
        return min(_LATE, window / 4)

    def of(self, passed: float, window: float) -> float:
        """Seconds by which a request counts as late that was answered, or is waited for, so many after it left."""
        unseen = min(_BLIND, _BLIND_SHARE * window, _BLIND_SHARE / _LEAST_SHARE * self.blind)
        seen = min(self.most(window), self._seen(passed))
        return min(_LEAST, _LEAST_SHARE * window) + max(unseen, seen)

    def is_over(self, passed: float, window: float) -> bool:
        """Whether a request can move no further, however long its reply takes."""
        return self._seen(passed) > self.most(window)

    def _seen(self, passed: float) -> float:
        """How late a reply is: what is usual for it says little, what is far beyond that is believed whole."""
        late = passed - self.best
        return late if late > _STRANGE * self._usual else late - self.blind

    def heard(self, now: float, rtt: float, window: float, count: int) -> None:
        """A reply came; `count` is how many make a window."""
        surprise = self.of(rtt, window) - _BUDGET * window
        if now - self._best_since > max(_MEMORY, 10 * window):
            self._best, self._best_before, self._best_since = float("inf"), self._best, now
        self._best = min(self._best, rtt)
        if self._replies % max(1, count // _OFTEN) == 0 or self._replies < _SAMPLES:
            self._sample(rtt)
        self._replies += 1
        self.blind = min(self._usual, max(0.0, self.blind + min(_MOST_GAIN, _GAIN / count) * surprise))

    def _sample(self, rtt: float) -> None:
        del self._samples[: len(self._samples) - _SAMPLES + 1]
        self._samples.append(rtt)
        ordered = sorted(self._samples)
        best = min(self._best, self._best_before)
        self._usual = _USUAL * max(0.0, ordered[int(_SHARE * len(ordered))] - best)

    def values(self) -> Sequence[float]:
        """What another process needs to go on with it."""
        head = array("d", (self.blind, self._usual, self._best, self._best_before, self._best_since, self._replies))
        return head + self._samples

    def take(self, values: Iterable[float]) -> None:
        """Go on where another process was."""
        self.blind, self._usual, self._best, self._best_before, self._best_since, self._replies, *samples = values
        self._samples = array("d", samples)
