"""Every purchase is in the journal: a rebuilt database has the generations, the ids and the costs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from runner.errors import StateError
from runner.store import lost_journal
from runner.store.journal import JournalMark, RebuiltJournal, encode, epoch_line, read_rebuilt
from runner.store.rebuild import rebuild, recover
from runner.store.store import Store
from runner.tasks.events import Accepted, Rejected, Retried, Saved
from runner.tasks.models import Output, State, TaskError
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

from .conftest import NOW, additions

POLICY = RetryPolicy()


async def happens(store, task, event):
    after = advance(task, event, NOW, POLICY)
    assert await store.settle(task, after) == "done"
    return after


async def bought_twice(made):
    """Return a task that failed after it was paid, and that the user retries."""
    task = await made.claim()
    task = await happens(made.store, task, Accepted("first"))
    task = await happens(made.store, task, Rejected(TaskError("provider")))
    return await happens(made.store, task, Retried())


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        task = connection.execute("select state, generation, ref, remote_id, spent from task").fetchone()
        return task, connection.execute("select remote_id from former").fetchall()


async def test_rebuilt_job_continues_with_requested_generation(bench):
    async with bench() as made:
        await made.store.add([replace(one, cost=4.0) for one in additions([1])], "d", NOW)
        again = await bought_twice(made)
        await made.store.aclose()
        assert rebuild(made.path.parent, (), NOW) == {"queued": 1}
        task, former = rows(made.path)
        assert task == ("queued", 2, again.ref, None, 0.0)
        assert former == [("first",)]
        made.store = await Store.open(made.path.parent)
        assert await made.claim() is None, "no manifest has asked for it yet"
        await made.store.add(additions([1]), "d", NOW)
        claimed = await made.claim()
        assert (claimed.ref, claimed.generation) == (again.ref, 2)


async def test_rebuilt_job_has_the_cost_of_each_purchase(bench):
    async with bench() as made:
        await made.store.add([replace(one, cost=4.0) for one in additions([1])], "d", NOW)

        def begin(task):
            return replace(made.begun(task), spent=task.spent + 4.0)

        task = await made.store.claim_queued("chanjing", NOW, 10, begin)
        for event in (Accepted("first"), Rejected(TaskError("provider")), Retried()):
            task = await happens(made.store, task, event)
        task = await made.store.claim_queued("chanjing", NOW, 10, begin)
        await happens(made.store, task, Accepted("second"))
        assert await made.store.spent() == 8.0
        await made.store.aclose()
        rebuild(made.path.parent, additions([1]), NOW)
        task, former = rows(made.path)
        assert task == ("running", 2, task[2], "second", 8.0)
        assert former == [("first",)]
        made.store = await Store.open(made.path.parent)
        assert await made.store.spent() == 8.0
        assert await made.store.claimed_ids("chanjing", ["first", "second", "third"]) == {"first", "second"}


async def test_retry_only_in_journal_is_merged(bench, tmp_path):
    """The process was killed between the journal line and the commit of the user's retry."""
    async with bench() as made:
        await made.add(1)
        task = await made.claim()
        task = await happens(made.store, task, Accepted("first"))
        task = await happens(made.store, task, Rejected(TaskError("provider")))
        for name in ("state.db", "state.db-wal"):
            shutil.copy(made.path.with_name(name), tmp_path / name)
        again = await happens(made.store, task, Retried())
        await made.store.aclose()
        for name in ("state.db", "state.db-wal"):
            shutil.copy(tmp_path / name, made.path.with_name(name))
        made.path.with_name("state.db-shm").unlink(missing_ok=True)
        made.store = await Store.open(made.path.parent)
        (merged,) = await made.store.in_state(State.QUEUED)
        assert (merged.generation, merged.ref, merged.remote_id) == (2, again.ref, None)
        assert await made.store.claimed_ids("chanjing", ["first"]) == {"first"}


# a lost journal


def of_tasks(path):
    """Return what a rebuilt database must keep of each task, and the ids that tasks no longer have."""
    query = (
        "select key, state, generation, ref, remote_id, spent, adopted, doubts, attempts, throttles, reason,"
        " (select group_concat(file || sha256) from output where task_id = task.id) from task order by key"
    )
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall(), connection.execute("select * from former").fetchall()


