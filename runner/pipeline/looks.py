"""Whom to ask how it is doing, and when: arithmetic on ages and due times, without a clock.

1. The next look at a task comes when three in ten of its kind will have ended, four where submits share the limit; at
   most half the median away, at least a second or 3 % of it. The first look waits for no more than its share.
2. A call goes out when it is full, or when its oldest look has been due for a while: batches pay only when full.
3. Places that are left go to the looks due next, unless the last one was too short a while ago or met with trouble.
4. Where each second counts, since submits wait for a full window or only a few tasks are left, looks come when one in
   twenty-five will have ended, at most a sixteenth of the median away, and calls hardly wait to be full.
5. In between, where nothing is left to submit but many tasks run: one in five, at most a sixth of the median. What was
   submitted at once ends at about one time, so whoever learns late how long it takes learns it of the last ones, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.pipeline.hazard import Hazard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.lifecycle.task import Task
    from runner.pipeline.hazard import Curve

#: how likely a look should find its task ended, where each second counts and it is a call of its own
_SINGLE = 0.15
#: how near a look may be, as a share of the median
_NEAREST = 0.03
#: of a task's age: what is long overdue is not asked about all the time
_OVERDUE = 1 / 80
#: the first guess of a median, in units of the earliest look
_GUESS = 4.0
#: a window that is so full lets submits wait
_FULL = 0.9
#: so many tasks are few where each look is a call of its own; else as many as fit into one
_FEW = 16
#: tasks whose last look is remembered; beyond it the oldest are forgotten, and teach nothing
_MOST = 50_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the looks at one provider keep to; seconds."""

    #: from acceptance to the first look, at least
    first: float = 2.0
    #: to the next look at a task, at most
    longest: float = 15.0
    #: tasks that one call can ask about
    size: int = 1
    #: looks and submits draw from one limit
    shared: bool = False

    @property
    def shortest(self) -> float:
        """Between two looks at a task, at least."""
        return min(1.0, self.first)

    @property
    def few(self) -> int:
        """Tasks that can be asked about all the time."""
        return self.size if self.size > 1 else _FEW


@dataclass(frozen=True, slots=True)
class Haste:
    """How much it is worth to know of an end early."""

    #: how likely a look should find its task ended, and where submits draw from the same limit
    share: float
    shared: float
    #: how far away a look may be, as a share of the median
    farthest: float
    #: how long the oldest look of a call that is not full may wait, in units of the shortest time between two looks
    linger: float


#: submits go on; nothing is left to submit; submits wait for room, or few tasks are left
CALM = Haste(0.3, 0.4, 1 / 2, 2.0)
CLOSING = Haste(0.2, 0.3, 1 / 6, 1.0)
EAGER = Haste(0.04, 0.04, 1 / 16, 0.2)


