"""The single writer of a job's database: waiting closures share one transaction, run in the database's thread.

Two coroutines on one connection would commit each other's halves, and a cancelled await still writes. Therefore only
this module touches the connection. A caller that is cancelled while it waits has still written all or nothing.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import DiskError, JobLockedError, RunnerError
from runner.store import recovery
from runner.store.database import DATABASE_ERRORS, execute, to_runner_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import aiosqlite

    from runner.store.journal import Journal, JournalLine

T = TypeVar("T")


#: maximum number of closures that share one commit, which bounds how long each waits for the others
_MAX_GROUP = 512
#: error codes of SQLite for a failed sync
_SYNC_ERROR_CODES = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


class SupersededError(JobLockedError):
    """A later run of the job has begun, so this one may change nothing."""


class Writer:
    """Group commit over one aiosqlite connection.

    The journal lines of a group are on disk before the group commits. `path` names the database in errors. `failpoint`
    is called with the name of each point at which crash tests stop the process.
    """

    def __init__(self, database: aiosqlite.Connection, path: str, failpoint: Callable[[str], None]) -> None:
        self._database, self._path, self._failpoint = database, path, failpoint
        #: reserve file that is deleted when the disk is full
        self.ballast: Path | None = None
        #: epoch of the run that writes, once it has begun
        self.epoch: int | None = None
        #: True once the current transaction has checked the epoch
        self._epoch_checked = False
        #: error of a failed sync: the content of the disk is unknown, so nothing more is written
        self._sync_error: DiskError | None = None
        #: journal lines of the current transaction
        self.journal_lines: list[JournalLine] = []
        self.journal: Journal | None = None
        #: lines on disk whose transaction was not committed, to be applied before anything else
        self._uncommitted_lines: list[JournalLine] = []
        #: lines that were applied later in this way, in case their caller tries again
        self.replayed: deque[JournalLine] = deque(maxlen=_MAX_GROUP)
        #: failpoint names of the changes in the current transaction
        self.failpoint_labels: list[str] = []
        #: True once the ballast was used: paid tasks can still be written, but nothing new may be bought
        self.exhausted = False
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._drain_task: asyncio.Task[None] | None = None

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction and return its result once its changes are on disk.

        Raises the errors of `work`, and DiskError, JobLockedError and StateError. Then nothing has changed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._drain_task is None or self._drain_task.done():
            self._drain_task = asyncio.create_task(self._drain())
        return await future  # a cancelled caller stops waiting, but its work is done

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which writes, as `transact` does.

        Raises SupersededError if a later run has begun.
        """

        def fenced(connection: sqlite3.Connection) -> T:
            self._fence(connection)
            return work(connection)

        return await self.transact(fenced)

    async def set_up(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` outside of a transaction, before the first one."""
        await self._run_in_thread(work, self._database._conn)  # noqa: SLF001 - see `_run_in_thread`

    async def aclose(self) -> None:
        """Finish the waiting work, then close the connection and the journal."""
        if self._drain_task is not None:
            await self._drain_task
        await self._database.close()
        if self.journal is not None:
            self.journal.close()

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_MAX_GROUP], self._waiting[_MAX_GROUP:]
            try:
                outcomes = await self._run_in_thread(self._commit, [work for work, _ in group])
            except Exception as closed:  # noqa: BLE001 - there is no connection: every waiting caller gets the error
                outcomes = [(None, closed)] * len(group)
            for (_, future), (value, error) in zip(group, outcomes, strict=True):
                if future.done():  # its caller was cancelled
                    continue
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)
                    future.exception()  # mark as retrieved: the caller may be cancelled meanwhile

    async def _run_in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        # aiosqlite has no public way to run a closure in its thread; a test pins this one.
        return await self._database._execute(work, *args)  # type: ignore[no-untyped-call]  # noqa: SLF001

    def _commit(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[tuple[Any, BaseException | None]]:
        """Run all works in one transaction or, if that fails, each in its own; return results and errors.

        Called in the database's thread.
        """
        if len(works) > 1:
            try:
                return [(value, None) for value in self._transaction(works)]
            except Exception:  # noqa: BLE001 - one of them failed: each is tried alone and gets its own error
                return [outcome for work in works for outcome in self._commit([work])]
        try:
            return [(value, None) for value in self._with_ballast(works)]
        except sqlite3.IntegrityError as error:
            return [(None, error)]
        except DATABASE_ERRORS as error:
            return [(None, to_runner_error(error, self._path))]
        except Exception as error:  # noqa: BLE001 - raised in the coroutine that called
            return [(None, error)]

    def _with_ballast(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Run the works; if the disk is full, delete the ballast and try once more, so that no remote id is lost."""
        try:
            return self._transaction(works)
        except (sqlite3.OperationalError, DiskError) as error:
            known = error if isinstance(error, RunnerError) else to_runner_error(error, self._path)
            if self._sync_error is not None or not isinstance(known, DiskError):
                raise
            if self.ballast is None or not self.ballast.exists():
                raise
            self.ballast.unlink()
            self.exhausted = True
            return self._transaction(works)

    def _transaction(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Run the works after the journal lines of a transaction that was rolled back.

        Otherwise the database's journal offset would skip those lines.
        """
        if self._uncommitted_lines:
            self._attempt([self._catch_up])
        return self._attempt(works)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        self._fence(connection)
        self.journal_lines += recovery.catch_up(connection, self._uncommitted_lines)
        self.replayed.extend(self._uncommitted_lines)

    def _attempt(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Run the works in one transaction, with their journal lines on disk before the commit."""
        if self._sync_error is not None:
            raise self._sync_error
        connection = self._database._conn  # noqa: SLF001 - see `_run_in_thread`
        connection.execute("begin immediate")
        self.journal_lines.clear()
        self.failpoint_labels.clear()
        self._epoch_checked = False
        try:
            values = [work(connection) for work in works]
            if self.journal is not None:
                if self.journal_lines:
                    self.journal.append(self.journal_lines)
                    self._uncommitted_lines += self.journal_lines
                    self._hit_failpoints("journaled")
                if self._uncommitted_lines:
                    execute(connection, "set_journal", journal=self.journal.end)
            connection.execute("commit")
        except BaseException as failed:
            if _is_sync_failure(failed):
                message = failed.message if isinstance(failed, DiskError) else str(failed)
                self._sync_error = DiskError(f"{self._path}: {message}", hint="Check the disk before the next run.")
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        self._uncommitted_lines.clear()
        self._hit_failpoints("committed")
        return values

    def _fence(self, connection: sqlite3.Connection) -> None:
        """Raise SupersededError if a later run has begun.

        This can happen although we hold the lock, on a file system whose locks fail. Only the latest run may write.
        """
        if self._epoch_checked or self.epoch is None:
            return
        if execute(connection, "epoch").fetchone()["epoch"] != self.epoch:
            raise SupersededError(
                f"{self._path}: another run has taken this job over", hint="Let that one finish; this one ends here."
            )
        self._epoch_checked = True

    def _hit_failpoints(self, phase: str) -> None:
        for label in self.failpoint_labels:
            self._failpoint(f"{label} {phase}")


def _is_sync_failure(error: BaseException) -> bool:
    """Return whether a sync failed.

    A second sync may succeed although the data of the first is lost.
    """
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _SYNC_ERROR_CODES
    cause = error.__cause__ if isinstance(error, DiskError) else None
    return isinstance(cause, OSError) and cause.errno == errno.EIO
