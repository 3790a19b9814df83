"""Every purchase is in the journal: a rebuilt database has the generations, the ids and the costs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

from runner.store.rebuild import rebuild
from runner.store.store import Store
from runner.tasks.events import Accepted, Rejected, Retried
from runner.tasks.models import State, TaskError
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
