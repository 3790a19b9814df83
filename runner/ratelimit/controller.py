"""Rate control by additive increase and decrease on refusal (AIMD), in requests per second.

1. After a refusal: pause, send at half the rate for a window, then recover by a tenth of the target per window.
2. The number of requests accepted in the window before the refusal is taken as the server's limit. If the server
   refuses again before a whole window was accepted, a window four times as long is considered. This finds a limit per
   minute that was taken for a limit per second.
3. The rate rises additively once enough requests were accepted at full rate: after each window until the first refusal,
   later less and less often, so that probing costs less than it gains. It never exceeds the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: recovery per window after a refusal, as a share of the target
_RECOVERY_SHARE = 0.1
#: step upwards: share of the ceiling, or of the first rate if there is no ceiling; bounds as shares of the present rate
_STEP, _FREE_STEP, _SMALL_STEP, _LARGE_STEP = 0.1, 0.5, 0.05, 0.5
#: windows at full rate before a step: after the first refusal, minimum after that, maximum
_FIRST_STEP_WINDOWS, _MIN_STEP_WINDOWS, _MAX_STEP_WINDOWS = 32.0, 4.0, 1024.0
#: share of a refused rate that is tried next, even if as much as before was accepted
_REFUSED_SHARE = 0.95
#: minimum rate: share of the ceiling, and requests per second
_MIN_RATE_SHARE, _MIN_RATE = 1 / 16, 1 / 20
#: maximum number of refusals in a row that lengthen the pause, and windows after which refusals are forgotten
_MAX_REFUSALS_IN_A_ROW, _REFUSALS_FORGOTTEN_AFTER = 5.0, 10.0
#: minimum number of accepted requests that allow an estimate of the server's limit
_MIN_ACCEPTED = 4.0
#: a refusal is by chance if the rate had held for so many windows, and nearly as much was accepted in the last one, not
#: counting the refused request and another one at the edge of the window
_PROVEN_WINDOWS, _NEARLY_ALL, _UNCOUNTED_REQUESTS = 4.0, 0.95, 2.0
#: maximum look-back in windows
_MAX_LOOKBACK = 1024.0
#: maximum rate for any server, in requests per second
MAX_RATE = 1000.0


@dataclass(slots=True)
class RateController:
    """Learned rate limit of a server; 0 means not known yet. Times are those of the caller's clock, in seconds."""

    #: rate that is tried
    level: float = 0.0
    #: rate that held for a whole window
    proven_rate: float = 0.0
    #: windows at full rate before a step upwards; 0 until the first refusal
    windows_per_step: float = 0.0
    #: requests accepted at full rate since the level changed
    accepted_at_level: float = 0.0
    #: requests accepted at full rate since the last refusal
    accepted_since_refusal: float = 0.0
    #: steps upwards since the last refusal
    steps: float = 0.0
    #: number of refusals in a row
    refusals_in_a_row: float = 0.0
    #: time at which the rate begins to recover
    recovery_start: float = float("-inf")
    #: window in seconds during the recovery
    recovery_window: float = 1.0
    #: seconds before the last refusal from which the limit was estimated
    lookback: float = 0.0

    def target(self, start: float, ceiling: float) -> float:
        """Return the rate to reach, which is `start` until a better one is known."""
        known = self.level if self.windows_per_step else max(self.level, start)
        return min(ceiling, MAX_RATE, known)

    def rate(self, now: float, start: float, ceiling: float) -> float:
        """Return the present rate, which is below the target for some time after a refusal."""
        target = self.target(start, ceiling)
        if self.recovery_start == float("-inf"):
            return target
        windows = max(0, int((now - self.recovery_start) / self.recovery_window))
        recovered = _RECOVERY_SHARE * min(ceiling, max(start, target)) * windows
        return min(target, max(target / 2, _min_rate(start, ceiling)) + recovered)

    def record_accepted(self, count: int, start: float, ceiling: float) -> None:
        """Record a request that was sent at full rate and accepted; `count` requests make a window."""
        self.accepted_at_level += 1
        self.accepted_since_refusal += 1
        target = self.target(start, ceiling)
        if self.accepted_since_refusal >= count:
            self.refusals_in_a_row = 0.0
        if self.accepted_at_level >= count:
            self.proven_rate = target
        if self.accepted_at_level < max(1.0, self.windows_per_step) * count or target >= min(ceiling, MAX_RATE):
            return
        step = _FREE_STEP * start if ceiling >= MAX_RATE else _STEP * ceiling
        self.level = target + min(max(step, _SMALL_STEP * target), _LARGE_STEP * target)
        self.accepted_at_level = 0.0
        if self.windows_per_step and self.steps:
            self.windows_per_step = max(_MIN_STEP_WINDOWS, self.windows_per_step / 2)
        self.steps += 1

    def back_off(
        self, now: float, unit: float, accepted: Callable[[float], float], start: float, ceiling: float
    ) -> float:
        """Lower the rate after a refusal and return the seconds to pause.

        `accepted(seconds)` returns the accepted requests per second of the last `seconds`. `unit` is the window of the
        rate target in seconds.
        """
        target = self.target(start, ceiling)
        if now > self.recovery_start + _REFUSALS_FORGOTTEN_AFTER * self.recovery_window:
            self.refusals_in_a_row = 0.0
        self.lookback = (
            min(_MAX_LOOKBACK * unit, 4 * self.lookback) if self.refusals_in_a_row else max(unit, self.lookback / 4)
        )
        estimate = accepted(self.lookback)
        if estimate * self.lookback < _MIN_ACCEPTED:
            estimate = max(estimate, target / 2)  # too few requests to measure a limit: half the rate, not the minimum
        proven = not self.refusals_in_a_row and self.accepted_at_level >= _PROVEN_WINDOWS * target * self.lookback
        marginal = estimate >= target or (
            proven and estimate + _UNCOUNTED_REQUESTS / self.lookback >= _NEARLY_ALL * target
        )
        if marginal:
            estimate = _whole_requests(_REFUSED_SHARE * target, unit)
        tried = 0 < self.proven_rate < target and not self.refusals_in_a_row
        self.level = max(_min_rate(start, ceiling), estimate, self.proven_rate if tried else 0.0)
        self.proven_rate = min(self.proven_rate, self.level)
        if not self.refusals_in_a_row:
            self.windows_per_step = min(_MAX_STEP_WINDOWS, 2 * self.windows_per_step) or (
                _MIN_STEP_WINDOWS if marginal else _FIRST_STEP_WINDOWS
            )
        self.accepted_at_level = self.accepted_since_refusal = self.steps = 0.0
        pause = unit * 2**self.refusals_in_a_row
        self.refusals_in_a_row = min(_MAX_REFUSALS_IN_A_ROW, self.refusals_in_a_row + 1)
        return pause

    def refine(self, accepted: Callable[[float], float]) -> None:
        """Lower the rate if a request in flight during the first refusal was refused after fewer acceptances."""
        estimate = accepted(self.lookback)
        if self.refusals_in_a_row == 1 and self.proven_rate < estimate < self.level:
            self.level = estimate

    def resume_at(self, at: float, window: float) -> None:
        """Start the recovery one window after the pause ends at `at`; the rate is halved during that window."""
        self.recovery_start, self.recovery_window = at + window, window

    def state(self) -> Sequence[float]:
        """Return the state for another process."""
        return _field_values(self)

    def restore(self, values: Iterable[float], *, earlier_boot: bool) -> None:
        """Replace the state by that of another process; from an earlier boot, keep the learned rate only."""
        for name, value in zip(_FIELD_NAMES, values, strict=True):
            setattr(self, name, value)
        if earlier_boot:
            self.accepted_at_level = self.accepted_since_refusal = self.refusals_in_a_row = 0.0
            self.recovery_start = float("-inf")


_FIELD_NAMES = tuple(field.name for field in fields(RateController))
_field_values: Callable[[RateController], Sequence[float]] = attrgetter(*_FIELD_NAMES)


def _min_rate(start: float, ceiling: float) -> float:
    return min(_MIN_RATE_SHARE * (start if ceiling >= MAX_RATE else ceiling), _MIN_RATE)


def _whole_requests(rate: float, unit: float) -> float:
    """Return the rate rounded down to whole requests per unit, or as it is if that would be none."""
    return int(rate * unit) / unit if rate * unit >= 1 else rate
