"""Insertion of drafts as rows.

Each draft has a row in `task`, which stages claim, and one in `draft`, which holds the manifest's values.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import reference
from runner.store import sql
from runner.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.lifecycle.task import Draft

#: drafts added in one transaction
PAGE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Addition:
    """A draft with the values that only its job knows."""

    draft: Draft
    fingerprint: str
    #: price of one purchase in the provider's unit, None if unknown
    cost: float | None = None
    #: path of each local image by its position in the request
    images: Mapping[str, str] = field(default_factory=dict)


def mark_all_removed(connection: sqlite3.Connection) -> None:
    """Mark every task as removed from the manifest until its draft is added again.

    Must be called in a transaction.
    """
    connection.execute(sql.statements()["unschedule_queued"])
    connection.execute(sql.statements()["clear_positions"])


def add_drafts(
    connection: sqlite3.Connection, page: Sequence[Addition], uuid: str, now: float, *, rename: bool = False
) -> None:
    """Insert rows for the drafts that have none, and update the others.

    With `rename`, tasks that have files take new names too. Must be called in a transaction.
    Raises StateError if the rows violate a constraint of the schema.
    """
    try:
        connection.executemany(sql.statements()["add_task"], (_task_row(addition, uuid) for addition in page))
        connection.executemany(sql.statements()["add_draft"], _draft_rows(page, now, rename=rename))
    except sqlite3.IntegrityError as error:  # a key or a reference in the file was changed by something else
        raise sql.to_runner_error(error, "the job's state is damaged") from None


def _task_row(addition: Addition, uuid: str) -> dict[str, Any]:
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
        "pictures": to_json(addition.images) if addition.images else "",
        # a draft read from the journal must not overwrite the images that the manifest named
        "gone": not draft.index,
    }


def _draft_rows(page: Sequence[Addition], now: float, *, rename: bool) -> Iterator[dict[str, Any]]:
    for addition in page:
        draft = addition.draft
        yield {
            "key": draft.key,
            "position": draft.index or None,
            "repeat": draft.repeat,
            "vars": to_json(draft.vars),
            "request": to_json(draft.request),
            "name": draft.name,
            "now": now,
            "rename": rename,
        }
