"""Rebuilding of a database from the journal, in a new file; the old file is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import StateError
from runner.lifecycle.task import Draft, State, Task
from runner.store import ground, recovery, sql
from runner.store.adding import PAGE, Addition, add
from runner.store.opening import prepare, set_up
from runner.store.rows import beside, task_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from runner.store.recovery import Story


def rebuild(directory: Path, additions: Iterable[Addition], now: float) -> dict[str, int]:
    """Rebuild `state.db` from the manifest's drafts and the journal; return the number of restored tasks by state.

    `now` is in seconds since the epoch. Raises StateError if the journal is empty, damaged or shorter than the database
    knows it, and DiskError.
    """
    journal, fresh = directory / "journal.jsonl", directory / "state.db.new"
    try:
        uuid, epoch, end, histories = recovery.stories(journal)
        if not uuid:
            raise StateError(f"{journal} has nothing to rebuild from", hint=recovery.COPY)
        _check_length(directory / "state.db", journal, uuid, end)
        for leftover in _files(fresh):
            leftover.unlink(missing_ok=True)
        prepare(fresh)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            set_up(connection, log=not ground.is_remote(directory))
            connection.execute("begin immediate")
            connection.execute(sql.queries()["set_identity"], {"uuid": uuid, "epoch": epoch})
            connection.execute(sql.queries()["set_journal"], {"journal": end})
            remaining = chain(additions, _gone(histories))
            while page := list(islice(remaining, PAGE)):
                add(connection, page, uuid, now)
            counts = _restore(connection, histories)
            connection.execute("commit")
            connection.execute("pragma wal_checkpoint(truncate)")
        _swap(directory, fresh, now)
    except sql.DAMAGED as error:
        raise sql.explained(error, str(journal)) from None
    return counts


def _check_length(database: Path, journal: Path, uuid: str, end: int) -> None:
    """Raise StateError if the journal is shorter than the database knows it; an unreadable database is ignored."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            sql.guard(connection)
            connection.row_factory = sqlite3.Row
            job = connection.execute(sql.queries()["job"]).fetchone()
    except sql.DAMAGED:
        return
    if job is not None and job["uuid"] == uuid and job["journal"] > end:
        raise StateError(
            f"{journal} has {end:,} bytes, and the database has seen {job['journal']:,}: what is missing was bought",
            hint=recovery.COPY,
        )


def _gone(histories: Iterable[Story]) -> Iterator[Addition]:
    """Yield an addition for every task in the journal.

    Tasks that the manifest still has were added before, and keep the manifest's values.
    """
    for history in histories:
        intent = history.intent
        request = orjson.loads(intent["request"])
        draft = Draft(
            intent["key"], 0, 1, {}, intent["provider"], intent["operation"], intent["model"], request, intent["name"],
            intent["slots"],
        )  # fmt: skip
        yield Addition(draft, intent["fingerprint"], intent.get("cost"), orjson.loads(intent.get("pictures") or "{}"))


def _restore(connection: sqlite3.Connection, histories: Iterable[Story]) -> dict[str, int]:
    """Apply the history of every task to its row; return the number of tasks by state."""
    counts: dict[str, int] = {}
    for history in histories:
        row = connection.execute(sql.queries()["by_key"], {"key": history.intent["key"]}).fetchone()
        state = _restored(connection, task_from(row), history)
        counts[state] = counts.get(state, 0) + 1
    return counts


def _restored(connection: sqlite3.Connection, task: Task, history: Story) -> str:
    try:
        task = recovery.replay(connection, task, history.lines)
    except sqlite3.IntegrityError:
        # its id belongs to a duplicate that adopted it: the outcome of this send is unknown again
        intents = [line for line in history.lines if line["t"] != "id" or line["ref"] != history.intent["ref"]]
        task = recovery.replay(connection, task, intents)
    outputs: list[dict[str, Any]] = [{**file, "task_id": task.id} for file in history.files if beside(file["file"])]
    if task.state is State.DONE:
        connection.executemany(sql.queries()["restore_output"], outputs)
    return str(State.IN_DOUBT if task.state is State.SUBMITTING else task.state)


def _swap(directory: Path, fresh: Path, now: float) -> None:
    """Rename the old database with its companion files, then give its name to the new one."""
    for old in _files(directory / "state.db"):
        if old.exists():
            old.rename(directory / f"{old.name}.before-{now:.0f}")
    for suffix in ("-wal", "-shm"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    fresh.rename(directory / "state.db")


def _files(database: Path) -> Iterator[Path]:
    yield database
    for suffix in ("-wal", "-shm"):
        yield database.with_name(database.name + suffix)
