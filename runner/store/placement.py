"""Give drafts the rows that bought the same goods under another key, so that an edit nobody sees buys nothing.

A draft finds its row by its key. A draft without a row becomes a new one. After the last draft, each new row is
compared with the rows that left the manifest: where one has bought the same goods, it takes the new one's place, and
the new one is deleted. So a key always goes before goods, in whatever order the drafts come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from runner.store.database import execute
from runner.store.task_rows import to_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping

    from runner.tasks.models import Draft

#: tasks of which goods are computed, or ids that are compared, in one transaction
PLACEMENT_PAGE = 5_000
#: rows that left the manifest which are compared with new ones
MAX_REPLACED = 5_000


@dataclass(frozen=True, slots=True)
class Restated:
    """A task that was bought, or may have been, and what the manifest asks for in its place: the same goods."""

    key: str
    state: str
    #: position of the new request in the manifest, from 1
    position: int
    #: request that was bought, and the one that the manifest would send today
    bought: Mapping[str, Any]
    asked: Mapping[str, Any]


def fill_goods(connection: sqlite3.Connection, goods_of: Callable[[str, str, str, Mapping[str, Any], int], str]) -> int:
    """Compute the goods of some tasks that an older version bought, and return how many.

    Must be called in a transaction, again and again until it returns 0.
    """
    rows = execute(connection, "without_goods", limit=PLACEMENT_PAGE).fetchall()
    for row in rows:
        request = orjson.loads(row["request"])
        goods = goods_of(row["provider"], row["operation"], row["model"], request, row["repeat"])
        execute(connection, "set_goods", id=row["id"], goods=goods)
    return len(rows)


def find_bought(connection: sqlite3.Connection, page: Iterable[Draft]) -> dict[str, str]:
    """Return the goods of drafts by the goods under which an earlier version has bought them in this job."""
    asked: dict[str, str] = {}
    for draft in page:
        if draft.goods_before:
            asked.setdefault(draft.goods_before, draft.goods)
    return {
        before: goods
        for before, goods in asked.items()
        if execute(connection, "has_bought_goods", goods=before).fetchone()[0]
    }


def rewrite_goods(connection: sqlite3.Connection, goods_by_earlier: Mapping[str, str]) -> None:
    """Give tasks that have left the manifest the goods that the manifest asks for now, by those of earlier versions.

    Must be called in a transaction. It may be repeated, so that a crash behind it does no harm.
    """
    for before, goods in goods_by_earlier.items():
        execute(connection, "rewrite_goods", before=before, goods=goods)


def find_replaced(connection: sqlite3.Connection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows that were bought and have just left the manifest, and new rows that may stand where they stood.

    At most `MAX_REPLACED` of the first, and about twice as many of the others.
    """
    left = [_parsed(row) for row in execute(connection, "left_purchases", limit=MAX_REPLACED)]
    if not left:
        return [], []
    positions = to_json([row["position"] for row in left])
    return left, [_parsed(row) for row in execute(connection, "unsent_rows", positions=positions, limit=MAX_REPLACED)]


def _parsed(row: sqlite3.Row) -> dict[str, Any]:
    return {**dict(row), "vars": orjson.loads(row["vars"]), "request": orjson.loads(row["request"])}


def has_left_purchase(connection: sqlite3.Connection) -> bool:
    """Return whether something that was bought, or may have been, has left the manifest."""
    return bool(execute(connection, "has_left_purchase").fetchone()[0])


def last_id(connection: sqlite3.Connection) -> int:
    """Return the highest id of a task."""
    return int(execute(connection, "last_id").fetchone()[0])


def place_page(connection: sqlite3.Connection, after: int, *, rename: bool) -> list[Restated]:
    """Put rows that were bought in the place of new ones with the same goods, and return them.

    Only new rows with the next `PLACEMENT_PAGE` ids after `after` are looked at. With `rename`, the rows take new
    names. Must be called in a transaction.
    """
    pairs = execute(connection, "bought_before", after=after, until=after + PLACEMENT_PAGE).fetchall()
    placed = []
    for fresh_id, bought_id in pairs:
        ids = {"fresh_id": fresh_id, "bought_id": bought_id}
        if not execute(connection, "take_place", rename=rename, **ids).rowcount:
            continue  # it has taken the place of another new row of this page
        row = execute(connection, "restated", **ids).fetchone()
        execute(connection, "take_operation", **ids)
        execute(connection, "delete_unsent", id=fresh_id)
        requests = orjson.loads(row["request"]), orjson.loads(row["fresh_request"])
        placed.append(Restated(row["key"], row["state"], row["fresh_position"], *requests))
    return placed
