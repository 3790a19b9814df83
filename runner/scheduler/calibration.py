"""Calibration: measure how late a list shows our tasks, and what of them, soon after the first ones were accepted.

A doubt at the end of a run can only be settled where that is known. It costs two pages of the list at most, and nothing
where the account's jobs have measured it already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from runner.scheduler.listing import read_first_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runner.scheduler.list_facts import ListFacts
    from runner.scheduler.session import ProviderSession

#: tasks that must have been accepted in this run
_TASKS = 3
#: seconds to the first reading at most
_SOON = 2.0


class Calibration:
    """Reads the first page of each list that is not measured. `save` keeps what was learned."""

    def __init__(self, session: ProviderSession, save: Callable[[], Awaitable[None]]) -> None:
        self._session, self._save = session, save
        self._tried: set[str] = set()

    async def run(self) -> None:
        """Measure lists as tasks are accepted, until it is cancelled."""
        session, name = self._session, (self._session.name, "witness")
        if session.spec.reconcile.listing is None:
            return
        while not session.dead:
            seen = session.notifier.count(name)
            for group, facts in list(session.lists.items()):
                if group not in self._tried and not _is_measured(facts) and facts.awaited >= _TASKS:
                    self._tried.add(group)
                    await self._measure(facts)
            await session.notifier.wait(name, since=seen)

    async def _measure(self, facts: ListFacts) -> None:
        session, quiet = self._session, facts.base_quiet_time
        for delay in (min(_SOON, quiet / 8), quiet / 8):
            await anyio.sleep(delay)
            if session.dead or session.breaker.outage:
                return
            reading = await read_first_page(session, facts.operation)
            if reading is not None:
                facts.observe(reading)
            if _is_measured(facts):
                break
        await self._save()


def _is_measured(facts: ListFacts) -> bool:
    return facts.lag.known and facts.learned.known
