"""The reconcile stage: find out what became of submits without an answer, before anything is paid again.

A task that is found is adopted at once. Absence is believed only after the quiet time, after two clean readings, and
with no duplicate of the request on the wire. How much a provider's list can prove: docs/reliability.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import orjson

from runner.providers.requests import Reply
from runner.providers.responses import (
    ListedTask,
    ListPage,
    compare_echo,
    read_many,
    read_page,
    read_query,
    read_reference,
)
from runner.tasks.events import AccountBlocked, Finished, Found, Missing, RetryableFailure
from runner.tasks.models import State, TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.providers.requests import Outcome
    from runner.providers.spec import Spec
    from runner.scheduler.poll_schedule import PollSchedule
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.events import Event
    from runner.tasks.models import Moment, Task

Match = Literal["match", "possible", "none"]

#: pages of one reading; a list that needs more is not clean
_PAGES = 200
#: seconds by which the provider's clock may be off
CLOCK_TOLERANCE = 300.0
#: seconds within which a row that may be older than the send is still a possible match, if only wall clocks say so
_DAY = 86_400.0
#: doubtful tasks that share one scan
_BATCH = 200
#: readings of one scan; what needs more is not clean
_READINGS = 4
#: seconds after which no late result is expected any more
LATE_RESULT_AGE = 3 * 86_400.0
#: requests about late results to one provider in one run
_LATE_CALLS = 20


class ReconcileStage:
    """Reconciles one group of operations that stand in one list."""

    state = State.IN_DOUBT
    #: one scan at a time
    concurrency = 1

    def __init__(self, session: ProviderSession, settlement: Settlement, operations: Sequence[str]) -> None:
        self._session, self._settlement, self._store = session, settlement, settlement.store
        self._operations = tuple(operations)
        #: body, trusted fields and ambiguity of each task, read once a scan
        self._cache: dict[int, tuple[Mapping[str, Any], Mapping[str, bool], bool]] = {}
        #: the due time of the next scan, where a claim has just computed it and taken none; else empty
        self._computed_due: list[float | None] = []

    async def claim(self, _: int, held: set[int]) -> list[Sequence[Task]]:
        """Claim the due tasks as one batch."""
        session = self._session
        now = session.clock.now()
        due = None if session.dead else await self._due()
        self._computed_due = [due] if due is None or due > now else []
        if self._computed_due or session.dead:
            return []
        tasks = await self._store.claim_group(
            session.name,
            State.IN_DOUBT,
            now + 0.5,
            _BATCH,
            held,
            self._operations,
            lambda _: now + self._settlement.policy.quiet_time,
        )
        return [tasks] if tasks else []

    async def next_due(self) -> float | None:
        """Return when the next task is due, or None if nothing can be reconciled."""
        return self._computed_due.pop() if self._computed_due else await self._due()

    async def _due(self) -> float | None:
        session = self._session
        return None if session.dead else await self._store.next_due(session.name, State.IN_DOUBT, self._operations)

    async def work(self, batch: Sequence[Task]) -> None:
        """Ask for each task by its reference, and search the provider's list for the others."""
        await self._session.breaker.until_answering()
        begun = self._session.clock.moment()
        rest = await self._by_reference(batch)
        if rest:
            await self._by_list(rest, begun)

    async def _by_reference(self, batch: Sequence[Task]) -> Sequence[Task]:
        """Ask for each task by our reference. Return the tasks that no answer decides, for the list."""
        session, rest = self._session, []
        for task in batch:
            request = session.dialect.by_reference(task)
            event = None if request is None else read_reference(session.spec, task, await session.send(request))
            if event is None:
                rest.append(task)
            else:
                await self._settlement.settle(task, event)
        return rest

    async def _by_list(self, batch: Sequence[Task], begun: Moment) -> None:
        """Adopt what one reading shows. Believe an absence only where two readings in a row agree."""
        self._cache.clear()
        before: set[str] | None = None
        for _ in range(_READINGS):
            rows = await self._unclaimed_rows(min(self._earliest_row(task) for task in batch))
            if isinstance(rows, RetryableFailure | AccountBlocked):
                break
            # of duplicates the oldest takes its row first
            oldest_first = sorted(batch, key=lambda task: task.submitted_at or 0.0)
            batch = [task for task in oldest_first if not await self._adopt(task, rows)]
            ids = {row.remote_id for row in rows}
            if not batch or ids == before:
                await self._settle_absent(batch, rows, begun)
                return
            before = ids
        else:
            rows = RetryableFailure(
                "trouble", TaskError("list_moves", None, "the provider's list changed with every reading")
            )
        for task in batch:
            await self._settlement.settle(task, rows)

    async def _adopt(self, task: Task, rows: list[ListedTask]) -> bool:
        """Adopt the row that matches the task and remove it from `rows`. Return False if none matches."""
        for row in sorted(rows, key=lambda each: each.created):
            if await self._match(task, row) == "match":
                rows.remove(row)
                await self._settlement.settle(task, Found(row.remote_id, "found in the list"))
                return True
        return False

    async def _settle_absent(self, batch: Sequence[Task], rows: Sequence[ListedTask], begun: Moment) -> None:
        for task in batch:
            possible = [row for row in rows if await self._match(task, row) == "possible"]
            provable = not possible and await self._is_absence_provable(task)
            quiet = await self._is_quiet(task, begun)
            # absent, possible, or no running task will tell more: only then the quiet time counts
            quiet = quiet and (provable or bool(possible) or not await self._may_learn_echo(task))
            await self._settlement.settle(task, Missing(quiet=quiet, provable=provable))

    async def _match(self, task: Task, row: ListedTask) -> Match:
        """Compare by our reference where the list has it, else by time and by what the list shows of the request."""
        listing = self._session.spec.reconcile.listing
        if listing is not None and listing.reference:
            return "match" if row.reference == task.ref else "none"
        body, trusted, ambiguous = await self._known(task)
        found = match(self._session.spec, body, row, trusted, ambiguous=ambiguous)
        if found == "none" or not row.created or row.created >= self._sent_at(task) - CLOCK_TOLERANCE:
            return found
        return "none" if row.created < self._earliest_row(task) else "possible"

    async def _known(self, task: Task) -> tuple[Mapping[str, Any], Mapping[str, bool], bool]:
        """Return the body as it was sent, the trusted fields of its model, and True if another request looks alike."""
        if task.id not in self._cache:
            (row,) = await self._store.find_by_key_prefix(task.key)
            body = self._session.dialect.body(task.operation, task.model, orjson.loads(row.request))
            trusted = await self._store.echoed_fields(self._session.name, task.model)
            ambiguous = await self._store.has_ambiguous_request(task.fingerprint, row.request.decode())
            self._cache[task.id] = (body, trusted, ambiguous)
        return self._cache[task.id]

    def _sent_at(self, task: Task) -> float:
        """Return when the task was sent by the provider's clock: its present time minus our boot clock's difference."""
        session = self._session
        if task.sent is None or task.sent.boot != session.clock.boot:
            return task.submitted_at or 0.0
        return session.clock.now() + session.ahead - (session.clock.moment().seconds - task.sent.seconds)

    def _earliest_row(self, task: Task) -> float:
        """Return the earliest creation time of its row. A wall clock of an earlier boot may have been hours ahead."""
        sure = task.sent is not None and task.sent.boot == self._session.clock.boot
        return self._sent_at(task) - (CLOCK_TOLERANCE if sure else _DAY)

    async def _is_absence_provable(self, task: Task) -> bool:
        """Return True if the list is known to show the fields by which a task is recognised."""
        listing = self._session.spec.reconcile.listing
        if listing is None or listing.reference:
            return listing is not None
        _, trusted, _ = await self._known(task)
        return all(trusted.get(field, False) for field in listing.proof)

    async def _may_learn_echo(self, task: Task) -> bool:
        """Return True if it is unknown what the list shows, and running tasks of the model will tell."""
        listing = self._session.spec.reconcile.listing
        _, trusted, _ = await self._known(task)
        unknown = listing is not None and not listing.reference and any(each not in trusted for each in listing.proof)
        return unknown and await self._store.is_model_running(self._session.name, task.model)

    async def _is_quiet(self, task: Task, begun: Moment) -> bool:
        """Return True if this scan began after the quiet time of the latest doubtful send of the same request."""
        clock, claims = self._session.clock, self._settlement.claims
        sent = [(task.sent.boot, task.sent.seconds)] if task.sent else []
        if task.fingerprint:
            if await self._store.is_duplicate_submitting(task.fingerprint):
                return False
            sent += await self._store.duplicate_sends(task.fingerprint)
            if claims is not None:
                sent += await claims.other_doubts(task.fingerprint)
        waited = min((clock.since(boot, seconds, begun) for boot, seconds in sent), default=0.0)
        return waited >= self._settlement.policy.quiet_time

    async def _unclaimed_rows(self, since: float) -> list[ListedTask] | RetryableFailure | AccountBlocked:
        """Return the list's rows since then that belong to no task of ours."""
        rows = await read_list(self._session, self._operations[0], since)
        if isinstance(rows, RetryableFailure | AccountBlocked):
            return rows
        claimed = await self._store.claimed_ids(self._session.name, [row.remote_id for row in rows])
        if self._settlement.claims is not None:
            claimed |= await self._settlement.claims.owned_by_others([row.remote_id for row in rows])
        return [row for row in {row.remote_id: row for row in rows}.values() if row.remote_id not in claimed]


