"""Paid tasks that are not on the disk yet, and whether submits wait for them: what is paid is fetched first.

Tasks that are bought faster than their outputs are fetched pile up, and links die while they wait. The number that is
paid and not fetched follows Little's law: the rate of downloads times the time from a submit to its file. Submits wait
above twice that number, and only while more results wait than workers can take up at once.

A result whose download failed counts apart: it says nothing about how fast files come, and a file host that is away
must not stop submits for ever. Where downloads fail one after another and none succeeds, submits wait as well, until
one succeeds, until no result is left that failed, or for a quarter of an hour.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Literal

from runner.tasks.models import State

if TYPE_CHECKING:
    from runner.store.queries import UnfetchedCounts
    from runner.tasks.models import Task

    #: where a paid task is: with the provider, finished, or finished with a download that failed
    _Place = Literal["running", "ready", "failing"]

#: paid tasks that are allowed, as a multiple of what downloads work off meanwhile; infinity: submits never wait
FACTOR = 2.0
#: share of that number at which submits go on
_RESUME = 0.8
#: latest downloads that the rate covers
_MAX_STAMPS = 256
#: seconds with every worker busy before the rate is known, unless each worker has ended so many downloads
_LEAST_SECONDS, _LEAST_DOWNLOADS = 1.0, 4
#: weight of a new task in the mean time, once there were as many as its inverse
_NEWEST = 0.02
#: failures in a row, as a multiple of the workers, after which files count as out of reach
_FAILURES = 2
#: seconds for which submits wait for files that are out of reach
_LONGEST_WAIT = 900.0


class DownloadBacklog:
    """Counts of one provider's paid tasks that are not on the disk. `now` is in seconds of a monotonic clock.

    `workers` is the number of downloads at once; 0: nothing is downloaded, so that submits never wait.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers
        self._counts: Counter[_Place] = Counter()
        #: why submits wait, in words; empty: they do not
        self.reason = ""
        #: seconds for which all workers were busy, and when they were counted last
        self._busy = 0.0
        self._counted_at: float | None = None
        #: busy seconds at which the latest downloads ended
        self._ends: deque[float] = deque(maxlen=_MAX_STAMPS)
        #: mean seconds from a submit of this run to its result, and how many tasks are in it
        self._mean_seconds, self._finished = 0.0, 0
        #: when this run began, seconds since the epoch: an earlier submit would count the pause between the runs
        self._began_at = float("-inf")
        self._failures_in_a_row = 0
        self._last_failure = ""
        self._out_of_reach_since: float | None = None

    def __repr__(self) -> str:
        return f"DownloadBacklog({dict(self._counts)}, {self.reason or 'submits go on'})"

    @property
    def waiting(self) -> int:
        """Return how many results wait for their first download, or are being downloaded."""
        return self._counts["ready"]

    @property
    def out_of_reach(self) -> bool:
        """Return True while submits wait because downloads fail one after another."""
        return self._out_of_reach_since is not None

    @property
    def unfetched(self) -> int:
        """Return how many tasks are paid, or being paid, and not on the disk, without those whose download failed."""
        return self._counts["running"] + self._counts["ready"]

    def restore(self, counts: UnfetchedCounts, began_at: float) -> None:
        """Set the counts to what the store holds at the start of a run (seconds since the epoch)."""
        self._counts = Counter({"running": counts.running, "ready": counts.ready, "failing": counts.failing})
        self._began_at = began_at

    def update(self, before: Task, after: Task, now: float) -> None:
        """Count a committed transition."""
        self._count_busy_time(now)
        was_busy = self.waiting >= self.workers
        if (old := _place(before)) is not None:
            self._counts[old] -= 1
        if (new := _place(after)) is not None:
            self._counts[new] += 1
        if before.state is State.READY:
            self._record_download(after, was_busy=was_busy)
        elif after.state is State.READY and old == "running":
            self._record_result(after)

    def limit(self) -> float:
        """Return how many tasks may be paid and not on the disk, or infinity while nothing is known."""
        rate = self._rate()
        return float("inf") if rate is None else FACTOR * (rate * self._mean_seconds + self.workers)

    def is_full(self, now: float) -> bool:
        """Return True while submits must wait; `reason` says why."""
        self._count_busy_time(now)
        if not self.workers:
            return False
        if self._are_out_of_reach(now):
            self.reason = f"no file can be fetched ({self._last_failure})" if self._last_failure else "no file comes"
        elif self.waiting <= (self.workers if self.reason else FACTOR * self.workers):
            self.reason = ""
        elif self.unfetched > self.limit() * (_RESUME if self.reason else 1.0):
            self.reason = "what is paid is fetched first"
        else:
            self.reason = ""
        return bool(self.reason)

    def _rate(self) -> float | None:
        """Return downloads a second while all workers are busy, or None if that is not known."""
        if self._busy < _LEAST_SECONDS and len(self._ends) < _LEAST_DOWNLOADS * self.workers:
            return None
        seconds = self._busy - (self._ends[0] if len(self._ends) == _MAX_STAMPS else 0.0)
        return len(self._ends) / seconds if seconds > 0 else None

    def _count_busy_time(self, now: float) -> None:
        if self._counted_at is not None and self.waiting >= self.workers > 0:
            self._busy += max(0.0, now - self._counted_at)
        self._counted_at = now

    def _record_download(self, after: Task, *, was_busy: bool) -> None:
        """Count the end of a download, which succeeded if its task is done."""
        if was_busy:
            self._ends.append(self._busy)
        if after.state is State.DONE:
            self._failures_in_a_row = 0
        else:
            self._failures_in_a_row += 1
            self._last_failure = after.error.message or after.error.reason or ""

    def _record_result(self, task: Task) -> None:
        """Add the time that a task took at the provider to the mean."""
        if task.submitted_at is None or task.finished_at is None or task.submitted_at < self._began_at:
            return
        self._finished += 1
        seconds = max(0.0, task.finished_at - task.submitted_at)
        self._mean_seconds += (seconds - self._mean_seconds) * max(1 / self._finished, _NEWEST)

    def _are_out_of_reach(self, now: float) -> bool:
        """Return True while downloads fail one after another, for a quarter of an hour at most."""
        if self._failures_in_a_row < _FAILURES * self.workers or self._counts["failing"] <= 0:
            self._out_of_reach_since = None
            return False
        if self._out_of_reach_since is None:
            self._out_of_reach_since = now
        if now - self._out_of_reach_since < _LONGEST_WAIT:
            return True
        self._failures_in_a_row, self._out_of_reach_since = 0, None
        return False


def _place(task: Task) -> _Place | None:
    """Return where a paid task is, or None if it is none, or rests until the next run."""
    if task.state is State.SUBMITTING:
        return "running"
    if task.state not in {State.RUNNING, State.READY} or task.due_at is None:
        return None
    if task.refreshes or (task.state is State.READY and task.failures):
        return "failing"
    return "running" if task.state is State.RUNNING else "ready"
