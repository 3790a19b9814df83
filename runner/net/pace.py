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
_REGAIN = 0.1
#: step upwards: share of the ceiling, or of the first rate if there is no ceiling; bounds as shares of the present rate
_STEP, _FREE_STEP, _SMALL_STEP, _LARGE_STEP = 0.1, 0.5, 0.05, 0.5
#: windows at full rate before a step: after the first refusal, minimum after that, maximum
_FIRST_NEED, _LEAST_NEED, _MOST_NEED = 32.0, 4.0, 1024.0
#: share of a refused rate that is tried next, even if as much as before was accepted
_BELOW = 0.95
#: minimum rate: share of the ceiling, and requests per second
_SLOWEST_SHARE, _SLOWEST = 1 / 16, 1 / 20
#: maximum number of refusals in a row that lengthen the pause, and windows after which refusals are forgotten
_LONGEST_ROW, _FORGOTTEN = 5.0, 10.0
#: minimum number of accepted requests that allow an estimate of the server's limit
_ENOUGH = 4.0
#: a refusal is by chance if the rate had held for so many windows, and nearly as much was accepted in the last one, not
#: counting the refused request and another one at the edge of the window
_PROVEN, _NEARLY, _MISSED = 4.0, 0.95, 2.0
#: maximum look-back in windows
_LONGEST = 1024.0
#: maximum rate for any server, in requests per second
FASTEST = 1000.0


@dataclass(slots=True)
class Pace:
    """Learned rate limit of a server; 0 means not known yet. Times are those of the caller's clock, in seconds."""

    #: rate that is tried
    level: float = 0.0
    #: rate that held for a whole window
    good: float = 0.0
    #: windows at full rate before a step upwards; 0 until the first refusal
    need: float = 0.0
    #: requests accepted at full rate since the level changed
    clean: float = 0.0
    #: requests accepted at full rate since the last refusal
    calm: float = 0.0
    #: steps upwards since the last refusal
    steps: float = 0.0
    #: number of refusals in a row
    row: float = 0.0
    #: time at which the rate begins to recover
    since: float = float("-inf")
    #: window in seconds during the recovery
    window: float = 1.0
    #: seconds before the last refusal from which the limit was estimated
    span: float = 0.0

    def target(self, start: float, ceiling: float) -> float:
        """Return the rate to reach, which is `start` until a better one is known."""
        known = self.level if self.need else max(self.level, start)
        return min(ceiling, FASTEST, known)

    def rate(self, now: float, start: float, ceiling: float) -> float:
        """Return the present rate, which is below the target for some time after a refusal."""
        target = self.target(start, ceiling)
        if self.since == float("-inf"):
            return target
        recovered = _REGAIN * min(ceiling, max(start, target)) * max(0, int((now - self.since) / self.window))
        return min(target, max(target / 2, _slowest(start, ceiling)) + recovered)

    def accepted(self, count: int, start: float, ceiling: float) -> None:
        """Record a request that was sent at full rate and accepted; `count` requests make a window."""
        self.clean += 1
        self.calm += 1
        target = self.target(start, ceiling)
        if self.calm >= count:
            self.row = 0.0
        if self.clean >= count:
            self.good = target
        if self.clean < max(1.0, self.need) * count or target >= min(ceiling, FASTEST):
            return
        step = _FREE_STEP * start if ceiling >= FASTEST else _STEP * ceiling
        self.level = target + min(max(step, _SMALL_STEP * target), _LARGE_STEP * target)
        self.clean = 0.0
        if self.need and self.steps:
            self.need = max(_LEAST_NEED, self.need / 2)
        self.steps += 1

    def refused(
        self, now: float, unit: float, accepted: Callable[[float], float], start: float, ceiling: float
    ) -> float:
        """Lower the rate after a refusal and return the seconds to pause.

        `accepted(seconds)` returns the accepted requests per second of the last `seconds`. `unit` is the window of the
        rate target in seconds.
        """
        target = self.target(start, ceiling)
        if now > self.since + _FORGOTTEN * self.window:
            self.row = 0.0
        self.span = min(_LONGEST * unit, 4 * self.span) if self.row else max(unit, self.span / 4)
        estimate = accepted(self.span)
        if estimate * self.span < _ENOUGH:
            estimate = max(estimate, target / 2)  # too few requests to measure a limit: half the rate, not the minimum
        proven = not self.row and self.clean >= _PROVEN * target * self.span
        marginal = estimate >= target or (proven and estimate + _MISSED / self.span >= _NEARLY * target)
        if marginal:
            estimate = _whole(_BELOW * target, unit)
        tried = 0 < self.good < target and not self.row
        self.level = max(_slowest(start, ceiling), estimate, self.good if tried else 0.0)
        self.good = min(self.good, self.level)
        if not self.row:
            self.need = min(_MOST_NEED, 2 * self.need) or (_LEAST_NEED if marginal else _FIRST_NEED)
        self.clean = self.calm = self.steps = 0.0
        pause = unit * 2**self.row
        self.row = min(_LONGEST_ROW, self.row + 1)
        return pause

    def refused_too(self, accepted: Callable[[float], float]) -> None:
        """Lower the rate if a request in flight during the first refusal was refused after fewer acceptances."""
        estimate = accepted(self.span)
        if self.row == 1 and self.good < estimate < self.level:
            self.level = estimate

    def resumes(self, at: float, window: float) -> None:
        """Start the recovery one window after the pause ends at `at`; the rate is halved during that window."""
        self.since, self.window = at + window, window

    def values(self) -> Sequence[float]:
        """Return the state for another process."""
        return _VALUES(self)

    def take(self, values: Iterable[float], *, old: bool) -> None:
        """Replace the state by that of another process; from an earlier boot, keep the learned rate only."""
        for name, value in zip(_NAMES, values, strict=True):
            setattr(self, name, value)
        if old:
            self.clean = self.calm = self.row = 0.0
            self.since = float("-inf")


_NAMES = tuple(field.name for field in fields(Pace))
_VALUES: Callable[[Pace], Sequence[float]] = attrgetter(*_NAMES)


def _slowest(start: float, ceiling: float) -> float:
    return min(_SLOWEST_SHARE * (start if ceiling >= FASTEST else ceiling), _SLOWEST)


def _whole(rate: float, unit: float) -> float:
    """Return the rate rounded down to whole requests per unit, or as it is if that would be none."""
    return int(rate * unit) / unit if rate * unit >= 1 else rate
