"""What a store knows again after it was struck between its journal and its database."""

from __future__ import annotations

import asyncio

import pytest

from runner.errors import DiskError, StateError
from runner.lifecycle.events import Accepted, Found, Missing, Resolved
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import State
from runner.lifecycle.transitions import advance
from runner.store.rebuild import rebuild
from runner.store.store import Store

from .conftest import NOW, Bench, additions
from .machine import Hand, lines_of, look

PATIENCE = Patience(looks=1)


@pytest.fixture
async def struck(home):
    """A bench whose store has a hand on it."""
    hand = Hand(home)
    home.parent.mkdir()
    bench = Bench(await Store.open(home, connect=hand.connect), home / "state.db")
    yield bench, hand
    await bench.store.aclose()


async def opened_again(bench, hand):
    await bench.store.aclose()
    bench.store = await Store.open(hand.directory)
    return look(hand.directory)


async def adopted(bench, task, remote_id):
    after = advance(task, Resolved("adopt", "ann", remote_id), NOW, PATIENCE)
    assert await bench.store.settle(task, after) == "done"
    return after


async def held(bench):
    return await bench.to(State.HELD)


def kinds(hand):
    return [line["t"] for line in lines_of(hand.directory)][1:]


async def test_database_without_bought_rows_is_refused(struck):
    """Copied without its write-ahead log, it is older than the manifest: the next run would buy the same once more."""
    bench, hand = struck
    await bench.store._writer.set_up(lambda connection: connection.execute("pragma wal_checkpoint").fetchall() and None)
    await bench.add(1)
    await bench.to(State.RUNNING, remote_id="paid")
    copy = hand.left("state.db-wal")
    with pytest.raises(StateError, match="recover"):
        await (await Store.open(copy)).aclose()


# a disk that is full between the two


async def test_journaled_id_survives_a_full_disk(struck):
    bench, hand = struck
    await bench.add(1, 2)
    first, second = await bench.to(State.IN_DOUBT), await bench.to(State.IN_DOUBT)
    hand.arm("full ever more")
    with pytest.raises(DiskError):
        await bench.store.settle(first, advance(first, Found("paid"), NOW, PATIENCE))
    hand.arm("")
    assert "paid" in {line.get("remote_id") for line in lines_of(hand.directory)}
    await bench.store.settle(second, advance(second, Found("other"), NOW, PATIENCE))
    seen = await opened_again(bench, hand)
    assert {task.remote_id for task in seen.tasks.values()} == {"paid", "other"}


async def test_repeated_settle_is_journaled_once(struck):
    """The hand that has the answer tries again, whoever has been at the store meanwhile."""
    bench, hand = struck
    await bench.add(1)
    task = await bench.claim()
    after = advance(task, Accepted("paid", "trace 1"), NOW, PATIENCE)
    hand.arm("full ever more")
    with pytest.raises(DiskError):
        await bench.store.settle(task, after)
    hand.arm("")
    assert await bench.store.counts() == {"running": 1}
    assert await bench.store.settle(task, after) == "done"
    assert kinds(hand) == ["intent", "id"]
    (seen,) = look(hand.directory).tasks.values()
    assert (seen.evidence, seen.due_at) == (after.evidence, after.due_at)
    assert await bench.store.settle(task, advance(task, Accepted("another"), NOW, PATIENCE)) == "stale"


@pytest.mark.parametrize("kind", ["full commit", "full mark"])
async def test_full_disk_keeps_ids_and_withdraws_intents(struck, kind):
    """The reserve is for what is paid: the claim among them is told of an error, so nothing of it is sent."""
    bench, hand = struck
    await bench.add(1, 2, 3)
    tasks = [await bench.claim(), await bench.claim()]
    known = kinds(hand)
    hand.arm(kind, nth=2)
    settled = [bench.store.settle(task, advance(task, Accepted(f"id-{task.id}"), NOW, PATIENCE)) for task in tasks]
    done = await asyncio.gather(settled[0], bench.claim(), settled[1], return_exceptions=True)
    assert (done[0], type(done[1]), done[2]) == ("done", DiskError, "done")
    hand.arm("")
    assert kinds(hand) == [*known, "id", "intent", "id", "settle"]
    assert await bench.store.counts() == {"running": 2, "queued": 1}
    seen = await opened_again(bench, hand)
    assert seen.counts == {"running": 2, "queued": 1}
    assert seen.spent == 0.0
    assert (await bench.claim()).key == bench.key(3)


async def test_intent_only_in_journal_is_doubtful_for_others(struck):
    """Only the process that was told of the error knows that nothing was sent."""
    bench, hand = struck
    await bench.add(1)
    hand.arm("full commit", nth=2)
    with pytest.raises(DiskError):
        await bench.claim()
    copy = hand.left()
    assert (await opened_again(bench, hand)).counts == {"queued": 1}, "it was said before the end"
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


async def test_removed_task_is_not_bought_after_a_crash(struck):
    bench, hand = struck
    await bench.add(1)
    doubtful = await bench.to(State.IN_DOUBT)
    await bench.store.add([], "without it", NOW)
    hand.arm("crash before")
    await bench.store.settle(doubtful, advance(doubtful, Missing(quiet=True), NOW, PATIENCE))
    after = await Store.open(hand.copy)
    try:
        await after.add([], "without it", NOW)
        assert (await after.counts(), await after.gone()) == ({"queued": 1}, 1)
        assert await after.claim_queued("chanjing", NOW, 9, bench.begun) is None
    finally:
        await after.aclose()


@pytest.mark.parametrize("how", ["merged", "rebuilt"])
async def test_replaced_id_stays_claimed(struck, how):
    bench, hand = struck
    await bench.add(1)
    task = await adopted(bench, await held(bench), "first")
    hand.arm("crash before")
    assert await bench.store.settle(task, advance(task, Resolved("absent", "ann"), NOW, PATIENCE)) == "done"
    assert await bench.store.claimed("chanjing", ["first"]) == {"first"}
    if how == "rebuilt":
        rebuild(hand.copy, additions([1]), NOW)
    after = await Store.open(hand.copy)
    try:
        assert await after.claimed("chanjing", ["first"]) == {"first"}
    finally:
        await after.aclose()


async def test_replacing_id_of_the_user_is_journaled(struck):
    bench, hand = struck
    await bench.add(1)
    task = await adopted(bench, await held(bench), "wrong")
    await adopted(bench, task, "right")
    assert [line["remote_id"] for line in lines_of(hand.directory) if line["t"] == "id"] == ["wrong", "right"]
    assert await bench.store.claimed("chanjing", ["wrong", "right"]) == {"wrong", "right"}
