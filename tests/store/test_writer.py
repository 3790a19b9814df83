from __future__ import annotations

import asyncio
import sqlite3
import threading

import aiosqlite
import pytest

from runner.errors import RunnerError


def put(number):
    def work(connection):
        connection.execute("insert into provider (name, origin) values (?, 'x')", (f"p{number}",))
        return number

    return work


def rows(bench):
    return sorted(name for (name,) in bench.sql("select name from provider"))


class Commits:
    """Count the commits that SQLite executes."""

    def __init__(self, writer):
        self._writer, self.seen = writer, 0

    async def __aenter__(self):
        await self._writer.set_up(lambda connection: connection.set_trace_callback(self._count))
        return self

    async def __aexit__(self, *_):
        await self._writer.set_up(lambda connection: connection.set_trace_callback(None))

    def _count(self, statement):
        self.seen += statement.lower() == "commit"


async def test_aiosqlite_still_runs_a_closure_in_its_thread():
    """The writer depends on this private method: `_execute` runs a closure in one other thread, with the connection."""
    async with aiosqlite.connect(":memory:") as database:
        seen = await database._execute(lambda: (threading.get_ident(), database._conn.execute("select 1").fetchone()))
        assert seen[0] != threading.get_ident()
        assert seen[1] == (1,)
        assert isinstance(database._conn, sqlite3.Connection)


async def test_concurrent_writes_share_a_commit(bench):
    async with bench() as made, Commits(made.store._writer) as commits:
        done = await asyncio.gather(*(made.store._writer.transact(put(n)) for n in range(400)))
        assert done == list(range(400))
        assert commits.seen < 10
        assert len(rows(made)) == 400


async def test_finished_write_is_on_disk(bench):
    async with bench() as made:
        await made.store._writer.transact(put(1))
        assert rows(made) == ["p1"]


async def test_failed_write_harms_no_other(bench):
    def bad(connection):
        connection.execute("insert into provider (name, origin) values ('half', 'x')")
        raise KeyError("a bug")

    async with bench() as made:
        transact = made.store._writer.transact
        works = [put(0), put(1), bad, put(1), put(2)]
        done = await asyncio.gather(*(transact(work) for work in works), return_exceptions=True)
        assert [type(each) for each in done] == [int, int, KeyError, sqlite3.IntegrityError, int]
        assert rows(made) == ["p0", "p1", "p2"]


async def test_sql_error_becomes_runner_error(bench):
    async with bench() as made:
        with pytest.raises(RunnerError, match=r"state\.db: no such table"):
            await made.store._writer.transact(lambda connection: connection.execute("select * from nowhere"))
        await made.store._writer.transact(put(1))


async def test_cancelled_caller_has_written_all_or_nothing(bench):
    entered, leave = threading.Event(), threading.Event()

    def slow(connection):
        put("a")(connection)
        entered.set()
        assert leave.wait(10)
        put("b")(connection)

    async with bench() as made:
        waiting = asyncio.create_task(made.store._writer.transact(slow))
        await asyncio.to_thread(entered.wait, 10)
        behind = asyncio.create_task(made.store._writer.transact(put("c")))
        await asyncio.sleep(0)
        for task in (waiting, behind):
            task.cancel()
        done = await asyncio.gather(waiting, behind, return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError] * 2
        assert rows(made) == []
        leave.set()
    async with bench() as made:
        assert rows(made) == ["pa", "pb", "pc"], "closing waits for work that was begun"


async def test_error_of_cancelled_caller_is_not_reported(bench):
    entered, leave = threading.Event(), threading.Event()

    def bad(connection):
        entered.set()
        assert leave.wait(10)
        raise KeyError("the caller is gone")

    async with bench() as made:
        waiting = asyncio.create_task(made.store._writer.transact(bad))
        await asyncio.to_thread(entered.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        leave.set()
        await made.store._writer.transact(put(1))


async def test_write_after_close_raises(bench):
    async with bench() as made:
        pass
    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="closed"):
            await made.store._writer.transact(put(1))
