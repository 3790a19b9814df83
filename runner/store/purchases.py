"""Memory of an account's purchases under RUNNER_HOME: what was bought, in which job, under which id, with which files.

A job directory holds what its own job has bought. This file remembers it by account, so that another directory, another
manifest's name or one row more buys nothing that was bought before. It is filled from the databases of the jobs, behind
their journals: each call reads what the journal says has changed since the last one. So a job that was killed is
remembered too, when the next run of the account begins, and a file that is lost is filled again.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import anyio.to_thread

from runner.errors import RunnerError, StateError
from runner.store.account import SharedDatabase
from runner.store.database import DATABASE_ERRORS, harden, to_runner_error
from runner.store.journal import read_lines
from runner.store.lock import is_run_active
from runner.store.read_only import open_read_only
from runner.store.remembered import BOUGHT, COLUMNS, KnownJob, Purchase, other_homes, purchase_from

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from runner.store.read_only import ReadOnlyQueries

#: rows that are written in one transaction, and rows that are read at once
_BATCH, _PAGE = 5_000, 1_000
#: bytes of a journal behind which all tasks of a job are read, and not those that it names
_LONG_TAIL = 16 << 20
#: seconds after which a purchase is dropped, so that the file does not grow for ever
_KEPT = 366 * 86_400.0
#: seconds to wait for the file when purchases are recorded, since a later call records them again
_TIMEOUT = 5.0

# no write-ahead log, as in `claims`
_SCHEMA = """
pragma journal_mode = delete;
create table if not exists job (
  uuid text primary key, directory text not null,
  -- bytes of its journal that are in here; order of its latest run among all runs; 1 while that run goes on
  journal integer not null default 0, run integer not null default 0, working integer not null default 0
) strict, without rowid;
create table if not exists purchase (
  key text not null, job text not null, goods text not null, state text not null, ref text not null, remote_id text,
  at real not null, cost real, reason text, message text,
  -- 1: another job has paid for it, and this one has files of its own
  linked integer not null,
  outputs text not null,
  primary key (key, job)
) strict, without rowid;
create index if not exists purchase_goods on purchase (goods) where goods <> '';
create table if not exists same_account (home text primary key) strict, without rowid;
"""
#: when two tasks ask for the same: by their requests as they are sent, or by what their manifests say, however it is
#: written; `t` is a task of this job
_SAME_KEY, _SAME_GOODS = "{it}.key = t.key", "{it}.goods = t.goods and {it}.goods <> '' and {it}.key <> t.key"
#: purchases of other jobs that are the same as an unbought task
_MATCHES = f"""
  from {{tasks}} join {{schema}}.purchase as purchase on {{same}}
  where t.provider = :provider and t.state = 'queued' and t.due_at is not null and t.generation = 1
    and purchase.job <> :job and purchase.state in {BOUGHT}
"""
#: unbought tasks that another job is about to buy
_AT_WORK = """
  insert into found select t.id, '', '', '', :directory from {tasks} join other.task as o on {same}
  where t.provider = :provider and t.state = 'queued' and t.due_at is not null and t.generation = 1
    and o.state = 'queued' and o.due_at < 253402300800.0
"""
#: all tasks of this job, or those of some positions in its manifest
_ALL_TASKS = "mine.task as t"
_TASKS_OF_SPAN = """(select * from mine.draft where position between :first and :last) as d
    cross join mine.task as t on t.id = d.task_id"""
#: purchases of the tasks of a page
_PURCHASES_OF_PAGE = f"""
  select found.id, {COLUMNS}
  from found cross join {{schema}}.purchase as purchase
      on purchase.key = found.key and purchase.job = found.job
    join {{schema}}.job as job on job.uuid = purchase.job
  where found.id between :first and :last and found.home = :home and found.at_work is null
"""  # noqa: S608 - no value of a user


#: unbought tasks of this job that by the memory it has bought, as when its directory was put back from a backup: under
#: an id that the state does not have, or by the very send that the state is about to make
_FORGOTTEN = f"""
  select t.id, purchase.remote_id, purchase.at from purchase join mine.task as t on t.key = purchase.key
  where purchase.job = :job and purchase.linked = 0 and purchase.state in {BOUGHT}
    and t.provider = :provider and t.state = 'queued' and t.id > :after
    and case when purchase.remote_id is null then purchase.ref = t.ref else
      not exists (select 1 from mine.former as f where f.provider = t.provider and f.remote_id = purchase.remote_id)
      and not exists (select 1 from mine.task as o where o.provider = t.provider and o.remote_id = purchase.remote_id)
    end
  order by t.id limit {_PAGE}
