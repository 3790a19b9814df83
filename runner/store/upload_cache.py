"""Cache of the images that an account has uploaded: one upload for each content, for all jobs.

The cache is not needed to know what was paid. A lost entry is uploaded again, free of charge.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import anyio
import filelock

from runner.store.account import SharedDatabase

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
_DAMAGED_HINT = "Delete it: what it knows of is uploaded anew, free of charge."
#: seconds between two tries of a lock that another process holds
_LOCK_RETRY_INTERVAL = 0.2


@dataclass(frozen=True, slots=True)
class CachedUpload:
    """An uploaded file at the provider; `uploaded_at` is in seconds since the epoch."""

    sha256: str
    file_id: str
    url: str
    uploaded_at: float


class UploadCache:
    """Uploads of one account.

    Each call runs one transaction in a thread. Methods raise DiskError, JobLockedError and StateError.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = SharedDatabase(directory / "uploads.db", _SCHEMA, _DAMAGED_HINT)

    async def find(self, sha256: str, since: float) -> CachedUpload | None:
        """Return the upload of a content, or None if there is none since that time (seconds since the epoch)."""
        query = "select sha256, file_id, url, at from upload where sha256 = ? and at >= ?"
        row = await self._file.transact(lambda connection: connection.execute(query, (sha256, since)).fetchone())
        return CachedUpload(*row) if row else None

    async def put(self, upload: CachedUpload, since: float) -> None:
        """Store an upload, and delete those before `since` (seconds since the epoch)."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("delete from upload where at < ?", (since,))
            connection.execute("insert or replace into upload values (?, ?, ?, ?)", astuple(upload))

        await self._file.transact(work)

    @asynccontextmanager
    async def lock(self, sha256: str) -> AsyncIterator[None]:
        """Hold the lock for uploading a content for the length of the block.

        One process holds it at a time. The kernel frees it when its holder dies.
        """
        await self._file.prepare()
        lock = filelock.FileLock(self._directory / f"upload-{sha256[0]}.lock", mode=0o600, thread_local=False)
        while not _try_acquire(lock):  # noqa: ASYNC110 - another process sends no notification
            await anyio.sleep(_LOCK_RETRY_INTERVAL)
        try:
            yield
        finally:
            lock.release()


def _try_acquire(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True