async def with_every_state(made):
    await made.add(*range(1, 12))
    await made.to(State.QUEUED, doubts=1, reason="absent")
    await made.claim()
    await made.to(State.IN_DOUBT, doubts=2, spent=4.0)
    await made.to(State.HELD, doubts=3, error=TaskError("in_doubt", None, "why"))
    await made.to(State.RUNNING, adopted=True)
    await made.to(State.READY)
    await made.to(State.STRANDED)
    await made.to(State.FAILED, remote_id="failed", error=TaskError("moderation", None, "no"))
    await made.to(State.FAILED, attempts=2, error=TaskError("invalid"))
    file = Output(1, "https://host/a.png", "boat.png", 7, "ab" * 32, "image/png")
    ready = await made.to(State.READY)
    await made.store.record_file(ready, file)
    await happens(made.store, ready, Saved((file,)))
    await bought_twice(made)


async def test_journal_from_a_database_restores_every_state(bench):
    async with bench() as made:
        await with_every_state(made)
        await made.store.aclose()
        journal = made.path.with_name("journal.jsonl")
        before, length = of_tasks(made.path), journal.stat().st_size
        journal.unlink()
        assert recover(made.path.parent, (), NOW).rebuilt == "journal"
        assert of_tasks(made.path) == before
        assert journal.stat().st_size >= length
        assert recover(made.path.parent, additions(range(1, 12)), NOW).rebuilt == "database"
        tasks, former = of_tasks(made.path)
        # outputs that are not saved are asked for again, and a doubt counts its latest send again
        polled = {"ready": "running", "stranded": "running", "in_doubt": "submitting"}
        expected = [(key, polled.get(state, state), *rest) for key, state, *rest in before[0]]
        doubtful = [index for index, row in enumerate(before[0]) if row[1] == "in_doubt"]
        for index in doubtful:
            expected[index] = (*expected[index][:7], expected[index][7] - 1, *expected[index][8:])
        assert tasks == expected
        assert former == before[1]
        made.store = await Store.open(made.path.parent)


async def test_both_lost_is_refused_with_advice_that_helps(bench):
    async with bench() as made:
        await with_every_state(made)
        await made.store.aclose()
        journal = made.path.with_name("journal.jsonl")
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([b"X" + lines[0][1:], *lines[1:]]))
        with pytest.raises(StateError, match="runner recover"):
            await Store.open(made.path.parent)
        kept = made.path.read_bytes()
        made.path.write_bytes(b"garbage" * 1000)
        with pytest.raises(StateError, match="Put back a good copy"):
            recover(made.path.parent, (), NOW)
        made.path.write_bytes(kept)
        recover(made.path.parent, (), NOW)
        made.store = await Store.open(made.path.parent)


async def test_interrupted_recovery_of_a_journal_is_repeated(bench, monkeypatch):
    """A process that dies at any point of it leaves a job that is refused until it was done again."""
    async with bench() as made:
        await with_every_state(made)
        await made.store.aclose()
        journal, before = made.path.with_name("journal.jsonl"), of_tasks(made.path)
        length = journal.stat().st_size
        journal.unlink()
        for name in ("atomic_write", "sync_directory"):
            with monkeypatch.context() as patch:
                patch.setattr(lost_journal, name, killed)
                with pytest.raises(MemoryError):
                    recover(made.path.parent, (), NOW)
            with pytest.raises(StateError, match="runner recover"):
                await Store.open(made.path.parent)
        recover(made.path.parent, (), NOW)
        assert read_rebuilt(journal).length == length
        assert of_tasks(made.path) == before
        made.store = await Store.open(made.path.parent)


def killed(*_, **__):
    raise MemoryError


async def test_journal_of_another_job_needs_a_decision(bench, tmp_path):
    async with bench() as made, bench(tmp_path / "other/.runner") as other:
        await with_every_state(made)
        await with_every_state(other)
        for each in (made, other):
            await each.store.aclose()
        shutil.copy(other.path.with_name("journal.jsonl"), made.path.with_name("journal.jsonl"))
        with pytest.raises(StateError, match="both have bought"):
            recover(made.path.parent, (), NOW)
        made.path.with_name("journal.jsonl").unlink()
        recover(made.path.parent, (), NOW)
        made.store, other.store = await Store.open(made.path.parent), await Store.open(other.path.parent)


def test_rebuilt_journal_replaces_only_what_its_database_knew():
    """A copy from before the mark grows by each run that is refused, but never beyond the mark."""
    uuid, line = "u" * 32, len(encode(epoch_line("u" * 32, 8, "0" * 16)))
    mark = JournalMark(1000, "digest")
    assert RebuiltJournal(epoch=7, length=1000).replaces(uuid, mark, 7)
    assert not RebuiltJournal(epoch=7, length=999).replaces(uuid, mark, 7)
    assert not RebuiltJournal(epoch=6, length=2000).replaces(uuid, mark, 7)
    assert RebuiltJournal(epoch=9, length=1000 + 2 * line).replaces(uuid, mark, 7)
    assert not RebuiltJournal(epoch=9, length=990 + 2 * line).replaces(uuid, mark, 7)
