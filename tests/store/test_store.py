from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import orjson
import pytest

from runner.errors import DiskError, JobLockedError, StateError
from runner.store import database
from runner.store.store import Store
from runner.tasks.events import Suspected
from runner.tasks.models import Moment, Output, State, TaskError, reference
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

from .machine import read_state

NOW = 1_790_000_000.0
LINKS = (Output(1, "https://files.example/1.png"), Output(2, "https://files.example/2.png"))


def next_due(task):
    return NOW + 60


# opening


async def test_new_job_is_private_and_durable(bench, home):
    async with bench() as made:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
        assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}

        def pragmas(connection):
            names = ("synchronous", "journal_mode", "foreign_keys", "trusted_schema", "application_id", "user_version")
            return [connection.execute(f"pragma {name}").fetchone()[0] for name in names]

        live = await made.store._writer.transact(pragmas)
        assert live == [2, "wal", 1, 0, database.APPLICATION_ID, len(database.migrations())]


async def test_open_raises_epoch_and_keeps_identity(bench):
    async with bench() as first:
        uuid, epoch = first.store.uuid, first.store.epoch
    async with bench() as second:
        assert (second.store.uuid, second.store.epoch) == (uuid, epoch + 1)
    assert len(uuid) == 32


async def test_newer_schema_is_left_alone(bench, home):
    async with bench():
        pass
    with closing(sqlite3.connect(home / "state.db")) as connection:
        connection.execute(f"pragma user_version = {len(database.migrations()) + 1}")
    before = (home / "state.db").read_bytes()
    with pytest.raises(StateError, match="newer version") as caught:
        await Store.open(home)
    assert caught.value.exit_code == 13
    assert (home / "state.db").read_bytes() == before


@pytest.mark.parametrize(
    "marks",
    [
        "pragma application_id = 7; pragma user_version = 1",
        "pragma application_id = 7",
        "pragma user_version = 1; create table task (x)",
        "create table task (x)",
    ],
)
async def test_database_of_another_program_is_left_alone(home, marks):
    home.mkdir(parents=True)
    with closing(sqlite3.connect(home / "state.db")) as connection:
        connection.executescript(marks)
    before = (home / "state.db").read_bytes()
    with pytest.raises(StateError, match="another program") as caught:
        await Store.open(home)
    assert caught.value.exit_code == 13
    assert (home / "state.db").read_bytes() == before


@pytest.mark.parametrize(
    "garbage", [b"not a database at all, but long enough to be looked at" * 99, b"SQLite format 3\x00" + b"\xff" * 9000]
)
async def test_garbage_is_a_state_error(home, garbage):
    home.mkdir(parents=True)
    (home / "state.db").write_bytes(garbage)
    with pytest.raises(StateError) as caught:
        await Store.open(home)
    assert str(home) in caught.value.message
    assert (home / "state.db").read_bytes() == garbage


async def test_directory_in_place_of_database_is_a_disk_error(home):
    (home / "state.db").mkdir(parents=True)
    with pytest.raises(DiskError) as caught:
        await Store.open(home)
    assert caught.value.exit_code == 14


async def test_file_in_place_of_directory_is_a_disk_error(home):
    home.parent.mkdir(parents=True)
    home.write_text("")
    with pytest.raises(DiskError):
        await Store.open(home)


async def test_failed_migration_leaves_nothing_behind(home, monkeypatch):
    broken = (database.migrations()[0], "create table extra (x); create table task (y);")
    monkeypatch.setattr(database, "migrations", lambda: broken)
    with pytest.raises(StateError):
        await Store.open(home)
    with closing(sqlite3.connect(home / "state.db")) as connection:
        assert connection.execute("pragma user_version").fetchone() == (1,)
        assert connection.execute("select count(*) from sqlite_schema where name = 'extra'").fetchone() == (0,)
    monkeypatch.undo()
    await (await Store.open(home)).aclose()


# where the tasks live


async def test_job_is_bound_to_the_host_of_its_tasks(bench):
    async with bench() as made:
        await made.store.bind("chanjing", "https://a.example")
        await made.store.bind("chanjing", "https://a.example")
        await made.store.bind("kling", "https://b.example")
        with pytest.raises(StateError, match="live at https://a"):
            await made.store.bind("chanjing", "https://b.example")


