"""Conversion of rows to tasks and back, and of drafts to rows.

A draft becomes two rows: what stages claim is in `task`, and the manifest's values are in `draft`.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import StateError
from runner.store.database import execute, statements, to_runner_error
from runner.tasks.models import NO_ERROR, Moment, Output, State, Task, TaskError, reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.tasks.models import Draft


#: maximum number of drafts added in one transaction
PAGE_SIZE = 10_000
#: characters of the values of a page behind which it ends
_MAX_PAGE_LENGTH = 64 << 20


@dataclass(frozen=True, slots=True)
class Addition:
    """A draft with the values that depend on its job."""

    draft: Draft
    fingerprint: str
    #: price of one purchase in the provider's unit, None if unknown
    cost: float | None = None
    #: path of each local image by its position in the request
    images: Mapping[str, str] = field(default_factory=dict)


def next_page(additions: Iterator[Addition], most: int) -> tuple[list[Addition], bool]:
    """Return the next additions, at most `most` and fewer if their values are long, and whether these are the last."""
    page: list[Addition] = []
    length = 0
    for addition in additions:
        page.append(addition)
        length += sum([len(value) for value in addition.draft.request.values() if type(value) is str])
        length += sum([len(value) for value in addition.draft.vars.values() if type(value) is str])
        if len(page) == most or length > _MAX_PAGE_LENGTH:
            return page, False
    return page, True


def task_from(row: sqlite3.Row, outputs: tuple[Output, ...] = ()) -> Task:
    """Return the task in a row of `task.*, request, name`."""
    error = NO_ERROR if row["reason"] is None else TaskError(row["reason"], row["code"], row["message"])
    sent = None if row["sent_boot"] is None else Moment(row["sent_boot"], row["sent_seconds"])
    return Task(
        id=row["id"],
        key=row["key"],
        provider=row["provider"],
        operation=row["operation"],
        model=row["model"],
        state=State(row["state"]),
        due_at=row["due_at"],
        generation=row["generation"],
        ref=row["ref"],
        goods=row["goods"],
        fingerprint=row["fingerprint"],
        slots=row["slots"],
        cost=row["cost"],
        images=row["pictures"],
        spent=row["spent"],
        remote_id=row["remote_id"],
        attempts=row["attempts"],
        throttles=row["throttles"],
        doubts=row["doubts"],
        absences=row["looks"],
        failures=row["failures"],
        refreshes=row["refreshes"],
        adopted=bool(row["adopted"]),
        sent=sent,
        submitted_at=row["submitted_at"],
        since=row["since"],
        finished_at=row["finished_at"],
        error=error,
        reason=row["evidence"],
        request=row["request"].encode(),
        name=row["name"],
        outputs=outputs,
    )


def task_columns(task: Task) -> dict[str, Any]:
    """Return the columns of a task that may change, by their names in the settle query."""
    return {
        "id": task.id,
        "state": task.state,
        "due_at": task.due_at,
        "generation": task.generation,
        "ref": task.ref,
        "spent": task.spent,
        "remote_id": task.remote_id,
        "attempts": task.attempts,
        "throttles": task.throttles,
        "doubts": task.doubts,
        "looks": task.absences,
        "failures": task.failures,
        "refreshes": task.refreshes,
        "adopted": int(task.adopted),
        "sent_boot": task.sent.boot if task.sent else None,
        "sent_seconds": task.sent.seconds if task.sent else None,
        "submitted_at": task.submitted_at,
        "since": task.since,
        "finished_at": task.finished_at,
        "reason": task.error.reason,
        "code": task.error.code,
        "message": task.error.message,
        "evidence": task.reason,
    }


#: directory of an output where a job has several, named by the first digits of a task's key
SHARD_NAME = re.compile(r"[0-9a-f]{2,3}")


def check_output_name(file: str | None) -> str | None:
    """Return the file name of an output after a check that it leads nowhere but into the job directory.

    Raises StateError.
    """
    if file is None:
        return None
    shard, slash, rest = file.partition("/")
    name = rest if slash and SHARD_NAME.fullmatch(shard) else file
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise StateError(
            f"an output is called {file[:100]!r}, and no output of a job is called so",
            hint="The state was changed by something else. Keep a copy of the job directory and put back a good one.",
        )
    return file


def output_from(row: sqlite3.Row) -> Output:
    """Return the output in a row of the outputs query.

    Raises StateError.
    """
    check_output_name(row["file"])
    return Output(row["number"], row["url"], row["file"], row["bytes"], row["sha256"], row["media_type"])


def to_json(value: Any) -> str:
    """Return JSON text for a column or a query parameter."""
    return orjson.dumps(list(value) if isinstance(value, set | frozenset) else value, default=str).decode()


def mark_all_removed(connection: sqlite3.Connection) -> None:
    """Mark every task as removed from the manifest until its draft is added again.

    Must be called in a transaction.
    """
    execute(connection, "rearrange")
    execute(connection, "unschedule_queued")
    execute(connection, "clear_positions")


def add_drafts(
    connection: sqlite3.Connection,
    page: Sequence[Addition],
    uuid: str,
    now: float,
    *,
    rename: bool = False,
    due_at: float = 0.0,
) -> None:
    """Insert rows for the drafts that have none, and update the others.

    With `rename`, tasks that have files take new names too. Tasks to buy are due at `due_at`, seconds since the epoch.
    Must be called in a transaction.
    Raises StateError if the rows violate a constraint of the schema.
    """
    tasks = (
        {
            "key": addition.draft.key,
            "provider": addition.draft.provider,
            "operation": addition.draft.operation,
            "model": addition.draft.model,
            "ref": reference(uuid, addition.draft.key, 1),
            "goods": addition.draft.goods,
            "fingerprint": addition.fingerprint,
            "slots": addition.draft.slots,
            "cost": addition.cost,
            "pictures": to_json(addition.images) if addition.images else "",
            "due_at": due_at,
            # a draft read from the journal must not overwrite the images that the manifest named
            "gone": not addition.draft.index,
        }
        for addition in page
    )
    drafts = (
        {
            "key": addition.draft.key,
            "position": addition.draft.index or None,
            "repeat": addition.draft.repeat,
            "vars": to_json(addition.draft.vars),
            "request": to_json(addition.draft.request),
            "name": addition.draft.name,
            "now": now,
            "rename": rename,
        }
        for addition in page
    )
    execute(connection, "rearrange")
    try:
        connection.executemany(statements()["add_task"], tasks)
        connection.executemany(statements()["add_draft"], drafts)
    except sqlite3.IntegrityError as error:  # a key or a reference in the file was changed by something else
        raise to_runner_error(error, "the job's state is damaged") from None
