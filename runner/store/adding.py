"""Drafts become rows: a hot half that stages claim, a cold half with what the manifest said."""

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

#: drafts that are added in one transaction
PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Addition:
    """A draft with what only the job can add to it."""

    draft: Draft
    fingerprint: str
    #: what one purchase of it costs, in the provider's unit; None: nobody knows
    cost: float | None = None
    #: where local pictures stand in its request, and the path of each
    pictures: Mapping[str, str] = field(default_factory=dict)


def forget(connection: sqlite3.Connection) -> None:
    """In a transaction: nothing is wanted until its draft is seen again."""
    connection.execute(sql.queries()["rest_queued"])
    connection.execute(sql.queries()["forget_positions"])


def add(
    connection: sqlite3.Connection, page: Sequence[Addition], uuid: str, now: float, *, rename: bool = False
) -> None:
    """In a transaction: a row in each table for each draft that has none; `rename`: those with files take new names."""
    try:
        connection.executemany(sql.queries()["add_task"], (_hot(addition, uuid) for addition in page))
        connection.executemany(sql.queries()["add_draft"], _cold(page, now, rename=rename))
    except sqlite3.IntegrityError as error:  # a key or a reference is not what was written there (FD6)
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
        # out of the journal: what the manifest said of it before this stands
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
