"""When to poll which task: arithmetic on ages and due times, without a clock.

1. The next poll of a task comes when three in ten of its kind will have ended, four where submits share the limit; at
   most half the median away, at least a second or 3 % of it. The first poll waits for no more than its share.
2. A call goes out when it is full, or when its oldest poll has been due for a while: batches pay only when full.
3. Places that are left go to the polls due next, unless the last one was too short a while ago or met with trouble.
4. Where each second counts, since submits wait for a full window or only a few tasks are left, polls come when one in
   twenty-five will have ended, at most a sixteenth of the median away, and calls hardly wait to be full.
5. In between, where nothing is left to submit but many tasks run: one in five, at most a sixth of the median. Tasks
   that were submitted together end at about one time, so late news of the first ones are late news of the last ones.

How long tasks of one model take is learned from the polls, as a life table. A poll says that a task ended between the
poll before and this one, or that it was still running. The table counts both in bins of age that grow by 8 % (the
estimate of Kaplan and Meier; running tasks are censored at their last poll). Eight points around a guess stand in until
there is something better, and old observations fade.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.tasks.models import Task

#: upper edges of the bins, seconds: a quarter of a second to three days
_EDGES = tuple(0.25 * 1.08**number for number in range(181))
#: the guess: so many points, spread as latencies mostly are (lognormal)
_POINTS, _SPREAD = 8, 0.5
#: endings after which every count is halved
_FADING = 1000.0
#: likelihood that a poll should find its task ended, where each second counts and it is a call of its own
_SINGLE = 0.15
#: how near a poll may be, as a share of the median
_NEAREST = 0.03
#: of a task's age: what is long overdue is polled at longer intervals
_OVERDUE = 1 / 80
#: the first guess of a median, in units of the earliest poll
_GUESS = 4.0
#: a window that is so full lets submits wait
_FULL = 0.9
#: so many tasks are few where each poll is a call of its own; else as many as fit into one
_FEW = 16
#: how long an unlisted state word is borne: times the longest that a task of the kind took in this run, or, where none
#: has ended yet, times the longest time between two polls; and seconds at least
_USUAL_TIMES, _UNKNOWN_TIMES, _BORNE_AT_LEAST = 4.0, 40.0, 60.0
#: tasks whose last poll is remembered; beyond it the oldest are forgotten, and teach nothing
_REMEMBERED = 50_000


def _bin(age: float) -> int:
    return min(bisect_right(_EDGES, age), len(_EDGES) - 1)


class Curve:
    """The cumulative hazard at the bins' upper edges, as known at one time. Immutable."""

    def __init__(self, sums: tuple[float, ...]) -> None:
        self._sums = sums
        #: seconds after which half of the tasks have ended; inf if unknown
        self.median = self._age(math.log(2))

    def next_age(self, age: float, share: float) -> float:
        """Return the age by which this share of the tasks that run at `age` will have ended; inf if unknown."""
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
        self._survived = [0.0] * len(_EDGES)
        self._ended = [0.0] * len(_EDGES)
        self._endings = 0.0
        #: the oldest age at which a task was seen to end, seconds; 0.0: none was
        self.longest = 0.0
        self._curve: Curve | None = None
        for number in range(_POINTS):
            age = typical * math.exp(_SPREAD * NormalDist().inv_cdf((number + 0.5) / _POINTS))
            self.record_running(0.0, age)
            self.record_end(age, age)
        self.longest = 0.0

    def __repr__(self) -> str:
        return f"Hazard(median={self.curve().median:.3g} s, {self._endings:.0f} endings)"

    def record_running(self, before: float, age: float) -> None:
        """Count a task that runs at this age, and was last seen at an age before (0: never yet)."""
        for number in range(_bin(before), _bin(age)):
            self._survived[number] += 1.0
        self._curve = None

    def record_end(self, before: float, age: float) -> None:
        """Count a task that ended between two ages, half-way between them, so that late polls teach no lateness."""
        middle = (before + age) / 2
        self.longest = max(self.longest, age)
        self.record_running(before, middle)
        self._ended[_bin(middle)] += 1.0
        self._endings += 1.0
        if self._endings > _FADING:
            self._survived = [count / 2 for count in self._survived]
            self._ended = [count / 2 for count in self._ended]
            self._endings /= 2

    def curve(self) -> Curve:
        """Return what is known now."""
        if self._curve is None:
            counts = zip(self._survived, self._ended, strict=True)
            # one more at risk than were seen: the oldest that is known is not the oldest there is
            hazards = (-math.log1p(-end / (on + end + 1.0)) for on, end in counts)
            self._curve = Curve(tuple(accumulate(hazards)))
        return self._curve