class Looks:
    """What the looks of one run at one provider have taught; `began` in seconds since the epoch, as all its times."""

    def __init__(self, bounds: Bounds, began: float) -> None:
        self.bounds, self._began = bounds, began
        self._guess = Hazard(_GUESS * bounds.first)
        self._kinds: dict[tuple[str, str], Hazard] = {}
        #: when each task was last seen running
        self._seen: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"Looks({self._kinds}, {len(self._seen)} seen)"

    def is_full(self, running: int, window: int | None) -> bool:
        """Whether submits wait for tasks to end; `window` None is no limit."""
        return window is not None and running >= _FULL * window

    def first(self, operation: str, model: str, haste: Haste) -> float:
        """Seconds from acceptance to the first look; a call of its own is never hastened, so it comes early."""
        share = self._share(EAGER if self.bounds.size == 1 else haste)
        next_age = self._hazard(operation, model).curve().next_age(0.0, share)
        return max(self.bounds.first, min(self.bounds.longest, next_age))

    def haste(self, *, queued: bool, many: bool, running: int, window: int | None) -> Haste:
        """By whether something is `queued`, and then by whether it waits for room; else by whether `many` still run."""
        if queued:
            return EAGER if self.is_full(running, window) else CALM
        if not many:
            return EAGER
        return CLOSING if self.bounds.size > 1 else CALM

    def call_at(self, oldest: float, last: float | None, haste: Haste, few: Iterable[Task] = ()) -> float:
        """When the next call goes out, by the due times of the oldest look and of the last of a few (None: fewer).

        `few` are all the tasks that run, where they are few: their looks were planned while there were many.
        """
        if self.bounds.size == 1:
            return oldest
        linger = haste.linger * self.bounds.shortest
        times = [oldest + linger, *([] if last is None else [last]), *(self._hastened(task) for task in few)]
        return min(times)

    def plan(self, now: float, haste: Haste) -> Callable[[Task], float | None]:
        """Gives the tasks of a call that goes out now their next due time, or None to those it had better leave out."""
        curves = {kind: hazard.curve() for kind, hazard in self._kinds.items()}
        unknown = self._guess.curve()

        def next_look(task: Task) -> float | None:
            curve = curves.get((task.operation, task.model), unknown)
            if task.due_at is not None and task.due_at > now and not self._may_fill(task, curve, now):
                return None
            return now + self._gap(curve, _age(task, now), haste)

        return next_look

    def running(self, task: Task, at: float) -> None:
        """A look at that time found it running."""
        before = self._last(task)
        if before is not None:
            self._hazard(task.operation, task.model).passed(_age(task, before), _age(task, at))
        self._seen.pop(task.id, None)  # so that the oldest look stands first
        self._seen[task.id] = at
        if len(self._seen) > _MOST:
            del self._seen[next(iter(self._seen))]

    def ended(self, task: Task, at: float) -> None:
        """A look at that time found it ended, well or not."""
        before = self._last(task)
        if before is not None:
            self._hazard(task.operation, task.model).ended(_age(task, before), _age(task, at))
        self._seen.pop(task.id, None)

    def _last(self, task: Task) -> float | None:
        """When it was last known to run; None where this run has neither seen nor sent it."""
        if task.id in self._seen:
            return self._seen[task.id]
        return task.submitted_at if task.submitted_at is not None and task.submitted_at >= self._began else None

    def _hazard(self, operation: str, model: str) -> Hazard:
        if (operation, model) not in self._kinds:
            self._kinds[operation, model] = Hazard(_GUESS * self.bounds.first)
        return self._kinds[operation, model]

    def _share(self, haste: Haste) -> float:
        if haste is EAGER and self.bounds.size == 1:
            return _SINGLE
        return haste.shared if self.bounds.shared else haste.share

    def _gap(self, curve: Curve, age: float, haste: Haste) -> float:
        farthest = min(self.bounds.longest, max(curve.median * haste.farthest, _OVERDUE * age))
        return max(self._nearest(curve), min(farthest, curve.next_age(age, self._share(haste)) - age))

    def _nearest(self, curve: Curve) -> float:
        known = _NEAREST * curve.median if math.isfinite(curve.median) else 0.0
        return min(self.bounds.longest, max(self.bounds.shortest, known))

    def _may_fill(self, task: Task, curve: Curve, now: float) -> bool:
        return not task.failures and now >= self._seen.get(task.id, -math.inf) + self._nearest(curve)

    def _hastened(self, task: Task) -> float:
        """When it would be looked at next if its last look were planned now."""
        last, due = self._last(task), task.due_at if task.due_at is not None else math.inf
        if last is None or task.failures:
            return due
        curve, age = self._hazard(task.operation, task.model).curve(), _age(task, last)
        if age > 0:
            return min(due, last + self._gap(curve, age, EAGER))
        return min(due, last + self.first(task.operation, task.model, EAGER))


def _age(task: Task, now: float) -> float:
    born = task.submitted_at if task.submitted_at is not None else task.since
    return 0.0 if born is None else max(0.0, now - born)
