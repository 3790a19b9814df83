"""Register of the jobs and the daily spending of an account, outside of every job directory.

A job directory can be deleted, copied or restored from an old backup, and then it lacks what was bought. The register
is written before the first submit of a run, so that the next run notices.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from runner.store.account import SharedDatabase
from runner.store.journal import JournalMark

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

#: seconds to wait for the file when a mark is written, since a later call writes it again
_MARK_TIMEOUT = 5.0

_SCHEMA = """
create table if not exists job (
  uuid text primary key, name text not null, directory text not null, tasks text not null,
  epoch integer not null, began_at real not null, open integer not null
) strict, without rowid;
create index if not exists job_directory on job (directory);
create index if not exists job_tasks on job (tasks);
create table if not exists reached (
  uuid text primary key, journal integer not null, digest text not null
) strict, without rowid;
create table if not exists spent (day text primary key, amount real not null) strict, without rowid;
"""


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job after its latest run."""

    uuid: str
    name: str
    #: resolved path of the job directory
    directory: str
    #: sum of its tasks' keys, the same for the same tasks in any order and directory
    key_sum: str
    #: epoch of its latest run
    epoch: int
    #: start of its latest run, seconds since the epoch
    began_at: float
    #: 1 if that run may have left tasks unfinished, else 0
    unfinished: int = 1


class Registry:
    """Jobs and daily spending of one account.

    Each call runs one transaction in a thread. Methods raise DiskError, JobLockedError and StateError.
    """

    def __init__(self, directory: Path) -> None:
        self._file = SharedDatabase(directory / "jobs.db", _SCHEMA)

    @property
    def path(self) -> Path:
        """Return the file; the name of its directory is that of the account."""
        return self._file.path

    async def get(self, uuid: str) -> JobEntry | None:
        """Return the entry of a job, or None if it is unknown."""
        rows = await self._fetch_entries("select * from job where uuid = ?", uuid)
        return rows[0] if rows else None

    async def find_by_directory(self, directory: str) -> list[JobEntry]:
        """Return the jobs that were run in a directory, the latest first."""
        return await self._fetch_entries("select * from job where directory = ? order by began_at desc", directory)

    async def entries(self) -> list[JobEntry]:
        """Return the jobs of the account, the latest first, up to 10,000."""
        return await self._fetch_entries("select * from job order by began_at desc limit 10000")

    async def put(self, entry: JobEntry) -> None:
        """Store the entry of a job when its run begins or has ended."""
        query = "insert or replace into job values (?, ?, ?, ?, ?, ?, ?)"
        await self._file.transact(lambda connection: connection.execute(query, astuple(entry)))

    async def get_journal_mark(self, uuid: str) -> JournalMark | None:
        """Return the last stored mark of a job's journal, or None if there is none."""
        query = "select journal, digest from reached where uuid = ?"
        row = await self._file.transact(lambda connection: connection.execute(query, (uuid,)).fetchone())
        return None if row is None else JournalMark(*row)

    async def set_journal_mark(self, uuid: str, mark: JournalMark) -> None:
        """Store the mark of a job's journal."""
        query = "insert or replace into reached values (?, ?, ?)"
        await self._file.transact(lambda connection: connection.execute(query, (uuid, *astuple(mark))), _MARK_TIMEOUT)

    async def remove(self, uuid: str) -> None:
        """Remove a job that has bought nothing after all."""
        await self._file.transact(lambda connection: connection.execute("delete from job where uuid = ?", (uuid,)))

    async def forget_directory(self, directory: str) -> None:
        """Remove the jobs of a directory, as the user asked."""
        await self._file.transact(
            lambda connection: connection.execute("delete from job where directory = ?", (directory,))
        )

    async def spend(self, amount: float, day: str, cap: float) -> bool:
        """Add an amount to the spending of a day, in the provider's unit.

        Return False, and add nothing, if the total would exceed `cap`. A negative amount returns what was added and not
        spent.
        """

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("select amount from spent where day = ?", (day,)).fetchone()
            total = round((row[0] if row else 0.0) + amount, 6)
            if amount > 0 and total > cap:
                return False
            connection.execute("insert or replace into spent values (?, ?)", (day, max(0.0, total)))
            return True

        return bool(await self._file.transact(work))

    async def _fetch_entries(self, query: str, *values: Any) -> list[JobEntry]:
        rows = await self._file.transact(lambda connection: connection.execute(query, values).fetchall())
        return [JobEntry(*row) for row in rows]
