"""The polling policy in virtual time: the real `SlidingWindow` and `PollSchedule`, against latencies drawn from a seed.

Makespan is compared with a provider that pushes each result at once, where a submit leaves every 1/q seconds or as soon
as the window allows; with one id a call also against 2N/q, a submit and a poll each. A round trip takes 0.2 s;
latencies are lognormal, median 30 s, spread 0.5, and those of "all at once" are spread evenly from 15 to 30 s; the
policy begins with a guess of 16 s. "Shared" means that polls and submits share one limit of q a second. With a window
of 500 submits wait for results, so earlier results mean more throughput, and polls take the slots that submits leave:
that figure has no goal.
"""

from __future__ import annotations

import heapq
import random
from bisect import insort
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from math import inf, log
from statistics import quantiles
from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from runner.ratelimit.window import SlidingWindow, Slot
from runner.scheduler.poll_schedule import HIGH, LOW, PollBounds, PollSchedule
from runner.tasks.models import State, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.bench import Bench
    from runner.scheduler.poll_schedule import Urgency

_RTT = 0.2
_MEDIAN, _SPREAD = 30.0, 0.5
_LOG = log(_MEDIAN)
#: poll calls in flight at once
_CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One account: its rate, whether polls and submits share it, its window, and the number of ids in a call."""

    name: str
    tasks: int
    qps: float
    #: makespan in units of the bound
    goal: float
    shared: bool = True
    window: int | None = None
    size: int = 50
    #: latencies are spread evenly, so that many tasks end close to the last one
    even: bool = False

    def latencies(self) -> list[float]:
        """Return a latency for each task in seconds, the same ones in every run."""
        rng = random.Random(self.name)
        draw = partial(rng.uniform, _MEDIAN / 2, _MEDIAN) if self.even else partial(rng.lognormvariate, _LOG, _SPREAD)
        return [draw() for _ in range(self.tasks)]


CASES = (
    Case("shared 10/s", 10_000, 10, 1.05),
    Case("shared 50/s", 10_000, 50, 1.05),
    Case("separate 50/s", 10_000, 50, 1.02, shared=False),
    Case("500 running", 5_000, 50, 1.02, shared=False, window=500),
    Case("all at once, separate 300/s", 1_000, 300, 1.05, shared=False, even=True),
    Case("one id, shared 10/s", 5_000, 10, 1.35, size=1),
    Case("one id, shared 50/s", 10_000, 50, 1.35, size=1),
)


@dataclass
class Queue:
    """First-in first-out queue of requests at a limiter, with one timer."""

    world: World
    window: SlidingWindow
    waiting: deque[Callable[[], bool]] = field(default_factory=deque)
    timed: bool = False

    def ask(self, then: Callable[[], bool]) -> None:
        self.waiting.append(then)
        if not self.timed:
            self.timed = True
            self.world.at(self.world.now, self._serve)

    def _serve(self) -> None:
        while self.waiting:
            found = self.window.grant(self.world.now)
            if not isinstance(found, Slot):
                self.world.at(found, self._serve)
                return
            if self.waiting.popleft()():
                self.window.sent(found, self.world.now)
                self.world.at(self.world.now + _RTT, partial(self.window.answered, found, _RTT))
            else:
                self.window.release(found)
        self.timed = False


class World:
    """One run of one case."""

    def __init__(self, case: Case, latencies: Sequence[float]) -> None:
        self.case, self._latencies = case, latencies
        self.now, self._serial, self._events = 0.0, count(), []
        query = Queue(self, SlidingWindow(case.qps))
        self._query, self._submit = query, query if case.shared else Queue(self, SlidingWindow(case.qps))
        self._schedule = PollSchedule(PollBounds(first=4.0, longest=30.0, size=case.size, shared=case.shared), 0.0)
        #: due time and number of each running task that no call asks about
        self._due: list[tuple[float, int]] = []
        self._tasks: dict[int, Task] = {}
        self._sent = self._running = self._busy = self.calls = self.polls = 0
        self._submitting = self._asking = False
        self._wake = inf
        self._last = 0.0
        #: delay of each task in seconds, from its end to the poll that reports it
        self.delays: list[float] = []

    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._serial), act))

    def play(self) -> float:
        """Run to the end, and return the makespan in seconds."""
        self._next_submit()
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self._last

    # submits: one waits for a slot, any number is in flight

    @property
    def _has_capacity(self) -> bool:
        return self.case.window is None or self._running < self.case.window

    def _next_submit(self) -> None:
        if not self._submitting and self._sent < self.case.tasks and self._has_capacity:
            self._submitting = True
            self._submit.ask(self._submits)

    def _submits(self) -> bool:
        self._submitting = False
        number, sent = self._sent, self.now
        self._sent += 1
        self._running += 1
        self.at(sent + _RTT, partial(self._accepted, number, sent))
        self._next_submit()
        return True

    def _accepted(self, number: int, sent: float) -> None:
        urgency = HIGH if self._schedule.is_window_full(self._running, self.case.window) else LOW
        due = self.now + self._schedule.first_delay("", "", urgency)
        self._tasks[number] = Task(number, "", "", "", "", State.RUNNING, due, submitted_at=sent)
        insort(self._due, (due, number))
        self._feed()

    # polls: one waits for a slot, a few are in flight

    @property
    def _urgency(self) -> Urgency:
        queued, many = self._sent < self.case.tasks, len(self._tasks) > self._schedule.bounds.few
        return self._schedule.urgency(queued=queued, many=many, running=self._running, window=self.case.window)

    def _feed(self) -> None:
        if self._asking or self._busy >= _CONCURRENCY or not self._due:
            return
        at = self._call_at()
        if at <= self.now:
            self._asking = True
            self._query.ask(self._asks)
        elif at < self._wake:
            self._wake = at
            self.at(at, self._woken)

    def _woken(self) -> None:
        self._wake = inf
        self._feed()

    def _call_at(self) -> float:
        size, urgency = self.case.size, self._urgency
        filling = self._due[size - 1][0] if len(self._due) >= size else None
        few = [self._tasks[number] for _, number in self._due] if urgency is HIGH and len(self._due) < size else ()
        return self._schedule.next_call_at(self._due[0][0], filling, urgency, few)

    def _asks(self) -> bool:
        self._asking = False
        asked = self._claimed()
        if asked:
            self._busy += 1
            self.calls += 1
            self.polls += len(asked)
            self.at(self.now + _RTT, partial(self._answered, asked, self.now))
        self._feed()
        return bool(asked)

    def _claimed(self) -> list[tuple[float, int]]:
        plan = self._schedule.planner(self.now, self._urgency)
        asked = []
        candidates, self._due = self._due[: self.case.size], self._due[self.case.size :]
        for due, number in candidates:
            after = plan(self._tasks[number])
            if after is None:
                insort(self._due, (due, number))
            else:
                asked.append((after, number))
        return asked

    def _answered(self, asked: Sequence[tuple[float, int]], at: float) -> None:
        self._busy -= 1
        for due, number in asked:
            task = self._tasks[number]
            end = (task.submitted_at or 0.0) + _RTT / 2 + self._latencies[number]
            if end > at + _RTT / 2:
                self._schedule.record_running(task, at)
                self._tasks[number] = replace(task, due_at=due)
                insort(self._due, (due, number))
                continue
            self._schedule.record_end(task, at)
            self.delays.append(self.now - end)
            self._running -= 1
            self._last = self.now
            del self._tasks[number]
        self._next_submit()
        self._feed()


def measure(_: Bench) -> Iterator[Figure]:
    """Measure makespan, polls and delay of every case."""
    for case in CASES:
        latencies = case.latencies()
        world = World(case, latencies)
        yield Figure(f"{case.name}: makespan / bound", world.play() / bound(case, latencies), case.goal)
        if case.size > 1:
            yield Figure(f"{case.name}: polls a task", world.calls / case.tasks, None if case.window else 0.15)
            yield Figure(
                f"{case.name}: p95 of delay / median latency", quantiles(world.delays, n=20)[-1] / _MEDIAN, 0.5
            )


def bound(case: Case, latencies: Sequence[float]) -> float:
    """Return the makespan if every result were pushed at once, or the time that the requests alone take."""
    running: list[float] = []
    last = now = 0.0
    for number, latency in enumerate(latencies):
        now = max(now, number / case.qps)
        if case.window is not None and len(running) >= case.window:
            now = max(now, heapq.heappop(running))
        end = now + _RTT + latency
        heapq.heappush(running, end)
        last = max(last, end)
    return max(last, 2 * case.tasks / case.qps) if case.size == 1 and case.shared else last
