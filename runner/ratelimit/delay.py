"""Estimate of a request's delay on its way to the server, from the time of its reply.

1. A reply that is late compared with the best round trip may mean that the request was late. At most 250 ms of it
   count as the request's delay.
2. A server whose replies always vary gives no information. Assumed delay lowers the rate, so its mean is limited to a
   share of the window: `noise` grows until the mean is within the limit. It never exceeds the usual variation, so that
   a stall among steady replies counts in full, whatever it costs.
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
_MAX_DELAY = 0.25
#: margin for a best possible round trip that was not seen: share of the window, and maximum seconds
_MARGIN_SHARE, _MAX_MARGIN = 0.004, 0.25
#: maximum further margin while there is noise: share of the window, and maximum seconds
_NOISE_SHARE, _MAX_NOISE_MARGIN = 0.016, 0.25
#: maximum mean of the assumed delay, as a share of the window
_MEAN_SHARE = 0.024
#: gain of `noise` from a window full of unexpected delays, and the maximum from one of them
_GAIN, _MAX_GAIN = 3.0, 0.5
#: usual variation: number of latest samples, samples per window, quantile of them, and the factor applied to it
_SAMPLE_COUNT, _SAMPLES_PER_WINDOW, _QUANTILE, _USUAL_FACTOR = 64, 16, 0.8, 2.0
#: multiple of the usual variation that is no chance
_OUTLIER_FACTOR = 1.5
#: minimum replies for a meaningful best round trip; after n replies, the best possible one may be shorter by the second
#: figure divided by the root of n, minus the third (covered by the margin), times the usual variation
_MIN_REPLIES, _UNCERTAINTY, _COVERED_UNCERTAINTY = 12, 1.6, 0.06
#: minimum seconds that a best round trip counts, since network routes change
_BEST_RTT_LIFETIME = 30.0


class DelayEstimator:
    """Delay estimator over round-trip times; `window` is the window of the rate limit. All times are in seconds."""

    def __init__(self) -> None:
        #: seconds of delay in replies that are not counted, since the server's replies vary
        self.noise = 0.0
        self._usual_excess = 0.0
        self._best_rtt = self._previous_best_rtt = float("inf")
        self._best_since = float("-inf")
        self._reply_count = 0.0
        self._samples = array("d")

    @property
    def best_rtt(self) -> float:
        """Return a lower bound of the shortest possible round trip."""
        if self._reply_count < _MIN_REPLIES:
            return 0.0
        share = max(0.0, _UNCERTAINTY / math.sqrt(self._reply_count) - _COVERED_UNCERTAINTY)
        uncertainty = self._usual_excess / _USUAL_FACTOR * share
        return max(0.0, min(self._best_rtt, self._previous_best_rtt) - uncertainty)

    def max_delay(self, window: float) -> float:
        """Return the maximum delay that is assumed for a request."""
        return min(_MAX_DELAY, window / 4)

    def delay(self, elapsed: float, window: float) -> float:
        """Return the assumed delay of a request whose reply came, or has not come yet, after `elapsed` seconds."""
        hidden = min(_MAX_NOISE_MARGIN, _NOISE_SHARE * window, _NOISE_SHARE / _MARGIN_SHARE * self.noise)
        observed = min(self.max_delay(window), self._observed_delay(elapsed))
        return min(_MAX_MARGIN, _MARGIN_SHARE * window) + max(hidden, observed)

    def is_final(self, elapsed: float, window: float) -> bool:
        """Return True if the assumed delay has reached its maximum, however long the reply takes."""
        return self._observed_delay(elapsed) > self.max_delay(window)

    def _observed_delay(self, elapsed: float) -> float:
        """Return the delay that a reply shows, without the noise unless it is far beyond the usual variation."""
        excess = elapsed - self.best_rtt
        return excess if excess > _OUTLIER_FACTOR * self._usual_excess else excess - self.noise

    def record_reply(self, now: float, rtt: float, window: float, count: int) -> None:
        """Learn from a reply with the round-trip time `rtt`; `count` requests make a window."""
        excess = self.delay(rtt, window) - _MEAN_SHARE * window
        if now - self._best_since > max(_BEST_RTT_LIFETIME, 10 * window):
            self._best_rtt, self._previous_best_rtt, self._best_since = float("inf"), self._best_rtt, now
        self._best_rtt = min(self._best_rtt, rtt)
        if self._reply_count % max(1, count // _SAMPLES_PER_WINDOW) == 0 or self._reply_count < _SAMPLE_COUNT:
            self._add_sample(rtt)
        self._reply_count += 1
        self.noise = min(self._usual_excess, max(0.0, self.noise + min(_MAX_GAIN, _GAIN / count) * excess))

    def _add_sample(self, rtt: float) -> None:
        del self._samples[: len(self._samples) - _SAMPLE_COUNT + 1]
        self._samples.append(rtt)
        ordered = sorted(self._samples)
        best = min(self._best_rtt, self._previous_best_rtt)
        self._usual_excess = _USUAL_FACTOR * max(0.0, ordered[int(_QUANTILE * len(ordered))] - best)

    def state(self) -> Sequence[float]:
        """Return the state for another process."""
        scalars = array(
            "d",
            (
                self.noise,
                self._usual_excess,
                self._best_rtt,
                self._previous_best_rtt,
                self._best_since,
                self._reply_count,
            ),
        )
        return scalars + self._samples

    def restore(self, values: Iterable[float]) -> None:
        """Replace the state by that of another process."""
        (
            self.noise,
            self._usual_excess,
            self._best_rtt,
            self._previous_best_rtt,
            self._best_since,
            self._reply_count,
            *samples,
        ) = values
        self._samples = array("d", samples)
