"""Recovery of a store after a fault between its journal and its database."""

from __future__ import annotations

import asyncio

import pytest

from runner.errors import DiskError, StateError
from runner.store.rebuild import rebuild
from runner.store.store import Store
from runner.tasks.events import Accepted, Found, Missing, Resolved
from runner.tasks.models import State
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

from .conftest import NOW, Bench, additions
from .machine import FaultInjector, read_lines, read_state

POLICY = RetryPolicy(required_absences=1)


@pytest.fixture
async def faulty(home):
    """Return a bench whose store has a fault injector, and the injector."""
    injector = FaultInjector(home)
    home.parent.mkdir()
    bench = Bench(await Store.open(home, connect=injector.connect), home / "state.db")
    yield bench, injector
    await bench.store.aclose()


async def opened_again(bench, injector):
    await bench.store.aclose()
    bench.store = await Store.open(injector.directory)
    return read_state(injector.directory)


async def adopted(bench, task, remote_id):
    after = advance(task, Resolved("adopt", "ann", remote_id), NOW, POLICY)
    assert await bench.store.settle(task, after) == "done"
    return after


async def held(bench):
    return await bench.to(State.HELD)


def kinds(injector):
    return [line["t"] for line in read_lines(injector.directory)][1:]


async def test_database_without_bought_rows_is_refused(faulty):
    """Copied without its write-ahead log, it is older than the manifest: the next run would buy the same again."""
    bench, injector = faulty
    await bench.store._writer.set_up(lambda connection: connection.execute("pragma wal_checkpoint").fetchall() and None)
    await bench.add(1)
    await bench.to(State.RUNNING, remote_id="paid")
    copy = injector.copy_files("state.db-wal")
    with pytest.raises(StateError, match="recover"):
        await (await Store.open(copy)).aclose()


# a disk that is full between the two


async def test_journaled_id_survives_a_full_disk(faulty):
    bench, injector = faulty
    await bench.add(1, 2)
    first, second = await bench.to(State.IN_DOUBT), await bench.to(State.IN_DOUBT)
    injector.arm("full ever more")
    with pytest.raises(DiskError):
        await bench.store.settle(first, advance(first, Found("paid"), NOW, POLICY))
    injector.arm("")
    assert "paid" in {line.get("remote_id") for line in read_lines(injector.directory)}
    await bench.store.settle(second, advance(second, Found("other"), NOW, POLICY))
    seen = await opened_again(bench, injector)
    assert {task.remote_id for task in seen.tasks.values()} == {"paid", "other"}


async def test_repeated_settle_is_journaled_once(faulty):
    """The worker that has the answer tries again, whatever was written to the store meanwhile."""
    bench, injector = faulty
    await bench.add(1)
    task = await bench.claim()
    after = advance(task, Accepted("paid", "trace 1"), NOW, POLICY)
    injector.arm("full ever more")
    with pytest.raises(DiskError):
        await bench.store.settle(task, after)
    injector.arm("")
    assert await bench.store.counts() == {"running": 1}
    assert await bench.store.settle(task, after) == "done"
    assert kinds(injector) == ["intent", "id"]
    (seen,) = read_state(injector.directory).tasks.values()
    assert (seen.reason, seen.due_at) == (after.reason, after.due_at)
    assert await bench.store.settle(task, advance(task, Accepted("another"), NOW, POLICY)) == "stale"


@pytest.mark.parametrize("kind", ["full commit", "full mark"])
async def test_full_disk_keeps_ids_and_withdraws_intents(faulty, kind):
    """The ballast is for paid tasks. The claim in the group gets an error, so its request is not sent."""
    bench, injector = faulty
    await bench.add(1, 2, 3)
    tasks = [await bench.claim(), await bench.claim()]
    known = kinds(injector)
    injector.arm(kind, nth=2)
    settled = [bench.store.settle(task, advance(task, Accepted(f"id-{task.id}"), NOW, POLICY)) for task in tasks]
    done = await asyncio.gather(settled[0], bench.claim(), settled[1], return_exceptions=True)
    assert (done[0], type(done[1]), done[2]) == ("done", DiskError, "done")
    injector.arm("")
    assert kinds(injector) == [*known, "id", "intent", "id", "settle"]
    assert await bench.store.counts() == {"running": 2, "queued": 1}
    seen = await opened_again(bench, injector)
    assert seen.counts == {"running": 2, "queued": 1}
    assert seen.spent == 0.0
    assert (await bench.claim()).key == bench.key(3)


async def test_intent_only_in_journal_is_doubtful_for_others(faulty):
    """Only the process that got the error knows that nothing was sent."""
    bench, injector = faulty
    await bench.add(1)
    injector.arm("full commit", nth=2)
    with pytest.raises(DiskError):
        await bench.claim()
    copy = injector.copy_files()
    assert (await opened_again(bench, injector)).counts == {"queued": 1}, "the intent was withdrawn before the end"
    path = copy / "journal.jsonl"
    *whole, last = path.read_bytes().splitlines(keepends=True)
    assert b"settle" in last
    path.write_bytes(b"".join(whole))
    other = await Store.open(copy)
    try:
        assert await other.counts() == {"submitting": 1}
    finally:
        await other.aclose()


# a process that dies between the two


async def test_removed_task_is_not_bought_after_a_crash(faulty):
    bench, injector = faulty
    await bench.add(1)
    doubtful = await bench.to(State.IN_DOUBT)
    await bench.store.add([], "without it", NOW)
    injector.arm("crash before")
    await bench.store.settle(doubtful, advance(doubtful, Missing(quiet=True), NOW, POLICY))
    after = await Store.open(injector.copy)
    try:
        await after.add([], "without it", NOW)
        assert (await after.counts(), await after.removed_unsent_count()) == ({"queued": 1}, 1)
        assert await after.claim_queued("chanjing", NOW, 9, bench.begun) is None
    finally:
        await after.aclose()


@pytest.mark.parametrize("how", ["merged", "rebuilt"])
async def test_replaced_id_stays_claimed(faulty, how):
    bench, injector = faulty
    await bench.add(1)
    task = await adopted(bench, await held(bench), "first")
    injector.arm("crash before")
    assert await bench.store.settle(task, advance(task, Resolved("absent", "ann"), NOW, POLICY)) == "done"
    assert await bench.store.claimed_ids("chanjing", ["first"]) == {"first"}
    if how == "rebuilt":
        rebuild(injector.copy, additions([1]), NOW)
    after = await Store.open(injector.copy)
    try:
        assert await after.claimed_ids("chanjing", ["first"]) == {"first"}
    finally:
        await after.aclose()


async def test_replacing_id_of_the_user_is_journaled(faulty):
    bench, injector = faulty
    await bench.add(1)
    task = await adopted(bench, await held(bench), "wrong")
    await adopted(bench, task, "right")
    assert [line["remote_id"] for line in read_lines(injector.directory) if line["t"] == "id"] == ["wrong", "right"]
    assert await bench.store.claimed_ids("chanjing", ["wrong", "right"]) == {"wrong", "right"}
