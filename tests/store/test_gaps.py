"""What the machine found and nobody has mended yet, each in its shortest form; whoever mends it takes the mark away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.lifecycle.events import Missing, Resolved
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import Output, State
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


async def adopted(bench, task, remote_id):
    after = advance(task, Resolved("adopt", "ann", remote_id), NOW, PATIENCE)
    assert await bench.store.settle(task, after) == "done"
    return after


async def held(bench):
    return await bench.to(State.HELD)


@pytest.mark.xfail(reason="recovery.apply makes what is queued again due, whether or not anyone wants it")
async def test_what_left_the_manifest_is_not_bought_after_a_crash(struck):
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
@pytest.mark.xfail(reason="recovery.replay keeps an id only where the generation changes")
async def test_an_id_that_was_let_go_stays_claimed(struck, how):
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


@pytest.mark.xfail(reason="journal.of_change and Store._settle look for the first id alone")
async def test_an_id_that_a_person_gives_in_the_place_of_another_is_journaled(struck):
    bench, hand = struck
    await bench.add(1)
    task = await adopted(bench, await held(bench), "wrong")
    await adopted(bench, task, "right")
    assert [line["remote_id"] for line in lines_of(hand.directory) if line["t"] == "id"] == ["wrong", "right"]
    assert await bench.store.claimed("chanjing", ["wrong", "right"]) == {"wrong", "right"}


@pytest.mark.parametrize("write", ["claim", "wake", "record", "add"])
@pytest.mark.xfail(reason="only `settle` asks for the epoch (reliability.md R3 asks every write)")
async def test_a_writer_of_an_older_epoch_changes_no_row_at_all(struck, write):
    bench, hand = struck
    await bench.add(1)
    task = await bench.to(State.RUNNING, due_at=NOW)
    links = (Output(1, "https://files.example/1.png"),)
    task = await bench.to(State.READY, task, outputs=links, due_at=NOW) if write == "record" else task
    newer = await Store.open(hand.directory)
    before = look(hand.directory)
    try:
        match write:
            case "claim":
                await bench.store.claim("chanjing", State.RUNNING, NOW, 9, (), lambda _: NOW + 99)
            case "wake":
                await bench.store.wake(NOW + 99)
            case "record":
                await bench.store.record(task, replace(links[0], file="1.png"))
            case "add":
                await bench.store.add(additions([1, 2]), "later", NOW)
        assert look(hand.directory) == before
    finally:
        await newer.aclose()