async def test_sandbox_may_change_its_port_but_not_its_host(bench):
    async with bench() as made:
        await made.store.bind("chanjing", "http://127.0.0.1:4000")
        await made.store.bind("chanjing", "http://127.0.0.1:5000")
        with pytest.raises(StateError):
            await made.store.bind("chanjing", "https://a.example")


# adding


async def test_drafts_are_queued_in_order(bench):
    async with bench() as made:
        await made.add(3, 1, 2, fingerprint="f")
        assert await made.store.counts() == {"queued": 3}
        task = await made.claim()
        assert (task.key, task.name, orjson.loads(task.request)) == (made.key(3), "boat-3", {"ref_prompt": "boat 3"})
        assert (task.generation, task.ref, task.fingerprint) == (1, reference(made.store.uuid, task.key, 1), "f")


async def test_adding_again_changes_no_bought_task(bench):
    async with bench() as made:
        await made.add(1, 2)
        running = await made.to(State.RUNNING)
        before = made.sql("select * from task where id = ?", running.id)
        await made.add(1, 2, digest="d2")
        assert made.sql("select * from task where id = ?", running.id) == before
        assert await made.store.counts() == {"queued": 1, "running": 1}


async def test_same_digest_reads_no_drafts(bench):
    async with bench() as made:
        await made.add(1)

        def drafts():
            raise AssertionError("the drafts must not be read")
            yield

        await made.store.add(drafts(), "d1", NOW)


async def test_interrupted_add_is_repeated(bench):
    async with bench() as made:

        def drafts():
            yield made.draft(1, "")
            raise OSError("the disk with the items went away")

        with pytest.raises(OSError, match="went away"):
            await made.store.add(drafts(), "d1", NOW)
        await made.add(1, 2)
        assert await made.store.counts() == {"queued": 2}


async def test_removed_tasks_are_not_due_until_added_again(bench):
    async with bench() as made:
        await made.add(1, 2, 3)
        await made.to(State.RUNNING)
        await made.add(3, digest="d2")
        assert await made.store.removed_unsent_count() == 1
        assert (await made.claim()).key == made.key(3)
        assert await made.claim() is None
        assert await made.store.counts() == {"queued": 1, "running": 1, "submitting": 1}
        await made.add(1, 2, 3, digest="d3")
        assert await made.store.removed_unsent_count() == 0
        assert (await made.claim()).key == made.key(2)


@pytest.mark.parametrize("way", ["absent", "retried"])
async def test_removed_task_is_not_bought_again(bench, way):
    """It was in doubt, or it failed. Its draft was removed, so it must not be paid for again."""
    async with bench() as made:
        await made.add(1, 2)
        task = await made.to(State.IN_DOUBT if way == "absent" else State.FAILED)
        await made.add(2, digest="d2")
        again = {} if way == "absent" else {"generation": 2, "ref": "r-g2"}
        await made.to(State.QUEUED, task, sent=None, **again)
        assert await made.store.removed_unsent_count() == 1
        assert (await made.claim()).key == made.key(2)
        assert await made.claim() is None
        assert await made.store.next_due("chanjing", State.QUEUED) is None
        await made.add(1, 2, digest="d3")
        assert (await made.claim()).key == task.key


async def test_name_changes_only_without_files(bench):
    async with bench() as made:
        await made.add(1, 2)
        ready = await made.to(State.READY)
        await made.add(1, 2, digest="d2", name="new")
        names = dict(made.sql("select task_id, name from draft"))
        assert names.pop(ready.id) == "boat-1"
        assert set(names.values()) == {"new"}


@pytest.mark.slow
async def test_many_drafts_are_added_in_pages(bench):
    async with bench() as made:
        await made.add(*range(1, 10_051))
        assert await made.store.counts() == {"queued": 10_050}
        assert made.sql("select count(*), min(position), max(position) from draft") == [(10_050, 1, 10_050)]


# claiming what is to be bought


async def test_claim_is_on_disk_before_it_returns(bench):
    async with bench() as made:
        await made.add(1)
        task = await made.claim()
        assert made.sql("select state, sent_boot, sent_seconds from task") == [("submitting", "boot-a", 10.0)]
        assert task.state is State.SUBMITTING
        assert await made.claim() is None


