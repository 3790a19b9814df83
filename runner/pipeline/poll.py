"""Asks how paid tasks are doing: `looks` says whom and when. Claiming sets the next look; "not yet" writes nothing.

A permit first, then the claim: so a call that had to wait takes along what has become due meanwhile. One call waits for
a permit at a time, so where a limit is shared, submits and look-ups go in between.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from runner.lifecycle.events import Finished, Pending, Refused, Setback
from runner.lifecycle.task import Fault, State
from runner.lifecycle.transitions import advance
from runner.pipeline.looks import CALM, EAGER
from runner.pipeline.stage import Stage
from runner.providers.reading import echoed, read_many, read_query

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.net.limiter import Permit
    from runner.pipeline.lane import Lane
    from runner.pipeline.stage import Broken

#: what the calls draw their permits from
_ENDPOINT = "query"
#: accepted tasks per model whose echo is compared
_SAMPLES = 5
#: seconds that an outage is waited for before patience is looked at
_OUTAGE = 60.0
#: unknown words for a state that are told of
_WORDS = 20
#: calls on the wire at once, where one asks about many and where it asks about one
_HANDS_MANY, _HANDS_ONE = 4, 16


class Poll:
    """The polls of one group of operations that can share a call."""

    def __init__(self, lane: Lane, operations: Sequence[str]) -> None:
        self._lane, self._operations = lane, tuple(operations)
        self._many = lane.spec.query.many
        #: leave for the call about a batch, by its first task
        self._permits: dict[int, Permit] = {}
        #: when the next call goes out, where a claim has just found it out and has sent none; empty where it has not
        self._looked: list[float | None] = []
        self._haste = CALM
        self._held: set[int] = set()
        self._samples: dict[str, int] = {}
        self._wondered: set[str] = set()

    def stage(self, name: Hashable, broken: Broken) -> Stage:
        """The stage that runs them."""
        return Stage(
            name,
            hands=_HANDS_MANY if self._many else _HANDS_ONE,
            bell=self._lane.bell,
            now=self._lane.clock.now,
            claim=self._claim,
            work=self._work,
            next_due=self._next_due,
            broken=broken,
        )

    async def _claim(self, _: int, held: set[int]) -> list[Sequence[Task]]:
        """One batch, if its time has come."""
        lane, self._held = self._lane, held
        at = await self._call_at()
        self._looked = [at] if at is None or at > lane.clock.now() else []
        if self._looked:
            return []
        # before the provider is known to answer, calls go one by one, and a permit would lie idle meanwhile
        permit = await lane.limiters[_ENDPOINT].acquire() if lane.proved and not lane.breaker.outage else None
        with ExitStack() as unused:
            if permit is not None:
                unused.enter_context(permit)
            batch = [] if lane.dead else await self._due()
            if batch and permit is not None:
                self._permits[batch[0].id] = permit
                unused.pop_all()
        return [batch] if batch else []

    async def _due(self) -> list[Task]:
        """Those that are due, postponed to their next look, and those that fill the call."""
        lane, now = self._lane, self._lane.clock.now()
        soon = math.inf if self._many and not lane.breaker.outage else now
        plan, size = lane.looks.plan(now, self._haste), lane.looks.bounds.size
        return await lane.store.claim_group(lane.name, State.RUNNING, soon, size, self._held, self._operations, plan)

    async def _next_due(self) -> float | None:
        return self._looked.pop() if self._looked else await self._call_at()

    async def _call_at(self) -> float | None:
        """When the next call goes out; None: there is nothing to ask."""
        lane, bounds = self._lane, self._lane.looks.bounds
        if lane.dead:
            return None
        where = (lane.name, State.RUNNING, self._operations)
        seen = await lane.store.prospect(*where, lane.clock.now(), bounds.few)
        if seen.oldest is None:
            return None
        queued, many = seen.queued and lane.blocked is None, seen.last is not None
        self._haste = lane.looks.haste(queued=queued, many=many, running=lane.running, window=lane.window.size)
        alone = self._haste is EAGER and not many and self._many is not None
        few = await lane.store.waiting(*where, self._held, bounds.few) if alone else ()
        return lane.looks.call_at(seen.oldest, seen.last, self._haste, few)

    async def _work(self, batch: Sequence[Task]) -> None:
        permit = self._permits.pop(batch[0].id, None)
        with permit or nullcontext():
            if not self._lane.breaker.outage:
                await self._ask(batch, permit)
                return
        if await self._outlasted():
            await self._ask(batch, None)
        else:
            await self._wear_out(batch)

    async def _outlasted(self) -> bool:
        """Whether the outage is over, after a while at the latest."""
        with anyio.move_on_after(_OUTAGE):
            await self._lane.breaker.until_answering()
        return not self._lane.breaker.outage

    async def _ask(self, batch: Sequence[Task], permit: Permit | None) -> None:
        lane, at = self._lane, self._lane.clock.now()
        if self._many is None:
            (task,) = batch
            events = {task.id: read_query(lane.spec, await lane.send(lane.dialect.query(task), permit), task)}
        else:
            events, objects = read_many(lane.spec, batch, await lane.send(lane.dialect.query_many(batch), permit))
            await self._calibrate(batch, objects)
        for task in batch:
            self._learn(task, events[task.id], at)
        async with anyio.create_task_group() as group:
            for task in batch:
                group.start_soon(self._settle, task, events[task.id])

    def _learn(self, task: Task, event: Event, at: float) -> None:
        """How long such tasks take; trouble teaches nothing."""
        match event:
            case Pending(settling=False):
                self._lane.looks.running(task, at)
            case Finished() | Refused():
                self._lane.looks.ended(task, at)
            case _:
                pass

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
            self._wonder(event)
            after = advance(task, event, self._lane.clock.now(), self._lane.patience)
            if after == task:
                return
        await self._lane.settle(task, event)

    def _wonder(self, event: Pending) -> None:
        """Tell of each word that nobody knows once (FV3)."""
        if event.strange and event.word not in self._wondered and len(self._wondered) < _WORDS:
            self._wondered.add(event.word)
            self._lane.notice(f"{self._lane.name} says {event.word!r} of a task, which nobody knows: taken for running")

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
