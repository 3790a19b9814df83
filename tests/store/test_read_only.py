from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from runner.errors import JobNotFoundError, StateError
from runner.store.read_only import open_read_only
from runner.tasks.models import Output, State, TaskError


async def test_reader_sees_commits_and_cannot_write(bench, home):
    async with bench() as made:
        await made.add(1, 2)
        with open_read_only(home) as seen:
            assert seen.counts() == {"queued": 2}
            held = await made.to(State.HELD, reason="cut off", error=TaskError("in_doubt", None, "x"))
            assert seen.counts() == {"queued": 1, "held": 1}
            assert [task["key"] for task in seen.in_state("held")] == [held.key]
            assert set(seen.states_by_key()) == {made.key(1), made.key(2)}
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                seen._connection.execute("delete from task")


async def test_snapshot_ignores_later_commits(bench, home):
    async with bench() as made:
        await made.add(1)
        with open_read_only(home) as seen:
            with seen.snapshot():
                assert len(list(seen.results())) == 1
                await made.add(1, 2, digest="d2")
                assert len(list(seen.results())) == 1
            assert len(list(seen.results())) == 2


async def test_reader_needs_no_writer(bench, home):
    async with bench() as made:
        await made.add(1)
    with open_read_only(home) as seen:
        assert seen.counts() == {"queued": 1}


async def test_removed_tasks_are_counted_apart(bench, home):
    async with bench() as made:
        await made.add(1, 2)
        await made.add(2, digest="d2")
        with open_read_only(home) as seen:
            assert (seen.counts(), seen.removed_unsent_count()) == ({"queued": 1}, 1)


async def test_results_are_in_manifest_order_with_outputs(bench, home):
    async with bench() as made:
        await made.add(1, 2)
        ready = await made.to(State.READY, outputs=(Output(1, "https://files.example/1.png"),))
        await made.store.record_file(ready, Output(1, "", "boat-1.png", 9, "ab" * 32, "image/png"))
        await made.add(2, digest="d2")
        with open_read_only(home) as seen:
            first, second = seen.results()
        assert (first["key"], first["position"], first["outputs"]) == (made.key(2), 2, [])
        assert (second["key"], second["position"], second["vars"]) == (made.key(1), None, {"n": 1})
        assert [output["file"] for output in second["outputs"]] == ["boat-1.png"]


async def test_errors_are_grouped(bench, home):
    async with bench() as made:
        await made.add(1, 2, 3)
        for message in ("a", "b"):
            await made.to(State.FAILED, error=TaskError("moderation", "1301", message))
        with open_read_only(home) as seen:
            (found,) = seen.error_groups()
        grouped = {"state": "failed", "reason": "moderation", "message": "a", "count": 2}
        assert found == grouped | {"paid": 0, "cost": 0, "unpriced": 0, "tasks": ["boat-1", "boat-2"]}


async def test_error_group_names_a_few_tasks(bench, home):
    async with bench() as made:
        await made.add(*range(1, 7))
        for error in (
            TaskError("moderation"),
            TaskError(),
            TaskError("moderation"),
            TaskError("moderation"),
            TaskError("moderation"),
        ):
            await made.to(State.FAILED, error=error)
        with open_read_only(home) as seen:
            named = {group["reason"]: group["tasks"] for group in seen.error_groups()}
        assert named == {"moderation": ["boat-1", "boat-3", "boat-4"], "": ["boat-2"]}


async def test_failed_and_removed_task_is_in_no_error_group(bench, home):
    async with bench() as made:
        await made.add(1, 2, 3)
        await made.to(State.FAILED, error=TaskError("moderation"))
        await made.to(State.FAILED, error=TaskError("moderation"))
        await made.to(State.STRANDED, error=TaskError("stuck"))
        await made.add(2, digest="d2")
        with open_read_only(home) as seen:
            groups = {(group["state"], group["count"], *group["tasks"]) for group in seen.error_groups()}
            assert (seen.removed_failed_count(), seen.removed_sent_count()) == (1, 2)
        assert groups == {("failed", 1, "boat-2"), ("stranded", 1, "boat-3")}
        assert await made.store.removed_failed_count() == 1


def test_reading_a_missing_job_makes_nothing(home):
    with pytest.raises(JobNotFoundError), open_read_only(home):
        pass
    assert not home.exists()


@pytest.mark.parametrize("content", [b"", b"garbage " * 600])
def test_reading_garbage_is_a_state_error(home, content):
    home.mkdir(parents=True)
    (home / "state.db").write_bytes(content)
    with pytest.raises(StateError), open_read_only(home) as seen:
        seen.counts()


async def test_reading_a_newer_schema_is_refused(bench, home):
    async with bench():
        pass
    with closing(sqlite3.connect(home / "state.db")) as connection:
        connection.execute("pragma user_version = 999")
    with pytest.raises(StateError, match="newer version"), open_read_only(home):
        pass


async def test_directory_name_is_quoted_in_the_uri(bench, tmp_path):
    strange = tmp_path / "a?b#c%20d 纸" / ".runner"
    async with bench(strange) as made:
        await made.add(1)
        with open_read_only(strange) as seen:
            assert seen.counts() == {"queued": 1}
