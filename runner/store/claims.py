"""Which remote tasks belong to which job of an account (reliability.md I7).

Where a provider keeps no reference of ours, two jobs with the same prompts see each other's tasks in one list. A remote
id is taken once, by one job; and the quiet time of a doubt counts from the latest doubtful send of any of them (R4).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import orjson

from runner.errors import Locked, RunnerError
from runner.store.claiming import Queue
from runner.store.shared_file import SharedFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from runner.lifecycle.task import Moment

#: seconds that another process may have the file: for what can wait, and for an id in hand; twice that for whoever
#: comes while a transaction waits, and so has to wait for the next
_PATIENCE, _MOMENT = 30.0, 0.5

# without a write-ahead log: many processes write, and two at once can damage a log of most SQLites (engine.may_race)
_SCHEMA = """
pragma journal_mode = delete;
create table if not exists claim (remote_id text primary key, job text not null) strict, without rowid;
create table if not exists doubt (
  ref text primary key, fingerprint text not null, job text not null, boot text not null, seconds real not null
) strict, without rowid;
create index if not exists doubt_fingerprint on doubt (fingerprint);
"""


class Claims:
    """The claims of one account, as one of its jobs sees them; each call is a transaction in a thread."""

    def __init__(self, directory: Path, job: str) -> None:
        self._file, self._job = SharedFile(directory / "claims.db", _SCHEMA), job
        #: ids of ours that another process, stopped in the middle of a write, has kept from being written
        self._owed: set[str] = set()
        #: what keeps ids from being written, if it is no other process
        self._broken: RunnerError | None = None
        self._queues = {patience: Queue(partial(self._write, patience=patience)) for patience in (_PATIENCE, _MOMENT)}

    async def take(self, remote_id: str) -> bool:
        """Make an id that was found ours; False where another job has it already."""
        return await self._take(remote_id, _PATIENCE)

    async def given(self, remote_id: str) -> bool:
        """The same for an id that the provider gave us in answer to our own request.

        Such an id goes to the journal before anything else (I3), so it waits for another process for a second alone,
        and for a disk that is full or broken not at all: then it counts as ours, and is written with the next one.
        """
        try:
            return await self._take(remote_id, _MOMENT)
        except RunnerError as error:
            self._owed.add(remote_id)
            self._broken = None if isinstance(error, Locked) else error
            return True

    def check(self) -> None:
        """Raise what keeps ids from being written: nothing more may be bought until it is mended."""
        if self._broken is not None:
            raise self._broken

    async def settle_up(self) -> None:
        """Write what is owed, if it can be written now."""
        if self._owed:
            with suppress(Locked):
                await self._take(next(iter(self._owed)), _MOMENT)

    async def _take(self, remote_id: str, patience: float) -> bool:
        return await self._queues[patience].owner(remote_id) == self._job

    async def _write(self, remote_ids: frozenset[str], patience: float) -> dict[str, str]:
        """Claim what is owed and these; who has each of these now."""
        owed = frozenset(self._owed)

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            rows = [(one, self._job) for one in owed | remote_ids]
            connection.executemany("insert or ignore into claim values (?, ?)", rows)
            query = "select remote_id, job from claim where remote_id in (select value from json_each(?))"
            return dict(connection.execute(query, (_json(sorted(remote_ids)),)).fetchall())

        owners = await self._file.transact(work, patience)
        self._owed -= owed
        self._broken = None
        return owners

    async def others(self, remote_ids: Sequence[str]) -> set[str]:
        """Those of the ids that belong to other jobs."""
        query = "select remote_id from claim where job <> ? and remote_id in (select value from json_each(?))"
        rows = await self._file.transact(
            lambda connection: connection.execute(query, (self._job, _json(remote_ids))).fetchall()
        )
        return {row[0] for row in rows}

    async def doubt(self, ref: str, fingerprint: str, sent: Moment) -> None:
        """Remember a send without a clear answer."""
        values = (ref, fingerprint, self._job, sent.boot, sent.seconds)
        await self._file.transact(
            lambda connection: connection.execute("insert or replace into doubt values (?, ?, ?, ?, ?)", values)
        )

    async def doubts(self, fingerprint: str) -> list[tuple[str, float]]:
        """Boot and seconds of other jobs' doubtful sends of a fingerprint."""
        query = "select boot, seconds from doubt where fingerprint = ? and job <> ?"
        return list(
            await self._file.transact(lambda connection: connection.execute(query, (fingerprint, self._job)).fetchall())
        )


def _json(values: Sequence[str]) -> str:
    return orjson.dumps(list(values)).decode()
