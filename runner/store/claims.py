"""Claims on remote tasks: which job of an account owns which remote id.

If a provider keeps no reference of ours, two jobs with the same prompts see each other's tasks in one list. Therefore a
remote id is claimed once, by one job. The quiet time of a doubt is measured from the latest doubtful send of any job of
the account.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
import orjson

from runner.errors import JobLockedError, RunnerError
from runner.store.account import SharedDatabase

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from runner.tasks.models import Moment


#: seconds to wait for the file when an id was found, and when a provider has just returned one; a caller that comes
#: while a transaction waits must wait for the next one too, so for twice as long
_CLAIM_TIMEOUT, _ACCEPTED_TIMEOUT = 30.0, 0.5

# no write-ahead log: many processes write, and in most SQLite releases two at once can damage it (see `has_wal_race`)
_SCHEMA = """
pragma journal_mode = delete;
create table if not exists claim (remote_id text primary key, job text not null) strict, without rowid;
create table if not exists doubt (
  ref text primary key, fingerprint text not null, job text not null, boot text not null, seconds real not null
) strict, without rowid;
create index if not exists doubt_fingerprint on doubt (fingerprint);
"""


class Claims:
    """Claims of one account, as seen by one of its jobs.

    Each call runs one transaction in a thread. Methods raise DiskError, JobLockedError or StateError.
    """

    def __init__(self, directory: Path, job: str) -> None:
        self._file, self._job = SharedDatabase(directory / "claims.db", _SCHEMA), job
        #: accepted ids that could not be written yet
        self._pending: set[str] = set()
        #: error that keeps ids from being written, unless it is a lock of another process
        self._write_error: RunnerError | None = None
        self._queues = {
            wait: ClaimQueue(partial(self._write, wait=wait)) for wait in (_CLAIM_TIMEOUT, _ACCEPTED_TIMEOUT)
        }

    async def claim_found(self, remote_id: str) -> bool:
        """Claim a remote id that was found in a list; return False if another job owns it."""
        return await self._claim(remote_id, _CLAIM_TIMEOUT)

    async def register_accepted(self, remote_id: str) -> bool:
        """Claim the remote id that the provider returned for our own request; return False if another job owns it.

        Such an id must reach the journal before anything else happens. So this waits at most a second for another
        process, and not at all for a full or broken disk. In these cases the id counts as ours, and is written later.
        """
        try:
            return await self._claim(remote_id, _ACCEPTED_TIMEOUT)
        except RunnerError as error:
            self._pending.add(remote_id)
            self._write_error = None if isinstance(error, JobLockedError) else error
            return True

    def check(self) -> None:
        """Raise the error that keeps ids from being written, so that nothing more is bought until it is resolved."""
        if self._write_error is not None:
            raise self._write_error

    async def flush_pending(self) -> None:
        """Write the accepted ids that could not be written yet, unless another process holds the file."""
        if self._pending:
            with suppress(JobLockedError):
                await self._claim(next(iter(self._pending)), _ACCEPTED_TIMEOUT)

    async def _claim(self, remote_id: str, wait: float) -> bool:
        return await self._queues[wait].claim(remote_id) == self._job

    async def _write(self, remote_ids: frozenset[str], wait: float) -> dict[str, str]:
        """Claim the pending ids and `remote_ids`; return the owner of each of the latter."""
        pending = frozenset(self._pending)

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            rows = [(remote_id, self._job) for remote_id in pending | remote_ids]
            connection.executemany("insert or ignore into claim values (?, ?)", rows)
            query = "select remote_id, job from claim where remote_id in (select value from json_each(?))"
            return dict(connection.execute(query, (_ids_as_json(sorted(remote_ids)),)).fetchall())

        owners = await self._file.transact(work, wait)
        self._pending -= pending
        self._write_error = None
        return owners

    async def owned_by_others(self, remote_ids: Sequence[str]) -> set[str]:
        """Return the ids that other jobs own."""
        return {remote_id for remote_id, job in (await self._owners(remote_ids)).items() if job != self._job}

    async def owned_here(self, remote_ids: Sequence[str]) -> set[str]:
        """Return the ids that this job owns."""
        return {remote_id for remote_id, job in (await self._owners(remote_ids)).items() if job == self._job}

    async def _owners(self, remote_ids: Sequence[str]) -> dict[str, str]:
        """Return the owner of each id that is claimed."""
        query = "select remote_id, job from claim where remote_id in (select value from json_each(?))"
        return dict(
            await self._file.transact(
                lambda connection: connection.execute(query, (_ids_as_json(remote_ids),)).fetchall()
            )
        )

    async def record_doubt(self, ref: str, fingerprint: str, sent: Moment) -> None:
        """Record a send that had no clear answer."""
        values = (ref, fingerprint, self._job, sent.boot, sent.seconds)
        await self._file.transact(
            lambda connection: connection.execute("insert or replace into doubt values (?, ?, ?, ?, ?)", values)
        )

    async def other_doubts(self, fingerprint: str) -> list[tuple[str, float]]:
        """Return boot and seconds of other jobs' doubtful sends of a fingerprint."""
        query = "select boot, seconds from doubt where fingerprint = ? and job <> ?"
        return list(
            await self._file.transact(lambda connection: connection.execute(query, (fingerprint, self._job)).fetchall())
        )


@dataclass
class _ClaimBatch:
    """Remote ids of one transaction, and the owner of each afterwards or the error that prevented it."""

    ids: set[str] = field(default_factory=set)
    outcome: Mapping[str, str] | RunnerError = field(default_factory=dict)


class ClaimQueue:
    """Remote ids to be claimed, gathered while a transaction is under way.

    A transaction costs two syncs, however many ids it claims. `write` claims a set of ids in one transaction, and
    returns the owner of each.
    """

    def __init__(self, write: Callable[[frozenset[str]], Awaitable[Mapping[str, str]]]) -> None:
        self._write, self._lock, self._open_batch = write, anyio.Lock(), _ClaimBatch()

    def __repr__(self) -> str:
        return f"ClaimQueue({len(self._open_batch.ids)} waiting)"

    async def claim(self, remote_id: str) -> str:
        """Claim the remote id and return the job that owns it now.

        Raises RunnerError if the transaction failed, in every task that shares it.
        """
        batch = self._open_batch
        batch.ids.add(remote_id)
        async with self._lock:
            if batch is self._open_batch:
                self._open_batch = _ClaimBatch()
                with anyio.CancelScope(shield=True):  # other tasks wait for this result too
                    try:
                        batch.outcome = await self._write(frozenset(batch.ids))
                    except RunnerError as error:
                        batch.outcome = error
        if isinstance(batch.outcome, RunnerError):
            raise batch.outcome
        return batch.outcome[remote_id]


def _ids_as_json(values: Sequence[str]) -> str:
    return orjson.dumps(list(values)).decode()
