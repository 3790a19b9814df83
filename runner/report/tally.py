"""Counters of one run, updated after every transition, for progress and summary."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.lifecycle.events import Accepted, Claimed, Finished, Found, Saved
from runner.lifecycle.task import State
from runner.report.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task

#: latest losses kept for the live view
_FAULTS = 3
_LOST = frozenset({State.FAILED, State.STRANDED, State.HELD})
_AT_REST = _LOST | {State.DONE}


@dataclass
class Share:
    """Counters of one provider in a run."""

    states: Counter[str] = field(default_factory=Counter)
    #: cost of this run at the provider, in the provider's unit
    cost: float = 0.0
    submits: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Loss:
    """A task that failed, is stranded, or is held for the user's decision."""

    task: str
    state: State
    reason: str
    message: str


@dataclass
class Tally:
    """Current counts by state, and what this run did so far."""

    states: Counter[str] = field(default_factory=Counter)
    #: counters by provider name
    shares: dict[str, Share] = field(default_factory=dict)
    submitted: int = 0
    adopted: int = 0
    #: tasks whose outputs arrived after they had failed or were given up
    bonus: int = 0
    downloaded: int = 0
    bytes: int = 0
    #: cost of this run in the provider's unit, tasks in doubt included
    cost: float = 0.0
    #: cost of the job before this run
    cost_before: float = 0.0
    #: true once a task without a known price was submitted
    unpriced: bool = False
    #: true once the user asked the run to stop
    stopping: bool = False
    #: reason and message of the latest loss, for the progress line
    last_fault: str = ""
    #: latest losses, oldest first
    losses: deque[Loss] = field(default_factory=lambda: deque(maxlen=_FAULTS))
    _completions: Pace = field(default_factory=Pace)

    def start(
        self,
        counts: Mapping[str, int],
        now: float | None = None,
        *,
        shares: Mapping[str, Mapping[str, int]] | None = None,
        cost_before: float = 0.0,
    ) -> None:
        """Set the counts that the store holds, in total and by provider; `now` is in seconds since the epoch."""
        self.states = Counter(counts)
        self.shares = {name: Share(Counter(states)) for name, states in (shares or {}).items()}
        self.cost_before = cost_before
        if now is not None:
            self._completions.start(now)

    def hear(self, before: Task, event: Event, after: Task, now: float) -> None:
        """Update the counters after a committed transition; `now` is in seconds since the epoch."""
        provider = self.shares.setdefault(after.provider, Share())
        if before.state is not after.state:
            for states in (self.states, provider.states):
                states[before.state] -= 1
                states[after.state] += 1
            if after.state in {State.DONE, State.FAILED}:
                self._completions.beat(now)
        self.cost = round(self.cost + after.spent - before.spent, 6)
        provider.cost = round(provider.cost + after.spent - before.spent, 6)
        match event:
            case Claimed():
                provider.submits.beat(now)
                self.unpriced = self.unpriced or after.cost is None
            case Accepted():
                self.submitted += 1
            case Found():
                self.adopted += 1
            case Finished() if before.state in _LOST:
                self.bonus += 1
            case Saved(outputs):
                self.downloaded += len(outputs)
                self.bytes += sum(output.bytes or 0 for output in outputs)
            case _:
                pass
        if after.state in _LOST and before.state is not after.state:
            self._lose(after)

    def _lose(self, task: Task) -> None:
        reason, message = task.fault.reason or "unknown", task.fault.message or ""
        self.losses.append(Loss(task.name or task.key[:8], task.state, reason, message))
        self.last_fault = f"{reason} {message}".rstrip()

    @property
    def total(self) -> int:
        """Return the number of all tasks."""
        return sum(self.states.values())

    @property
    def open(self) -> int:
        """Return the number of tasks that this run still works on."""
        return self.total - sum(self.states[state] for state in _AT_REST)

    def rate(self, now: float) -> float:
        """Return completions per second over the latest ones, or 0.0 with fewer than two."""
        return self._completions.rate(now)

    def eta(self, now: float) -> float | None:
        """Return seconds until no task is left, or None if too few completed or none did recently."""
        rate = self.rate(now)
        return self.open / rate if rate > 0 and self._completions.steady(now) else None
