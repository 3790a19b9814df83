"""Which pictures an account has uploaded, and where they are: one upload for each content, whichever job needs it.

Nothing here is needed to know what was paid: what is lost is uploaded anew, free of charge.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import anyio
import filelock

from runner.store.shared_file import SharedFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from pathlib import Path

_SCHEMA = """
create table if not exists upload (
  sha256 text primary key, file_id text not null, url text not null, at real not null
) strict, without rowid;
create index if not exists upload_at on upload (at);
"""
_GONE = "Delete it: what it knows of is uploaded anew, free of charge."
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
        self._directory = directory
        self._file = SharedFile(directory / "uploads.db", _SCHEMA, _GONE)

    async def find(self, sha256: str, since: float) -> Upload | None:
        """The upload of a content that is not older than that (seconds since the epoch)."""
        query = "select sha256, file_id, url, at from upload where sha256 = ? and at >= ?"
        row = await self._file.transact(lambda connection: connection.execute(query, (sha256, since)).fetchone())
        return Upload(*row) if row else None

    async def put(self, upload: Upload, since: float) -> None:
        """Remember an upload; forget those that are older than `since`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("delete from upload where at < ?", (since,))
            connection.execute("insert or replace into upload values (?, ?, ?, ?)", astuple(upload))

        await self._file.transact(work)

    @asynccontextmanager
    async def turn(self, sha256: str) -> AsyncIterator[None]:
        """Held by one process at a time for a content; the kernel frees it when its holder dies."""
        await self._file.prepare()
        lock = filelock.FileLock(self._directory / f"upload-{sha256[0]}.lock", mode=0o600, thread_local=False)
        while not _taken(lock):  # noqa: ASYNC110 - another process rings no bell
            await anyio.sleep(_LOOK)
        try:
            yield
        finally:
            lock.release()


def _taken(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True