def match(
    spec: Spec, body: Mapping[str, Any], row: ListedTask, trusted: Mapping[str, bool], *, ambiguous: bool
) -> Match:
    """Compare a row of the list with a request, where the provider keeps no reference of ours.

    `trusted` are fields that the list is known to give back unchanged (False: changed). `ambiguous`: the job holds
    another request that the list shows alike. A row that differs only in fields that are not known to come back
    unchanged is a possible match: it is not adopted, and the task's absence is not believed.
    """
    same = compare_echo(spec, body, row.raw)
    proof = spec.reconcile.listing.proof if spec.reconcile.listing else ()
    differs = {field for field, equal in same.items() if not equal and trusted.get(field, True)}
    if not same or any(field in proof or field in trusted for field in differs):
        return "none"
    hidden = any(not trusted.get(field, field in same) for field in body)
    # a proof that is known to come back changed distinguishes no rows: that row may be of any request
    unsure = any(not same.get(field, True) for field in proof)
    return "possible" if differs or unsure or (hidden and ambiguous) else "match"


async def read_list(
    session: ProviderSession, operation: str, since: float
) -> list[ListedTask] | RetryableFailure | AccountBlocked:
    """Read the account's list back to `since` (seconds since the epoch). Return why if there is no clean reading."""
    rows: list[ListedTask] = []
    for number in range(1, _PAGES + 1):
        request = session.dialect.list_page(operation, number)
        if request is None:
            return RetryableFailure("trouble", TaskError("no_list", None, "this provider has no list"))
        page = read_page(session.spec, await session.send(request))
        if not isinstance(page, ListPage):
            return page
        rows += page.rows
        if not page.rows or _reaches_back(rows, since):
            return rows
    return RetryableFailure("trouble", TaskError("list_too_long", None, f"the list has more than {_PAGES} pages"))