@dataclass(frozen=True, slots=True)
class PollBounds:
    """Bounds of the polls of one provider; seconds."""

    #: from acceptance to the first poll, at least
    first: float = 2.0
    #: to the next poll of a task, at most
    longest: float = 15.0
    #: tasks that one call can ask about
    size: int = 1
    #: polls and submits draw from one limit
    shared: bool = False

    @property
    def shortest(self) -> float:
        """Return the shortest time between two polls of a task."""
        return min(1.0, self.first)

    @property
    def few(self) -> int:
        """Return the number of tasks that can be polled all the time."""
        return self.size if self.size > 1 else _FEW


@dataclass(frozen=True, slots=True)
class Urgency:
    """How much it is worth to learn of an end early."""

    #: likelihood that a poll should find its task ended, and where submits draw from the same limit
    share: float
    shared: float
    #: how far away a poll may be, as a share of the median
    farthest: float
    #: how long the oldest poll of a call that is not full may wait, in units of the shortest time between two polls
    linger: float


#: submits go on; nothing is left to submit; submits wait for a slot, or few tasks are left
LOW = Urgency(0.3, 0.4, 1 / 2, 2.0)
MEDIUM = Urgency(0.2, 0.3, 1 / 6, 1.0)
HIGH = Urgency(0.04, 0.04, 1 / 16, 0.2)


