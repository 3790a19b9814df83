"""The poll stage: ask how paid tasks are doing. A claim sets the next poll, so "not yet" writes nothing.

The permit comes first, then the claim: a call that had to wait takes along what has become due meanwhile. One call at a
time waits for a permit, so where a limit is shared, submits and reconciliation go in between.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from runner.providers.responses import compare_echo, read_many, read_query
from runner.scheduler.poll_schedule import HIGH, LOW
from runner.tasks.events import Finished, Pending, Rejected, RetryableFailure
from runner.tasks.models import State, TaskError
from runner.tasks.transitions import advance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.ratelimit.limiter import Permit
    from runner.scheduler.poll_schedule import PollSchedule
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: the limit that polls draw their permits from
_ENDPOINT = "query"
#: accepted tasks per model whose echo is compared
_SAMPLES = 5
#: seconds to wait for the end of an outage before tasks' deadlines are checked
_OUTAGE = 60.0
#: unknown state words that are reported
_WORDS = 20
#: calls on the wire at once, where one call asks about many tasks and where it asks about one
_CONCURRENCY_MANY, _CONCURRENCY_ONE = 4, 16
#: an event of an outage, by which the deadlines of waiting tasks are checked
_SILENCE = RetryableFailure("unsent", TaskError("outage", None, "the provider does not answer"))


class PollStage:
    """Polls one group of operations that can share a call."""

    state = State.RUNNING

    def __init__(
        self, session: ProviderSession, settlement: Settlement, schedule: PollSchedule, operations: Sequence[str]
    ) -> None:
        self._session, self._settlement, self._schedule = session, settlement, schedule
        self._store, self._operations = settlement.store, tuple(operations)
        self._many = session.spec.query.many
        #: calls on the wire at once
        self.concurrency = _CONCURRENCY_MANY if self._many else _CONCURRENCY_ONE
        #: permits for claimed batches, by the batch's first task
        self._permits: dict[int, Permit] = {}
        #: the due time of the next call, where a claim has just computed it and sent none; else empty
        self._computed_due: list[float | None] = []
        self._urgency = LOW
        self._held: set[int] = set()
        self._samples: dict[str, int] = {}
        self._reported_words: set[str] = set()

    async def claim(self, _: int, held: set[int]) -> list[Sequence[Task]]:
        """Claim one batch if its time has come."""
        session, self._held = self._session, held
        at = await self._next_call_at()
        self._computed_due = [at] if at is None or at > session.clock.now() else []
        if self._computed_due:
            return []
        # before the provider is known to answer, calls go one by one, and a permit would lie idle meanwhile
        ready = session.proved and not session.breaker.outage
        permit = await session.limiters[_ENDPOINT].acquire() if ready else None
        with ExitStack() as unused:
            if permit is not None:
                unused.enter_context(permit)
            batch = [] if session.dead else await self._claim_due()
            if batch and permit is not None:
                self._permits[batch[0].id] = permit
                unused.pop_all()
        return [batch] if batch else []

    async def _claim_due(self) -> list[Task]:
        """Claim due tasks, postponed to their next poll, and tasks that fill the call."""
        now = self._session.clock.now()
        latest = math.inf if self._many and not self._session.breaker.outage else now
        next_poll = self._schedule.planner(now, self._urgency)

        def plan(task: Task) -> float | None:
            # a file whose host is away is not asked for before its time, only because a call has room
            waits = task.refreshes > 0 and task.due_at is not None and task.due_at > now
            return None if waits else next_poll(task)

        return await self._store.claim_group(
            self._session.name,
            State.RUNNING,
            latest,
            self._schedule.bounds.size,
            self._held,
            self._operations,
            plan,
        )

    async def next_due(self) -> float | None:
        """Return when the next call goes out, or None if no task can be polled."""
        return self._computed_due.pop() if self._computed_due else await self._next_call_at()

    async def _next_call_at(self) -> float | None:
        """Return when the next call goes out, or None if no task can be polled."""
        session, bounds = self._session, self._schedule.bounds
        if session.dead:
            return None
        where = (session.name, State.RUNNING, self._operations)
        seen = await self._store.poll_outlook(*where, session.clock.now(), bounds.few)
        if seen.first_due_at is None:
            return None
        queued, many = seen.has_queued and session.blocked is None, seen.nth_due_at is not None
        self._urgency = self._schedule.urgency(
            queued=queued, many=many, running=session.capacity.running, window=session.capacity.window.size
        )
        alone = self._urgency is HIGH and not many and self._many is not None
        few = await self._store.earliest_due(*where, self._held, bounds.few) if alone else ()
        return self._schedule.next_call_at(seen.first_due_at, seen.nth_due_at, self._urgency, few)

    async def work(self, batch: Sequence[Task]) -> None:
        """Poll a batch once the provider answers, or settle what is past its deadline while it does not."""
        permit = self._permits.pop(batch[0].id, None)
        with permit or nullcontext():
            if not self._session.breaker.outage:
                await self._poll(batch, permit)
                return
        if await self._is_answering():
            await self._poll(batch, None)
        else:
            await self._settle_past_deadline(batch)

    async def _is_answering(self) -> bool:
        """Return True if the outage ends, after a while at most."""
        with anyio.move_on_after(_OUTAGE):
            await self._session.breaker.until_answering()
        return not self._session.breaker.outage

    async def _poll(self, batch: Sequence[Task], permit: Permit | None) -> None:
        session, at = self._session, self._session.clock.now()
        if self._many is None:
            (task,) = batch
            events = {task.id: read_query(session.spec, await session.send(session.dialect.query(task), permit), task)}
        else:
            outcome = await session.send(session.dialect.query_many(batch), permit)
            events, objects = read_many(session.spec, batch, outcome)
            await self._compare_echoes(batch, objects)
        for task in batch:
            match events[task.id]:
                case Pending(unknown_state=True) as event:
                    self._schedule.record_running(task, at)
                    events[task.id] = replace(event, overdue=self._schedule.overdue(task, at))
                    continue
                case Pending(settling=False):
                    self._schedule.record_running(task, at)
                case Finished() | Rejected():
                    self._schedule.record_end(task, at)
                case _:
                    continue  # an error says nothing about how long tasks take, or about their state
            self._schedule.forget_unlisted(task)
        async with anyio.create_task_group() as group:
            for task in batch:
                group.start_soon(self._settle, task, events[task.id])

    async def _settle_past_deadline(self, batch: Sequence[Task]) -> None:
        """Settle the tasks whose deadline has passed. The others keep their due times, and go on at once."""
        for task in batch:
            after = advance(task, _SILENCE, self._session.clock.now(), self._settlement.policy)
            if after.state is not task.state:
                await self._settlement.settle(task, _SILENCE)

    async def _settle(self, task: Task, event: Event) -> None:
        """Write only what changes: a task that is simply still running has its next poll already."""
        if isinstance(event, Pending):
            self._report_unknown_word(event)
            after = advance(task, event, self._session.clock.now(), self._settlement.policy)
            if after == task:
                return
        await self._settlement.settle(task, event)

    def _report_unknown_word(self, event: Pending) -> None:
        """Warn once of each state word that the spec does not list."""
        words = self._reported_words
        if event.unknown_state and event.remote_state not in words and len(words) < _WORDS:
            words.add(event.remote_state)
            self._session.on_warning(
                f"{self._session.name} says {event.remote_state!r} of a task, which its spec does not list: taken for "
                "running, for as long as such tasks take"
            )

    async def _compare_echoes(self, batch: Sequence[Task], objects: dict[int, Any]) -> None:
        """Learn from accepted tasks which fields the list gives back unchanged.

        Reconciliation later recognises tasks by these fields alone.
        """
        session = self._session
        for task in batch:
            seen = self._samples.get(task.model, 0)
            if task.id not in objects or task.adopted or seen >= _SAMPLES or not session.spec.reconcile.listing:
                continue
            self._samples[task.model] = seen + 1
            (stored,) = await self._store.find_by_key_prefix(task.key)
            body = session.dialect.body(task.operation, task.model, orjson.loads(stored.request))
            same = compare_echo(session.spec, body, objects[task.id])
            session.facts_of(task.operation).learn_echo(task.model, same, session.clock.now())
            await self._store.put_echoed_fields(session.name, task.model, same)
