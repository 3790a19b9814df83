"""Count what a run does, for its progress and summary, and measure how fast a job goes.

`RunStats` is updated by the run itself after every transition. `RateMeter` estimates the rates of any job from counts
that are read now and then, for the live page of another process.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from runner.tasks.events import Accepted, Claimed, Finished, Found, Linked, Saved
from runner.tasks.models import UNLISTED_STATE, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.tasks.events import Event
    from runner.tasks.models import Task


#: latest losses kept for the live view
_MAX_LOSSES = 3
_UNSENT = frozenset({State.QUEUED, State.SUBMITTING})
_LOST = frozenset({State.FAILED, State.STRANDED, State.HELD})
_INACTIVE = _LOST | {State.DONE}
#: latest events that the rate of an event covers
_MAX_STAMPS = 60
#: events below which no remaining time is predicted
_MIN_STAMPS = 3
#: seconds without an event after which a rate is stale, unless twice the longest earlier pause is more
_MAX_SILENCE = 60.0
#: seconds of history that a rate meter covers, and seconds below which the rate is unknown
_WINDOW, _MIN_WINDOW = 60.0, 2.0


class EventRate:
    """Rate of an event over its latest occurrences."""

    def __init__(self) -> None:
        self._stamps: deque[float] = deque(maxlen=_MAX_STAMPS)
        self._since: float | None = None

    def start(self, now: float) -> None:
        """Start the measurement at `now` (seconds), before the first event."""
        self._since = now

    def record(self, now: float) -> None:
        """Record an event at `now` (seconds)."""
        if self._since is None:
            self._since = now  # the first event is the origin of the others
            return
        if len(self._stamps) == _MAX_STAMPS:
            self._since = self._stamps[0]
        self._stamps.append(now)

    def rate(self, now: float) -> float:
        """Return events per second, or 0.0 with fewer than two."""
        if len(self._stamps) < 2 or self._since is None or now <= self._since:  # noqa: PLR2004 - one event is no rate
            return 0.0
        return len(self._stamps) / (now - self._since)

    def is_steady(self, now: float) -> bool:
        """Return whether the rate may be used for a prediction: enough events, the last one recent."""
        if len(self._stamps) < _MIN_STAMPS or self._since is None:
            return False
        stamps = [self._since, *self._stamps]
        longest_pause = max(later - earlier for earlier, later in pairwise(stamps))
        return now - stamps[-1] <= max(_MAX_SILENCE, 2 * longest_pause)


@dataclass
class ProviderStats:
    """Counters of one provider in a run."""

    states: Counter[str] = field(default_factory=Counter)
    #: cost of this run at the provider, in the provider's unit
    cost: float = 0.0
    submits: EventRate = field(default_factory=EventRate)


@dataclass(frozen=True, slots=True)
class Loss:
    """A task that failed, is stranded, or is held for the user's decision."""

    task: str
    state: State
    reason: str
    message: str


