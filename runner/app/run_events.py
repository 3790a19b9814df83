"""The events of a run, as a caller's listener receives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.tasks.models import NO_ERROR, State, TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """A task has entered a state, which is on disk already."""

    job: str
    key: str
    #: name of its files, without extension; empty where the stage does not know it
    name: str
    #: state before, and state now
    before: State
    state: State
    remote_id: str | None = None
    error: TaskError = NO_ERROR

    def __str__(self) -> str:
        reason = f" ({self.error.reason})" if self.error.reason else ""
        return f"{self.job}: {self.key[:8]} {self.before} → {self.state}{reason}"


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a job while it runs, at most once a second, and once when its work is done."""

    job: str
    #: number of tasks by state
    counts: Mapping[str, int]
    total: int
    done: int
    #: cost of the job so far in `unit`, tasks in doubt included; None if a price is unknown
    cost: float | None
    unit: str
    #: tasks finished per second; 0.0 if not known yet
    rate: float
    #: seconds until no task is left; None if not known yet
    eta: float | None
    #: all of it as one line
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know. The run goes on."""

    job: str
    message: str

    def __str__(self) -> str:
        return f"{self.job}: {self.message}"


RunEvent = TaskChanged | Progress | Warned
