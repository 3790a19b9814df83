"""Feeder and hands: a loop over one state that claims what idle hands can hold, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio

from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from anyio.abc import TaskGroup

    from runner.lifecycle.task import Task
    from runner.pipeline.bell import Bell

#: what puts tasks aside whose work raised a bug
Broken = Callable[[Sequence["Task"], Exception], Awaitable[None]]
#: what ends the run, whoever's work raised it: the disk says no, or there is no memory left to go on with (FP4)
_ENDS = (RunnerError, MemoryError)
#: seconds that a stage rests at the least; doubled up to `_MOST` while it finds due rows that it cannot take, since
#: another hand may hold them for as long as an outage lasts
_LEAST, _MOST = 0.02, 1.0
#: seconds: no timer is finer, and a wait too short to move a clock on would be waited again and again
_TICK = 0.001


class Stage:
    """One state's loop; runs until it is cancelled.

    `claim(batches, held)` gives at most so many batches of tasks that nobody holds; `work(batch)` acts and settles;
    `next_due()` says when there is work again; `broken(batch, error)` puts tasks aside whose work raised a bug.
    """

    def __init__(
        self,
        name: Hashable,
        *,
        hands: int,
        bell: Bell,
        now: Callable[[], float],
        claim: Callable[[int, set[int]], Awaitable[list[Sequence[Task]]]],
        work: Callable[[Sequence[Task]], Awaitable[None]],
        next_due: Callable[[], Awaitable[float | None]],
        broken: Broken,
    ) -> None:
        self.name, self._hands, self._bell, self._now = name, hands, bell, now
        self._claim, self._work, self._next_due, self._broken = claim, work, next_due, broken
        self._held: set[int] = set()
        self._busy = 0
        self._in_vain = 0

    def __repr__(self) -> str:
        return f"Stage({self.name}, busy={self._busy}/{self._hands})"

    @property
    def idle(self) -> bool:
        """Whether no hand holds anything."""
        return self._busy == 0

    async def run(self) -> None:
        """Claim, hand out, rest; for ever."""
        async with anyio.create_task_group() as group:
            while True:
                heard = self._bell.rings(self.name)
                idle = self._hands - self._busy
                batches = await self._claim(idle, self._held) if idle else []
                self._in_vain = 0 if batches else self._in_vain
                for batch in batches:
                    self._take(batch, group)
                if len(batches) < idle or not idle:
                    await self._rest(heard)

    def _take(self, batch: Sequence[Task], group: TaskGroup) -> None:
        self._busy += 1
        self._held.update(task.id for task in batch)
        group.start_soon(self._hold, batch)

    async def _hold(self, batch: Sequence[Task]) -> None:
        try:
            await self._work(batch)
        except _ENDS:
            raise
        except ExceptionGroup as errors:
            if errors.subgroup(_ENDS) is not None:
                raise  # of several settles at once: the disk is full, and that is no bug
            await self._broken(batch, errors)
        except Exception as error:  # noqa: BLE001 - a bug in one task's work must not stop the others (FP14)
            await self._broken(batch, error)
        finally:
            self._busy -= 1
            self._held.difference_update(task.id for task in batch)
            self._bell.ring(self.name)
            self._bell.ring("idle")

    async def _rest(self, heard: int) -> None:
        """Until there is work; other stages may bear the same name, and hear the same rings."""
        due = await self._next_due() if self._busy < self._hands else None
        await self._bell.wait(self.name, None if due is None else self._pause(due - self._now()), since=heard)

    def _pause(self, left: float) -> float:
        """At once where a claim took some and left some."""
        in_vain, self._in_vain = self._in_vain, 0 if left > 0 else min(self._in_vain + 1, 10)
        return max(left, _TICK) if left > 0 else min(_MOST, _LEAST * 2.0**in_vain) if in_vain else 0.0
