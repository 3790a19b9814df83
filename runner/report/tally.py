"""Counts of one run, kept from its changes: what progress shows and the summary sums up."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.lifecycle.events import Accepted, Claimed, Found, Saved
from runner.lifecycle.task import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task

#: completions that the rate is measured over
_RECENT = 60


@dataclass
class Tally:
    """Counts by state now, and what this run did."""

    states: Counter[str] = field(default_factory=Counter)
    submitted: int = 0
    adopted: int = 0
    downloaded: int = 0
    bytes: int = 0
    #: what this run spent, in the provider's unit; what is in doubt counts
    cost: float = 0.0
    #: something was submitted that nobody knows the price of
    unpriced: bool = False
    #: reason of the latest failure, for the live line
    last_fault: str = ""
    _completions: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def start(self, counts: Mapping[str, int]) -> None:
        """Begin with what the store holds."""
        self.states = Counter(counts)

    def hear(self, before: Task, event: Event, after: Task, now: float) -> None:
        """Take a settled change into account."""
        if before.state is not after.state:
            self.states[before.state] -= 1
            self.states[after.state] += 1
        self.cost = round(self.cost + after.spent - before.spent, 6)
        match event:
            case Claimed():
                self.unpriced = self.unpriced or after.cost is None
            case Accepted():
                self.submitted += 1
            case Found():
                self.adopted += 1
            case Saved(outputs):
                self.downloaded += len(outputs)
                self.bytes += sum(output.bytes or 0 for output in outputs)
            case _:
                pass
        if after.state in {State.DONE, State.FAILED} and before.state is not after.state:
            self._completions.append(now)
        if after.state in {State.FAILED, State.STRANDED, State.HELD}:
            self.last_fault = " ".join(part for part in (after.fault.reason, after.fault.message) if part)

    @property
    def total(self) -> int:
        """All tasks."""
        return sum(self.states.values())

    @property
    def open(self) -> int:
        """Tasks that this run still works on."""
        at_rest = (State.DONE, State.FAILED, State.STRANDED, State.HELD)
        return self.total - sum(self.states[state] for state in at_rest)

    def rate(self, now: float) -> float:
        """Completions a second over the latest of them."""
        if len(self._completions) < 2:  # noqa: PLR2004 - a rate needs two points
            return 0.0
        return (len(self._completions) - 1) / max(1e-3, now - self._completions[0])

    def eta(self, now: float) -> float | None:
        """Seconds to go at that rate; None while there is none."""
        rate = self.rate(now)
        return self.open / rate if rate > 0 else None
