"""Counts of one run, kept from its changes: what progress shows and the summary sums up."""

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

#: failures that are remembered for the live view
_FAULTS = 3
_LOST = frozenset({State.FAILED, State.STRANDED, State.HELD})
_AT_REST = _LOST | {State.DONE}


@dataclass
class Share:
    """What one provider has of the run."""

    states: Counter[str] = field(default_factory=Counter)
    #: what this run spent there, in its unit
    cost: float = 0.0
    submits: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Loss:
    """One task that came to nothing, or waits for a person."""

    task: str
    state: State
    reason: str
    message: str


@dataclass
class Tally:
    """Counts by state now, and what this run did."""

    states: Counter[str] = field(default_factory=Counter)
    #: the same by provider
    shares: dict[str, Share] = field(default_factory=dict)
    submitted: int = 0
    adopted: int = 0
    #: had failed or was given up, and has outputs after all
    bonus: int = 0
    downloaded: int = 0
    bytes: int = 0
    #: what this run spent, in the provider's unit; what is in doubt counts
    cost: float = 0.0
    #: what the job had cost before
    cost_before: float = 0.0
    #: something was submitted that nobody knows the price of
    unpriced: bool = False
    #: a person told the run to end
    stopping: bool = False
    #: reason of the latest failure, for the live line
    last_fault: str = ""
    #: the latest failures
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
        """Begin with what the store holds, as a whole and by provider; `now` in seconds since the epoch."""
        self.states = Counter(counts)
        self.shares = {name: Share(Counter(states)) for name, states in (shares or {}).items()}
        self.cost_before = cost_before
        if now is not None:
            self._completions.start(now)

    def hear(self, before: Task, event: Event, after: Task, now: float) -> None:
        """Take a settled change into account."""
        share = self.shares.setdefault(after.provider, Share())
        if before.state is not after.state:
            for states in (self.states, share.states):
                states[before.state] -= 1
                states[after.state] += 1
            if after.state in {State.DONE, State.FAILED}:
                self._completions.beat(now)
        self.cost = round(self.cost + after.spent - before.spent, 6)
        share.cost = round(share.cost + after.spent - before.spent, 6)
        match event:
            case Claimed():
                share.submits.beat(now)
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
        """All tasks."""
        return sum(self.states.values())

    @property
    def open(self) -> int:
        """Tasks that this run still works on."""
        return self.total - sum(self.states[state] for state in _AT_REST)

    def rate(self, now: float) -> float:
        """Completions a second over the latest of them; 0.0 while there are too few."""
        return self._completions.rate(now)

    def eta(self, now: float) -> float | None:
        """Seconds to go at that rate; None where too few have completed, or none for a while."""
        rate = self.rate(now)
        return self.open / rate if rate > 0 and self._completions.steady(now) else None
