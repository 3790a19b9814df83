"""The rate that holds, learned from what the server refuses as too fast; requests a second.

1. A refusal: pause, half the rate for a window, then back by a tenth of what is wished for with each window.
2. What had been accepted in the window before it is what the server allows. Refused again before a whole window was
   accepted, a window four times as long is looked at: a limit a minute, taken for one a second, is found that way.
3. Upwards additively, once enough was accepted at full speed: at each window while nothing was ever refused, later
   ever more rarely, so that finding out costs less than it brings. Never above the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: what each window gives back after a refusal, as a share of what is wished for
_REGAIN = 0.1
#: a step upwards, as shares of the ceiling, or without one of the rate that was begun with; and of the present rate
_STEP, _FREE_STEP, _SMALL_STEP, _LARGE_STEP = 0.1, 0.5, 0.05, 0.5
#: windows at full speed before a step: after the first refusal, at the least after that, and at the most
_FIRST_NEED, _LEAST_NEED, _MOST_NEED = 32.0, 4.0, 1024.0
#: a rate that was refused is left by so much, whatever was accepted
_BELOW = 0.95
#: the slowest: as a share of the ceiling, and requests a second
_SLOWEST_SHARE, _SLOWEST = 1 / 16, 1 / 20
#: refusals in a row that make the pause longer, and windows after which they are forgotten
_LONGEST_ROW, _FORGOTTEN = 5.0, 10.0
#: accepted requests that say what a server allows
_ENOUGH = 4.0
#: a refusal is bad luck where the rate had held for so many windows, and nearly as much was accepted in the last: but
#: for the refused one and another at the edge of the window
_PROVEN, _NEARLY, _MISSED = 4.0, 0.95, 2.0
#: windows that are looked back at the most
_LONGEST = 1024.0
#: no server is asked more often
FASTEST = 1000.0


@dataclass(slots=True)
class Pace:
    """What was learned; 0 means nothing yet. Times are those of the caller's clock."""

    #: the rate that is tried, and the one that held for a whole window
    level: float = 0.0
    good: float = 0.0
    #: windows at full speed before a step upwards; 0 while nothing was ever refused
    need: float = 0.0
    #: accepted at full speed since the level changed, and since the last refusal
    clean: float = 0.0
    calm: float = 0.0
    #: steps upwards since the last refusal
    steps: float = 0.0
    #: refusals in a row, and when the rate begins to come back
    row: float = 0.0
    since: float = float("-inf")
    #: how long a window is during that, and the seconds that the last refusal was judged by
    window: float = 1.0
    span: float = 0.0

    def target(self, start: float, ceiling: float) -> float:
        """The rate wished for: `start` until something better is known."""
        known = self.level if self.need else max(self.level, start)
        return min(ceiling, FASTEST, known)

    def rate(self, now: float, start: float, ceiling: float) -> float:
        """The rate now: less than the target after a refusal."""
        target = self.target(start, ceiling)
        if self.since == float("-inf"):
            return target
        back = _REGAIN * min(ceiling, max(start, target)) * max(0, int((now - self.since) / self.window))
        return min(target, max(target / 2, _slowest(start, ceiling)) + back)

    def accepted(self, count: int, start: float, ceiling: float) -> None:
        """The server took one, sent at full speed; `count` make a window."""
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
        """The server said "too fast"; the seconds to pause for.

        `accepted(seconds)` is the rate at which it took what was sent in the last seconds; `unit` the window of a wish.
        """
        target = self.target(start, ceiling)
        if now > self.since + _FORGOTTEN * self.window:
            self.row = 0.0
        self.span = min(_LONGEST * unit, 4 * self.span) if self.row else max(unit, self.span / 4)
        found = accepted(self.span)
        if found * self.span < _ENOUGH:
            found = max(found, target / 2)  # so few say little of the limit: half, not the slowest there is
        proven = not self.row and self.clean >= _PROVEN * target * self.span
        marginal = found >= target or (proven and found + _MISSED / self.span >= _NEARLY * target)
        if marginal:
            found = _whole(_BELOW * target, unit)
        tried = 0 < self.good < target and not self.row
        self.level = max(_slowest(start, ceiling), found, self.good if tried else 0.0)
        self.good = min(self.good, self.level)
        if not self.row:
            self.need = min(_MOST_NEED, 2 * self.need) or (_LEAST_NEED if marginal else _FIRST_NEED)
        self.clean = self.calm = self.steps = 0.0
        pause = unit * 2**self.row
        self.row = min(_LONGEST_ROW, self.row + 1)
        return pause

    def refused_too(self, accepted: Callable[[float], float]) -> None:
        """It was under way when another was refused: what was accepted before it may be less."""
        found = accepted(self.span)
        if self.row == 1 and self.good < found < self.level:
            self.level = found

    def resumes(self, at: float, window: float) -> None:
        """The pause ends then: half the rate for a window, and back from there."""
        self.since, self.window = at + window, window

    def values(self) -> Sequence[float]:
        """What another process needs to go on with it."""
        return _VALUES(self)

    def take(self, values: Iterable[float], *, old: bool) -> None:
        """Go on where another process was; of an earlier boot only what was learned."""
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
    """As many whole requests in a unit, where that is one or more."""
    return int(rate * unit) / unit if rate * unit >= 1 else rate
