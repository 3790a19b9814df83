"""The account's memory of purchases: filled from the jobs' own databases, and compared with what is to be bought."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest

from runner.errors import StateError
from runner.store.journal import encode
from runner.store.lock import job_lock
from runner.store.purchases import PurchaseMemory
from runner.store.remembered import KnownJob, RememberedPurchases
from runner.store.store import Store
from runner.tasks.events import Linked
from runner.tasks.models import Output, State
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

from .conftest import NOW, Bench, key_of

DAY = 86_400.0


@asynccontextmanager
async def job(directory, *numbers):
    """Open a job with these drafts."""
    made = Bench(await Store.open(directory / ".runner"), directory / ".runner" / "state.db")
    try:
        await made.add(*numbers)
        yield made
    finally:
        await made.store.aclose()


async def remembered(home, made, directory, now=NOW, jobs=()):
    """Begin a run of a job, and record what it has bought."""
    memory = PurchaseMemory(home, made.store.uuid)
    await memory.begin_run(str(directory), jobs, now)
    await memory.record("chanjing")
    return memory


async def buy(made, state=State.DONE, **fields):
    """Buy the next task, with one file."""
    task = await made.to(State.RUNNING, **fields)
    if state is State.RUNNING:
        return task
    task = await made.to(State.READY, task, outputs=(Output(1, "https://x/1"),))
    await made.store.record_file(task, Output(1, "https://x/1", f"{task.name}.png", 3, "ab", "image/png"))
    return await made.to(state, task)


async def found(memory, directory):
    """Return the matches of a job by the number of each draft."""
    return [match async for page in memory.matches(directory / ".runner", "chanjing") for match in page]


async def test_purchase_of_one_job_is_found_by_another(tmp_path):
    async with job(tmp_path / "one", 1, 2, 3) as one, job(tmp_path / "two", 2, 1, 4) as two:
        first, second = await buy(one, cost=4.0), await buy(one, State.RUNNING)
        await remembered(tmp_path / "home", one, tmp_path / "one")
        memory = await remembered(tmp_path / "home", two, tmp_path / "two")
        matches = await found(memory, tmp_path / "two")
        assert [[(each.key, each.state, each.remote_id) for each in match.purchases] for match in matches] == [
            [(second.key, State.RUNNING, second.remote_id)],
            [(first.key, State.DONE, first.remote_id)],
        ]
        (done,) = matches[1].purchases
        assert done.job == KnownJob(one.store.uuid, str(tmp_path / "one"))
        assert done.outputs == (Output(1, "", "boat-1.png", 3, "ab", "image/png"),)
        assert (done.at, done.linked) == (NOW, False)
        plan = RememberedPurchases(tmp_path / "home", tmp_path / "two")
        assert plan.find(first.key) == (done,)
        assert RememberedPurchases(tmp_path / "home", tmp_path / "one").find(first.key) == ()
        assert RememberedPurchases(tmp_path / "nowhere", tmp_path / "two").find(first.key) == ()
    assert (tmp_path / "home" / "bought.db").stat().st_mode & 0o777 == 0o600


async def test_same_goods_under_another_key_are_found(tmp_path):
    """The manifest writes the same in another way, or an update of the runner sends it in another way."""
    goods = "ab" * 16
    async with job(tmp_path / "one") as one, job(tmp_path / "two") as two, job(tmp_path / "three") as three:
        await one.add(1, 2, goods=goods, digest="d2")
        await two.add(3, goods=goods, digest="d2")
        await three.add(4, 1, digest="d2")  # goods that are not known are nobody's
        await buy(one)
        with job_lock(tmp_path / "one" / ".runner"):
            await remembered(tmp_path / "home", one, tmp_path / "one")
            (match,) = await found(await remembered(tmp_path / "home", two, tmp_path / "two"), tmp_path / "two")
            assert [each.key for each in match.purchases] == [key_of(1)]
            assert match.at_work == str(tmp_path / "one")
        (match,) = await found(await remembered(tmp_path / "home", three, tmp_path / "three"), tmp_path / "three")
        assert [each.key for each in match.purchases] == [key_of(1)]
        plan = RememberedPurchases(tmp_path / "home", tmp_path / "two")
        assert [len(plan.find("another", each)) for each in (goods, "", "cd" * 16)] == [1, 0, 0]


async def test_only_what_is_new_in_the_journal_is_read(tmp_path, monkeypatch):
    written = []
    real = PurchaseMemory._write
    monkeypatch.setattr(
        PurchaseMemory,
        "_write",
        lambda self, uuid, rows, *more: (written.extend(rows), real(self, uuid, rows, *more))[1],
    )
    async with job(tmp_path / "one", *range(1, 6)) as one:
        for _ in range(3):
            await buy(one)
        memory = await remembered(tmp_path / "home", one, tmp_path / "one")
        assert len(written) == 3
        await memory.record("chanjing")
        assert len(written) == 3
        fourth = await buy(one)
        await memory.record("chanjing")
        assert [row["key"] for row in written[3:]] == [fourth.key]


async def test_purchase_that_was_none_is_forgotten(tmp_path):
    """In doubt at first, then proved never accepted: the other job buys it."""
    async with job(tmp_path / "one", 1) as one, job(tmp_path / "two", 1) as two:
        doubt = await one.to(State.IN_DOUBT, await one.claim(), doubts=1)
        first = await remembered(tmp_path / "home", one, tmp_path / "one")
        second = await remembered(tmp_path / "home", two, tmp_path / "two")
        ((match,),) = [await found(second, tmp_path / "two")]
        assert [each.state for each in match.purchases] == [State.IN_DOUBT]
        await one.to(State.QUEUED, doubt)
        await first.record("chanjing")
        assert await found(second, tmp_path / "two") == []


async def test_killed_job_is_recorded_by_another(tmp_path):
    """The memory was never told of it, as in a job of an older version. Its directory is known to the account."""
    async with job(tmp_path / "one", 1) as one, job(tmp_path / "two", 1) as two:
        await buy(one)
        known = [KnownJob(one.store.uuid, str(tmp_path / "one")), KnownJob("gone", str(tmp_path / "gone"))]
        memory = await remembered(tmp_path / "home", two, tmp_path / "two", jobs=known)
        assert await found(memory, tmp_path / "two") == []
        await memory.record_others("chanjing")
        assert len(await found(memory, tmp_path / "two")) == 1


async def test_journal_that_was_written_anew_is_read_in_full(tmp_path):
    async with job(tmp_path / "one", 1, 2) as one, job(tmp_path / "two", 1, 2) as two:
        await buy(one)
        memory = await remembered(tmp_path / "home", one, tmp_path / "one")
        await buy(one)
        journal = tmp_path / "one" / ".runner" / "journal.jsonl"
        lines = journal.read_bytes()
        journal.write_bytes(encode({"t": "padding", "text": "x" * (len(lines) // 2)}) + lines)
        with closing(sqlite3.connect(one.path)) as connection:
            connection.execute("update job set journal = ?", (journal.stat().st_size,))
            connection.commit()
        await memory.record("chanjing")
        second = await remembered(tmp_path / "home", two, tmp_path / "two")
        assert len(await found(second, tmp_path / "two")) == 2


async def test_running_job_keeps_what_it_will_buy(tmp_path):
    """Of two runs at the same time the later one leaves to the earlier what both would buy, and never both."""
    async with job(tmp_path / "one", 1, 2) as one, job(tmp_path / "two", 2, 3) as two:
        with job_lock(tmp_path / "one" / ".runner"), job_lock(tmp_path / "two" / ".runner"):
            first = await remembered(tmp_path / "home", one, tmp_path / "one")
            second = await remembered(tmp_path / "home", two, tmp_path / "two")
            (match,) = await found(second, tmp_path / "two")
            assert (match.purchases, match.at_work) == ((), str(tmp_path / "one"))
            assert await found(first, tmp_path / "one") == []
            await first.end_run()
            assert await found(second, tmp_path / "two") == []
            await first.begin_run(str(tmp_path / "one"), (), NOW)
            assert [match.at_work for match in await found(first, tmp_path / "one")] == [str(tmp_path / "two")]


async def test_job_that_was_killed_is_not_at_work(tmp_path):
    async with job(tmp_path / "one", 1) as one, job(tmp_path / "two", 1) as two:
        await remembered(tmp_path / "home", one, tmp_path / "one")
        (tmp_path / "one" / ".runner" / "lock.holder").write_text(f"{os.uname().nodename} process {2**22 + 1}\n")
        assert await found(await remembered(tmp_path / "home", two, tmp_path / "two"), tmp_path / "two") == []


async def test_linked_task_is_no_purchase_of_its_own(tmp_path):
    """A third job may take its files, but the first one has paid."""
    async with job(tmp_path / "one", 1) as one, job(tmp_path / "two", 1) as two, job(tmp_path / "three", 1) as three:
        bought = await buy(one)
        await remembered(tmp_path / "home", one, tmp_path / "one")
        (task,) = await two.store.find_by_key_prefix(key_of(1))
        files = (Output(1, "", "boat-1.png", 3, "ab", "image/png"),)
        linked = advance(task, Linked(bought.remote_id, "/one", files), NOW, RetryPolicy())
        assert await two.store.settle(task, linked) == "done"
        await remembered(tmp_path / "home", two, tmp_path / "two")
        (match,) = await found(await remembered(tmp_path / "home", three, tmp_path / "three"), tmp_path / "three")
        assert [(each.linked, each.outputs == files) for each in match.purchases] == [(False, True), (True, True)]


async def test_purchases_of_long_ago_are_dropped(tmp_path):
    async with job(tmp_path / "one", 1) as one, job(tmp_path / "two", 1) as two:
        await buy(one)
        await remembered(tmp_path / "home", one, tmp_path / "one")
        memory = await remembered(tmp_path / "home", two, tmp_path / "two", now=NOW + 365 * DAY)
        assert len(await found(memory, tmp_path / "two")) == 1
        memory = await remembered(tmp_path / "home", two, tmp_path / "two", now=NOW + 367 * DAY)
        assert await found(memory, tmp_path / "two") == []


async def test_homes_of_the_same_account_are_read(tmp_path):
    """Two new keys after each other; the homes lie side by side, and a name that leads elsewhere is not followed."""
    homes = [tmp_path / "accounts" / name for name in ("old", "newer", "newest")]
    async with job(tmp_path / "one", 1) as one, job(tmp_path / "two", 1) as two:
        await buy(one)
        await remembered(homes[0], one, tmp_path / "one")
        await (await remembered(homes[1], two, tmp_path / "two")).add_same_account(homes[0])
        memory = await remembered(homes[2], two, tmp_path / "two")
        assert await found(memory, tmp_path / "two") == []
        for home in (homes[1], homes[2], tmp_path / "elsewhere" / "newest"):
            await memory.add_same_account(home)
        (match,) = await found(memory, tmp_path / "two")
        assert [each.job.directory for each in match.purchases] == [str(tmp_path / "one")]
        assert len(RememberedPurchases(homes[2], tmp_path / "two").find(key_of(1))) == 1


async def test_resting_tasks_are_neither_bought_nor_waited_for(tmp_path):
    async with job(tmp_path / "one", 1, 2) as one:
        (task,) = await one.store.find_by_key_prefix(key_of(1))
        await one.store.rest([task.id])
        assert (await one.claim()).key == key_of(2)
        assert await one.claim() is None
        assert not await one.store.has_work("chanjing", [State.QUEUED], 9) or await one.store.in_state(State.SUBMITTING)
        assert await one.store.submit_outlook("chanjing", 9) == (True, False, False)
        await one.store.wake(NOW)
        assert await one.claim() is None
        assert (await one.store.counts())["queued"] == 1
        await one.store.end_rest()
        assert (await one.claim()).key == key_of(1)


async def test_damaged_memory_says_how_to_go_on(tmp_path):
    (tmp_path / "bought.db").write_bytes(b"no database" * 100)
    with pytest.raises(StateError) as caught:
        await PurchaseMemory(tmp_path, "job").begin_run("/one", (), NOW)
    assert "filled again" in caught.value.hint
    assert RememberedPurchases(tmp_path, tmp_path).find("k") == ()


async def test_state_that_was_put_back_is_told_what_it_bought(tmp_path):
    """By the ids of what was accepted, and by the send of what has no answer."""
    async with job(tmp_path / "one", 1, 2, 3) as one:
        pass
    shutil.copytree(tmp_path / "one", tmp_path / "kept")
    async with job(tmp_path / "one") as one:
        bought, doubtful = await buy(one), await one.to(State.IN_DOUBT)
        memory = await remembered(tmp_path / "home", one, tmp_path / "one")
    expected = [(bought.id, bought.remote_id, NOW), (doubtful.id, None, NOW)]
    assert await memory.forgotten(tmp_path / "kept" / ".runner", "chanjing", -1) == expected
    assert await memory.forgotten(tmp_path / "kept" / ".runner", "chanjing", bought.id) == expected[1:]
    assert await memory.forgotten(tmp_path / "one" / ".runner", "chanjing", -1) == []
    assert await PurchaseMemory(tmp_path / "none", one.store.uuid).forgotten(tmp_path, "chanjing", -1) == []
