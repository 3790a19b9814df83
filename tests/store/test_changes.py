"""Which tasks have changed since the results were written: every one whose line would differ, and few others."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

from runner.report.results import result_dict
from runner.store.read_only import open_read_only
from runner.tasks.models import Output, State, TaskError

FILE = Output(1, "https://files.example/1.png", "boat-1.png", 9, "ab" * 32, "image/png")


def changed(made):
    return [each for (each,) in made.sql("select task_id from changed order by task_id")]


async def begin(made):
    """Write nothing, and count from here on."""
    await made.store.set_results((await made.store.take_changes()).next_mark)
    await made.store.take_changes()
    await made.store.set_results("m")
    assert changed(made) == []


async def test_every_step_of_a_life_counts(bench, home):
    """A line that differs is of a task that counts, at every step, in whatever column the difference is."""
    async with bench() as made:
        await made.add(1, 2, 3)
        lines = {}

        async def check():
            with open_read_only(home) as seen:
                now = {each["id"]: result_dict(each) for each in seen.results()}
            different = {each for each in now if now[each] != lines.get(each)}
            if lines:
                assert different <= set(changed(made)), {each: now[each] for each in different}
            lines.update(now)
            await begin(made)
            return different

        await check()
        task = await made.claim()
        assert await check() == {task.id}
        task = await made.to(State.IN_DOUBT, task, doubts=1, reason="cut off")
        assert await check() == {task.id}
        task = await made.to(State.RUNNING, task, remote_id="u-1", spent=4.0)
        assert await check() == {task.id}
        task = await made.to(State.READY, task, outputs=(Output(1, "https://files.example/1.png"),))
        assert await check() == {task.id}
        await made.store.record_file(task, FILE)
        assert await check() == {task.id}
        task = await made.to(State.DONE, task, finished_at=1.0, outputs=(FILE,))
        assert await check() == {task.id}
        await made.store.rename_output(task.id, 1, "other.png")
        assert await check() == {task.id}
        other = await made.to(State.FAILED, error=TaskError("moderation", "1301", "no"), attempts=2)
        assert await check() == {other.id}
        again = replace(other, state=State.QUEUED, generation=2, ref="r2", due_at=0.0, error=TaskError("", None, None))
        assert await made.store.settle(other, again) == "done"
        assert await check() == {other.id}


async def test_what_no_line_shows_does_not_count(bench):
    async with bench() as made:
        await made.add(*range(1, 6))
        await made.to(State.RUNNING)
        await begin(made)
        await made.store.wake(1.0)
        await made.store.rest([4, 5])
        await made.store.end_rest()
        assert changed(made) == []


async def test_change_during_the_writing_counts_once_more(bench):
    async with bench() as made:
        await made.add(1, 2)
        task, other = await made.to(State.RUNNING), await made.to(State.RUNNING)
        state = await made.store.take_changes()
        assert (state.changes, state.tasks) == (2, 2)
        await made.to(State.READY, task)
        await made.store.set_results(state.next_mark)
        assert changed(made) == [task.id]
        after = await made.store.take_changes()
        assert (after.mark, after.changes) == (state.next_mark, 1)
        assert after.next_mark != after.mark
        assert other.id not in changed(made)


async def test_writing_that_was_given_up_forgets_nothing(bench):
    async with bench() as made:
        await made.add(1, 2)
        await made.to(State.RUNNING)
        await made.store.take_changes()
        await made.to(State.RUNNING)
        assert (await made.store.take_changes()).changes == 2


async def test_added_drafts_make_another_arrangement(bench):
    async with bench() as made:
        await made.add(1, 2)
        first = (await made.store.take_changes()).arrangement
        await made.add(1, 2)
        assert (await made.store.take_changes()).arrangement == first
        await made.add(2, 1, digest="d2")
        assert (await made.store.take_changes()).arrangement > first


async def test_each_page_of_drafts_makes_another_arrangement(bench):
    """Rows that are known already take other places, so that their number alone would not show it."""
    async with bench() as made:
        await made.add(1, 2)
        seen = [(await made.store.take_changes()).arrangement]
        assert await made.store.begin_pages("d2", "", 2, "") == 0
        seen.append((await made.store.take_changes()).arrangement)
        for page in (made.draft(1, index=2), made.draft(2, index=1)):
            await made.store.add_page([page], 0.0)
            seen.append((await made.store.take_changes()).arrangement)
        assert seen == sorted(set(seen))


async def test_operations_are_known_without_reading_the_tasks(bench, home):
    async with bench() as made:
        await made.add(1, 2)
        await made.add(3, digest="d2", model="other")
        await made.add(4, digest="d3", provider="kling")
    with open_read_only(home) as seen:
        names = [("chanjing", "image", "kling-v2-1"), ("chanjing", "image", "other"), ("kling", "image", "kling-v2-1")]
        assert seen.operations() == names
        assert seen.counts() == {"queued": 1}


async def test_newest_results_ended_last_or_are_at_work(bench, home):
    async with bench() as made:
        await made.add(*range(1, 9))
        done = [await made.to(State.DONE, finished_at=100.0 + number) for number in range(3)]
        failed = await made.to(State.FAILED, finished_at=200.0, error=TaskError("moderation", None, None))
        at_work = await made.to(State.RUNNING)
    with open_read_only(home) as seen:
        newest = [at_work.id, failed.id, done[2].id, done[1].id, done[0].id, 6, 7, 8]
        for limit in range(1, 9):
            assert {each["id"] for each in seen.newest_results(limit)} == set(newest[:limit])


async def test_latest_files_come_first(bench, home):
    async with bench() as made:
        await made.add(*range(1, 6))
        for number in (3, 1, 2):
            output = replace(FILE, url=f"https://files.example/{number}.png", file=f"{number}.png")
            task = await made.to(State.READY, outputs=(output,))
            await made.store.record_file(task, output)
            await made.to(State.DONE, task, finished_at=100.0 + number, outputs=(output,))
    with open_read_only(home) as seen:
        assert [each["file"] for each in seen.latest_files(2)] == ["3.png", "2.png"]
        assert [each["file"] for each in seen.latest_files(9)] == ["3.png", "2.png", "1.png"]
    with closing(sqlite3.connect(home / "state.db")) as connection, connection:
        # as in a state that was rebuilt from its journal
        connection.execute("update task set finished_at = null where finished_at = 103")
    with open_read_only(home) as seen:
        assert [each["file"] for each in seen.latest_files(9)] == ["2.png", "1.png", "3.png"]
        assert len(list(seen.newest_results(9))) == 5


async def test_pages_are_in_manifest_order(bench, home, monkeypatch):
    monkeypatch.setattr("runner.store.read_only._RESULTS_PAGE", 2)
    async with bench() as made:
        await made.add(5, 1, 4, 2, 3)
        await made.add(4, 5, 3, digest="d2")
    with open_read_only(home) as seen:
        order = [(each["position"], each["key"]) for each in seen.results()]
        pages = [len(page) for page in seen.result_pages()]
    assert order == [*((each, made.key(each)) for each in (3, 4, 5)), (None, made.key(1)), (None, made.key(2))]
    assert pages == [2, 1, 2]