"""  # noqa: S608 - no value of a user


class ForgottenPurchase(NamedTuple):
    """A purchase of this job that its state does not have."""

    task_id: int
    #: None: its answer was lost
    remote_id: str | None
    #: seconds since the epoch
    at: float


class Match(NamedTuple):
    """A task of this job that waits to be bought, and what other jobs have of the same, the earliest first."""

    task_id: int
    purchases: tuple[Purchase, ...]
    #: directory of a job that is at work on it now and has not bought it yet
    at_work: str | None = None


class PurchaseMemory:
    """Memory of one account, as seen by one of its jobs. `directory` is what the account's jobs share.

    `failpoint` is called with the name of the point at which crash tests stop the process. Methods raise DiskError,
    JobLockedError and StateError.
    """

    def __init__(self, directory: Path, job: str, failpoint: Callable[[str], None] = lambda _: None) -> None:
        self._directory, self._job, self._failpoint = directory, job, failpoint
        self._file = SharedDatabase(
            directory / "bought.db", _SCHEMA, hint="Move it away: it is filled again from the jobs' own states."
        )

    async def begin_run(self, directory: str, jobs: Iterable[KnownJob], now: float) -> None:
        """Register this run after all that have begun, and the account's `jobs`, and drop purchases of long ago.

        Of two runs that begin at the same time the later one sees the earlier, and leaves to it what both would buy.
        """
        rows = [(job.uuid, job.directory) for job in jobs if job.uuid != self._job]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("insert or ignore into job (uuid, directory) values (?, ?)", rows)
            connection.executemany("update job set directory = ?2 where uuid = ?1 and directory <> ?2", rows)
            connection.execute(
                "insert into job (uuid, directory, run, working)"
                " values (?, ?, (select coalesce(max(run), 0) + 1 from job), 1) on conflict (uuid) do update set"
                " directory = excluded.directory, run = excluded.run, working = 1",
                (self._job, directory),
            )
            today = int(now // 86_400)
            if connection.execute("pragma user_version").fetchone()[0] != today:
                connection.execute("delete from purchase where at < ?", (now - _KEPT,))
                remember_day = f"pragma user_version = {today:d}"  # a pragma takes no parameters
                connection.execute(remember_day)

        await self._file.transact(work)

    async def end_run(self) -> None:
        """Record that this run is over."""
        query = "update job set working = 0 where uuid = ?"
        await self._file.transact(lambda connection: connection.execute(query, (self._job,)) and None, _TIMEOUT)

    async def add_same_account(self, home: Path) -> None:
        """Read the memory in `home` as well from now on: a user says that it is the same account under another key."""
        name = home.name
        query = "insert or ignore into same_account values (?)"
        if name != self._directory.name:
            await self._file.transact(lambda connection: connection.execute(query, (name,)) and None)

    async def record(self, provider: str) -> None:
        """Record what this job has bought since the last call. `provider` is the account's."""
        await anyio.to_thread.run_sync(self._record, self._job, provider)

    async def record_others(self, provider: str) -> None:
        """Record what the account's other jobs have bought and have not recorded themselves, as when they were killed.

        A job whose directory is gone, or cannot be read, is remembered as far as it was recorded.
        """
        for job in await self._file.transact(lambda connection: connection.execute("select uuid from job").fetchall()):
            if job[0] != self._job:
                with suppress(RunnerError, OSError):
                    await anyio.to_thread.run_sync(self._record, job[0], provider)

    def _record(self, uuid: str, provider: str) -> None:
        """Write what a job's database has of the tasks that its journal names behind the last recorded byte.

        What the journal has and the database has not is left for later: its transaction may be under way.
        """
        query = "select directory, journal from job where uuid = ?"
        directory, known = self._file.transact_here(lambda one: one.execute(query, (uuid,)).fetchone())
        state = Path(directory) / ".runner"
        try:
            size = (state / "journal.jsonl").stat().st_size
        except OSError:
            return
        if size == known:
            return
        start = known if size > known else 0
        with open_read_only(state) as job:
            owner, end = job.identity()
            if owner != uuid or end == known:
                return
            if start > end:
                start = 0
            # a journal that was written anew, after it was lost, cannot be read from where the old one ended
            refs = _refs(state, start, end) if start and end - start < _LONG_TAIL else None
            for page in job.purchases(provider) if refs is None else _pages_of(job, provider, refs):
                self._write(uuid, page, None)
                self._failpoint("purchases written")
        self._write(uuid, (), end)

    def _write(self, uuid: str, rows: Sequence[Mapping[str, Any]], journal: int | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "insert into purchase values (:key, :job, :goods, :state, :ref, :remote_id, :at, :cost,"
                " :reason, :message, :linked, :outputs)"
                " on conflict (key, job) do update set goods = excluded.goods, state = excluded.state,"
                " ref = excluded.ref, remote_id = excluded.remote_id, at = excluded.at, cost = excluded.cost,"
                " reason = excluded.reason, message = excluded.message, linked = excluded.linked,"
                " outputs = excluded.outputs",
                [{**row, "job": uuid} for row in rows],
            )
            if journal is not None:
                connection.execute("update job set journal = ? where uuid = ?", (journal, uuid))

        self._file.transact_here(work, _TIMEOUT)

    async def forgotten(self, state: Path, provider: str, after: int) -> list[ForgottenPurchase]:
        """Return a page of what this job has bought by this memory and waits to buy by its own state.

        `after` is the last task id of the page before, or -1. `state` is the directory of this job's database.
        """

        def work() -> list[ForgottenPurchase]:
            if not self._file.path.is_file():
                return []
            values = {"job": self._job, "provider": provider, "after": after}
            with _attached(self._file.path, state / "state.db") as connection:
                return [ForgottenPurchase(*row) for row in connection.execute(_FORGOTTEN, values)]

        if self._file.path.is_file():
            await self._file.prepare()  # a home that was removed under a run may have left it empty
        try:
            return await anyio.to_thread.run_sync(work)
        except DATABASE_ERRORS as error:
            raise to_runner_error(error, str(self._file.path)) from None

    async def has_others(self) -> bool:
        """Return whether there is anything that `matches` compares with."""

        def work() -> bool:
            with _attached(self._file.path) as connection:
                query = f"select exists (select 1 from purchase where job <> ? and state in {BOUGHT})"  # noqa: S608
                (has_bought,) = connection.execute(query, (self._job,)).fetchone()
                return bool(has_bought) or bool(other_homes(self._directory)) or bool(self._at_work(connection))

        try:
            return await anyio.to_thread.run_sync(work)
        except DATABASE_ERRORS as error:
            raise to_runner_error(error, str(self._file.path)) from None

    async def matches(
        self, state: Path, provider: str, span: tuple[int, int] | None = None
    ) -> AsyncGenerator[Sequence[Match], None]:
        """Yield pages of the tasks that wait to be bought in this job and that other jobs of the account have bought.

        `state` is the directory of this job's database. With `span` only tasks between two positions of the manifest
        are compared. One query finds them all, in a temporary table, so that the tasks may be changed meanwhile and
        memory is flat.
        """
        pages = self._pages(state, provider, span)
        try:
            while page := await anyio.to_thread.run_sync(next, pages, ()):
                yield page
        except DATABASE_ERRORS as error:
            raise to_runner_error(error, str(self._file.path)) from None
        finally:
            pages.close()

    def _pages(
        self, state: Path, provider: str, span: tuple[int, int] | None
    ) -> Generator[Sequence[Match], None, None]:
        values: dict[str, str | int] = {"provider": provider, "job": self._job}
        tasks = _ALL_TASKS
        if span is not None:
            tasks, values["first"], values["last"] = _TASKS_OF_SPAN, *span
        with _attached(self._file.path, state / "state.db") as connection:
            connection.execute("create temp table found (id integer, home text, job text, key text, at_work text)")
            _insert_matches(connection, "main", tasks, {**values, "home": ""})
            for home in other_homes(self._directory):
                _insert_from(connection, home, tasks, values)
            for directory in self._at_work(connection):
                _insert_at_work(connection, directory, tasks, values)
            yield from _read_matches(connection, self._directory.parent)

    def _at_work(self, connection: sqlite3.Connection) -> list[str]:
        """Return the directories of other jobs whose runs began before this one and still go on."""
        rows = connection.execute(
            "select directory from job where working = 1 and run < (select run from job where uuid = ?)", (self._job,)
        )
        return [directory for (directory,) in rows if is_run_active(Path(directory) / ".runner")]


