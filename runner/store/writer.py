"""One writer: what waits is drained into one transaction, one closure at a time, run whole in the database's thread.

Two coroutines on one connection would commit each other's halves, and a cancelled await still writes; so nobody but
this file touches the connection, and whoever is cancelled while waiting has still written all or nothing.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import DiskError, Locked, RunnerError
from runner.store import recovery
from runner.store.sql import DAMAGED, explained, queries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import aiosqlite

    from runner.store.journal import Journal, Line

T = TypeVar("T")


class Superseded(Locked):
    """A later run has begun; this one changes nothing any more."""


#: transactions that share one commit at the most; bounds how long one waits for the others
_GROUP = 512
#: what SQLite says when a sync failed
_UNSYNCED = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


class Writer:
    """Group commit over one aiosqlite connection; what a group notes is in the journal before it commits."""

    def __init__(self, database: aiosqlite.Connection, place: str, reach: Callable[[str], None]) -> None:
        self._database, self._place, self._reach = database, place, reach
        #: a file that is given back when the disk is full
        self.ballast: Path | None = None
        #: of the run that writes, once it has begun
        self.epoch: int | None = None
        #: whether this transaction has found that it still is
        self._latest = False
        #: nobody knows what is on the disk: nothing is written any more
        self._untrusted: DiskError | None = None
        #: lines for the journal, from the works of the transaction that is being made
        self.notes: list[Line] = []
        self.journal: Journal | None = None
        #: lines on the disk whose transaction has not committed: the database must have them before anything else
        self._ahead: list[Line] = []
        #: those of them that it has been given since; whoever asked for them may come again
        self.replayed: deque[Line] = deque(maxlen=_GROUP)
        #: what the works of the transaction did, in a word each, for whoever listens at the named points
        self.labels: list[str] = []
        #: the ballast was needed: what is paid can still be written, nothing new may be bought
        self.exhausted = False
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, after its changes are on disk; raises what it raises, and then nothing has changed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await future  # whoever is cancelled here cancels nothing but the waiting

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same for what writes; raises Superseded where a later run has begun."""

        def fenced(connection: sqlite3.Connection) -> T:
            self._fence(connection)
            return work(connection)

        return await self.transact(fenced)

    async def set_up(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` outside of any transaction, before anything else."""
        await self._run(work, self._database._conn)  # noqa: SLF001 - see `_run`

    async def aclose(self) -> None:
        """Finish what waits, then close the connection."""
        if self._draining is not None:
            await self._draining
        await self._database.close()
        if self.journal is not None:
            self.journal.close()

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            try:
                outcomes = await self._run(self._commit, [work for work, _ in group])
            except Exception as gone:  # noqa: BLE001 - there is no connection: whoever waits must hear of it
                outcomes = [(None, gone)] * len(group)
            for (_, future), (value, error) in zip(group, outcomes, strict=True):
                _resolve(future, value, error)

    async def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        # aiosqlite has no public way to run a closure in its thread; a test pins this one.
        return await self._database._execute(work, *args)  # type: ignore[no-untyped-call]  # noqa: SLF001

    def _commit(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[tuple[Any, BaseException | None]]:
        """In the database's thread: all in one transaction; if it cannot be, each in its own."""
        if len(works) > 1:
            try:
                return [(value, None) for value in self._transaction(works)]
            except Exception:  # noqa: BLE001 - one of them failed; each is tried alone and answers for itself
                return [outcome for work in works for outcome in self._commit([work])]
        try:
            return [(value, None) for value in self._with_ballast(works)]
        except sqlite3.IntegrityError as error:
            return [(None, error)]
        except DAMAGED as error:
            return [(None, explained(error, self._place))]
        except Exception as error:  # noqa: BLE001 - handed to the coroutine that asked
            return [(None, error)]

    def _with_ballast(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Where the disk is full, give the ballast back and try once more: an id in hand must not be lost (FD1)."""
        try:
            return self._transaction(works)
        except (sqlite3.OperationalError, DiskError) as error:
            known = error if isinstance(error, RunnerError) else explained(error, self._place)
            if self._untrusted is not None or not isinstance(known, DiskError):
                raise
            if self.ballast is None or not self.ballast.exists():
                raise
            self.ballast.unlink()
            self.exhausted = True
            return self._transaction(works)

    def _transaction(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """What the journal has from a transaction that was rolled back comes first, or the mark would pass over it."""
        if self._ahead:
            self._attempt([self._catch_up])
        return self._attempt(works)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        self._fence(connection)
        self.notes += recovery.catch_up(connection, self._ahead)
        self.replayed.extend(self._ahead)

    def _attempt(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        if self._untrusted is not None:
            raise self._untrusted
        connection = self._database._conn  # noqa: SLF001 - see `_run`
        connection.execute("begin immediate")
        self.notes.clear()
        self.labels.clear()
        self._latest = False
        try:
            values = [work(connection) for work in works]
            self._journal(connection)
            connection.execute("commit")
        except BaseException as failed:
            if _is_unsynced(failed):
                said = failed.message if isinstance(failed, DiskError) else str(failed)
                self._untrusted = DiskError(f"{self._place}: {said}", hint="Check the disk before the next run.")
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        self._ahead.clear()
        self._tell("committed")
        return values

    def _fence(self, connection: sqlite3.Connection) -> None:
        """Another run may have begun although we hold the lock: only the latest one changes anything (R3)."""
        if self._latest or self.epoch is None:
            return
        if connection.execute(queries()["epoch"]).fetchone()["epoch"] != self.epoch:
            raise Superseded(
                f"{self._place}: another run has taken this job over", hint="Let that one finish; this one ends here."
            )
        self._latest = True

    def _tell(self, word: str) -> None:
        for label in self.labels:
            self._reach(f"{label} {word}")

    def _journal(self, connection: sqlite3.Connection) -> None:
        """Journal first; until the commit its lines are ahead of the database, which knows them from then on."""
        if self.journal is None:
            return
        if self.notes:
            self.journal.append(self.notes)
            self._ahead += self.notes
            self._tell("journaled")
        if self._ahead:
            connection.execute(queries()["set_journal"], {"journal": self.journal.end})


def _is_unsynced(error: BaseException) -> bool:
    """Whether the disk failed to sync: a second try may succeed and mean nothing (FD4)."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _UNSYNCED
    cause = error.__cause__ if isinstance(error, DiskError) else None
    return isinstance(cause, OSError) and cause.errno == errno.EIO


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # whoever was cancelled meanwhile will not fetch it
