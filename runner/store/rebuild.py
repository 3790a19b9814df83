"""Recovery of a job whose database or whose journal is lost, each from the other; the old file is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from runner.errors import StateError
from runner.manifest.identity import task_key
from runner.store import filesystem, recovery
from runner.store.database import DATABASE_ERRORS, execute, harden, to_runner_error
from runner.store.lost_journal import is_lost, read_identity, rewrite_journal
from runner.store.store import prepare_file, set_up_connection
from runner.store.task_rows import PAGE_SIZE, Addition, add_drafts, task_from
from runner.tasks.models import Draft, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from runner.store.journal import JournalLine
    from runner.store.recovery import TaskHistory

#: largest `repeat` of a manifest
_MAX_REPEAT = 1_000


class RecoveredState(NamedTuple):
    """What was recovered: the file that was written anew, and the number of tasks by state that were ever sent."""

    rebuilt: Literal["database", "journal"]
    counts: dict[str, int]


def recover(directory: Path, additions: Iterable[Addition], now: float) -> RecoveredState:
    """Rebuild the database from the journal; or, where a whole database knows more, the journal from the database.

    Raises StateError if neither is whole, and DiskError.
    """
    try:
        known = read_identity(directory / "state.db")
        if known is not None and is_lost(directory / "journal.jsonl", known):
            return RecoveredState("journal", rewrite_journal(directory, now))
    except DATABASE_ERRORS as error:
        raise to_runner_error(error, str(directory / "state.db")) from None
    return RecoveredState("database", rebuild(directory, additions, now))


def rebuild(directory: Path, additions: Iterable[Addition], now: float) -> dict[str, int]:
    """Rebuild `state.db` from the manifest's drafts and the journal; return the number of restored tasks by state.

    `now` is in seconds since the epoch. Raises StateError if the journal is empty, damaged or shorter than its offset
    in the database, and DiskError.
    """
    journal, fresh = directory / "journal.jsonl", directory / "state.db.new"
    try:
        uuid, epoch, end, histories, former = _read_journal(journal)
        if not uuid:
            raise StateError(f"{journal} has nothing to rebuild from", hint=recovery.RESTORE_COPY_HINT)
        _check_length(directory / "state.db", journal, uuid, end)
        for leftover in _database_files(fresh):
            leftover.unlink(missing_ok=True)
        prepare_file(fresh)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            set_up_connection(connection, write_ahead_log=not filesystem.is_remote(directory))
            connection.execute("begin immediate")
            sent = (history.lines[0]["at"] for history in histories)
            # the list of the provider is asked for what was bought since then
            began_at = min((at for at in sent if at is not None), default=now)
            execute(connection, "set_identity", uuid=uuid, epoch=epoch, began_at=min(began_at, now))
            execute(connection, "set_journal", journal=end)
            remaining = chain(additions, _drafts_from_journal(histories))
            while page := list(islice(remaining, PAGE_SIZE)):
                add_drafts(connection, page, uuid, now)
            counts = _restore_tasks(connection, histories)
            for provider, remote_id in former:
                execute(connection, "keep_former_id", provider=provider, remote_id=remote_id)
            connection.execute("commit")
            connection.execute("pragma wal_checkpoint(truncate)")
        _swap_databases(directory, fresh, now)
    except DATABASE_ERRORS as error:
        raise to_runner_error(error, str(journal)) from None
    return counts


def _read_journal(journal: Path) -> recovery.JournalContent:
    """Return the content of the journal. Raises StateError, whose hint does not name `recover` again."""
    try:
        return recovery.read_histories(journal)
    except StateError as error:
        raise StateError(error.message, hint=recovery.RESTORE_COPY_HINT) from None


def _check_length(database: Path, journal: Path, uuid: str, end: int) -> None:
    """Raise StateError if the journal is shorter than its offset in the database; ignore an unreadable database."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            harden(connection)
            connection.row_factory = sqlite3.Row
            job = execute(connection, "job").fetchone()
    except DATABASE_ERRORS:
        return
    if job is not None and job["uuid"] == uuid and job["journal"] > end:
        raise StateError(
            f"{journal} has {end:,} bytes, and the database has seen {job['journal']:,}: what is missing was bought",
            hint=recovery.RESTORE_COPY_HINT,
        )


def _drafts_from_journal(histories: Iterable[TaskHistory]) -> Iterator[Addition]:
    """Yield an addition for every task in the journal.

    Tasks that the manifest still has were added before, and keep the manifest's values.
    """
    for history in histories:
        intent = history.intent
        request = orjson.loads(intent["request"])
        draft = Draft(
            key=intent["key"],
            index=0,
            repeat=_repeat_of(intent, request),
            vars={},
            provider=intent["provider"],
            operation=intent["operation"],
            model=intent["model"],
            request=request,
            name=intent["name"],
            slots=intent["slots"],
            goods=intent.get("goods", ""),
        )
        yield Addition(draft, intent["fingerprint"], intent.get("cost"), orjson.loads(intent.get("pictures") or "{}"))


def _repeat_of(intent: JournalLine, request: Mapping[str, Any]) -> int:
    """Return the number of a repeat, which the journal tells by the key alone; 1 if no number makes that key."""
    content = intent["provider"], intent["operation"], intent["model"], request
    return next((n for n in range(1, _MAX_REPEAT + 1) if task_key(*content, n) == intent["key"]), 1)


def _restore_tasks(connection: sqlite3.Connection, histories: Iterable[TaskHistory]) -> dict[str, int]:
    """Apply the history of every task to its row; return the number of tasks by state."""
    counts: dict[str, int] = {}
    for history in histories:
        task = task_from(execute(connection, "by_key", key=history.intent["key"]).fetchone())
        try:
            task = recovery.replay(connection, task, history.lines)
        except sqlite3.IntegrityError:
            # its id belongs to a duplicate that adopted it: the outcome of this send is unknown again
            intents = [line for line in history.lines if line["t"] != "id" or line["ref"] != history.intent["ref"]]
            task = recovery.replay(connection, task, intents)
        if task.state is State.DONE:
            execute(connection, "drop_outputs", task_id=task.id)
            recovery.restore_files(connection, task, history.files)
        state = str(State.IN_DOUBT if task.state is State.SUBMITTING else task.state)
        counts[state] = counts.get(state, 0) + 1
    return counts


def _swap_databases(directory: Path, fresh: Path, now: float) -> None:
    """Rename the old database with its companion files, then give its name to the new one."""
    for old in _database_files(directory / "state.db"):
        if old.exists():
            old.rename(directory / f"{old.name}.before-{now:.0f}")
    for suffix in ("-wal", "-shm"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    fresh.rename(directory / "state.db")


def _database_files(database: Path) -> Iterator[Path]:
    yield database
    for suffix in ("-wal", "-shm"):
        yield database.with_name(database.name + suffix)
