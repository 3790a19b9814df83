"""Asks how paid tasks are doing: whom, and when. Claiming has set the next look, so "not yet" writes nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import orjson

from runner.lifecycle.events import Pending, Setback
from runner.lifecycle.task import Fault, State
from runner.lifecycle.transitions import advance
from runner.pipeline.stage import Stage
from runner.providers.reading import echoed, read_many, read_query

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.pipeline.lane import Lane
    from runner.pipeline.stage import Broken

#: the next look comes after this share of a task's age, within `_SOONEST` and the spec's longest
_SHARE = 0.3
_SOONEST = 1.0
#: a call is filled up with tasks that are due within this many seconds
_FILL = 1.0
#: accepted tasks per model whose echo is compared
_SAMPLES = 5
#: seconds that an outage is waited for before patience is looked at
_OUTAGE = 60.0
#: calls at once where only one task can be asked about
_HANDS = 8


class Poll:
    """The polls of one group of operations that can share a call."""

    def __init__(self, lane: Lane, operations: Sequence[str]) -> None:
        self._lane, self._operations = lane, tuple(operations)
        self._many = lane.spec.query.many
        self._samples: dict[str, int] = {}

    def stage(self, name: Hashable, broken: Broken) -> Stage:
        """The stage that runs them."""
        return Stage(
            name,
            hands=2 if self._many else _HANDS,
            bell=self._lane.bell,
            now=self._lane.clock.now,
            claim=self._claim,
            work=self._work,
            next_due=self._next_due,
            broken=broken,
        )

    def _next_look(self, task: Task) -> float:
        now = self._lane.clock.now()
        age = now - (task.since or now)
        return now + min(self._lane.spec.longest_look, max(_SOONEST, _SHARE * age))

    async def _claim(self, batches: int, held: set[int]) -> list[Sequence[Task]]:
        lane = self._lane
        if lane.dead:
            return []
        size = self._many.max if self._many else batches
        now = lane.clock.now()
        due = await self._next_due()
        if due is None or due > now:
            return []
        tasks = await lane.store.claim_group(
            lane.name, State.RUNNING, now + _FILL, size, held, self._operations, self._next_look
        )
        if not tasks:
            return []
        return [tasks] if self._many else [[task] for task in tasks]

    async def _next_due(self) -> float | None:
        return (
            None
            if self._lane.dead
            else await self._lane.store.next_due(self._lane.name, State.RUNNING, self._operations)
        )

    async def _work(self, batch: Sequence[Task]) -> None:
        lane = self._lane
        with anyio.move_on_after(_OUTAGE):
            await lane.breaker.until_answering()
        if lane.breaker.outage:
            await self._wear_out(batch)
            return
        if self._many is None:
            (task,) = batch
            await self._settle(task, read_query(lane.spec, await lane.send(lane.dialect.query(task))))
            return
        events, objects = read_many(lane.spec, batch, await lane.send(lane.dialect.query_many(batch)))
        await self._calibrate(batch, objects)
        async with anyio.create_task_group() as group:
            for task in batch:
                group.start_soon(self._settle, task, events[task.id])

    async def _wear_out(self, batch: Sequence[Task]) -> None:
        """Give up what nobody has patience for any more; nothing else changes, so that what is left goes on at once."""
        silence = Setback("unsent", Fault("outage", None, "the provider does not answer"))
        for task in batch:
            after = advance(task, silence, self._lane.clock.now(), self._lane.patience)
            if after.state is not task.state:
                await self._lane.settle(task, silence)

    async def _settle(self, task: Task, event: Event) -> None:
        """Write only what changes: a task that is simply still running has its next look already."""
        if isinstance(event, Pending):
            after = advance(task, event, self._lane.clock.now(), self._lane.patience)
            if after == task:
                return
        await self._lane.settle(task, event)

    async def _calibrate(self, batch: Sequence[Task], objects: dict[int, Any]) -> None:
        """Learn from accepted tasks which fields the list gives back verbatim (reliability.md section 10)."""
        lane = self._lane
        for task in batch:
            seen = self._samples.get(task.model, 0)
            if task.id not in objects or task.adopted or seen >= _SAMPLES or not lane.spec.look_up.listing:
                continue
            self._samples[task.model] = seen + 1
            (whole,) = await lane.store.by_key(task.key)
            body = lane.dialect.body(task.operation, task.model, orjson.loads(whole.request))
            await lane.store.put_echoes(lane.name, task.model, echoed(lane.spec, body, objects[task.id]))
