"""One writer: what waits is drained into one transaction, one closure at a time, run whole in the database's thread.

Two coroutines on one connection would commit each other's halves, and a cancelled await still writes; so nobody but
this file touches the connection, and whoever is cancelled while waiting has still written all or nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

from runner.store.sql import explained

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiosqlite

T = TypeVar("T")

#: transactions that share one commit at the most; bounds how long one waits for the others
_GROUP = 512


class Writer:
    """Group commit over one aiosqlite connection."""

    def __init__(self, database: aiosqlite.Connection, place: str) -> None:
        self._database, self._place = database, place
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, after its changes are on disk; raises what it raises, and then nothing has changed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await asyncio.shield(future)

    async def set_up(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` outside of any transaction, before anything else."""
        await self._run(work, self._database._conn)  # noqa: SLF001 - see `_run`

    async def aclose(self) -> None:
        """Finish what waits, then close the connection."""
        if self._draining is not None:
            await self._draining
        await self._database.close()

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
            return [(value, None) for value in self._transaction(works)]
        except sqlite3.IntegrityError as error:
            return [(None, error)]
        except sqlite3.Error as error:
            return [(None, explained(error, self._place))]
        except Exception as error:  # noqa: BLE001 - handed to the coroutine that asked
            return [(None, error)]

    def _transaction(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        connection = self._database._conn  # noqa: SLF001 - see `_run`
        connection.execute("begin immediate")
        try:
            values = [work(connection) for work in works]
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        return values


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # whoever was cancelled meanwhile will not fetch it