class PollSchedule:
    """Poll times of one provider, learned from the polls of one run. All times in seconds since the epoch."""

    def __init__(self, bounds: PollBounds, began: float) -> None:
        self.bounds, self._began = bounds, began
        self._guess = Hazard(_GUESS * bounds.first)
        self._hazards: dict[tuple[str, str], Hazard] = {}
        #: when each task was last seen running
        self._seen: dict[int, float] = {}
        #: since when each task has had a state word that the spec does not list
        self._unlisted: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"PollSchedule({self._hazards}, {len(self._seen)} seen)"

    def is_window_full(self, running: int, window: int | None) -> bool:
        """Return True if submits wait for tasks to end; `window` None is no limit."""
        return window is not None and running >= _FULL * window

    def first_delay(self, operation: str, model: str, urgency: Urgency) -> float:
        """Return seconds from acceptance to the first poll. A call of its own is never hastened, so it comes early."""
        share = self._share(HIGH if self.bounds.size == 1 else urgency)
        next_age = self._hazard(operation, model).curve().next_age(0.0, share)
        return max(self.bounds.first, min(self.bounds.longest, next_age))

    def urgency(self, *, queued: bool, many: bool, running: int, window: int | None) -> Urgency:
        """Return the urgency: by `queued` tasks and whether they wait for a slot, else by whether `many` still run."""
        if queued:
            return HIGH if self.is_window_full(running, window) else LOW
        if not many:
            return HIGH
        return MEDIUM if self.bounds.size > 1 else LOW

    def next_call_at(self, oldest: float, last: float | None, urgency: Urgency, few: Iterable[Task] = ()) -> float:
        """Return when the next call goes out, by the due times of the oldest poll and of the last of a few.

        `last` is None while fewer run. `few` are all running tasks, where they are few: their polls were planned while
        there were many.
        """
        if self.bounds.size == 1:
            return oldest
        linger = urgency.linger * self.bounds.shortest
        times = [oldest + linger, *([] if last is None else [last]), *(self._hastened(task) for task in few)]
        return min(times)

    def planner(self, now: float, urgency: Urgency) -> Callable[[Task], float | None]:
        """Return a function that gives a task of a call sent now its next due time, or None to leave it out."""
        curves = {kind: hazard.curve() for kind, hazard in self._hazards.items()}
        unknown = self._guess.curve()

        def next_poll(task: Task) -> float | None:
            curve = curves.get((task.operation, task.model), unknown)
            if task.due_at is not None and task.due_at > now and not self._may_fill(task, curve, now):
                return None
            return now + self._gap(curve, _age(task, now), urgency)

        return next_poll

    def overdue(self, task: Task, at: float) -> float:
        """Return the seconds since when a task has had unlisted state words, if it should have ended; else 0.0.

        To be called for each poll with such a word. An unlisted word may be a step on the way or an end. The time
        counts from this run's first poll with one, so that no pause between two runs makes a task late.
        """
        since = self._unlisted.setdefault(task.id, at)
        if len(self._unlisted) > _REMEMBERED:
            del self._unlisted[next(iter(self._unlisted))]
        longest = self._hazard(task.operation, task.model).longest
        usual = _USUAL_TIMES * longest if longest else _UNKNOWN_TIMES * self.bounds.longest
        return at - since if at - since > max(_BORNE_AT_LEAST, usual) else 0.0

    def forget_unlisted(self, task: Task) -> None:
        """Take note that a task has a state word that the spec lists."""
        self._unlisted.pop(task.id, None)

    def record_running(self, task: Task, at: float) -> None:
        """Learn from a poll at that time that found the task running."""
        before = self._last_seen(task)
        if before is not None:
            self._hazard(task.operation, task.model).record_running(_age(task, before), _age(task, at))
        self._seen.pop(task.id, None)  # so that the oldest poll stands first
        self._seen[task.id] = at
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def record_end(self, task: Task, at: float) -> None:
        """Learn from a poll at that time that found the task ended, well or not."""
        before = self._last_seen(task)
        if before is not None:
            self._hazard(task.operation, task.model).record_end(_age(task, before), _age(task, at))
        self._seen.pop(task.id, None)

    def _last_seen(self, task: Task) -> float | None:
        """Return when the task was last known to run; None if this run has neither polled nor sent it."""
        if task.id in self._seen:
            return self._seen[task.id]
        return task.submitted_at if task.submitted_at is not None and task.submitted_at >= self._began else None

    def _hazard(self, operation: str, model: str) -> Hazard:
        if (operation, model) not in self._hazards:
            self._hazards[operation, model] = Hazard(_GUESS * self.bounds.first)
        return self._hazards[operation, model]

    def _share(self, urgency: Urgency) -> float:
        if urgency is HIGH and self.bounds.size == 1:
            return _SINGLE
        return urgency.shared if self.bounds.shared else urgency.share

    def _gap(self, curve: Curve, age: float, urgency: Urgency) -> float:
        farthest = min(self.bounds.longest, max(curve.median * urgency.farthest, _OVERDUE * age))
        return max(self._nearest(curve), min(farthest, curve.next_age(age, self._share(urgency)) - age))

    def _nearest(self, curve: Curve) -> float:
        known = _NEAREST * curve.median if math.isfinite(curve.median) else 0.0
        return min(self.bounds.longest, max(self.bounds.shortest, known))

    def _may_fill(self, task: Task, curve: Curve, now: float) -> bool:
        return not task.failures and now >= self._seen.get(task.id, -math.inf) + self._nearest(curve)

    def _hastened(self, task: Task) -> float:
        """Return when the task would be polled next if its last poll were planned now."""
        last, due = self._last_seen(task), task.due_at if task.due_at is not None else math.inf
        if last is None or task.failures:
            return due
        curve, age = self._hazard(task.operation, task.model).curve(), _age(task, last)
        if age > 0:
            return min(due, last + self._gap(curve, age, HIGH))
        return min(due, last + self.first_delay(task.operation, task.model, HIGH))


def _age(task: Task, now: float) -> float:
    start = task.submitted_at if task.submitted_at is not None else task.since
    return 0.0 if start is None else max(0.0, now - start)