async def test_claim_takes_due_tasks_of_one_provider(bench):
    async with bench() as made:
        await made.add(1)
        assert await made.claim(provider="kling") is None
        task = await made.to(State.QUEUED, due_at=NOW + 5, sent=None)
        assert await made.claim() is None
        assert await made.store.next_due("chanjing", State.QUEUED) == NOW + 5
        assert (await made.claim(now=NOW + 5)).id == task.id


async def test_claim_takes_what_fits_into_the_window(bench):
    async with bench() as made:
        await made.store.add([made.draft(1, "", slots=4), made.draft(2, "")], "d", NOW)
        assert (await made.claim(free_slots=3)).key == made.key(2)
        assert await made.claim(free_slots=3) is None
        assert (await made.claim(free_slots=4)).slots == 4
        assert await made.store.slots_taken("chanjing") == 5
        assert await made.store.slots_taken("kling") == 0
        sent = await made.store.in_state(State.SUBMITTING)
        error = TaskError("throttled", "1302", "too fast")
        for task in sent:
            suspect = advance(task, Suspected(error), NOW, RetryPolicy())
            assert suspect.is_suspect
            assert await made.store.settle(task, suspect) == "done"
        assert await made.store.slots_taken("chanjing") == 0, "what was refused takes none"


async def test_duplicate_in_doubt_blocks_buying(bench):
    async with bench() as made:
        await made.add(1, 2, fingerprint="same")
        doubtful = await made.to(State.IN_DOUBT)
        assert await made.claim() is None
        await made.add(1, 2, 3, digest="d2", fingerprint="same")
        await made.store.add([made.draft(n, "same" if n < 3 else "other") for n in (1, 2, 3, 4)], "d3", NOW)
        assert (await made.claim()).fingerprint == "other"
        await made.to(State.HELD, doubtful)
        assert (await made.claim()).key == made.key(2), "a held duplicate blocks no other"


async def test_task_without_fingerprint_has_no_duplicates(bench):
    async with bench() as made:
        await made.add(1, 2)
        await made.to(State.IN_DOUBT)
        assert await made.claim() is not None


# claiming what is paid


async def test_claim_postpones_row_and_returned_task(bench):
    async with bench() as made:
        await made.add(1)
        running = await made.to(State.RUNNING)
        (task,) = await made.store.claim("chanjing", State.RUNNING, NOW, 9, [], next_due)
        assert task == replace(running, due_at=NOW + 60, outputs=())
        assert made.sql("select due_at from task") == [(NOW + 60,)]
        assert await made.store.claim("chanjing", State.RUNNING, NOW + 59, 9, [], next_due) == []


async def test_settling_a_claimed_task_keeps_its_postponement(bench):
    """A success without outputs is polled again after the interval, not at once."""
    async with bench() as made:
        await made.add(1)
        await made.to(State.RUNNING)
        (task,) = await made.store.claim_group("chanjing", State.RUNNING, NOW, 9, [], ["image"], next_due)
        await made.store.settle(task, replace(task, failures=task.failures + 1))
        assert await made.store.next_due("chanjing", State.RUNNING) == NOW + 60


async def test_claim_skips_excluded_tasks_and_keeps_its_limit(bench):
    async with bench() as made:
        await made.add(*range(1, 6))
        ids = [(await made.to(State.RUNNING, due_at=NOW - n)).id for n in range(5)]
        claimed = await made.store.claim("chanjing", State.RUNNING, NOW, 2, {ids[4], ids[2]}, next_due)
        assert [task.id for task in claimed] == [ids[3], ids[1]], "the longest due first"
        rest = await made.store.claim("chanjing", State.RUNNING, NOW, 9, set(), next_due)
        assert {task.id for task in rest} == {ids[0], ids[2], ids[4]}


async def test_group_takes_tasks_due_soon_of_its_operations(bench):
    async with bench() as made:
        await made.store.add(
            [made.draft(n, "", operation="video" if n == 3 else "image") for n in (1, 2, 3)],
            "d",
            NOW,
        )
        for n in range(3):
            await made.to(State.RUNNING, due_at=NOW + n)
        group = await made.store.claim_group("chanjing", State.RUNNING, NOW + 1, 50, [], ["image"], next_due)
        assert [task.key for task in group] == [made.key(1), made.key(2)]
        assert await made.store.claim_group("chanjing", State.RUNNING, NOW + 1, 50, [], [], next_due) == []


