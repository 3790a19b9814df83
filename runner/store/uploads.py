"""Which pictures an account has uploaded, and where they are: one upload for each content, whichever job needs it.

Nothing here is needed to know what was paid: what is lost is uploaded anew, free of charge.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import filelock

from runner.errors import StateError
from runner.store.sql import explained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from runner.errors import RunnerError

_SCHEMA = """
create table if not exists upload (
  sha256 text primary key, file_id text not null, url text not null, at real not null
) strict, without rowid;
create index if not exists upload_at on upload (at);
"""
#: seconds between two looks at a lock that another process holds
_LOOK = 0.2


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the provider has; `at` in seconds since the epoch."""

    sha256: str
    file_id: str
    url: str
    at: float


class Uploads:
    """The uploads of one account; each call is a transaction in a thread. Raises DiskError, Locked, StateError."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._path = directory, directory / "uploads.db"
        self._ready = False

    async def find(self, sha256: str, since: float) -> Upload | None:
        """The upload of a content that is not older than that (seconds since the epoch)."""
        query = "select sha256, file_id, url, at from upload where sha256 = ? and at >= ?"
        row = await self._do(lambda connection: connection.execute(query, (sha256, since)).fetchone())
        return Upload(*row) if row else None

    async def put(self, upload: Upload, since: float) -> None:
        """Remember an upload; forget those that are older than `since`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("delete from upload where at < ?", (since,))
            connection.execute("insert or replace into upload values (?, ?, ?, ?)", astuple(upload))

        await self._do(work)

    @asynccontextmanager
    async def turn(self, sha256: str) -> AsyncIterator[None]:
        """Held by one process at a time for a content; the kernel frees it when its holder dies."""
        await anyio.to_thread.run_sync(self._prepared)
        lock = filelock.FileLock(self._directory / f"upload-{sha256[0]}.lock", mode=0o600, thread_local=False)
        while not _taken(lock):  # noqa: ASYNC110 - another process rings no bell
            await anyio.sleep(_LOOK)
        try:
            yield
        finally:
            lock.release()

    async def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        return await anyio.to_thread.run_sync(self._transact, work)

    def _transact(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self._prepared()
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
                return work(connection)
        except sqlite3.Error as error:
            raise _explained(error, self._path) from None

    def _prepared(self) -> None:
        if self._ready:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(self._path, timeout=30)) as connection:
                connection.executescript(_SCHEMA)
        except OSError as error:
            raise explained(sqlite3.OperationalError(f"unable to open: {error}"), str(self._path)) from None
        except sqlite3.Error as error:
            raise _explained(error, self._path) from None
        self._ready = True


def _explained(error: sqlite3.Error, path: Path) -> RunnerError:
    if isinstance(error, sqlite3.OperationalError):
        return explained(error, str(path))
    return StateError(f"{path}: {error}", hint="Delete it: what it knows of is uploaded anew, free of charge.")


def _taken(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True