@contextmanager
def _attached(path: Path, state: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Open a memory, with a job's database for reading under the name `mine`, if there is one to attach."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    # each page is read in another thread, one after the other
    opened = sqlite3.connect(address, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    with closing(opened) as connection:
        harden(connection)
        if state is not None:
            connection.execute("attach ? as mine", (f"file:{quote(str(state.absolute()))}?mode=ro",))
        yield connection


def _insert_matches(connection: sqlite3.Connection, schema: str, tasks: str, values: Mapping[str, str | int]) -> None:
    """Find the tasks that a memory knows."""
    for same in (_SAME_KEY, _SAME_GOODS):
        select = _MATCHES.format(schema=schema, tasks=tasks, same=same.format(it="purchase"))
        insert = f"insert into found select t.id, :home, purchase.job, purchase.key, null{select}"
        connection.execute(insert, values)


def _insert_from(connection: sqlite3.Connection, home: Path, tasks: str, values: Mapping[str, str | int]) -> None:
    """Find the tasks that another home of the account remembers. A home that cannot be read remembers nothing."""
    with suppress(sqlite3.Error):
        connection.execute("attach ? as elsewhere", (f"file:{quote(str(home / 'bought.db'))}?mode=ro",))
        try:
            _insert_matches(connection, "elsewhere", tasks, {**values, "home": home.name})
        finally:
            connection.execute("detach elsewhere")


def _insert_at_work(
    connection: sqlite3.Connection, directory: str, tasks: str, values: Mapping[str, str | int]
) -> None:
    """Find the tasks that a job which is at work now will buy. A job that cannot be read is passed over."""
    with suppress(sqlite3.Error):
        state = Path(directory) / ".runner" / "state.db"
        connection.execute("attach ? as other", (f"file:{quote(str(state))}?mode=ro",))
        try:
            for same in (_SAME_KEY, _SAME_GOODS):
                query = _AT_WORK.format(tasks=tasks, same=same.format(it="o"))
                connection.execute(query, {**values, "directory": directory})
        finally:
            connection.execute("detach other")


def _read_matches(connection: sqlite3.Connection, accounts: Path) -> Iterator[Sequence[Match]]:
    """Yield pages of what was found, in the order of the tasks."""
    connection.execute("create index temp.found_id on found (id)")
    homes = [row[0] for row in connection.execute("select distinct home from found where home <> ''")]
    schemas = {"": "main"} | {home: f"home{number}" for number, home in enumerate(homes)}
    after = -1
    while ids := [
        row[0]
        for row in connection.execute("select distinct id from found where id > ? order by id limit ?", (after, _PAGE))
    ]:
        span = {"first": ids[0], "last": ids[-1]}
        after = ids[-1]
        found: dict[int, list[Purchase]] = {}
        for home, schema in schemas.items():
            if home:
                path, attach = quote(str(accounts / home / "bought.db")), f"attach ? as {schema}"
                connection.execute(attach, (f"file:{path}?mode=ro",))
            query = _PURCHASES_OF_PAGE.format(schema=schema)
            for row in connection.execute(query, {**span, "home": home}):
                found.setdefault(row[0], []).append(purchase_from(row[1:]))
            if home:
                detach = f"detach {schema}"
                connection.execute(detach)
        query = "select id, at_work from found where id between :first and :last and at_work is not null"
        at_work = dict(connection.execute(query, span).fetchall())
        yield [
            Match(id_, tuple(sorted(found.get(id_, ()), key=lambda one: (one.linked, one.at))), at_work.get(id_))
            for id_ in ids
        ]


def _refs(state: Path, start: int, end: int) -> list[str] | None:
    """Return the references that the lines of a journal between two offsets name, or None if none can be read there."""
    refs: set[str] = set()
    try:
        for line, behind in read_lines(state / "journal.jsonl", start):
            refs |= {ref for ref in (line.get("ref"), line.get("next")) if isinstance(ref, str)}
            if behind >= end:
                return sorted(refs)
    except StateError:
        pass
    return None


def _pages_of(job: ReadOnlyQueries, provider: str, refs: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the tasks with these references, in batches."""
    for at in range(0, len(refs), _BATCH):
        yield job.purchases_of(provider, refs[at : at + _BATCH])
