"""Insertion of drafts as rows.

Each draft has a row in `task`, which stages claim, and one in `draft`, which holds the manifest's values.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import reference
from runner.store import sql
from runner.store.rows import as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.lifecycle.task import Draft

#: drafts added in one transaction
PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Addition:
    """A draft with the values that only its job knows."""

    draft: Draft
    fingerprint: str
    #: price of one purchase in the provider's unit, None if unknown
    cost: float | None = None
    #: path of each local image by its position in the request
    pictures: Mapping[str, str] = field(default_factory=dict)


def forget(connection: sqlite3.Connection) -> None:
    """Mark every task as removed from the manifest until its draft is added again.

    Must be called in a transaction.
    """
    connection.execute(sql.queries()["unschedule_queued"])
    connection.execute(sql.queries()["clear_positions"])


def add(
    connection: sqlite3.Connection, page: Sequence[Addition], uuid: str, now: float, *, rename: bool = False
) -> None:
    """Insert rows for the drafts that have none, and update the others.

    With `rename`, tasks that have files take new names too. Must be called in a transaction.
    Raises StateError if the rows violate a constraint of the schema.
    """
    try:
        connection.executemany(sql.queries()["add_task"], (_hot(addition, uuid) for addition in page))
        connection.executemany(sql.queries()["add_draft"], _cold(page, now, rename=rename))
    except sqlite3.IntegrityError as error:  # a key or a reference in the file was changed by something else
        raise sql.explained(error, "the job's state is damaged") from None


def _hot(addition: Addition, uuid: str) -> dict[str, Any]:
    draft = addition.draft
    return {
        "key": draft.key,
        "provider": draft.provider,
        "operation": draft.operation,
        "model": draft.model,
        "ref": reference(uuid, draft.key, 1),
        "fingerprint": addition.fingerprint,
        "slots": draft.slots,
        "cost": addition.cost,
        "pictures": as_json(addition.pictures) if addition.pictures else "",
        # a draft read from the journal must not overwrite the images that the manifest named
        "gone": not draft.index,
    }


def _cold(page: Sequence[Addition], now: float, *, rename: bool) -> Iterator[dict[str, Any]]:
    for addition in page:
        draft = addition.draft
        yield {
            "key": draft.key,
            "position": draft.index or None,
            "repeat": draft.repeat,
            "vars": as_json(draft.vars),
            "request": as_json(draft.request),
            "name": draft.name,
            "now": now,
            "rename": rename,
        }
