"""Conversion of rows to tasks and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import StateError
from runner.lifecycle.task import NO_FAULT, Fault, Moment, Output, State, Task

if TYPE_CHECKING:
    import sqlite3


def task_from(row: sqlite3.Row, outputs: tuple[Output, ...] = ()) -> Task:
    """Return the task in a row of `task.*, request, name`."""
    error = NO_FAULT if row["reason"] is None else Fault(row["reason"], row["code"], row["message"])
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
        fingerprint=row["fingerprint"],
        slots=row["slots"],
        cost=row["cost"],
        pictures=row["pictures"],
        spent=row["spent"],
        remote_id=row["remote_id"],
        attempts=row["attempts"],
        throttles=row["throttles"],
        doubts=row["doubts"],
        looks=row["looks"],
        failures=row["failures"],
        refreshes=row["refreshes"],
        adopted=bool(row["adopted"]),
        sent=sent,
        submitted_at=row["submitted_at"],
        since=row["since"],
        finished_at=row["finished_at"],
        fault=error,
        evidence=row["evidence"],
        request=row["request"].encode(),
        name=row["name"],
        outputs=outputs,
    )


def columns(task: Task) -> dict[str, Any]:
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
        "looks": task.looks,
        "failures": task.failures,
        "refreshes": task.refreshes,
        "adopted": int(task.adopted),
        "sent_boot": task.sent.boot if task.sent else None,
        "sent_seconds": task.sent.seconds if task.sent else None,
        "submitted_at": task.submitted_at,
        "since": task.since,
        "finished_at": task.finished_at,
        "reason": task.fault.reason,
        "code": task.fault.code,
        "message": task.fault.message,
        "evidence": task.evidence,
    }


def beside(file: str | None) -> str | None:
    """Return the file name of an output after a check that it leads nowhere but into the job directory.

    Raises StateError.
    """
    if file is not None and (not file or "/" in file or "\0" in file or file.startswith(".")):
        raise StateError(
            f"an output is called {file[:100]!r}, and no output of a job is called so",
            hint="The state was changed by something else. Keep a copy of the job directory and put back a good one.",
        )
    return file


def output_from(row: sqlite3.Row) -> Output:
    """Return the output in a row of the outputs query.

    Raises StateError.
    """
    beside(row["file"])
    return Output(row["number"], row["url"], row["file"], row["bytes"], row["sha256"], row["media_type"])


def as_json(value: Any) -> str:
    """Return JSON text for a column or a query parameter."""
    return orjson.dumps(list(value) if isinstance(value, set | frozenset) else value, default=str).decode()