async def test_ready_task_has_its_outputs(bench):
    async with bench() as made:
        await made.add(1)
        await made.to(State.READY, outputs=LINKS)
        (task,) = await made.store.claim("chanjing", State.READY, NOW, 9, [], next_due)
        assert task.outputs == LINKS
        assert orjson.loads(task.request) == {"ref_prompt": "boat 1"}
        assert task.name == "boat-1"


async def test_wake_makes_paid_and_doubtful_tasks_due(bench):
    """Failures and absences are counted again from 0."""
    async with bench() as made:
        await made.add(1, 2, 3, 4)
        await made.to(State.RUNNING, due_at=None, failures=5)
        await made.to(State.IN_DOUBT, due_at=NOW + 500, absences=1)
        await made.to(State.HELD)
        await made.store.wake(NOW + 1)
        rows = made.sql("select state, due_at, failures, looks from task order by id")
        assert rows == [
            ("running", NOW + 1, 0, 0),
            ("in_doubt", NOW + 1, 0, 0),
            ("held", None, 0, 0),
            ("queued", 0.0, 0, 0),
        ]


async def test_oldest_result_is_fetched_first_after_a_restart(bench):
    """Whatever waits longest dies first, also where a later task was finished earlier, or its last fetch failed."""
    async with bench() as made:
        await made.add(1, 2, 3)
        for finished_at, due_at in ((NOW - 10, NOW - 10), (NOW - 30, NOW + 60), (NOW - 20, NOW - 20)):
            await made.to(State.READY, finished_at=finished_at, due_at=due_at, refreshes=int(due_at > NOW))
        assert await made.store.unfetched_counts("chanjing") == (0, 2, 1)
        assert await made.store.unfetched_counts("kling") == (0, 0, 0)
        await made.store.wake(NOW)
        tasks = await made.store.claim("chanjing", State.READY, NOW, 9, [], next_due)
        assert [task.finished_at for task in tasks] == [NOW - 30, NOW - 20, NOW - 10]


# settling


async def test_settled_task_is_read_back_unchanged(bench):
    async with bench() as made:
        await made.add(1)
        error = TaskError("in_doubt", "E\u00e9", "nicht \u9519\n")
        task = await made.to(State.IN_DOUBT, error=error, doubts=2, absences=1, reason="cut off")
        assert await made.store.in_state(State.IN_DOUBT) == [task]
        assert await made.store.find_by_key_prefix(task.key[:31]) == [task]


@pytest.mark.parametrize("stale", ["state", "generation"])
async def test_changed_row_is_not_overwritten(bench, stale):
    async with bench() as made:
        await made.add(1)
        old = await made.claim()
        if stale == "state":
            await made.to(State.IN_DOUBT, old)
        else:
            failed = await made.to(State.FAILED, old)
            again = await made.to(State.QUEUED, failed, generation=2, ref="r-g2", sent=None)
            assert (await made.claim()).generation == again.generation == 2
        before = made.sql("select * from task")
        assert await made.store.settle(old, replace(old, state=State.RUNNING, remote_id="u-9")) == "stale"
        assert made.sql("select * from task") == before


async def test_writer_of_older_epoch_changes_nothing(bench):
    """A zombie: two stores on one file, as after a lock that failed."""
    async with bench() as old:
        await old.add(1, 2)
        task = await old.claim()
        async with bench() as new:
            before = new.sql("select * from task")
            accepted = replace(task, state=State.RUNNING, remote_id="u-1")
            assert await old.store.settle(task, accepted) == "stale"
            assert await old.claim() is None
            assert new.sql("select * from task") == before
            assert await new.store.settle(task, accepted) == "done"


