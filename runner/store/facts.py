"""Facts about an account's lists under RUNNER_HOME, shared by its jobs: what was measured, when, and on which tasks.

They are written behind. A file that is lost costs patience and no money: what is not known is measured again.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread

from runner.errors import StateError
from runner.store.account import SharedDatabase
from runner.store.database import DATABASE_ERRORS, harden, to_runner_error
from runner.tasks.fact import Fact, merge_facts
from runner.tasks.list_record import Lag, ListRecord, Witness
from runner.tasks.models import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

#: own tasks of a list that are kept, the latest
_MAX_WITNESSES = 64
#: seconds for which a measured lag, a measured capacity and a comparison of fields count
_LAG_VALID, _CAPACITY_VALID, _ECHO_VALID = 7 * 86_400.0, 90 * 86_400.0, 30 * 86_400.0
#: seconds to wait for another process that writes the file
_TIMEOUT = 5.0
_HINT = "Move it away: what it holds is measured again."

_SCHEMA = """
pragma journal_mode = delete;
create table if not exists witness (
  list text not null, remote_id text not null, ref text not null, model text not null,
  claimed_at real not null, answered_at real not null, boot text not null, seconds real not null,
  primary key (list, remote_id)
) strict, without rowid;
create table if not exists proof (
  list text not null, remote_id text not null, digest text not null, primary key (list, remote_id)
) strict, without rowid;
create table if not exists fact (
  list text not null, name text not null, value real not null, n integer not null, at real not null,
  primary key (list, name)
) strict, without rowid;
create table if not exists echo (
  list text not null, model text not null, field text not null,
  verbatim integer not null check (verbatim in (0, 1)), at real not null,
  primary key (list, model, field)
) strict, without rowid;
create table if not exists known (
  list text not null, name text not null, operation text not null, model text not null, subject text not null,
  state text not null check (state in ('measured', 'declared', 'contradicted')), value text not null,
  n integer not null, first_at real not null, last_at real not null, why text not null,
  primary key (list, name, operation, model, subject)
) strict, without rowid;
"""
#: facts of one list that are kept, the latest: a provider may invent codes without end
_MAX_FACTS = 1_000
#: where SQLite counts, in the header of a file with a rollback journal, the transactions that changed it
_COUNTER_AT, _COUNTER_BYTES = 24, 4
_COLUMNS = "name, state, operation, model, subject, value, n, first_at, last_at, why"
_FACTS = f"select {_COLUMNS} from known where list = ? order by name, operation, model, subject limit {_MAX_FACTS}"  # noqa: S608
_FACT = f"select {_COLUMNS} from known where list = ? and name = ? and operation = ? and model = ? and subject = ?"  # noqa: S608
_PUT_FACT = f"insert or replace into known (list, {_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ECHO = f"select model, field, verbatim, at from echo where list = ? limit {_MAX_FACTS}"  # noqa: S608


class AccountFacts:
    """Facts of one account. Methods raise DiskError, JobLockedError and StateError."""

    def __init__(self, directory: Path) -> None:
        self.directory, self._path = directory, directory / "facts.db"
        self._file = SharedDatabase(self._path, _SCHEMA, hint=_HINT)

    async def load(self, name: str, now: float) -> ListRecord:
        """Return what is known of a list and still counts at `now`, seconds since the epoch."""
        if not await anyio.to_thread.run_sync(self._path.exists):
            return ListRecord()

        def work(connection: sqlite3.Connection) -> ListRecord:
            witnesses = connection.execute(
                "select remote_id, ref, model, claimed_at, answered_at, boot, seconds, coalesce(digest, '')"
                " from witness left join proof using (list, remote_id) where list = ?",
                (name,),
            )
            facts = {
                row[0]: row[1:]
                for row in connection.execute("select name, value, n, at from fact where list = ?", (name,))
            }
            echo = connection.execute(
                "select model, field, verbatim from echo where list = ? and (at > ? or not verbatim)",
                (name, now - _ECHO_VALID),
            )
            lag, capacity, stranger = (facts.get(each, (0.0, 0, 0.0)) for each in ("lag", "capacity", "stranger"))
            return ListRecord(
                witnesses=tuple(
                    Witness(remote_id, ref, model, claimed_at, answered_at, Moment(boot, seconds), proof=proof)
                    for remote_id, ref, model, claimed_at, answered_at, boot, seconds, proof in witnesses
                ),
                lag=Lag(lag[1], lag[0]) if now - lag[2] < _LAG_VALID else Lag(),
                capacity=int(capacity[0]) if now - capacity[2] < _CAPACITY_VALID else 0,
                echo={(model, field): bool(verbatim) for model, field, verbatim in echo},
                stranger_at=stranger[0],
            )

        return await self._file.transact(work, _TIMEOUT)

    async def save(self, name: str, record: ListRecord, now: float) -> None:
        """Merge what a run has learned of a list: the latest tasks, the longest lag, the largest reading."""
        witnesses = [
            (name, each.remote_id, each.ref, each.model, each.claimed_at, each.answered_at, *_moment(each))
            for each in record.witnesses[-_MAX_WITNESSES:]
        ]
        proofs = [(name, each.remote_id, each.proof) for each in record.witnesses[-_MAX_WITNESSES:] if each.proof]
        facts = [
            (name, "lag", record.lag.longest, record.lag.samples, now, _LAG_VALID),
            (name, "capacity", float(record.capacity), record.capacity, now, _CAPACITY_VALID),
            (name, "stranger", record.stranger_at, int(record.stranger_at > 0), now, _LAG_VALID),
        ]
        echo = [(name, model, field, verbatim, now) for (model, field), verbatim in record.echo.items()]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("insert or replace into witness values (?, ?, ?, ?, ?, ?, ?, ?)", witnesses)
            connection.executemany("insert or replace into proof values (?, ?, ?)", proofs)
            connection.execute(
                "delete from witness where list = :list and remote_id not in (select remote_id from witness"
                " where list = :list order by answered_at desc limit :most)",
                {"list": name, "most": _MAX_WITNESSES},
            )
            connection.execute(
                "delete from proof where list = :list and remote_id not in (select remote_id from witness"
                " where list = :list)",
                {"list": name},
            )
            for *row, valid in facts:
                if row[3]:
                    connection.execute(
                        "delete from fact where list = ? and name = ? and at < ?", (*row[:2], now - valid)
                    )
                    connection.execute(
                        "insert into fact values (?, ?, ?, ?, ?) on conflict (list, name) do update set"
                        " value = max(value, excluded.value), n = max(n, excluded.n),"
                        # a worse value expires after its time, however often better ones are seen meanwhile
                        " at = iif(excluded.value >= value, excluded.at, at)",
                        row,
                    )
            connection.executemany(
                "insert into echo values (?, ?, ?, ?, ?) on conflict (list, model, field) do update set"
                " verbatim = min(verbatim, excluded.verbatim), at = excluded.at",
                echo,
            )

        await self._file.transact(work, _TIMEOUT)

    def version(self) -> tuple[int, bytes] | None:
        """Return what differs after each change by any process, at the price of one small read; None: no file."""
        try:
            file = os.open(self._path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return os.fstat(file).st_ino, os.pread(file, _COUNTER_BYTES, _COUNTER_AT)
        except OSError:
            return None
        finally:
            os.close(file)

    async def facts(self, name: str, now: float) -> tuple[Fact, ...]:
        """Return the facts about a list that still count at `now`, seconds since the epoch."""
        if not await anyio.to_thread.run_sync(self._path.exists):
            return ()
        rows = await self._file.transact(lambda connection: connection.execute(_FACTS, (name,)).fetchall(), _TIMEOUT)
        return tuple(fact for fact in (Fact(*row) for row in rows) if fact.is_valid(now))

    async def record(self, name: str, *facts: Fact) -> None:
        """Merge new facts about a list with what is known. They are on disk when this returns."""

        def work(connection: sqlite3.Connection) -> None:
            for new in facts:
                row = connection.execute(_FACT, (name, *new.key)).fetchone()
                fact = merge_facts(Fact(*row), new) if row else new
                connection.execute(_PUT_FACT, (name, *astuple(fact)))
            connection.execute(
                "delete from known where list = :list and (name, operation, model, subject) not in"
                " (select name, operation, model, subject from known where list = :list"
                "  order by state = 'contradicted' desc, last_at desc limit :most)",
                {"list": name, "most": _MAX_FACTS},
            )

        await self._file.transact(work, _TIMEOUT)

    async def clear(self, name: str, fact: Fact) -> None:
        """Forget a fact, also a contradicted one: a person or a deliberate measurement has said so."""
        query = "delete from known where list = ? and name = ? and operation = ? and model = ? and subject = ?"
        await self._file.transact(lambda connection: connection.execute(query, (name, *fact.key)), _TIMEOUT)


def read_facts(directory: Path, name: str) -> tuple[Fact, ...]:
    """Return all facts about a list, those that have expired included, without writing anything.

    Lag, capacity, stranger and the comparison of fields, which runs decide with, are among them. Without a file there
    are none. Raises DiskError, JobLockedError and StateError.
    """
    return _read(directory, lambda connection: tuple(_stored_facts(connection, name))) or ()


def count_witnesses(directory: Path) -> int:
    """Return how many own tasks are known of the list of which most are, without writing anything.

    Raises as `read_facts` does.
    """
    query = "select max(n) from (select count(*) as n from witness group by list)"

    def work(connection: sqlite3.Connection) -> int:
        return connection.execute(query).fetchone()[0] or 0 if "witness" in _tables(connection) else 0

    return _read(directory, work) or 0


def _read(directory: Path, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Return what `work` reads, or None if there is no file."""
    path = directory / "facts.db"
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT)) as connection:
            harden(connection)
            return work(connection)
    except (*DATABASE_ERRORS, ValueError, TypeError) as error:
        found = to_runner_error(error, str(path))
        raise (StateError(found.message, hint=_HINT) if isinstance(found, StateError) else found) from None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("select name from sqlite_schema where type = 'table'")}


def _stored_facts(connection: sqlite3.Connection, name: str) -> Iterator[Fact]:
    tables = _tables(connection)
    if "known" in tables:  # not in files of earlier versions
        for fact in (Fact(*row) for row in connection.execute(_FACTS, (name,))):
            yield replace(fact, n=int(fact.n), first_at=float(fact.first_at), last_at=float(fact.last_at))
    if "fact" in tables:
        for each, value, n, at in connection.execute("select name, value, n, at from fact where list = ?", (name,)):
            seen = float(value if each == "stranger" else at)
            yield Fact(str(each), "measured", value=f"{float(value):g}", n=int(n), first_at=seen, last_at=seen)
    if "echo" in tables:
        rows = connection.execute(_ECHO, (name,))
        for model, field, verbatim, at in rows:
            same = Fact("field", "measured", "", str(model), str(field), "verbatim", 1, float(at), float(at))
            why = f"the list does not show {field} of {model} as it was sent"
            yield same if verbatim else replace(same, state="contradicted", value="changed", why=why)


def _moment(witness: Witness) -> tuple[str, float]:
    return witness.answered.boot, witness.answered.seconds