@dataclass
class RunStats:
    """Current counts by state, and what this run did so far."""

    states: Counter[str] = field(default_factory=Counter)
    #: counters by provider name
    by_provider: dict[str, ProviderStats] = field(default_factory=dict)
    submitted: int = 0
    adopted: int = 0
    #: tasks whose outputs arrived after they had failed or were given up
    late_results: int = 0
    #: tasks whose outputs another job has paid for, by the directory of that job
    linked: Counter[str] = field(default_factory=Counter)
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
    #: why submits wait, by provider
    waits: Mapping[str, str] = field(default_factory=dict)
    #: reason and message of the latest loss, for the progress line
    last_error: str = ""
    #: latest losses, oldest first
    losses: deque[Loss] = field(default_factory=lambda: deque(maxlen=_MAX_LOSSES))
    _completions: EventRate = field(default_factory=EventRate)

    def start(
        self,
        counts: Mapping[str, int],
        now: float | None = None,
        *,
        by_provider: Mapping[str, Mapping[str, int]] | None = None,
        cost_before: float = 0.0,
    ) -> None:
        """Set the counts that the store holds, in total and by provider; `now` is in seconds since the epoch."""
        self.states = Counter(counts)
        self.by_provider = {name: ProviderStats(Counter(states)) for name, states in (by_provider or {}).items()}
        self.cost_before = cost_before
        if now is not None:
            self._completions.start(now)

    def on_event(self, before: Task, event: Event, after: Task, now: float) -> None:
        """Update the counters after a committed transition; `now` is in seconds since the epoch."""
        provider = self.by_provider.setdefault(after.provider, ProviderStats())
        if before.state is not after.state:
            for states in (self.states, provider.states):
                states[before.state] -= 1
                states[after.state] += 1
            if after.state in {State.DONE, State.FAILED}:
                self._completions.record(now)
        self.cost = round(self.cost + after.spent - before.spent, 6)
        provider.cost = round(provider.cost + after.spent - before.spent, 6)
        match event:
            case Claimed():
                provider.submits.record(now)
                self.unpriced = self.unpriced or after.cost is None
            case Accepted():
                self.submitted += 1
            case Found():
                self.adopted += 1
            case Finished() if before.state in _LOST:
                self.late_results += 1
            case Linked(bought_in=directory):
                self.linked[directory] += 1
            case Saved(outputs):
                self.downloaded += len(outputs)
                self.bytes += sum(output.bytes or 0 for output in outputs)
            case _:
                pass
        if after.state in _LOST and before.state is not after.state:
            self._record_loss(after)
        elif after.error.reason == UNLISTED_STATE and before.error != after.error:
            self.last_error = f"state {after.error.code}" if after.error.code else "no state"

    def _record_loss(self, task: Task) -> None:
        reason, message = task.error.reason or "unknown", task.error.message or ""
        self.losses.append(Loss(task.name or task.key[:8], task.state, reason, message))
        self.last_error = f"{reason} {message}".rstrip()

    @property
    def total(self) -> int:
        """Return the number of all tasks."""
        return sum(self.states.values())

    @property
    def open(self) -> int:
        """Return the number of tasks that this run still works on."""
        return self.total - sum(self.states[state] for state in _INACTIVE)

    def rate(self, now: float) -> float:
        """Return completions per second over the latest ones, or 0.0 with fewer than two."""
        return self._completions.rate(now)

    def eta(self, now: float) -> float | None:
        """Return seconds until no task is left, or None if too few completed or none did recently."""
        rate = self.rate(now)
        return self.open / rate if rate > 0 and self._completions.is_steady(now) else None


class RateMeter:
    """Rates of a provider or a job over the last minute, from counts by state."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def observe(self, counts: Mapping[str, int], now: float) -> None:
        """Record the counts by state at `now` (seconds)."""
        sent = sum(count for state, count in counts.items() if state not in _UNSENT)
        inactive = sum(count for state, count in counts.items() if state in _INACTIVE)
        self._samples.append((now, sent, inactive))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()

    @property
    def submit_rate(self) -> float:
        """Return submits per second, or 0.0 with less than two seconds of history."""
        return self._rate(1)

    @property
    def completion_rate(self) -> float:
        """Return finished tasks per second, or 0.0 with less than two seconds of history."""
        return self._rate(2)

    def eta(self, counts: Mapping[str, int]) -> float | None:
        """Return seconds until no task is left, or None if the rate is zero."""
        remaining = sum(count for state, count in counts.items() if state not in _INACTIVE)
        return remaining / self.completion_rate if self.completion_rate > 0 else None

    def _rate(self, index: int) -> float:
        first, last = (self._samples[0], self._samples[-1]) if self._samples else ((0.0,), (0.0,))
        seconds = last[0] - first[0]
        return max(0.0, (last[index] - first[index]) / seconds) if seconds >= _MIN_WINDOW else 0.0
