"""Estimate of a request's delay on its way to the server, from the time of its reply.

1. A reply that is late compared with the best round trip may mean that the request was late. At most 250 ms of it
   count as the request's delay.
2. A server whose replies always vary gives no information. Assumed delay lowers the rate, so it has a budget, a share
   of the window: `noise` grows until the mean of the assumed delay keeps to the budget. It never exceeds the usual
   variation, so that a stall among steady replies counts in full, whatever it costs.
3. Delay that replies cannot show is covered by a margin: 4 ms per second of the window, and up to 16 ms more with
   noise.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: maximum delay in seconds that is assumed
_LATE = 0.25
#: margin for a best possible round trip that was not seen: share of the window, and maximum seconds
_LEAST_SHARE, _LEAST = 0.004, 0.25
#: maximum further margin while there is noise: share of the window, and maximum seconds
_BLIND_SHARE, _BLIND = 0.016, 0.25
#: mean assumed delay, as a share of the window
_BUDGET = 0.024
#: gain of `noise` from a window full of unexpected delays, and the maximum from one of them
_GAIN, _MOST_GAIN = 3.0, 0.5
#: usual variation: number of latest samples, samples per window, quantile of them, and the factor applied to it
_SAMPLES, _OFTEN, _SHARE, _USUAL = 64, 16, 0.8, 2.0
#: multiple of the usual variation that is no chance
_STRANGE = 1.5
#: minimum replies for a meaningful best round trip; after n replies, the best possible one may be shorter by the second
#: figure divided by the root of n, minus the third (covered by the margin), times the usual variation
_FIRST, _UNSURE, _SURE = 12, 1.6, 0.06
#: minimum seconds that a best round trip counts, since network routes change
_MEMORY = 30.0


class Lateness:
    """Delay estimator over round-trip times; `window` is the window of the rate limit. All times are in seconds."""

    def __init__(self) -> None:
        #: seconds of delay in replies that are not counted, since the server's replies vary
        self.blind = 0.0
        self._usual = 0.0
        self._best = self._best_before = float("inf")
        self._best_since = float("-inf")
        self._replies = 0.0
        self._samples = array("d")

    @property
    def best(self) -> float:
        """Return a lower bound of the shortest possible round trip."""
        if self._replies < _FIRST:
            return 0.0
        uncertainty = self._usual / _USUAL * max(0.0, _UNSURE / math.sqrt(self._replies) - _SURE)
        return max(0.0, min(self._best, self._best_before) - uncertainty)

    def most(self, window: float) -> float:
        """Return the maximum delay that is assumed for a request."""
        return min(_LATE, window / 4)

    def of(self, passed: float, window: float) -> float:
        """Return the assumed delay of a request whose reply came, or has not come yet, after `elapsed` seconds."""
        hidden = min(_BLIND, _BLIND_SHARE * window, _BLIND_SHARE / _LEAST_SHARE * self.blind)
        observed = min(self.most(window), self._seen(passed))
        return min(_LEAST, _LEAST_SHARE * window) + max(hidden, observed)

    def is_over(self, passed: float, window: float) -> bool:
        """Return True if the assumed delay has reached its maximum, however long the reply takes."""
        return self._seen(passed) > self.most(window)

    def _seen(self, passed: float) -> float:
        """Return the delay that a reply shows, without the noise unless it is far beyond the usual variation."""
        excess = passed - self.best
        return excess if excess > _STRANGE * self._usual else excess - self.blind

    def heard(self, now: float, rtt: float, window: float, count: int) -> None:
        """Learn from a reply with the round-trip time `rtt`; `count` requests make a window."""
        over_budget = self.of(rtt, window) - _BUDGET * window
        if now - self._best_since > max(_MEMORY, 10 * window):
            self._best, self._best_before, self._best_since = float("inf"), self._best, now
        self._best = min(self._best, rtt)
        if self._replies % max(1, count // _OFTEN) == 0 or self._replies < _SAMPLES:
            self._sample(rtt)
        self._replies += 1
        self.blind = min(self._usual, max(0.0, self.blind + min(_MOST_GAIN, _GAIN / count) * over_budget))

    def _sample(self, rtt: float) -> None:
        del self._samples[: len(self._samples) - _SAMPLES + 1]
        self._samples.append(rtt)
        ordered = sorted(self._samples)
        best = min(self._best, self._best_before)
        self._usual = _USUAL * max(0.0, ordered[int(_SHARE * len(ordered))] - best)

    def values(self) -> Sequence[float]:
        """Return the state for another process."""
        scalars = array("d", (self.blind, self._usual, self._best, self._best_before, self._best_since, self._replies))
        return scalars + self._samples

    def take(self, values: Iterable[float]) -> None:
        """Replace the state by that of another process."""
        self.blind, self._usual, self._best, self._best_before, self._best_since, self._replies, *samples = values
        self._samples = array("d", samples)
