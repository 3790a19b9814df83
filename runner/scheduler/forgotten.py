"""Forgotten purchases: tasks at the provider that are this job's, and that its state knows nothing of.

A state that was put back from a backup says of what it bought since that it waits to be bought. The provider's list
says otherwise, so it is asked once before a run's first submit. Lists without references: see `first_reading`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.scheduler.listing import CLOCK_TOLERANCE, Reading, read_list
from runner.tasks.events import Resolved
from runner.tasks.models import State, key_of_reference
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.events import AccountBlocked, RetryableFailure

#: who decides about a task that is found so, in its evidence
_FINDER = "the provider's list, before the run"
#: pages that are read at most
_PAGES = 4
#: why a provider without a list cannot tell
NO_RECORD = "it keeps no record that can be read: look at its console for what was bought since"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What one list showed of purchases that the state does not know."""

    #: tasks that were adopted
    adopted: int = 0
    #: tasks that were put in doubt
    in_doubt: int = 0
    #: why the list cannot tell, or cannot tell all; empty: it can
    unclear: str = ""


async def adopt_forgotten(session: ProviderSession, settlement: Settlement, operations: Sequence[str]) -> Forgotten:
    """Adopt the tasks of one list that carry this job's references, and that the state calls never bought.

    A list that cannot be read stops nothing: then nothing can be bought either.
    """
    store, listing = settlement.store, session.spec.reconcile.listing
    if listing is None or listing.reference is None:
        return Forgotten(unclear=NO_RECORD)
    began = await store.began_at()
    reading = await read_list(session, operations[0], began - CLOCK_TOLERANCE, pages=_PAGES)
    if not isinstance(reading, Reading):
        return Forgotten(unclear=unreadable(reading))
    known = await store.claimed_ids(session.name, [row.remote_id for row in reading.rows])
    found = 0
    for row in reading.rows:
        key = key_of_reference(store.uuid, row.reference or "")
        if key is None or row.remote_id in known:
            continue
        for task in await store.find_by_key_prefix(key):
            if task.ref == row.reference and task.state is State.QUEUED and task.provider == session.name:
                adopted = Resolved("adopt", _FINDER, row.remote_id)
                found += await settlement.settle(task, adopted) is not None
    if found:
        session.on_warning(
            f"{session.name}: {pluralize(found, 'task')} of this job had been bought in a run that its state does not "
            "remember (a backup that was put back?): adopted, and not bought again"
        )
    return Forgotten(found)


def unreadable(failure: RetryableFailure | AccountBlocked) -> str:
    """Return why a list cannot tell."""
    return f"its list could not be read: {failure.error.message or failure.error.code or 'no answer'}"
