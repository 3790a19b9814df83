"""A row that bought the same goods takes the place of a new one, so that an edit nobody sees buys nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from runner.store.journal import read_lines
from runner.store.rebuild import rebuild
from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.models import Draft, Output, State

from .conftest import NOW, key_of

#: states of a task that was bought, or may have been
BOUGHT = [State.SUBMITTING, State.IN_DOUBT, State.HELD, State.RUNNING, State.READY, State.DONE, State.FAILED,
          State.STRANDED]  # fmt: skip


def wanted(key: int, goods: int, index: int = 1, **fields) -> Addition:
    """Return a draft with a key and with goods."""
    made = Draft(key_of(key), index, 1, {"n": key}, "chanjing", "image", "kling-v2-1", {"ref_prompt": f"boat {key}"},
                 f"name-{key}", goods=f"{goods:032x}" if goods else "")  # fmt: skip
    return Addition(replace(made, **fields), "")


async def plan(made, *drafts, digest="d2"):
    """Change the manifest, and return what was kept for its goods."""
    kept = []
    await made.store.add(drafts, digest, NOW, on_restated=kept.append)
    return kept


def rows(made):
    return made.sql("select key, state, due_at, position, name from task join draft on task_id = id order by id")


@pytest.mark.parametrize("state", BOUGHT)
async def test_row_of_the_same_goods_is_kept(bench, state):
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        before = await made.to(state)
        (kept,) = await plan(made, wanted(2, 7, index=4, vars={"n": "new"}))
        assert (kept.key, kept.state, kept.position) == (key_of(1), state, 4)
        assert (kept.bought, kept.asked) == ({"ref_prompt": "boat 1"}, {"ref_prompt": "boat 2"})
        (after,) = await made.store.find_by_key_prefix(key_of(1))
        assert after == replace(before, due_at=after.due_at, request=after.request), "what was bought stays as it is"
        assert made.sql("select position, vars, name, request from draft") == [
            (4, '{"n":"new"}', "name-1", '{"ref_prompt":"boat 1"}')
        ]
        assert await made.claim() is None
        assert await made.store.counts() == {state: 1}
        assert await made.store.removed_unsent_count() == 0


async def test_key_goes_before_goods_in_any_order(bench):
    """The first draft has the goods of the row, the second one its key: the row is the second one's."""
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        assert await plan(made, wanted(2, 7, index=1), wanted(1, 8, index=2)) == []
        assert [row[:2] for row in rows(made)] == [(key_of(1), "done"), (key_of(2), "queued")]
        assert (await made.claim()).key == key_of(2)


async def test_two_new_rows_share_no_purchase(bench):
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        assert len(await plan(made, wanted(2, 7, index=1), wanted(3, 7, index=2))) == 1
        assert await made.store.counts() == {"done": 1, "queued": 1}


async def test_row_that_has_come_furthest_is_taken(bench):
    async with bench() as made:
        await made.store.add([wanted(1, 7), wanted(2, 7), wanted(3, 7)], "d1", NOW)
        for state in (State.FAILED, State.DONE, State.RUNNING):
            await made.to(state)
        (kept,) = await plan(made, wanted(4, 7))
        assert kept.key == key_of(2)


async def test_row_never_sent_gives_way_to_what_is_asked_now(bench):
    """Nothing was bought, so what is sent is what the manifest says today."""
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        assert await plan(made, wanted(2, 7)) == []
        assert (await made.claim()).request == b'{"ref_prompt":"boat 2"}'
        assert await made.claim() is None


async def test_refused_row_gives_way_but_a_doubt_is_kept(bench):
    """A send that was throttled left nothing; one that was believed absent must go again under its own reference."""
    async with bench() as made:
        await made.store.add([wanted(1, 7), wanted(2, 8)], "d1", NOW)
        await made.to(State.QUEUED, throttles=1)
        await made.to(State.QUEUED, await made.claim(), doubts=1)
        (kept,) = await plan(made, wanted(3, 7), wanted(4, 8))
        assert kept.key == key_of(2)
        assert [(await made.claim()).key for _ in range(2)] == [key_of(2), key_of(3)]


async def test_goods_that_nobody_knows_match_nothing(bench):
    async with bench() as made:
        await made.store.add([wanted(1, 0)], "d1", NOW)
        await made.to(State.DONE)
        assert await plan(made, wanted(2, 0)) == []
        assert await made.store.counts() == {"done": 1, "queued": 1}


async def test_operation_is_called_as_the_spec_calls_it_now(bench):
    """A running task is polled by the name of its operation."""
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.RUNNING)
        await plan(made, wanted(2, 7, operation="picture"))
        (task,) = await made.store.in_state(State.RUNNING)
        assert (task.operation, task.ref) == ("picture", f"r{made.store.uuid[:10]}-{key_of(1)[:20]}-g1")


