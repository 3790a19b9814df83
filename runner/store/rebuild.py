"""A database made anew from the journal, in a new file; the old one is kept (operations.md section 8)."""

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
    """Make `state.db` anew from the manifest's drafts and the journal; how many tasks came back, by state.

    Raises StateError where the journal has nothing, or what no journal of ours has.
    """
    try:
        return _rebuilt(directory, additions, now)
    except sql.DAMAGED as error:
        raise sql.explained(error, str(directory / "journal.jsonl")) from None


def _rebuilt(directory: Path, additions: Iterable[Addition], now: float) -> dict[str, int]:
    journal, fresh = directory / "journal.jsonl", directory / "state.db.new"
    uuid, epoch, end, stories = recovery.stories(journal)
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
        _add(connection, chain(additions, _gone(stories)), uuid, now)
        counts = _restore(connection, stories)
        connection.execute("commit")
        connection.execute("pragma wal_checkpoint(truncate)")
    _swap(directory, fresh, now)
    return counts


def _check_length(database: Path, journal: Path, uuid: str, end: int) -> None:
    """Refuse a journal that lacks what the database, where it can be read, has seen of it."""
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


def _add(connection: sqlite3.Connection, additions: Iterable[Addition], uuid: str, now: float) -> None:
    every = iter(additions)
    while page := list(islice(every, PAGE)):
        add(connection, page, uuid, now)


def _gone(stories: Iterable[Story]) -> Iterator[Addition]:
    """Paid tasks whether or not their rows are still in the manifest; those that are keep what it says of them."""
    for story in stories:
        intent = story.intent
        request = orjson.loads(intent["request"])
        draft = Draft(
            intent["key"], 0, 1, {}, intent["provider"], intent["operation"], intent["model"], request, intent["name"],
            intent["slots"],
        )  # fmt: skip
        yield Addition(draft, intent["fingerprint"], intent.get("cost"), orjson.loads(intent.get("pictures") or "{}"))


def _restore(connection: sqlite3.Connection, stories: Iterable[Story]) -> dict[str, int]:
    """Play the story of every task over its row."""
    counts: dict[str, int] = {}
    for story in stories:
        row = connection.execute(sql.queries()["by_key"], {"key": story.intent["key"]}).fetchone()
        state = _restored(connection, task_from(row), story)
        counts[state] = counts.get(state, 0) + 1
    return counts


def _restored(connection: sqlite3.Connection, task: Task, story: Story) -> str:
    try:
        task = recovery.replay(connection, task, story.lines)
    except sqlite3.IntegrityError:
        # its id belongs to a twin that adopted it: what became of this send is open again
        intents = [line for line in story.lines if line["t"] != "id" or line["ref"] != story.intent["ref"]]
        task = recovery.replay(connection, task, intents)
    outputs: list[dict[str, Any]] = [{**file, "task_id": task.id} for file in story.files if beside(file["file"])]
    if task.state is State.DONE:
        connection.executemany(sql.queries()["restore_output"], outputs)
    return str(State.IN_DOUBT if task.state is State.SUBMITTING else task.state)


def _swap(directory: Path, fresh: Path, now: float) -> None:
    """Put the old database aside with its companions, then give the new one its name."""
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
