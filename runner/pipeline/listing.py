"""Reads the account's list, page by page, as far back as it matters."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from runner.lifecycle.events import Setback
from runner.lifecycle.task import Fault
from runner.providers.reading import Page, Row, read_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.lifecycle.events import Blocked
    from runner.pipeline.lane import Lane

#: pages of one reading; a list that needs more is not clean
_PAGES = 200
#: seconds by which the provider's clock may be off
SKEW = 300.0


async def read_list(lane: Lane, operation: str, since: float) -> list[Row] | Setback | Blocked:
    """Every row since then (seconds since the epoch), or why there is no clean reading."""
    rows: list[Row] = []
    for number in range(1, _PAGES + 1):
        request = lane.dialect.page(operation, number)
        if request is None:
            return Setback("trouble", Fault("no_list", None, "this provider has no list"))
        page = read_page(lane.spec, await lane.send(request))
        if not isinstance(page, Page):
            return page
        rows += page.rows
        if not page.rows or _past(rows, since):
            return rows
    return Setback("trouble", Fault("list_too_long", None, f"the list has more than {_PAGES} pages"))


def _past(rows: Sequence[Row], since: float) -> bool:
    """Whether a list that has been newest-first so far has reached what is older than it matters.

    The order is documented nowhere; a list that is not plainly newest-first is read to its end.
    """
    times = [row.created for row in rows]
    return times[-1] < since and all(times) and all(later >= earlier for later, earlier in pairwise(times))