async def test_writer_of_older_epoch_gets_an_error(bench):
    """Its claims find nothing, its other writes raise, and its queries work."""
    async with bench() as old:
        await old.add(1)
        await old.to(State.READY, outputs=LINKS)
        async with bench() as new:
            before = read_state(old.path.parent)
            links = replace(LINKS[0], file="1.png")
            task = next(iter(before.tasks.values()))
            store = old.store
            assert await store.claim("chanjing", State.READY, NOW, 9, (), next_due) == []
            assert await store.claim_group("chanjing", State.READY, NOW, 9, (), ["image"], next_due) == []
            for call in (
                lambda: store.wake(NOW + 99),
                lambda: store.record_file(task, links),
                lambda: store.rename_output(task.id, 1, "new.png"),
                lambda: old.add(1, 2, digest="d2"),
                lambda: store.set_name("other"),
                lambda: store.bind("chanjing", "https://a.example"),
                lambda: store.put_echoed_fields("chanjing", "m", {"clarity": True}),
            ):
                with pytest.raises(JobLockedError, match="another run has taken this job over"):
                    await call()
            assert read_state(old.path.parent) == before
            assert new.sql("select count(*) from echo") + new.sql("select count(*) from provider") == [(0,), (0,)]
            assert await store.counts() == await new.store.counts() == {"ready": 1}


async def test_remote_task_belongs_to_one_task(bench):
    async with bench() as made:
        await made.add(1, 2)
        await made.to(State.RUNNING, remote_id="u-1")
        second = await made.claim()
        assert await made.store.settle(second, replace(second, state=State.RUNNING, remote_id="u-1")) == "clash"
        assert await made.store.in_state(State.SUBMITTING) == [second]


async def test_same_id_at_another_provider_is_no_clash(bench):
    async with bench() as made:
        await made.store.add([made.draft(1, ""), made.draft(2, "", provider="kling")], "d", NOW)
        await made.to(State.RUNNING, remote_id="u-1")
        other = await made.claim(provider="kling")
        assert await made.store.settle(other, replace(other, state=State.RUNNING, remote_id="u-1")) == "done"


async def test_id_of_earlier_purchase_stays_claimed(bench):
    """Otherwise reconciliation matches the failed purchase to the lost send, and the new purchase is lost."""
    async with bench() as made:
        await made.add(1)
        running = await made.to(State.RUNNING, remote_id="u-1")
        failed = await made.to(State.FAILED, running)
        assert await made.store.claimed_ids("chanjing", ["u-1", "u-2"]) == {"u-1"}
        await made.to(State.QUEUED, failed, generation=2, ref="r-g2", remote_id=None, sent=None)
        assert await made.store.claimed_ids("chanjing", ["u-1", "u-2"]) == {"u-1"}
        assert await made.store.claimed_ids("kling", ["u-1"]) == set()


async def test_fresh_link_keeps_saved_file(bench):
    async with bench() as made:
        await made.add(1)
        ready = await made.to(State.READY, outputs=LINKS)
        saved = Output(1, LINKS[0].url, "boat-1.png", 10, "ab" * 32, "image/png")
        await made.store.record_file(ready, saved)
        running = await made.to(State.RUNNING, ready)
        fresh = tuple(Output(number, f"https://files.example/fresh-{number}.png") for number in (1, 2, 3))
        await made.to(State.READY, running, outputs=fresh)
        (task,) = await made.store.claim("chanjing", State.READY, NOW, 9, [], next_due)
        assert task.outputs == (replace(saved, url=fresh[0].url), *fresh[1:])


async def test_new_purchase_has_no_outputs(bench):
    async with bench() as made:
        await made.add(1)
        ready = await made.to(State.READY, outputs=LINKS)
        failed = await made.to(State.FAILED, ready)
        await made.to(State.QUEUED, failed, generation=2, ref="r-g2", remote_id=None, sent=None)
        assert made.sql("select count(*) from output") == [(0,)]


@pytest.mark.parametrize(
    "change",
    [
        "state = 'lost'",
        "state = 'running', remote_id = null",
        "state = 'done', remote_id = null",
        "state = 'stranded', remote_id = null",
        "state = 'queued', remote_id = 'u-1'",
        "state = 'in_doubt', remote_id = 'u-1'",
        "state = 'submitting', sent_boot = null",
        "generation = 0",
        "slots = 0",
        "adopted = 2",
        "attempts = 'many'",
        "key = null",
    ],
)
async def test_schema_refuses_impossible_rows(bench, change):
    async with bench() as made:
        await made.add(1)
        await made.claim()
        with pytest.raises(sqlite3.IntegrityError):
            await made.store._writer.transact(lambda connection: connection.execute(f"update task set {change}"))


# queries


