"""The loop that each stage runs, and the notifier that wakes it: claim due tasks of one state, work, wait for more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio

from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from runner.lifecycle.task import Task

#: sets tasks aside whose work raised a bug
OnBroken = Callable[[Sequence["Task"], Exception], Awaitable[None]]
#: errors that end the run, whichever task raised them: the disk or the store gave up, or memory ran out
_ENDS_RUN = (RunnerError, MemoryError)
#: seconds that a stage waits at least; doubled up to `_LONGEST_WAIT` while it finds due rows that it cannot take, since
#: another worker may hold them for as long as an outage lasts
_SHORTEST_WAIT, _LONGEST_WAIT = 0.02, 1.0
#: seconds; no timer is finer, and a wait too short to move a clock on would be repeated without end
_TICK = 0.001


class Notifier:
    """Wake-ups by name for all stages of a run. A notification sent while a stage is scanning is not lost."""

    def __init__(self) -> None:
        self._events: defaultdict[Hashable, anyio.Event] = defaultdict(anyio.Event)
        self._counts: defaultdict[Hashable, int] = defaultdict(int)
        #: notifications that the only listener of a name has seen
        self._seen: dict[Hashable, int] = {}

    def notify(self, name: Hashable) -> None:
        """Wake the waiters of `name`, and later ones that have not seen this notification."""
        self._counts[name] += 1
        self._events.pop(name, anyio.Event()).set()

    def count(self, name: Hashable) -> int:
        """Return the number of notifications so far.

        Where several listeners share a name, each reads it before it scans and waits with `since` afterwards.
        """
        return self._counts[name]

    async def wait(self, name: Hashable, timeout: float | None = None, *, since: int | None = None) -> None:  # noqa: ASYNC109 - a bound, not a failure
        """Wait for a notification after `since` (default: the last one waited for), at most `timeout` seconds."""
        known = self._seen.get(name, 0) if since is None else since
        with anyio.move_on_after(timeout):
            while self._counts[name] == known:
                await self._events[name].wait()
        if since is None:
            self._seen[name] = self._counts[name]


class Stage:
    """Claims due tasks of one state and processes them with at most `concurrency` workers, until it is cancelled.

    `claim(batches, held)` returns at most that many batches of tasks that no worker holds; `work(batch)` acts and
    settles; `next_due()` returns when there is work again; `on_broken(batch, error)` sets tasks aside whose work raised
    a bug.
    """

    def __init__(
        self,
        name: Hashable,
        *,
        concurrency: int,
        notifier: Notifier,
        now: Callable[[], float],
        claim: Callable[[int, set[int]], Awaitable[list[Sequence[Task]]]],
        work: Callable[[Sequence[Task]], Awaitable[None]],
        next_due: Callable[[], Awaitable[float | None]],
        on_broken: OnBroken,
    ) -> None:
        self.name, self._concurrency, self._notifier, self._now = name, concurrency, notifier, now
        self._claim, self._work, self._next_due, self._on_broken = claim, work, next_due, on_broken
        self._held: set[int] = set()
        self._busy = 0
        self._empty_claims = 0

    def __repr__(self) -> str:
        return f"Stage({self.name}, busy={self._busy}/{self._concurrency})"

    @property
    def idle(self) -> bool:
        """Return True if no worker holds a task."""
        return self._busy == 0

    async def run(self) -> None:
        """Claim tasks, start workers and wait, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                seen = self._notifier.count(self.name)
                free = self._concurrency - self._busy
                batches = await self._claim(free, self._held) if free else []
                self._empty_claims = 0 if batches else self._empty_claims
                for batch in batches:
                    self._busy += 1
                    self._held.update(task.id for task in batch)
                    group.start_soon(self._process, batch)
                if len(batches) < free or not free:
                    # other stages may share the name and its notifications
                    due = await self._next_due() if self._busy < self._concurrency else None
                    pause = None if due is None else self._pause(due - self._now())
                    await self._notifier.wait(self.name, pause, since=seen)

    async def _process(self, batch: Sequence[Task]) -> None:
        try:
            await self._work(batch)
        except _ENDS_RUN:
            raise
        except ExceptionGroup as errors:
            if errors.subgroup(_ENDS_RUN) is not None:
                raise  # several settles at once failed because the disk is full: that is no bug
            await self._on_broken(batch, errors)
        except Exception as error:  # noqa: BLE001 - a bug in one task's work must not stop the others
            await self._on_broken(batch, error)
        finally:
            self._busy -= 1
            self._held.difference_update(task.id for task in batch)
            self._notifier.notify(self.name)
            self._notifier.notify("idle")

    def _pause(self, left: float) -> float:
        """Return seconds to wait: none after a claim that took some tasks and left others."""
        empty, self._empty_claims = self._empty_claims, 0 if left > 0 else min(self._empty_claims + 1, 10)
        if left > 0:
            return max(left, _TICK)
        return min(_LONGEST_WAIT, _SHORTEST_WAIT * 2.0**empty) if empty else 0.0
