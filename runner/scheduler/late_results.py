"""Late results: tasks that count as lost and that the provider may have completed after all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.providers.requests import Reply
from runner.providers.responses import read_many, read_query
from runner.tasks.events import Finished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.providers.requests import Outcome
    from runner.scheduler.poll_schedule import PollSchedule
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: seconds after which no late result is expected any more
LATE_RESULT_AGE = 3 * 86_400.0
#: requests about late results to one provider in one run
_LATE_CALLS = 20


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
