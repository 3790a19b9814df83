"""Reading an account's list of tasks, page by page, back to a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from runner.providers.responses import ListedTask, ListPage, read_page
from runner.tasks.events import AccountBlocked, RetryableFailure
from runner.tasks.models import Moment, TaskError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.list_record import EarlierRows

#: pages of one reading; a list that needs more is not clean
_PAGES = 200
#: seconds by which the provider's clock may be off
CLOCK_TOLERANCE = 300.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One clean reading of an account's list: its rows in the order of the list, every id once."""

    rows: tuple[ListedTask, ...]
    #: the moment before its first request
    begun: Moment
    #: no page was left unread
    to_end: bool = True
    #: the same moment in seconds since the epoch, and by how many seconds the provider's clock was ahead of ours
    at: float = 0.0
    ahead: float = 0.0
    #: one answer shows all of it, so that no row can have moved from one page to another meanwhile
    is_one_page: bool = False


async def unclaimed_rows(
    session: ProviderSession,
    settlement: Settlement,
    reading: Reading,
    remembered: Container[str],
    earlier: EarlierRows | None,
) -> list[ListedTask]:
    """Return the rows that belong to no task of any job, and that did not stand there before this job.

    `remembered` are ids that the account knows as those of its own tasks. What this job has claimed, and its state does
    not have, is what it has forgotten: such a row is unclaimed.
    """
    ids, claims = [row.remote_id for row in reading.rows], settlement.claims
    taken = {remote_id for remote_id in ids if remote_id in remembered}
    if claims is not None:
        taken -= await claims.owned_here(ids)
        taken |= await claims.owned_by_others(ids)
    taken |= await settlement.store.claimed_ids(session.name, ids)
    if earlier is not None:
        taken |= earlier.ids
    return [row for row in reading.rows if row.remote_id not in taken]


async def read_list(
    session: ProviderSession, operation: str, since: float, *, pages: int | None = None
) -> Reading | RetryableFailure | AccountBlocked:
    """Read the account's list back to `since` (seconds since the epoch). Return why if there is no clean reading.

    With `pages` the reading ends after so many. A page that is equal to the one before ends it too: that host shows one
    page, whatever page is asked for.
    """
    begun, at = session.clock.moment(), session.clock.now()
    rows: dict[str, ListedTask] = {}
    before: list[str] = []
    for number in range(1, _PAGES + 1):
        request = session.dialect.list_page(operation, number)
        if request is None:
            return RetryableFailure("trouble", TaskError("no_list", None, "this provider has no list"))
        page = read_page(session.spec, await session.send(request))
        if not isinstance(page, ListPage):
            return page
        ids = [row.remote_id for row in page.rows]
        rows |= {row.remote_id: row for row in page.rows}
        to_end = not ids or ids == before
        if to_end or _reaches_back(list(rows.values()), since):
            return Reading(tuple(rows.values()), begun, to_end, at, session.ahead, is_one_page=number == 1)
        if number == pages:
            return Reading(tuple(rows.values()), begun, to_end=False, at=at, ahead=session.ahead)
        before = ids
    return RetryableFailure("trouble", TaskError("list_too_long", None, f"the list has more than {_PAGES} pages"))


async def read_first_page(session: ProviderSession, operation: str) -> Reading | None:
    """Read the newest tasks of the account's list. Return None if there is no clean answer."""
    begun, at = session.clock.moment(), session.clock.now()
    request = session.dialect.list_page(operation, 1)
    page = read_page(session.spec, await session.send(request)) if request is not None else None
    if not isinstance(page, ListPage):
        return None
    return Reading(page.rows, begun, to_end=False, at=at, ahead=session.ahead)


def _reaches_back(rows: Sequence[ListedTask], since: float) -> bool:
    """Return True if a list that has been newest-first so far has reached rows older than `since`.

    No provider documents the order. A list that is not plainly newest-first is read to its end.
    """
    times = [row.created for row in rows]
    return times[-1] < since and all(times) and all(later >= earlier for later, earlier in pairwise(times))
