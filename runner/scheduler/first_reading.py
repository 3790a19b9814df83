"""The first reading of a list that keeps no references, before a run buys: what stood there is not the job's.

A state that was put back from a backup says of what it bought since that it waits to be bought. At a provider without
references a row that looks like a task to buy puts that task in doubt: if it was not in the list before the job,
belongs to nobody, and lies after the last send that the state remembers. Then the rules of lost answers decide, as
they do in `reconcile`. References tell more, and sooner: see `forgotten`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import RunnerError
from runner.providers.requests import request_fingerprint
from runner.scheduler.forgotten import Forgotten, unreadable
from runner.scheduler.listing import CLOCK_TOLERANCE, Reading, read_list, unclaimed_rows
from runner.tasks.events import Interrupted
from runner.tasks.list_record import EarlierRows
from runner.tasks.models import Moment, State
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.providers.responses import ListedTask
    from runner.providers.spec import Spec
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.store.earlier_rows import EarlierRowsFile
    from runner.tasks.models import Task

_SEEN = "the provider's list showed a task like it before this run bought anything"
#: seconds by which wall clocks of earlier runs may have been ahead
_DAY = 86_400.0
#: pages that are read, unless they show something forgotten
_PAGES = 2
#: ids of earlier rows that are kept
_MOST_IDS = 4096
#: tasks to buy that are compared with the rows of a list
_MOST_ALIKE = 5000
#: fields that a row may show and a request leave out, of which every choice is tried
_MOST_OPTIONAL = 8


async def put_forgotten_in_doubt(
    session: ProviderSession, settlement: Settlement, operations: Sequence[str], earlier: EarlierRowsFile
) -> Forgotten:
    """Read one list before anything is bought, and put the tasks to buy in doubt that it shows as bought already.

    A list that cannot be read stops nothing: where it is for good, nothing can be bought either.
    """
    check = _FirstReading(session, settlement, operations, earlier)
    since = await check.since()
    reading = await read_list(session, operations[0], since, pages=_PAGES)
    if isinstance(reading, Reading) and not reading.to_end and await check.has_forgotten(reading):
        reading = await read_list(session, operations[0], since)  # all of them, however many pages that takes
    if not isinstance(reading, Reading):
        return Forgotten(unclear=unreadable(reading))
    return Forgotten(in_doubt=await check.settle(reading))


class _Comparison(NamedTuple):
    """Rows that nobody owns: those that a task to buy looks like, and the ids of those that are certainly not ours."""

    forgotten: list[tuple[ListedTask, Task]]
    explained: list[str]
    #: one of these was made within a day
    has_stranger: bool = False


class _FirstReading:
    """Recognises forgotten purchases by what their rows show of the requests."""

    def __init__(
        self, session: ProviderSession, settlement: Settlement, operations: Sequence[str], file: EarlierRowsFile
    ) -> None:
        self._session, self._settlement, self._store, self._file = session, settlement, settlement.store, file
        self._group = session.dialect.group(operations[0])
        self._known = session.earlier.get(self._group)
        #: when the last request that the state remembers was sent, by the provider's clock as far as that is known
        self._sent_at = 0.0
        self._sent: Moment | None = None
        self._is_first = False
        self._facts = session.facts_of(operations[0])
        #: seconds by which the list's times are ahead of the provider's clock; None: they mean nothing
        self._time_shift: float | None = 0.0

    async def since(self) -> float:
        """Return how far back the list is read: to the last send, or to now if nothing was ever sent."""
        known, clock, sent = self._known, self._session.clock, await self._store.last_send()
        has_sent = sent is not None or any(state != State.QUEUED for state in await self._store.counts())
        self._is_first = known is None and not has_sent
        ahead = known.ahead if known is not None else 0.0
        if sent is not None:
            at, moment = sent
            self._sent = moment
            self._sent_at = (clock.at(moment) if moment.boot == clock.boot else at) + ahead
        elif known is not None:
            self._sent_at = known.since
        elif has_sent:
            self._sent_at = await self._store.began_at()
        now = clock.now() + ahead
        if self._sent_at > now + CLOCK_TOLERANCE:  # the wall clock of that boot was wrong
            self._sent_at = known.since if known is not None else 0.0
        return (now if self._is_first else self._sent_at) - CLOCK_TOLERANCE

    async def has_forgotten(self, reading: Reading) -> bool:
        """Return whether a row looks like a task to buy that this state has forgotten."""
        return bool((await self._compare(reading)).forgotten)

    async def settle(self, reading: Reading) -> int:
        """Put what is forgotten in doubt, remember what is not ours, and return how many tasks were put in doubt."""
        found = await self._compare(reading)
        await self._remember(found)
        for row, task in found.forgotten:
            await self._settlement.settle(self._as_sent(task, row), Interrupted(_SEEN))
        if found.forgotten:
            self._session.on_warning(
                f"{self._session.name}: {pluralize(len(found.forgotten), 'task')} to buy stand in the list already, "
                "later than anything this job's state remembers (a backup that was put back?): in doubt, and not "
                "bought before that is settled"
            )
        return len(found.forgotten)

    async def _compare(self, reading: Reading) -> _Comparison:
        """Compare the rows that belong to nobody with the tasks that are open or to be bought."""
        store, name = self._store, self._session.name
        self._time_shift = self._facts.time_shift(reading)
        if self._sent is not None and self._sent.boot == self._session.clock.boot:
            # the wall clock may have been set since, and only now the answer has told the provider's
            self._sent_at = self._session.clock.at(self._sent) + reading.ahead
        unclaimed = await unclaimed_rows(self._session, self._settlement, reading, self._facts, self._known)
        rows = sorted(unclaimed, key=lambda each: each.created)
        if self._is_first:
            return _Comparison([], [row.remote_id for row in rows], any(map(self._is_of_today, rows)))
        prints = {row.remote_id: list(row_fingerprints(self._session.spec, row)) for row in rows}
        every = {each for some in prints.values() for each in some}
        doubts, queued = await store.open_like(every), await store.queued_like(name, every, _MOST_ALIKE)
        left = dict(doubts)
        found, has_stranger = _Comparison([], []), False
        for row in rows:
            alike = prints[row.remote_id]
            # as many of the rows that look like open doubts belong to those
            doubtful = next((each for each in alike if left.get(each)), None)
            task = min(
                (task for task in queued if task.fingerprint in alike),
                key=lambda each: alike.index(each.fingerprint),
                default=None,
            )
            if doubtful is not None:
                left[doubtful] -= 1
            elif task is not None and self._is_later(row):
                queued.remove(task)
                found.forgotten.append((row, task))
            elif not any(each in doubts for each in alike):
                found.explained.append(row.remote_id)
                has_stranger = has_stranger or self._is_of_today(row)
        return found._replace(has_stranger=has_stranger)

    def _is_of_today(self, row: ListedTask) -> bool:
        return not row.created or self._session.clock.now() + self._session.ahead - row.created < _DAY

    def _is_later(self, row: ListedTask) -> bool:
        """Return whether a row may be later than the last send that the state remembers."""
        if not row.created or self._time_shift is None:
            return True
        return row.created - self._time_shift >= self._sent_at - CLOCK_TOLERANCE

    async def _remember(self, found: _Comparison) -> None:
        """Keep the ids of the rows that are explained; and from when on rows may be ours, if no doubt is open.

        While tasks of the manifest are still to be added, a row that nothing explains may be one of theirs.
        """
        if not self._is_first and await self._store.is_adding():
            return
        session, known = self._session, self._known
        if found.has_stranger and not session.capacity.other_processes_active():
            self._facts.stranger_at = session.clock.now()
        ids = [*found.explained[::-1], *(known.ids if known is not None else ())]
        counts = await self._store.counts()
        is_open = any(counts.get(state) for state in (State.SUBMITTING, State.IN_DOUBT, State.HELD))
        since = now = session.clock.now() + session.ahead
        if found.forgotten or is_open:
            # without an earlier reading the dates are those of our own wall clocks, which may have been wrong
            since = known.since if known is not None else min(self._sent_at, await self._store.began_at()) - _DAY
        rows = EarlierRows(frozenset(ids[:_MOST_IDS]), min(since, now), session.ahead)
        session.earlier[self._group] = rows
        try:
            self._file.save(self._group, rows)
        except RunnerError as error:
            session.on_warning(f"{error.message}: what stood in the list before is not remembered")

    def _as_sent(self, task: Task, row: ListedTask) -> Task:
        """Return the task as if it had been sent when the row was made."""
        clock = self._session.clock
        moment, now = clock.moment(), clock.now()
        made = row.created and row.created - (self._time_shift or 0.0)
        age = max(0.0, now + self._session.ahead - made) if made else 0.0
        return replace(
            task, sent=Moment(moment.boot, moment.seconds - age), submitted_at=now - age, since=now - age, due_at=None
        )


def row_fingerprints(spec: Spec, row: ListedTask) -> Iterator[str]:
    """Yield the fingerprints of every request that a row of the list may show, those with the most fields first.

    A request may leave out fields that the row shows with the provider's own defaults.
    """
    listing = spec.reconcile.listing
    shown = {name: value for name, value in row.echo.items() if value is not None}
    proof = listing.proof if listing is not None else ()
    if not proof or any(name not in shown for name in proof):
        return
    optional = sorted(shown.keys() - set(proof))[:_MOST_OPTIONAL]
    for count in range(len(optional), -1, -1):
        for names in combinations(optional, count):
            yield request_fingerprint(spec.name, {name: shown[name] for name in (*proof, *names)})
