"""Finds out what became of submits without an answer, before anyone pays again (reliability.md sections 7 to 10).

Found is adopted at once. Missing is believed only after the quiet time, two clean looks, and with no twin on the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.lifecycle.events import Blocked, Found, Missing, Setback
from runner.lifecycle.task import Fault, State
from runner.pipeline.listing import SKEW, read_list
from runner.pipeline.stage import Stage
from runner.providers.reading import Row, echoed, read_reference

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from runner.lifecycle.task import Moment, Task
    from runner.pipeline.lane import Lane
    from runner.pipeline.stage import Broken

#: doubtful tasks that share one scan
_BATCH = 200
#: readings of one look; what needs more is not clean
_PASSES = 4


class LookUp:
    """The look-ups of one group of operations that stand in one list."""

    def __init__(self, lane: Lane, operations: Sequence[str]) -> None:
        self._lane, self._operations = lane, tuple(operations)

    def stage(self, name: Hashable, broken: Broken) -> Stage:
        """The stage that runs them; one scan at a time."""
        return Stage(
            name,
            hands=1,
            bell=self._lane.bell,
            now=self._lane.clock.now,
            claim=self._claim,
            work=self._work,
            next_due=self._next_due,
            broken=broken,
        )

    async def _claim(self, _: int, held: set[int]) -> list[Sequence[Task]]:
        lane = self._lane
        now = lane.clock.now()
        due = await self._next_due()
        if lane.dead or due is None or due > now:
            return []
        tasks = await lane.store.claim_group(
            lane.name, State.IN_DOUBT, now + 0.5, _BATCH, held, self._operations, lambda _: now + lane.patience.doubt
        )
        return [tasks] if tasks else []

    async def _next_due(self) -> float | None:
        return (
            None
            if self._lane.dead
            else await self._lane.store.next_due(self._lane.name, State.IN_DOUBT, self._operations)
        )

    async def _work(self, batch: Sequence[Task]) -> None:
        await self._lane.breaker.until_answering()
        begun = self._lane.clock.moment()
        rest = await self._by_reference(batch)
        if rest:
            await self._by_list(rest, begun)

    async def _by_reference(self, batch: Sequence[Task]) -> Sequence[Task]:
        """Ask for each by our reference; those that no answer decides are left for the list."""
        lane, rest = self._lane, []
        for task in batch:
            request = lane.dialect.by_reference(task)
            event = None if request is None else read_reference(lane.spec, task, await lane.send(request))
            if event is None:
                rest.append(task)
            else:
                await lane.settle(task, event)
        return rest

    async def _by_list(self, batch: Sequence[Task], begun: Moment) -> None:
        """Adopt what one reading shows; believe what is missing only where two readings in a row agree (R10)."""
        since = min(task.submitted_at or 0.0 for task in batch) - SKEW
        before: set[str] | None = None
        for _ in range(_PASSES):
            rows = await self._unclaimed(since)
            if isinstance(rows, Setback | Blocked):
                break
            batch = [task for task in _oldest_first(batch) if not await self._found(task, rows)]
            ids = {row.remote_id for row in rows}
            if not batch or ids == before:
                await self._miss(batch, begun)
                return
            before = ids
        else:
            rows = Setback("trouble", Fault("list_moves", None, "the provider's list changed with every reading"))
        for task in batch:
            await self._lane.settle(task, rows)

    async def _found(self, task: Task, rows: list[Row]) -> bool:
        """Adopt the task if it is among the rows, which then has one row less."""
        whole, trusted = await self._echo(task)
        for row in rows:
            if self._is_ours(task, row, whole, trusted):
                rows.remove(row)
                await self._lane.settle(task, Found(row.remote_id, "found in the list"))
                return True
        return False

    async def _miss(self, batch: Sequence[Task], begun: Moment) -> None:
        for task in batch:
            _, trusted = await self._echo(task)
            missing = Missing(quiet=await self._quiet(task, begun), provable=self._provable(trusted))
            await self._lane.settle(task, missing)

    async def _echo(self, task: Task) -> tuple[Mapping[str, Any], Mapping[str, bool]]:
        (row,) = await self._lane.store.by_key(task.key)
        body = self._lane.dialect.body(task.operation, task.model, orjson.loads(row.request))
        return body, await self._lane.store.echoes(self._lane.name, task.model)

    def _is_ours(self, task: Task, row: Row, body: Mapping[str, Any], trusted: Mapping[str, bool]) -> bool:
        """By our reference where the list has it; else by every field that is not known to come back changed."""
        listing = self._lane.spec.look_up.listing
        if listing is not None and listing.reference:
            return row.reference == task.ref
        if row.created and row.created < (task.submitted_at or 0.0) - SKEW:
            return False
        same = echoed(self._lane.spec, body, row.value)
        return bool(same) and all(equal for field, equal in same.items() if trusted.get(field, True))

    def _provable(self, trusted: Mapping[str, bool]) -> bool:
        """Whether an absence can be believed: the list is known to show what a task is known again by."""
        listing = self._lane.spec.look_up.listing
        return listing is not None and all(trusted.get(field, False) for field in listing.proof)

    async def _quiet(self, task: Task, begun: Moment) -> bool:
        """Whether this look began after the quiet time of the latest doubtful send of the fingerprint (R4)."""
        clock, store = self._lane.clock, self._lane.store
        sent = [(task.sent.boot, task.sent.seconds)] if task.sent else []
        if task.fingerprint:
            if await store.twin_submitting(task.fingerprint):
                return False
            sent += await store.twins_sent(task.fingerprint)
        waited = min((clock.since(boot, seconds, begun) for boot, seconds in sent), default=0.0)
        return waited >= self._lane.patience.doubt

    async def _unclaimed(self, since: float) -> list[Row] | Setback | Blocked:
        """The list's rows since then that belong to no task of ours; our own submits change the list all the time."""
        rows = await read_list(self._lane, self._operations[0], since)
        if isinstance(rows, Setback | Blocked):
            return rows
        claimed = await self._lane.store.claimed(self._lane.name, [row.remote_id for row in rows])
        return [row for row in {row.remote_id: row for row in rows}.values() if row.remote_id not in claimed]


def _oldest_first(batch: Sequence[Task]) -> list[Task]:
    return sorted(batch, key=lambda task: task.submitted_at or 0.0)