def _reaches_back(rows: Sequence[ListedTask], since: float) -> bool:
    """Return True if a list that has been newest-first so far has reached rows older than `since`.

    No provider documents the order. A list that is not plainly newest-first is read to its end.
    """
    times = [row.created for row in rows]
    return times[-1] < since and all(times) and all(later >= earlier for later, earlier in pairwise(times))


class LateResults:
    """Asks once, before a run ends, about tasks that earlier runs left failed or stuck and that may have ended well.

    Nothing is sent that costs, only outputs change a task, and an answer that is not plain ends the search. Of a task
    that was bought again the latest purchase is asked about, never an earlier one.
    """

    def __init__(self, session: ProviderSession, settlement: Settlement, schedule: PollSchedule) -> None:
        self._session, self._settlement, self._size = session, settlement, schedule.bounds.size
        self._batches: list[Sequence[Task]] = []

    async def collect(self, groups: Sequence[Sequence[str]]) -> None:
        """Collect the tasks, the latest first, in at most a bounded number of calls."""
        session, since = self._session, self._session.clock.now() - LATE_RESULT_AGE
        for operations in groups:
            most = (_LATE_CALLS - len(self._batches)) * self._size
            late = await self._settlement.store.late_candidates(session.name, operations, since, most)
            self._batches += [late[at : at + self._size] for at in range(0, len(late), self._size)]

    async def search(self) -> int:
        """Ask once about each task. Return how many have outputs after all."""
        found = 0
        for batch in self._batches:
            events = await self._poll(batch)
            if events is None:
                break
            for task in batch:
                event = events[task.id]
                found += isinstance(event, Finished) and await self._settlement.settle(task, event) is not None
        return found

    async def _poll(self, batch: Sequence[Task]) -> Mapping[int, Event] | None:
        """Return what the answer says of each task, or None if the provider should not be asked any more."""
        session = self._session
        if session.dead or session.capacity.disk_full or session.breaker.outage:
            return None
        outcome: Outcome
        events: Mapping[int, Event]
        if session.spec.query.many is None:
            outcome = await session.send(session.dialect.query(batch[0]))
            events = {batch[0].id: read_query(session.spec, outcome, batch[0])}
        else:
            outcome = await session.send(session.dialect.query_many(batch))
            events, _ = read_many(session.spec, batch, outcome)
        plain = isinstance(outcome, Reply) and outcome.status < 500 and outcome.status != 429  # noqa: PLR2004 - HTTP
        return events if plain else None