async def test_duplicate_sends_exclude_ids_from_own_answers(bench):
    async with bench() as made:
        await made.add(1, 2, 3, 4, fingerprint="same")
        waiting = await made.claim()
        assert await made.store.is_duplicate_submitting("same")
        assert not await made.store.is_duplicate_submitting("")
        made.sent = Moment("boot-a", 20.0)
        await made.to(State.RUNNING, adopted=True)
        made.sent = Moment("boot-a", 30.0)
        await made.to(State.RUNNING)
        assert sorted(await made.store.duplicate_sends("same")) == [("boot-a", 10.0), ("boot-a", 20.0)]
        await made.to(State.IN_DOUBT, waiting)
        assert not await made.store.is_duplicate_submitting("same")
        assert await made.store.duplicate_sends("") == []


async def test_ids_of_duplicates_sent_since_a_time(bench):
    async with bench() as made:
        await made.add(1, 2, fingerprint="same")
        await made.add(1, 2, 3, digest="d2", fingerprint="same")
        task = await made.to(State.RUNNING)
        assert await made.store.ids_of_duplicates("same", task.submitted_at) == {task.remote_id}
        assert await made.store.ids_of_duplicates("same", task.submitted_at + 1) == set()
        assert await made.store.ids_of_duplicates("", 0.0) == set()


@pytest.mark.parametrize("state", [State.READY, State.DONE, State.FAILED, State.STRANDED])
async def test_finished_duplicate_with_adopted_id_counts(bench, state):
    """B adopts A's task and is done in seconds. B's own may still be on its way, so A's absence waits for it (M11)."""
    async with bench() as made:
        await made.add(1, fingerprint="same")
        adopted = await made.to(State.RUNNING, adopted=True)
        await made.to(state, adopted)
        assert await made.store.duplicate_sends("same") == [("boot-a", 10.0)]


async def test_providers_and_states_with_work(bench):
    async with bench() as made:
        await made.add(1, 2, 3)
        assert await made.store.providers_with_work() == {"chanjing"}
        submitting = await made.claim()
        assert await made.store.has_work("chanjing", ()), "a task that is being submitted always counts"
        running = await made.to(State.RUNNING, submitting, due_at=None)
        assert not await made.store.has_work("chanjing", {State.RUNNING})
        ready = await made.to(State.READY, running)
        await made.to(State.DONE, ready, error=TaskError("partial", None, "1 of 2"))
        assert await made.store.partial_count() == 1
        await made.to(State.FAILED)
        await made.to(State.FAILED)
        assert await made.store.providers_with_work() == set()
        assert await made.store.providers_with_work(include_finished=True) == {"chanjing"}


async def test_key_prefix_is_no_pattern(bench):
    async with bench() as made:
        await made.add(1, 2, 17)
        assert [task.key for task in await made.store.find_by_key_prefix("000000")] == [made.key(n) for n in (1, 2, 17)]
        assert [task.key for task in await made.store.find_by_key_prefix(made.key(17))] == [made.key(17)]
        for strange in ("%", "_", "0%", "f", "g", "'", "\x00"):
            assert await made.store.find_by_key_prefix(strange) == []


async def test_field_once_changed_is_never_trusted_again(bench):
    async with bench() as made:
        await made.store.put_echoed_fields("chanjing", "m", {"ref_prompt": True, "clarity": True})
        await made.store.put_echoed_fields("chanjing", "m", {"ref_prompt": False})
        await made.store.put_echoed_fields("chanjing", "m", {"ref_prompt": True})
        assert await made.store.echoed_fields("chanjing", "m") == {"ref_prompt": False, "clarity": True}
        assert await made.store.echoed_fields("chanjing", "other") == {}


# no query of a run reads the whole table

