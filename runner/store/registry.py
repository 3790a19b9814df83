"""Which jobs an account has been asked to pay for, and what it spends in a day: kept outside of every job directory.

A job directory can be deleted, copied or put back from yesterday's backup, and then it says nothing of what was bought.
What is written here before the first submit of a run lets the next one notice.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from runner.store.journal import Mark
from runner.store.shared_file import SharedFile

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

#: seconds that another process may have the file, for what will be told again
_MOMENT = 5.0

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
class Entry:
    """One job as its latest run left it."""

    uuid: str
    name: str
    #: resolved path of the job directory
    directory: str
    #: the sum of its tasks' keys: the same tasks, whatever their order and place
    tasks: str
    #: of its latest run
    epoch: int
    began_at: float
    #: 1: that run may have left something unfinished; 0: it has not
    open: int = 1


class Registry:
    """The jobs of one account; each call is a transaction in a thread. Raises DiskError, Locked, StateError."""

    def __init__(self, directory: Path) -> None:
        self._file = SharedFile(directory / "jobs.db", _SCHEMA)

    async def of(self, uuid: str) -> Entry | None:
        """What is known of a job."""
        rows = await self._rows("select * from job where uuid = ?", uuid)
        return rows[0] if rows else None

    async def at(self, directory: str) -> list[Entry]:
        """Jobs that lived in a directory, the latest first."""
        return await self._rows("select * from job where directory = ? order by began_at desc", directory)

    async def like(self, tasks: str, since: float) -> list[Entry]:
        """Unfinished jobs with just these tasks that ran since then (seconds since the epoch), the latest first."""
        if not tasks:
            return []
        query = "select * from job where tasks = ? and open = 1 and began_at >= ? order by began_at desc"
        return await self._rows(query, tasks, since)

    async def put(self, entry: Entry) -> None:
        """A run begins, or has ended."""
        query = "insert or replace into job values (?, ?, ?, ?, ?, ?, ?)"
        await self._file.transact(lambda connection: connection.execute(query, astuple(entry)))

    async def reached(self, uuid: str) -> Mark | None:
        """How far a job's journal had come when it was last heard of."""
        query = "select journal, digest from reached where uuid = ?"
        row = await self._file.transact(lambda connection: connection.execute(query, (uuid,)).fetchone())
        return None if row is None else Mark(*row)

    async def reach(self, uuid: str, mark: Mark) -> None:
        """A job's journal has come so far."""
        query = "insert or replace into reached values (?, ?, ?)"
        await self._file.transact(lambda connection: connection.execute(query, (uuid, *astuple(mark))), _MOMENT)

    async def strike(self, uuid: str) -> None:
        """A job that was written down buys nothing after all."""
        await self._file.transact(lambda connection: connection.execute("delete from job where uuid = ?", (uuid,)))

    async def forget(self, directory: str) -> None:
        """What lived in a directory is of no more concern: a person said so."""
        await self._file.transact(
            lambda connection: connection.execute("delete from job where directory = ?", (directory,))
        )

    async def spend(self, amount: float, day: str, cap: float) -> bool:
        """Count an amount among a day's costs; False, and nothing is counted, where that would be above the cap.

        A negative amount gives back what was counted and not spent.
        """

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("select amount from spent where day = ?", (day,)).fetchone()
            total = round((row[0] if row else 0.0) + amount, 6)
            if amount > 0 and total > cap:
                return False
            connection.execute("insert or replace into spent values (?, ?)", (day, max(0.0, total)))
            return True

        return bool(await self._file.transact(work))

    async def _rows(self, query: str, *values: Any) -> list[Entry]:
        rows = await self._file.transact(lambda connection: connection.execute(query, values).fetchall())
        return [Entry(*row) for row in rows]
