"""The store is the queue: stages claim due rows, act, and settle them.

One run writes at a time. Once a later run has begun, claims of the earlier one return nothing, its settling is stale,
and every other write raises SupersededError.

A database is opened as a private file, checked, brought up to date, and merged with its journal. A reserve file, the
ballast, makes sure that a remote id can still be written when the disk is full.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import aiosqlite
import anyio.to_thread

from runner.errors import DiskError, StateError
from runner.files import create_file, make_directory, open_file, sync_file
from runner.store import filesystem, recovery
from runner.store.database import (
    DATABASE_ERRORS,
    check_schema,
    execute,
    harden,
    migrate,
    schema_version,
    statements,
    to_runner_error,
)
from runner.store.drafts import Drafts
from runner.store.journal import epoch_line, last_send, line_for_change, read_mark, read_rebuilt
from runner.store.task_rows import (
    output_from,
    task_columns,
    task_from,
    to_json,
)
from runner.store.writer import SupersededError, Writer
from runner.tasks.models import Output, State, Task
from runner.tasks.transitions import is_linked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from runner.store.journal import JournalMark, RebuiltJournal
    from runner.tasks.models import Moment


#: result of a write: done, the row had changed meanwhile, or the remote id belongs to another task
SettleResult = Literal["done", "stale", "clash"]
#: result of a claim: the next task costs more than is left of the job's `max_cost`
OverCap = Literal["too dear"]
#: size of the reserve file in bytes
_BALLAST_BYTES = 512 * 1024
#: largest database in bytes that is checked completely at the start; a larger one is only checked as it is read
_MAX_CHECKED_BYTES = 64 * 2**20
#: hint for a full disk
DISK_FULL_HINT = "Make room, then run the same command again."
#: statement for each journal mode of SQLite
_JOURNAL_MODES = {"wal": "pragma journal_mode = wal", "delete": "pragma journal_mode = delete"}
#: failpoint names of the changes at which crash tests stop the process
_FAILPOINT_LABELS = {
    (State.QUEUED, State.SUBMITTING): "intent",
    (State.SUBMITTING, State.RUNNING): "id",
    (State.SUBMITTING, State.IN_DOUBT): "doubt",
    (State.SUBMITTING, State.HELD): "doubt",
    (State.IN_DOUBT, State.RUNNING): "adopted",
    (State.IN_DOUBT, State.QUEUED): "absent",
    (State.RUNNING, State.READY): "ready",
    (State.READY, State.DONE): "done",
    (State.QUEUED, State.DONE): "linked",
}


class ResultsState(NamedTuple):
    """Which results.jsonl was written last, and what has happened since."""

    #: mark of the index that fits results.jsonl, empty if none does
    mark: str
    #: how often drafts were added to the job
    arrangement: int
    #: number of all tasks
    tasks: int
    #: number of tasks that have changed
    changes: int
    #: mark for the results that are written next
    next_mark: str


async def open_database(path: Path) -> aiosqlite.Connection:
    """Open the database on a thread of its own."""
    return await aiosqlite.connect(path, isolation_level=None, cached_statements=256)


def prepare_file(path: Path) -> None:
    """Make the directory (mode 0700) and an empty file (0600), so that SQLite finds them private.

    Raises DiskError.
    """
    directory = path.parent
    try:
        make_directory(directory)
        with contextlib.suppress(FileExistsError):
            create_file(path).close()
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Mend the permissions, or choose --out.") from None
    if path.is_symlink() or not path.is_file():
        raise DiskError(f"{path} is not a file", hint="Move it away, or choose --out.")


def make_ballast(directory: Path) -> Path:
    """Make the reserve file that is deleted when the disk is full, so that a remote id can still be written.

    Raises DiskError.
    """
    path = directory / "ballast"
    try:
        if not path.exists() or path.stat().st_size < _BALLAST_BYTES:
            with os.fdopen(open_file(path, os.O_CREAT | os.O_WRONLY), "wb") as file:
                file.write(bytes(_BALLAST_BYTES))
                sync_file(file)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DiskError(f"{path}: {error.strerror}", hint=DISK_FULL_HINT) from None
    return path


def set_up_connection(connection: sqlite3.Connection, *, write_ahead_log: bool = True) -> None:
    """Set up the writing connection, and bring the database up to date.

    Without `write_ahead_log` a rollback journal is used, as a network file system requires. Raises StateError, and
    sqlite3.Error, as for a damaged database.
    """
    connection.row_factory = sqlite3.Row
    connection.execute("pragma busy_timeout = 30000")
    harden(connection)
    schema_version(connection)
    expected = "wal" if write_ahead_log else "delete"
    (mode,) = connection.execute(_JOURNAL_MODES[expected]).fetchone()
    if mode != expected:
        raise StateError(f"the file system allows no {expected} journal ({mode})", hint="Put the job on a local disk.")
    connection.execute("pragma synchronous = full")
    (pages,) = connection.execute("pragma page_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    if pages * size <= _MAX_CHECKED_BYTES:
        (result,) = connection.execute("pragma quick_check(1)").fetchone()
        if result != "ok":
            raise sqlite3.DatabaseError(str(result))
    connection.execute("pragma foreign_keys = on")
    migrate(connection)
    check_schema(connection)


class Store(Drafts):
    """Tasks of one job on disk.

    Made by `open`. The caller holds the job's lock, so that there is one writer. Times are seconds since the epoch.
    Methods raise DiskError, JobLockedError and StateError.
    """

    def __init__(self, writer: Writer, uuid: str, epoch: int) -> None:
        self._writer, self.uuid, self.epoch = writer, uuid, epoch

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        connect: Callable[[Path], Awaitable[aiosqlite.Connection]] = open_database,
        failpoint: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Open the job in `directory`, or make it if there is none.

        `connect` opens the database. `failpoint` is called with the name of each point at which crash tests stop the
        process. Raises StateError and DiskError.
        """
        path, journal = directory / "state.db", directory / "journal.jsonl"
        recovery.check_database_present(path, journal)
        prepare_file(path)
        try:
            database = await connect(path)
        except sqlite3.Error as error:
            raise to_runner_error(error, str(path)) from None
        writer = Writer(database, str(path), failpoint)

        def attach_journal(connection: sqlite3.Connection) -> None:
            writer.journal = recovery.open_journal(connection, journal)

        def begin_run(connection: sqlite3.Connection) -> tuple[str, int]:
            epoch, run = execute(connection, "raise_epoch").fetchone()
            uuid = execute(connection, "job").fetchone()["uuid"]
            writer.journal_lines.append(epoch_line(uuid, epoch, run))
            return uuid, epoch

        try:
            await writer.set_up(partial(set_up_connection, write_ahead_log=not filesystem.is_remote(directory)))
            await writer.set_up(attach_journal)
            uuid, epoch = await writer.transact(begin_run)
            writer.epoch = epoch
            writer.ballast = make_ballast(directory)
        except BaseException as error:
            await writer.aclose()
            if isinstance(error, DATABASE_ERRORS):
                raise to_runner_error(error, str(path)) from None
            raise
        return cls(writer, uuid, epoch)

    async def aclose(self) -> None:
        """Finish the waiting writes, then close the database and the journal."""
        await self._writer.aclose()

    # start of a run

    async def set_name(self, name: str) -> None:
        """Store the manifest's name.

        Raises StateError if the directory belongs to a job of another name.
        """
        row = await self._fetch_one("name")
        known = row["name"] if row else ""
        if known not in {"", name}:
            raise StateError(
                f"this directory belongs to the job {known!r}, not to {name!r}",
                hint="Give each manifest an output.dir of its own, or set the name back.",
            )
        await self._execute("set_name", name=name)

    async def bind(self, provider: str, origin: str, account: str = "", *, same_account: bool = False) -> None:
        """Bind the provider's tasks to the host and the account that hold them.

        With `same_account` the user asserts that the account is the same under another key. Raises StateError if the
        tasks are bound to another host, or if paid or doubtful ones are bound to another account.
        """
        known = await self._fetch_one("origin", name=provider)
        if known is not None:
            await self.check_origin(provider, origin)
            if "" not in {known["account"], account} and known["account"] != account and not same_account:
                unfinished = await self._fetch_one("has_unfinished", provider=provider)
                if unfinished and unfinished[0]:
                    raise StateError(
                        f"this job has paid or doubtful {provider} tasks under other credentials",
                        hint="Set the old ones; or, if this is the same account with a new key, add --same-account.",
                    )
        await self._execute(
            "set_origin", name=provider, origin=origin, account=account or (known["account"] if known else "")
        )

    async def account_of(self, provider: str) -> str:
        """Return the hash of the account that a provider's tasks are bound to, or "" if it is unknown."""
        row = await self._fetch_one("origin", name=provider)
        return row["account"] if row else ""

    async def check_origin(self, provider: str, origin: str) -> None:
        """Raise StateError if the provider's tasks of this job are bound to another host."""
        row = await self._fetch_one("origin", name=provider)
        known = row["origin"] if row else origin
        if known != origin and not (_is_loopback(known) and _is_loopback(origin)):
            raise StateError(
                f"this job's {provider} tasks live at {known}, not at {origin}",
                hint="Set the base URL back, or give the other host a directory of its own with --out.",
            )

    async def bound_providers(self) -> list[str]:
        """Return every provider that this job has ever used."""
        return [row["name"] for row in await self._fetch_all("bound_providers")]

    async def journal_mark(self, end: int | None = None) -> JournalMark | None:
        """Return the journal's mark at an offset (default: its end), or None if the journal is shorter."""
        journal = self._writer.journal
        if journal is None:
            return None

        def work(_: sqlite3.Connection) -> JournalMark | None:  # in the writing thread, so that no line is half written
            offset = journal.end if end is None else end
            return read_mark(journal.path, offset) if offset <= journal.end else None

        return await self._writer.transact(work)

    async def last_send(self) -> tuple[float, Moment] | None:
        """Return when this job sent its last request: seconds since the epoch, and a moment; None if it is unknown."""
        journal = self._writer.journal
        return None if journal is None else await self._writer.transact(lambda _: last_send(journal.path))

    async def rebuilt_journal(self) -> RebuiltJournal | None:
        """Return the proof that the journal was written from a database whose own was lost, or None if it was not."""
        journal = self._writer.journal
        return None if journal is None else await self._writer.transact(lambda _: read_rebuilt(journal.path))

    async def is_in_place(self) -> bool:
        """Return True unless the journal was removed, or the directory unmounted, since it was opened."""
        journal = self._writer.journal  # no transaction: another process may hold the database
        return journal is None or await anyio.to_thread.run_sync(journal.is_in_place)

    async def rescue_journal(self, target: Path) -> None:
        """Write the journal, which may have been removed, to another file. Raises OSError."""

        def work(_: sqlite3.Connection) -> None:  # in the writing thread, so that no line is half written
            if self._writer.journal is not None:
                self._writer.journal.rescue(target)

        await self._writer.transact(work)

    async def wake(self, now: float, since: float = 0.0) -> None:
        """Make all paid or doubtful tasks due at `now`; their deadlines count from `since` at the earliest."""
        await self._execute("wake", now=now, since=since)

    async def rest(self, ids: Collection[int]) -> None:
        """Let unbought tasks rest: this run neither buys them nor waits for them."""
        await self._execute("rest", ids=to_json(list(ids)))

    async def end_rest(self) -> None:
        """Make the tasks that rested in the last run due again."""
        await self._execute("end_rest")

    # claim and settle

    async def claim_queued(
        self,
        provider: str,
        now: float,
        free_slots: int,
        claim: Callable[[Task], Task | None],
        cap: float | None = None,
        exclude: Collection[int] = (),
    ) -> Task | OverCap | None:
        """Claim the next task to buy: it is `submitting` on disk when this returns.

        Return None if nothing is due, and "too dear" if the task's price is unknown or exceeds what is left of `cap`.
        `claim` returns the task after the transition, or None to claim nothing. A task is due only if it fits into
        `free_slots`. Tasks whose ids are in `exclude` are skipped. Raises DiskError if the ballast was used.
        """

        def work(connection: sqlite3.Connection) -> Task | OverCap | None:
            if self._writer.exhausted:
                raise DiskError("the disk is full: what is paid was written with the last reserve", hint=DISK_FULL_HINT)
            row = execute(
                connection, "claim_queued", provider=provider, now=now, free_slots=free_slots, exclude=excluded
            ).fetchone()
            if row is None:
                return None
            before = task_from(row)
            if cap is not None:  # in this transaction, so that two claims cannot exceed the cap together
                (spent,) = execute(connection, "spent").fetchone()
                if before.cost is None or round(spent + before.cost, 6) > cap:
                    return "too dear"
            after = claim(before)
            return after if after is not None and self._settle(connection, before, after) == "done" else None

        excluded = to_json(list(exclude))
        try:
            return await self._writer.write(work)
        except SupersededError:
            return None
        except sqlite3.IntegrityError as error:  # the row was changed by something else
            raise to_runner_error(error, "the job's state is damaged") from None

    async def claim(
        self,
        provider: str,
        state: State,
        now: float,
        limit: int,
        exclude: Collection[int],
        next_due_at: Callable[[Task], float],
    ) -> list[Task]:
        """Claim due tasks of a state with their outputs, up to `limit`, except those whose ids are in `exclude`.

        Each is postponed to the time that `next_due_at` returns for it.
        """
        return await self._claim_due(
            "claim", state, next_due_at, provider=provider, now=now, limit=limit, exclude=to_json(exclude)
        )

    async def claim_group(
        self,
        provider: str,
        state: State,
        soon: float,
        limit: int,
        exclude: Collection[int],
        operations: Collection[str],
        next_due_at: Callable[[Task], float | None],
    ) -> list[Task]:
        """Claim tasks of a state that can share one call, due by `soon`, up to `limit`.

        Each is postponed to the time that `next_due_at` returns for it. Tasks for which it returns None stay as they
        are, and are not claimed. Tasks whose ids are in `exclude` are skipped.
        """
        parameters = {"provider": provider, "soon": soon, "limit": limit}
        return await self._claim_due(
            "claim_group", state, next_due_at, exclude=to_json(exclude), operations=to_json(operations), **parameters
        )

    async def _claim_due(
        self, query: str, state: State, next_due_at: Callable[[Task], float | None], **parameters: Any
    ) -> list[Task]:
        def work(connection: sqlite3.Connection) -> list[Task]:
            rows = execute(connection, query, state=state, **parameters).fetchall()
            found = [
                task_from(row, _load_outputs(connection, row["id"]) if state is State.READY else ()) for row in rows
            ]
            times = [(task, next_due_at(task)) for task in found]
            tasks = [replace(task, due_at=due_at) for task, due_at in times if due_at is not None]
            postponed = [{"id": task.id, "state": state, "due_at": task.due_at} for task in tasks]
            connection.executemany(statements()["postpone"], postponed)
            return tasks

        try:
            return await self._writer.write(work)
        except SupersededError:
            return []

    async def settle(self, before: Task, after: Task) -> SettleResult:
        """Write a task after a transition, if its row is still in the state and generation of `before`.

        The task is on disk when this returns. Return "stale" if the row has changed, and "clash" if the remote id
        belongs to another task.
        """
        try:
            return await self._writer.write(lambda connection: self._settle(connection, before, after))
        except SupersededError:
            return "stale"
        except sqlite3.IntegrityError:
            return "clash"

    def _settle(self, connection: sqlite3.Connection, before: Task, after: Task) -> SettleResult:
        """Write the row and its outputs, and note its line for the journal; must be called in a transaction."""
        line = line_for_change(before, after)
        if not _update_row(connection, before, after):
            # an earlier try may have reached the journal but not the database, which was then updated from the journal
            if line is None or line not in self._writer.replayed:
                return "stale"
            if not _update_row(connection, recovery.apply(before, line), after):
                return "stale"
            line = None
        if after.state is State.QUEUED:
            execute(connection, "unschedule_removed", id=after.id)
        drops_id = before.remote_id not in {None, after.remote_id}
        if drops_id:
            execute(connection, "keep_former_id", provider=before.provider, remote_id=before.remote_id)
        if drops_id or after.generation != before.generation:
            execute(connection, "drop_outputs", task_id=after.id)
        elif before.state is State.QUEUED and is_linked(after):
            recovery.restore_files(connection, after, line["files"] if line is not None else ())
        elif after.outputs and after.outputs != before.outputs:
            known = _load_outputs(connection, after.id)
            rows = [{"task_id": after.id, "number": n, "url": url} for n, url in assign_numbers(known, after.outputs)]
            connection.executemany(statements()["put_output"], rows)
        if line is not None:
            self._writer.journal_lines.append(line)
        if (label := _FAILPOINT_LABELS.get((before.state, after.state))) is not None:
            self._writer.failpoint_labels.append(label)
        return "done"

    # results.jsonl

    async def take_changes(self) -> ResultsState:
        """Begin to write the results: take every change until now, and return where the written ones stand."""

        def take(connection: sqlite3.Connection) -> ResultsState:
            state = ResultsState(*execute(connection, "results_state").fetchone())
            if state.changes:
                execute(connection, "take_changes")
            return state

        return await self._writer.write(take)

    async def set_results(self, mark: str) -> None:
        """Record that the results with this mark were written: the changes that were taken are in them."""

        def forget(connection: sqlite3.Connection) -> None:
            execute(connection, "set_results", mark=mark)
            execute(connection, "forget_changes")

        await self._writer.write(forget)

    async def rename_output(self, task_id: int, number: int, file: str) -> None:
        """Store the new name of a file of a done task."""
        await self._execute("rename_output", task_id=task_id, number=number, file=file)

    async def record_file(self, task: Task, output: Output) -> None:
        """Store name, size and checksum of a file before the file has its name."""
        await self._execute(
            "record_file",
            task_id=task.id,
            number=output.number,
            file=output.file,
            bytes=output.bytes,
            sha256=output.sha256,
            media_type=output.media_type,
        )


def assign_numbers(known: Sequence[Output], fresh: Sequence[Output]) -> Iterator[tuple[int, str]]:
    """Yield number and URL of each fresh link.

    A link has the number of the known output with the same URL without its query, or else the next free number. The
    query is not compared, since it holds a signature that changes with each answer.
    """
    free = {_url_path(output.url): output.number for output in known}
    kept = [(free.pop(_url_path(output.url), None), output.url) for output in fresh]
    taken = {number for number, _ in kept}
    left = iter(number for number in range(1, len(known) + len(fresh) + 1) if number not in taken)
    for number, url in kept:
        yield (next(left) if number is None else number), url


def _update_row(connection: sqlite3.Connection, before: Task, after: Task) -> bool:
    guard = {"expected_state": before.state, "expected_generation": before.generation}
    return execute(connection, "settle", **task_columns(after), **guard).rowcount == 1


def _load_outputs(connection: sqlite3.Connection, task_id: int) -> tuple[Output, ...]:
    return tuple(output_from(row) for row in execute(connection, "outputs", task_id=task_id))


def _is_loopback(origin: str) -> bool:
    return origin.startswith(("http://127.", "http://localhost", "http://[::1]"))


def _url_path(url: str) -> str:
    return url.partition("?")[0]