PARAMETERS = {
    "provider": "chanjing", "state": "running", "now": NOW, "soon": NOW, "free_slots": 9, "limit": 50,
    "exclude": "[1, 2]", "operations": '["image"]', "fingerprint": "f1", "remote_ids": '["u-1"]', "id": 1, "task_id": 1,
    "due_at": NOW, "key": "00", "remote_id": "u-1", "since": NOW,
}  # fmt: skip
#: queries of all tasks, used when the manifest has changed, when a run ends, for the user, or by `recover`
WHOLE = {
    *("has_ever_sent", "has_begun", "unschedule_queued", "clear_positions", "states_by_key", "bought_after_refusal"),
    *("saved_files", "tasks_ever_sent", "result_ids", "equal_files", "unsent_rows", "purchases"),
    *("manifest_values", "removed_values"),
}
#: answered from indexes and counters, since a run begins with them and `status` needs them
AT_ONCE = {
    *(
        "wake",
        "in_state",
        "slots_taken",
        "unfetched_counts",
        "has_unfinished",
        "providers_with_work",
        "counts",
        "counts_by_provider",
    ),
    *("removed_unsent", "error_groups", "example_names", "removed_failed", "count_partial", "oldest_submitted"),
    *("oldest_ready", "has_work", "poll_outlook", "next_due", "latest_files", "newest_results"),
    *("results_state", "taken_changes", "results_page", "removed_page"),
}


@pytest.mark.slow
async def test_no_query_of_a_run_scans_the_task_table(bench):
    async with bench() as made:
        await made.add(*range(1, 10_001))

        def spread(connection):
            connection.execute("""update task set fingerprint = 'f' || (id % 50), sent_boot = 'b', sent_seconds = 1,
                state = case id % 10 when 0 then 'queued' when 1 then 'running' when 2 then 'ready' when 3 then 'failed'
                  when 4 then 'submitting' else 'done' end,
                remote_id = case when id % 10 in (0, 4) then null else 'u-' || id end""")

        await made.store._writer.transact(spread)
        made.sql("analyze")
        with closing(sqlite3.connect(made.path)) as connection:
            seen = {}
            for name, text in database.statements().items():
                if name in WHOLE or not re.search("task|tally|draft", text):
                    continue
                values = {name: PARAMETERS.get(name) for name in set(parameter_names(text))}
                rows = connection.execute(f"explain query plan {text}", values).fetchall()
                seen[name] = [row[3] for row in rows]
        hot = {"claim_queued", "claim", "claim_group", "postpone", "settle", "duplicate_sends", "claimed_ids", "by_key"}
        assert hot | AT_ONCE <= set(seen)
        scans = {
            name: plan
            for name, plan in seen.items()
            if any(line.startswith(("SCAN task", "SCAN duplicate", "SCAN draft")) for line in plan)
        }
        assert not scans, list(scans)
        duplicates = [line for line in seen["claim_queued"] if "duplicate" in line]
        assert duplicates == ["SEARCH duplicate USING COVERING INDEX task_twins (fingerprint=? AND state=?)"]


def parameter_names(text):
    return re.findall(r"(?<!:):(\w+)", "\n".join(line for line in text.splitlines() if not line.startswith("--")))


def test_every_query_is_one_statement():
    assert all(text.startswith(("select", "update", "insert", "delete")) for text in database.statements().values())


# the disk

FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from runner.errors import DiskError
from runner.store.task_rows import Addition
from runner.store.store import Store
from runner.tasks.models import Draft

def drafts(count):
    for n in range(count):
        yield Addition(Draft(f"{n:08x}".ljust(32, "0"), n + 1, 1, {}, "p", "image", "m", {"p": "x" * 500}, "n"), "")

async def main(home):
    store = await Store.open(home)
    await store.add(drafts(10), "d1", 1.0)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    try:
        await store.add(drafts(20_000), "d2", 1.0)
    except DiskError as error:
        print("disk", error.exit_code, sum((await store.counts()).values()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.add(drafts(20_000), "d2", 1.0)
    print("again", sum((await store.counts()).values()))
    await store.aclose()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_full_disk_is_a_disk_error_and_can_recover(home):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(home)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "disk 14 10\nagain 20000\n", done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it may not; a file in the way stands in for it above")
async def test_unwritable_directory_is_a_disk_error(home):
    home.mkdir(parents=True)
    home.chmod(0o500)
    with pytest.raises(DiskError):
        await Store.open(home)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("database or disk is full", DiskError),
        ("disk I/O error", DiskError),
        ("attempt to write a readonly database", DiskError),
        ("unable to open database file", DiskError),
        ("database disk image is malformed", StateError),
        ("file is not a database", StateError),
        ("no such table: task", StateError),
    ],
)
def test_sqlite_errors_become_runner_errors(text, kind):
    error = database.to_runner_error(sqlite3.OperationalError(text), "/x/state.db")
    assert type(error) is kind
    assert error.message == f"/x/state.db: {text}"
    assert error.hint