async def test_many_pages_are_placed(bench, monkeypatch):
    monkeypatch.setattr("runner.store.placement.PLACEMENT_PAGE", 3)
    async with bench() as made:
        await made.store.add([wanted(n, n, index=n) for n in range(1, 11)], "d1", NOW)
        for _ in range(10):
            await made.to(State.DONE)
        edited = [wanted(100 + n, n, index=n) for n in range(1, 11)]
        assert len(await plan(made, *edited, wanted(50, 50, index=11))) == 10
        assert await made.store.counts() == {"done": 10, "queued": 1}
        assert await plan(made, *edited, digest="d3") != []
        assert (await made.store.counts(), await made.store.removed_unsent_count()) == ({"done": 10, "queued": 1}, 1)


async def test_interrupted_change_of_the_manifest_is_taken_up(bench):
    def broken():
        yield wanted(2, 7)
        raise KeyboardInterrupt

    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        with pytest.raises(KeyboardInterrupt):
            await made.store.add(broken(), "d2", NOW)
        assert len(await plan(made, wanted(2, 7))) == 1
        assert await made.store.counts() == {"done": 1}


async def test_journal_and_a_rebuilt_database_know_the_goods(bench):
    """After `recover` with an edited manifest nothing is bought either."""
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.RUNNING)
        lines = [line for line, _ in read_lines(made.path.with_name("journal.jsonl"))]
        assert [line["goods"] for line in lines if line["t"] == "intent"] == [f"{7:032x}"]
        await made.store.aclose()
        edited = wanted(2, 7)
        rebuild(made.path.parent, [edited], NOW)
        made.store = await Store.open(made.path.parent)
        assert len(await plan(made, edited)) == 1
        assert await made.store.counts() == {"running": 1}


async def test_goods_of_older_rows_are_computed_once(bench):
    asked = []

    def goods_of(*content):
        asked.append(content)
        return f"{7:032x}"

    async with bench() as made:
        await made.store.add([wanted(1, 0), wanted(2, 0)], "d1", NOW)
        await made.to(State.DONE, outputs=(Output(1, "u"),))
        await made.store.fill_goods(goods_of)
        await made.store.fill_goods(goods_of)
        assert asked == [("chanjing", "image", "kling-v2-1", {"ref_prompt": "boat 1"}, 1)], "what was never sent waits"
        assert len(await plan(made, wanted(3, 7))) == 1


async def test_deleted_rows_are_not_counted(bench):
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        await plan(made, wanted(2, 7))
        with closing(sqlite3.connect(made.path)) as connection:
            tally = "select sum(count) from tally"
            assert connection.execute(tally).fetchone() == connection.execute("select count(*) from task").fetchone()
        assert made.sql("select count(*) from draft") == [(1,)]


async def test_purchase_of_an_earlier_writing_is_kept(bench):
    """An earlier version sent 1.1 for `1.10`: what it bought so is what the manifest asks for."""
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        (kept,) = await plan(made, wanted(2, 8, goods_before=f"{7:032x}"), wanted(3, 9, index=2))
        assert (kept.key, kept.state) == (key_of(1), "done")
        assert await made.store.counts() == {"done": 1, "queued": 1}
        assert made.sql("select key, goods from task order by id")[0] == (key_of(1), f"{8:032x}")
        # once more, as after a crash before the digest was written
        assert len(await plan(made, wanted(2, 8, goods_before=f"{7:032x}"), digest="d3")) == 1
        assert await made.claim() is None


@pytest.mark.parametrize("first", [1, 2])
async def test_purchase_that_the_manifest_still_names_is_not_taken(bench, first):
    """`1.1` was bought, and `1.10` is a row beside it: that is another task, in whatever order they stand."""
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        pair = [wanted(1, 7, index=first), wanted(2, 8, index=3 - first, goods_before=f"{7:032x}")]
        assert await plan(made, *pair) == []
        assert await made.store.counts() == {"done": 1, "queued": 1}
        assert made.sql("select key, goods from task order by id")[0] == (key_of(1), f"{7:032x}")


async def test_two_writings_share_no_earlier_purchase(bench):
    async with bench() as made:
        await made.store.add([wanted(1, 7)], "d1", NOW)
        await made.to(State.DONE)
        both = [wanted(key, key + 6, index=key - 1, goods_before=f"{7:032x}") for key in (2, 3)]
        (kept,) = await plan(made, *both)
        assert kept.position == 1
        assert await made.store.counts() == {"done": 1, "queued": 1}
