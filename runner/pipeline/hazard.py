"""How long the tasks of one model take, as far as is known: a life table, learned from looks. Arithmetic alone.

A look at a task says that it ended between the look before and this one, or that it was still running. The table counts
both in bins of age that grow by 8 % (Kaplan and Meier's estimate; the running ones are censored at their last look).
Eight points around a guess stand in until there is something better, and old news fade.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from statistics import NormalDist

#: upper edges of the bins, seconds: a quarter of a second to three days
_EDGES = tuple(0.25 * 1.08**number for number in range(181))
#: the guess: so many points, spread as latencies mostly are (lognormal)
_POINTS, _SPREAD = 8, 0.5
#: endings after which everything that is known counts half
_FADING = 1000.0


def _bin(age: float) -> int:
    return min(bisect_right(_EDGES, age), len(_EDGES) - 1)


class Curve:
    """What is known at one time: the cumulative hazard at the bins' upper edges; it never changes."""

    def __init__(self, sums: tuple[float, ...]) -> None:
        self._sums = sums
        #: seconds after which half of the tasks have ended; inf where nobody knows
        self.median = self._age(math.log(2))

    def next_age(self, age: float, share: float) -> float:
        """The age by which this share of those that run at `age` will have ended; inf where nobody knows."""
        return self._age(self._sum(age) - math.log1p(-share))

    # the sum, minus the logarithm of the share that is still running, is linear within a bin

    def _sum(self, age: float) -> float:
        at = _bin(age)
        low, below = (_EDGES[at - 1], self._sums[at - 1]) if at else (0.0, 0.0)
        return below + (self._sums[at] - below) * min(1.0, (age - low) / (_EDGES[at] - low))

    def _age(self, total: float) -> float:
        at = bisect_right(self._sums, total)
        if at == len(self._sums):
            return math.inf
        low, below = (_EDGES[at - 1], self._sums[at - 1]) if at else (0.0, 0.0)
        return low + (_EDGES[at] - low) * (total - below) / (self._sums[at] - below)


class Hazard:
    """The life table of one model; `typical` is the guess of its median, seconds."""

    def __init__(self, typical: float) -> None:
        self._passed = [0.0] * len(_EDGES)
        self._ended = [0.0] * len(_EDGES)
        self._endings = 0.0
        self._curve: Curve | None = None
        for number in range(_POINTS):
            age = typical * math.exp(_SPREAD * NormalDist().inv_cdf((number + 0.5) / _POINTS))
            self.passed(0.0, age)
            self.ended(age, age)

    def __repr__(self) -> str:
        return f"Hazard(median={self.curve().median:.3g} s, {self._endings:.0f} endings)"

    def passed(self, before: float, age: float) -> None:
        """Seen running at this age, and last seen at an age before (0: never yet)."""
        for number in range(_bin(before), _bin(age)):
            self._passed[number] += 1.0
        self._curve = None

    def ended(self, before: float, age: float) -> None:
        """Found ended at this age, seen running before; counted half-way, or late looks would teach lateness."""
        middle = (before + age) / 2
        self.passed(before, middle)
        self._ended[_bin(middle)] += 1.0
        self._endings += 1.0
        if self._endings > _FADING:
            self._fade()

    def curve(self) -> Curve:
        """What is known now."""
        if self._curve is None:
            counts = zip(self._passed, self._ended, strict=True)
            # one more at risk than were seen: the oldest that is known is not the oldest there is
            hazards = (-math.log1p(-end / (on + end + 1.0)) for on, end in counts)
            self._curve = Curve(tuple(accumulate(hazards)))
        return self._curve

    def _fade(self) -> None:
        self._passed = [count / 2 for count in self._passed]
        self._ended = [count / 2 for count in self._ended]
        self._endings /= 2
