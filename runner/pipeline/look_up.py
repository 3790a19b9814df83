"""Finds out what became of submits without an answer, before anyone pays again (reliability.md sections 7 to 10).

Found is adopted at once. Missing is believed only after the quiet time, two clean looks, and with no twin on the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.lifecycle.events import Blocked, Found, Missing, Setback
from runner.lifecycle.task import Fault, State
from runner.pipeline.likeness import likeness
from runner.pipeline.listing import SKEW, read_list
from runner.pipeline.stage import Stage
from runner.providers.reading import Row, read_reference

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from runner.lifecycle.task import Moment, Task
    from runner.pipeline.lane import Lane
    from runner.pipeline.likeness import Likeness
    from runner.pipeline.stage import Broken

#: seconds within which a row that may be older than the send is still perhaps ours, if only wall clocks say so
_DAY = 86_400.0
#: doubtful tasks that share one scan
_BATCH = 200
#: readings of one look; what needs more is not clean
_PASSES = 4


class LookUp:
    """The look-ups of one group of operations that stand in one list."""

    def __init__(self, lane: Lane, operations: Sequence[str]) -> None:
        self._lane, self._operations = lane, tuple(operations)
        #: what one look has read of each task
        self._cache: dict[int, tuple[Mapping[str, Any], Mapping[str, bool], bool]] = {}
        #: when the next look is due, where a claim has just found it out and has taken none; empty where it has not
        self._looked: list[float | None] = []

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
        due = None if lane.dead else await self._due()
        self._looked = [due] if due is None or due > now else []
        if self._looked or lane.dead:
            return []
        tasks = await lane.store.claim_group(
            lane.name, State.IN_DOUBT, now + 0.5, _BATCH, held, self._operations, lambda _: now + lane.patience.doubt
        )
        return [tasks] if tasks else []

    async def _next_due(self) -> float | None:
        return self._looked.pop() if self._looked else await self._due()

    async def _due(self) -> float | None:
        lane = self._lane
        return None if lane.dead else await lane.store.next_due(lane.name, State.IN_DOUBT, self._operations)

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
        self._cache.clear()
        before: set[str] | None = None
        for _ in range(_PASSES):
            rows = await self._unclaimed(min(self._may_begin(task) for task in batch))
            if isinstance(rows, Setback | Blocked):
                break
            batch = [task for task in _oldest_first(batch) if not await self._found(task, rows)]
            ids = {row.remote_id for row in rows}
            if not batch or ids == before:
                await self._miss(batch, rows, begun)
                return
            before = ids
        else:
            rows = Setback("trouble", Fault("list_moves", None, "the provider's list changed with every reading"))
        for task in batch:
            await self._lane.settle(task, rows)

    async def _found(self, task: Task, rows: list[Row]) -> bool:
        """Adopt the task if it is among the rows, which then has one row less; of twins the oldest is taken first."""
        for row in sorted(rows, key=lambda each: each.created):
            if await self._likeness(task, row) == "ours":
                rows.remove(row)
                await self._lane.settle(task, Found(row.remote_id, "found in the list"))
                return True
        return False

    async def _miss(self, batch: Sequence[Task], rows: Sequence[Row], begun: Moment) -> None:
        for task in batch:
            perhaps = [row for row in rows if await self._likeness(task, row) == "perhaps"]
            provable = not perhaps and await self._provable(task)
            quiet = await self._quiet(task, begun) and (provable or bool(perhaps) or not await self._is_open(task))
            await self._lane.settle(task, Missing(quiet=quiet, provable=provable))

    async def _likeness(self, task: Task, row: Row) -> Likeness:
        """By our reference where the list has it, else by time and by what the list shows."""
        listing = self._lane.spec.look_up.listing
        if listing is not None and listing.reference:
            return "ours" if row.reference == task.ref else "no"
        body, trusted, rivals = await self._known(task)
        like = likeness(self._lane.spec, body, row, trusted, rivals=rivals)
        if like == "no" or not row.created or row.created >= self._sent_at(task) - SKEW:
            return like
        return "no" if row.created < self._may_begin(task) else "perhaps"

    async def _known(self, task: Task) -> tuple[Mapping[str, Any], Mapping[str, bool], bool]:
        """The request as it was sent, what is known of its model's echo, and whether another request looks alike."""
        if task.id not in self._cache:
            (row,) = await self._lane.store.by_key(task.key)
            body = self._lane.dialect.body(task.operation, task.model, orjson.loads(row.request))
            trusted = await self._lane.store.echoes(self._lane.name, task.model)
            rivals = await self._lane.store.rivals(task.fingerprint, row.request.decode())
            self._cache[task.id] = (body, trusted, rivals)
        return self._cache[task.id]

    def _sent_at(self, task: Task) -> float:
        """When it was sent by the provider's clock: back from its present time by our boot clock, which nobody sets."""
        lane = self._lane
        if task.sent is None or task.sent.boot != lane.clock.boot:
            return task.submitted_at or 0.0
        return lane.clock.now() + lane.ahead - (lane.clock.moment().seconds - task.sent.seconds)

    def _may_begin(self, task: Task) -> float:
        """The earliest that a row may say of it; a wall clock of an earlier boot may have been hours ahead (FC1)."""
        sure = task.sent is not None and task.sent.boot == self._lane.clock.boot
        return self._sent_at(task) - (SKEW if sure else _DAY)

    async def _provable(self, task: Task) -> bool:
        """Whether an absence can be believed: the list is known to show what a task is known again by."""
        listing = self._lane.spec.look_up.listing
        if listing is None or listing.reference:
            return listing is not None
        _, trusted, _ = await self._known(task)
        return all(trusted.get(field, False) for field in listing.proof)

    async def _is_open(self, task: Task) -> bool:
        """Whether what the list shows is merely not known yet, and others of the model are being made that tell."""
        listing = self._lane.spec.look_up.listing
        _, trusted, _ = await self._known(task)
        unknown = listing is not None and not listing.reference and any(each not in trusted for each in listing.proof)
        return unknown and await self._lane.store.is_running(self._lane.name, task.model)

    async def _quiet(self, task: Task, begun: Moment) -> bool:
        """Whether this look began after the quiet time of the latest doubtful send of the fingerprint (R4)."""
        clock, store = self._lane.clock, self._lane.store
        sent = [(task.sent.boot, task.sent.seconds)] if task.sent else []
        if task.fingerprint:
            if await store.twin_submitting(task.fingerprint):
                return False
            sent += await store.twins_sent(task.fingerprint)
            if self._lane.claims is not None:
                sent += await self._lane.claims.doubts(task.fingerprint)
        waited = min((clock.since(boot, seconds, begun) for boot, seconds in sent), default=0.0)
        return waited >= self._lane.patience.doubt

    async def _unclaimed(self, since: float) -> list[Row] | Setback | Blocked:
        """The list's rows since then that belong to no task of ours; our own submits change the list all the time."""
        rows = await read_list(self._lane, self._operations[0], since)
        if isinstance(rows, Setback | Blocked):
            return rows
        claimed = await self._lane.store.claimed(self._lane.name, [row.remote_id for row in rows])
        if self._lane.claims is not None:
            claimed |= await self._lane.claims.others([row.remote_id for row in rows])
        return [row for row in {row.remote_id: row for row in rows}.values() if row.remote_id not in claimed]


def _oldest_first(batch: Sequence[Task]) -> list[Task]:
    return sorted(batch, key=lambda task: task.submitted_at or 0.0)
