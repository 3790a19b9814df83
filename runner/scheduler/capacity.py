"""How much one provider can take now: slots of the account's in-flight window, and disk space for the outputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner.scheduler.download_backlog import DownloadBacklog
from runner.tasks.models import State, TaskError
from runner.tasks.retry_policy import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.net.disk_space import FreeSpace
    from runner.ratelimit.limiter import InFlightWindow
    from runner.tasks.models import Task

#: states whose tasks take slots of the window
_IN_FLIGHT = {State.SUBMITTING, State.IN_DOUBT, State.RUNNING}
#: more than any window holds
_UNLIMITED = 2**31
#: refusals in a row, with growing pauses between them, after which the run stops to submit
_MOST_REFUSALS = 7
#: seconds between two tries, at most
_LONGEST_PAUSE = 30.0


def takes_slots(task: Task) -> bool:
    """Return True if a task takes slots of the window. A submit that was refused takes none."""
    return task.state in _IN_FLIGHT and not task.is_suspect


class ContentionBackoff:
    """Back-off while other users of the account hold all of its slots; times in seconds of one clock.

    The provider says "full" (Kling 1303) though no task of this job runs, so none of ours will end and free a slot. One
    submit at a time asks again at growing intervals. After about a minute the run stops to submit: what holds the slots
    is unknown, and may be tasks that were paid for and lost.
    """

    def __init__(self) -> None:
        self.refusals = 0
        self._until = float("-inf")

    def __repr__(self) -> str:
        return f"ContentionBackoff(refusals={self.refusals})"

    @property
    def exhausted(self) -> bool:
        """Return True if the refusals have gone on for too long."""
        return self.refusals >= _MOST_REFUSALS

    def refuse(self, now: float) -> None:
        """Count a refusal. Requests that were on the wire together count once."""
        if now >= self._until:
            self.refusals += 1
            self._until = now + backoff(self.refusals, cap=_LONGEST_PAUSE)

    def wait(self, now: float) -> float:
        """Return seconds until the next try."""
        return max(0.0, self._until - now)

    def reset(self) -> None:
        """Forget the refusals: a slot was free."""
        self.refusals, self._until = 0, float("-inf")


@dataclass
class Capacity:
    """Slots and disk space that the tasks of one provider take in one run."""

    name: str
    window: InFlightWindow
    #: free space of the output directory; None: unchecked
    space: FreeSpace | None = None
    #: returns True if other processes use the account now
    other_processes_active: Callable[[], bool] = lambda: False
    on_warning: Callable[[str], None] = lambda _: None
    contention: ContentionBackoff = field(default_factory=ContentionBackoff)
    #: slots that this job's tasks take, and how many of these belong to submits on the wire
    running: int = 0
    sending: int = 0
    #: tasks that wait for their download
    ready: int = 0
    #: what is paid and not on the disk
    backlog: DownloadBacklog = field(default_factory=DownloadBacklog)
    #: no download fits on the disk any more: ready tasks wait for the next run
    disk_full: bool = False
    _warned: bool = False

    def restore(self, running: int, ready: int) -> None:
        """Set the counts to what the store holds at the start of a run."""
        self.running, self.sending, self.ready = running, 0, ready

    @property
    def free_slots(self) -> int:
        """Return how many slots are free. Without a window, or while nothing of ours runs, there is no limit."""
        free = self.window.available(self.running)
        return _UNLIMITED if free is None or self.running <= 0 else free

    def update(self, before: Task, after: Task) -> bool:
        """Count a transition. Return True if it freed slots."""
        entered = takes_slots(after) - takes_slots(before)
        self.running += entered * after.slots
        self.sending += ((after.state is State.SUBMITTING) - (before.state is State.SUBMITTING)) * after.slots
        self.ready += (after.state is State.READY) - (before.state is State.READY)
        if before.state is State.RUNNING and after.state is not State.RUNNING:
            self.window.grow()
        return entered < 0

    def refuse(self, error: TaskError, now: float) -> TaskError | None:
        """Shrink the window after the provider said that no slot is free.

        Return why the run should stop to submit, or None while one of our own tasks may end and free a slot.
        """
        if self.window.maximum is not None and self.running <= self.window.maximum and not self._warned:
            self._warned = True
            ours = f"{self.running - 1} of limits.in_flight {self.window.maximum}"
            self.on_warning(
                f"{self.name} says that no slot is free ({error.code}), and this job has {ours}: another program has "
                f"slots of the account, or tasks that were lost, which `runner audit` looks for"
            )
        self.window.shrink(self.running - 1)  # the refused task counts among those running until it is settled
        if self.running > self.sending:
            return None
        self.contention.refuse(now)
        if not self.contention.exhausted or self.other_processes_active():
            return None
        message = f"no slot is free ({error.code}), though nothing of this job runs: somebody else has them, or tasks"
        return replace(error, message=f"{message} that were lost; `runner audit` looks for those")

    def has_disk_space(self, more: int) -> bool:
        """Return True if outputs that are paid for and not here yet, and `more` outputs, will fit on the disk."""
        return self.space is None or self.space.has_space_for(max(0, self.running) + max(0, self.ready) + more)

    def fill_disk(self) -> TaskError:
        """Note that the disk is full, and return the reason. Paid tasks are still polled."""
        self.disk_full = True
        return TaskError("disk", None, self.space.shortage() if self.space else "the disk is full")
