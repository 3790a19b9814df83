"""What the machine found and nobody has mended yet, each in its shortest form; whoever mends it takes the mark away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.lifecycle.events import Resolved
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import Output, State
from runner.lifecycle.transitions import advance
from runner.store.store import Store

from .conftest import NOW, Bench, additions
from .machine import Hand, look

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
