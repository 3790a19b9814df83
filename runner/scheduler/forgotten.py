"""Forgotten purchases: tasks at the provider that are this job's, and that its state knows nothing of.

A state that was put back from a backup says of what it bought since that it waits to be bought. The provider's list
says otherwise. Where it shows our references it is asked before a run's first submit; where it only shows requests, a
task that looks like one of ours may be somebody else's, so it is asked when the user adopts the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from runner.providers.guarantee import hidden_fields
from runner.scheduler.listing import CLOCK_TOLERANCE, Reading, read_list
from runner.scheduler.reconcile import match
from runner.tasks.events import Resolved
from runner.tasks.models import State, key_of_reference
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.providers.responses import ListedTask
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.models import Task

#: who decides about a task that is found so, in its evidence
_FINDER = "the provider's list, before the run"
#: pages that are read at most
_PAGES = 4
#: tasks that are compared with the list by their requests, in the order in which they would be bought
_MOST_COMPARED = 500
#: rows that a message names
_MOST_NAMED = 3
_DAY = 86_400.0
_NO_RECORD = "it keeps no record that can be read: look at its console for what was bought since"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What one list showed of purchases that the state does not know."""

    #: tasks that were adopted
    adopted: int = 0
    #: why the list cannot tell, or cannot tell all; empty: it can
    unclear: str = ""


async def adopt_forgotten(session: ProviderSession, settlement: Settlement, operations: Sequence[str]) -> Forgotten:
    """Adopt the tasks of one list that carry this job's references, and that the state calls never bought.

    A list that cannot be read stops nothing: then nothing can be bought either.
    """
    store, listing = settlement.store, session.spec.reconcile.listing
    if listing is None or listing.reference is None:
        return Forgotten(unclear=_NO_RECORD if listing is None else "its list shows no references")
    began = await store.began_at()
    reading = await read_list(session, operations[0], began - CLOCK_TOLERANCE, pages=_PAGES)
    if not isinstance(reading, Reading):
        return Forgotten(unclear=f"its list could not be read: {reading.error.message or reading.error.code}")
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
    return Forgotten(found, "" if reading.to_end else "its list is longer than what was read of it")


async def adopt_alike(session: ProviderSession, settlement: Settlement, operations: Sequence[str]) -> Forgotten:
    """Adopt the tasks of one list that look like tasks that wait to be bought, and that nobody has claimed.

    For a state that was put back, and a list without references. Only rows later than the state's last request count.
    If a row may be of several requests, or more rows than tasks look alike, or somebody else uses the account and the
    list hides a part of the request, it is named and not adopted.
    """
    store, listing = settlement.store, session.spec.reconcile.listing
    if listing is None:
        return Forgotten(unclear=_NO_RECORD)
    since = (await store.last_sent_at() or await store.began_at()) - CLOCK_TOLERANCE
    reading = await read_list(session, operations[0], since)
    if not isinstance(reading, Reading):
        return Forgotten(unclear=f"its list could not be read: {reading.error.message or reading.error.code}")
    rows = [
        row for row in await _unclaimed(session, settlement, reading.rows) if not row.created or row.created >= since
    ]
    tasks = await store.next_queued(session.name, operations, _MOST_COMPARED)
    alike, certain = await _compare(session, settlement, tasks, rows)
    facts, now = session.facts_of(operations[0]), session.clock.now()
    shared = len(alike) < len(rows) or now - facts.stranger_at < _DAY
    adopted, named = 0, []
    for row in sorted(rows, key=lambda each: each.created):
        candidates = [task for task in tasks if task.id in alike.get(row.remote_id, ())]
        if not candidates:
            continue
        task, kinds = candidates[0], {each.fingerprint for each in candidates}
        rivals = sum(task.id in found for found in alike.values())
        hidden = shared and await _hides(session, settlement, task)
        if len(kinds) > 1 or rivals > len(candidates) or task.id not in certain[row.remote_id] or hidden:
            named.append(row.remote_id)
            continue
        taken = settlement.claims is None or await settlement.claims.claim_found(row.remote_id)
        if taken and await settlement.settle(task, Resolved("adopt", _FINDER, row.remote_id)) is not None:
            adopted += 1
            tasks.remove(task)
    if not named:
        return Forgotten(adopted)
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    ids = f"{', '.join(named[:_MOST_NAMED])}{more}"
    return Forgotten(adopted, f"{ids} in its list may be what waits to be bought here, and nobody has claimed them")


async def _unclaimed(
    session: ProviderSession, settlement: Settlement, rows: Sequence[ListedTask]
) -> Sequence[ListedTask]:
    """Return the rows that no job of the account has."""
    ids = [row.remote_id for row in rows]
    claimed = await settlement.store.claimed_ids(session.name, ids)
    if settlement.claims is not None:
        claimed |= await settlement.claims.owned_by_others(ids)
    return [row for row in rows if row.remote_id not in claimed]


async def _compare(
    session: ProviderSession, settlement: Settlement, tasks: Sequence[Task], rows: Sequence[ListedTask]
) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Return the ids of the tasks that each row may be of, by its id, and of those that it certainly looks like."""
    alike: dict[str, set[int]] = {}
    certain: dict[str, set[int]] = {}
    for task in tasks if rows else ():
        body = session.dialect.body(task.operation, task.model, orjson.loads(task.request))
        trusted = await _trusted(session, settlement, task)
        ambiguous = await settlement.store.has_ambiguous_request(task.fingerprint, task.request.decode())
        for row in rows:
            found = match(session.spec, body, row, trusted, ambiguous=ambiguous)
            if found != "none":
                alike.setdefault(row.remote_id, set()).add(task.id)
                certain.setdefault(row.remote_id, set()).update({task.id} if found == "match" else ())
    return alike, certain


async def _hides(session: ProviderSession, settlement: Settlement, task: Task) -> bool:
    """Return True if the list does not show some field of a task's request."""
    body = session.dialect.body(task.operation, task.model, orjson.loads(task.request))
    return bool(hidden_fields(session.spec, body, await _trusted(session, settlement, task)))


async def _trusted(session: ProviderSession, settlement: Settlement, task: Task) -> Mapping[str, bool]:
    """Return which fields of a model the list is known to give back unchanged (False: changed)."""
    trusted = dict(session.facts_of(task.operation).echo_of(task.model))
    for name, equal in (await settlement.store.echoed_fields(session.name, task.model)).items():
        trusted[name] = equal and trusted.get(name, True)
    return trusted
