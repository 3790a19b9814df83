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

from runner.errors import DiskError, Locked, StateError
from runner.lifecycle.task import Fault, Moment, Output, State, reference
from runner.store import sql
from runner.store.store import Store

from .machine import look

NOW = 1_790_000_000.0
LINKS = (Output(1, "https://files.example/1.png"), Output(2, "https://files.example/2.png"))


def later(task):
    return NOW + 60


# opening


async def test_a_job_is_made_private_and_durable(bench, home):
    async with bench() as made:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
        assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}

        def pragmas(connection):
            names = ("synchronous", "journal_mode", "foreign_keys", "trusted_schema", "application_id", "user_version")
            return [connection.execute(f"pragma {name}").fetchone()[0] for name in names]

        live = await made.store._writer.transact(pragmas)
        assert live == [2, "wal", 1, 0, sql.APPLICATION_ID, len(sql.migrations())]


async def test_every_opening_raises_the_epoch_and_keeps_the_identity(bench):
    async with bench() as first:
        uuid, epoch = first.store.uuid, first.store.epoch
    async with bench() as second:
        assert (second.store.uuid, second.store.epoch) == (uuid, epoch + 1)
    assert len(uuid) == 32


async def test_a_newer_schema_is_left_alone(bench, home):
    async with bench():
        pass
    with closing(sqlite3.connect(home / "state.db")) as connection:
        connection.execute(f"pragma user_version = {len(sql.migrations()) + 1}")
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
async def test_another_programs_database_is_left_alone(home, marks):
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
async def test_garbage_is_no_state(home, garbage):
    home.mkdir(parents=True)
    (home / "state.db").write_bytes(garbage)
    with pytest.raises(StateError) as caught:
        await Store.open(home)
    assert str(home) in caught.value.message
    assert (home / "state.db").read_bytes() == garbage


async def test_a_directory_in_the_place_of_the_database_is_the_disks_fault(home):
    (home / "state.db").mkdir(parents=True)
    with pytest.raises(DiskError) as caught:
        await Store.open(home)
    assert caught.value.exit_code == 14


async def test_a_file_in_the_place_of_the_directory_is_the_disks_fault(home):
    home.parent.mkdir(parents=True)
    home.write_text("")
    with pytest.raises(DiskError):
        await Store.open(home)


async def test_a_failed_migration_leaves_nothing_behind(home, monkeypatch):
    broken = (sql.migrations()[0], "create table extra (x); create table task (y);")
    monkeypatch.setattr(sql, "migrations", lambda: broken)
    with pytest.raises(StateError):
        await Store.open(home)
    with closing(sqlite3.connect(home / "state.db")) as connection:
        assert connection.execute("pragma user_version").fetchone() == (1,)
        assert connection.execute("select count(*) from sqlite_schema where name = 'extra'").fetchone() == (0,)
    monkeypatch.undo()
    await (await Store.open(home)).aclose()


# where the tasks live


async def test_a_job_is_tied_to_where_its_tasks_live(bench):
    async with bench() as made:
        await made.store.bind("chanjing", "https://a.example")
        await made.store.bind("chanjing", "https://a.example")
        await made.store.bind("kling", "https://b.example")
        with pytest.raises(StateError, match="live at https://a"):
            await made.store.bind("chanjing", "https://b.example")


async def test_a_sandbox_may_come_back_on_another_port_but_nothing_leaves_it(bench):
    async with bench() as made:
        await made.store.bind("chanjing", "http://127.0.0.1:4000")
        await made.store.bind("chanjing", "http://127.0.0.1:5000")
        with pytest.raises(StateError):
            await made.store.bind("chanjing", "https://a.example")


# adding


async def test_drafts_become_rows_to_be_bought_in_order(bench):
    async with bench() as made:
        await made.add(3, 1, 2, fingerprint="f")
        assert await made.store.counts() == {"queued": 3}
        task = await made.claim()
        assert (task.key, task.name, orjson.loads(task.request)) == (made.key(3), "boat-3", {"ref_prompt": "boat 3"})
        assert (task.generation, task.ref, task.fingerprint) == (1, reference(made.store.uuid, task.key, 1), "f")


async def test_adding_again_changes_nothing_that_is_bought(bench):
    async with bench() as made:
        await made.add(1, 2)
        running = await made.to(State.RUNNING)
        before = made.sql("select * from task where id = ?", running.id)
        await made.add(1, 2, digest="d2")
        assert made.sql("select * from task where id = ?", running.id) == before
        assert await made.store.counts() == {"queued": 1, "running": 1}


async def test_the_same_digest_is_not_even_looked_at(bench):
    async with bench() as made:
        await made.add(1)

        def drafts():
            raise AssertionError("nobody asks for the drafts")
            yield

        await made.store.add(drafts(), "d1", NOW)


async def test_a_broken_off_adding_is_done_again(bench):
    async with bench() as made:

        def drafts():
            yield made.draft(1, "")
            raise OSError("the disk with the items went away")

        with pytest.raises(OSError, match="went away"):
            await made.store.add(drafts(), "d1", NOW)
        await made.add(1, 2)
        assert await made.store.counts() == {"queued": 2}


async def test_unbought_tasks_that_left_the_manifest_rest_and_come_back(bench):
    async with bench() as made:
        await made.add(1, 2, 3)
        await made.to(State.RUNNING)
        await made.add(3, digest="d2")
        assert await made.store.gone() == 1
        assert (await made.claim()).key == made.key(3)
        assert await made.claim() is None
        assert await made.store.counts() == {"queued": 1, "running": 1, "submitting": 1}
        await made.add(1, 2, 3, digest="d3")
        assert await made.store.gone() == 0
        assert (await made.claim()).key == made.key(2)


@pytest.mark.parametrize("way", ["absent", "retried"])
async def test_what_left_the_manifest_is_not_bought_again(bench, way):
    """It was in doubt, or it failed; its draft is gone, so nobody wants to pay for it any more."""
    async with bench() as made:
        await made.add(1, 2)
        task = await made.to(State.IN_DOUBT if way == "absent" else State.FAILED)
        await made.add(2, digest="d2")
        again = {} if way == "absent" else {"generation": 2, "ref": "r-g2"}
        await made.to(State.QUEUED, task, sent=None, **again)
        assert await made.store.gone() == 1
        assert (await made.claim()).key == made.key(2)
        assert await made.claim() is None
        assert await made.store.next_due("chanjing", State.QUEUED) is None
        await made.add(1, 2, digest="d3")
        assert (await made.claim()).key == task.key


async def test_a_name_changes_only_while_there_are_no_files_under_it(bench):
    async with bench() as made:
        await made.add(1, 2)
        ready = await made.to(State.READY)
        await made.add(1, 2, digest="d2", name="new")
        names = dict(made.sql("select task_id, name from draft"))
        assert names.pop(ready.id) == "boat-1"
        assert set(names.values()) == {"new"}


async def test_many_drafts_are_added_in_pages(bench):
    async with bench() as made:
        await made.add(*range(1, 10_051))
        assert await made.store.counts() == {"queued": 10_050}
        assert made.sql("select count(*), min(position), max(position) from draft") == [(10_050, 1, 10_050)]


# claiming what is to be bought


async def test_a_claim_is_on_disk_before_it_is_handed_out(bench):
    async with bench() as made:
        await made.add(1)
        task = await made.claim()
        assert made.sql("select state, sent_boot, sent_seconds from task") == [("submitting", "boot-a", 10.0)]
        assert task.state is State.SUBMITTING
        assert await made.claim() is None


async def test_only_what_is_due_and_of_that_provider_is_claimed(bench):
    async with bench() as made:
        await made.add(1)
        assert await made.claim(provider="kling") is None
        task = await made.to(State.QUEUED, due_at=NOW + 5, sent=None)
        assert await made.claim() is None
        assert await made.store.next_due("chanjing", State.QUEUED) == NOW + 5
        assert (await made.claim(now=NOW + 5)).id == task.id


async def test_only_what_fits_into_the_window_is_claimed(bench):
    async with bench() as made:
        await made.store.add([made.draft(1, "", slots=4), made.draft(2, "")], "d", NOW)
        assert (await made.claim(room=3)).key == made.key(2)
        assert await made.claim(room=3) is None
        assert (await made.claim(room=4)).slots == 4
        assert await made.store.slots_taken("chanjing") == 5
        assert await made.store.slots_taken("kling") == 0


async def test_while_a_twin_is_in_doubt_no_other_is_bought(bench):
    async with bench() as made:
        await made.add(1, 2, fingerprint="same")
        doubtful = await made.to(State.IN_DOUBT)
        assert await made.claim() is None
        await made.add(1, 2, 3, digest="d2", fingerprint="same")
        await made.store.add([made.draft(n, "same" if n < 3 else "other") for n in (1, 2, 3, 4)], "d3", NOW)
        assert (await made.claim()).fingerprint == "other"
        await made.to(State.HELD, doubtful)
        assert (await made.claim()).key == made.key(2), "a held twin blocks nobody"


async def test_tasks_without_a_fingerprint_have_no_twins(bench):
    async with bench() as made:
        await made.add(1, 2)
        await made.to(State.IN_DOUBT)
        assert await made.claim() is not None


# claiming what is paid


async def test_a_claim_postpones_to_the_next_look_on_disk_and_in_hand(bench):
    async with bench() as made:
        await made.add(1)
        running = await made.to(State.RUNNING)
        (task,) = await made.store.claim("chanjing", State.RUNNING, NOW, 9, [], later)
        assert task == replace(running, due_at=NOW + 60, outputs=())
        assert made.sql("select due_at from task") == [(NOW + 60,)]
        assert await made.store.claim("chanjing", State.RUNNING, NOW + 59, 9, [], later) == []


async def test_what_writes_back_a_claimed_task_does_not_undo_its_postponement(bench):
    """Success without outputs is asked about again at the next look, not at once."""
    async with bench() as made:
        await made.add(1)
        await made.to(State.RUNNING)
        (task,) = await made.store.claim_group("chanjing", State.RUNNING, NOW, 9, [], ["image"], later)
        await made.store.settle(task, replace(task, failures=task.failures + 1))
        assert await made.store.next_due("chanjing", State.RUNNING) == NOW + 60


async def test_held_tasks_are_left_to_their_hands_and_limits_are_kept(bench):
    async with bench() as made:
        await made.add(*range(1, 6))
        ids = [(await made.to(State.RUNNING, due_at=NOW - n)).id for n in range(5)]
        claimed = await made.store.claim("chanjing", State.RUNNING, NOW, 2, {ids[4], ids[2]}, later)
        assert [task.id for task in claimed] == [ids[3], ids[1]], "the longest due first"
        rest = await made.store.claim("chanjing", State.RUNNING, NOW, 9, set(), later)
        assert {task.id for task in rest} == {ids[0], ids[2], ids[4]}


async def test_a_group_is_filled_with_what_is_due_soon_and_of_its_operations(bench):
    async with bench() as made:
        await made.store.add(
            [made.draft(n, "", operation="video" if n == 3 else "image") for n in (1, 2, 3)],
            "d",
            NOW,
        )
        for n in range(3):
            await made.to(State.RUNNING, due_at=NOW + n)
        group = await made.store.claim_group("chanjing", State.RUNNING, NOW + 1, 50, [], ["image"], later)
        assert [task.key for task in group] == [made.key(1), made.key(2)]
        assert await made.store.claim_group("chanjing", State.RUNNING, NOW + 1, 50, [], [], later) == []


async def test_what_is_ready_comes_with_its_outputs(bench):
    async with bench() as made:
        await made.add(1)
        await made.to(State.READY, outputs=LINKS)
        (task,) = await made.store.claim("chanjing", State.READY, NOW, 9, [], later)
        assert task.outputs == LINKS
        assert orjson.loads(task.request) == {"ref_prompt": "boat 1"}
        assert task.name == "boat-1"


async def test_at_the_start_everything_paid_or_in_doubt_is_due_and_looks_are_counted_anew(bench):
    async with bench() as made:
        await made.add(1, 2, 3, 4)
        await made.to(State.RUNNING, due_at=None, failures=5)
        await made.to(State.IN_DOUBT, due_at=NOW + 500, looks=1)
        await made.to(State.HELD)
        await made.store.wake(NOW + 1)
        rows = made.sql("select state, due_at, failures, looks from task order by id")
        assert rows == [
            ("running", NOW + 1, 0, 0),
            ("in_doubt", NOW + 1, 0, 0),
            ("held", None, 0, 0),
            ("queued", 0.0, 0, 0),
        ]


# settling


async def test_a_settled_task_comes_back_as_it_was_written(bench):
    async with bench() as made:
        await made.add(1)
        fault = Fault("in_doubt", "E\u00e9", "nicht \u9519\n")
        task = await made.to(State.IN_DOUBT, fault=fault, doubts=2, looks=1, evidence="cut off")
        assert await made.store.in_state(State.IN_DOUBT) == [task]
        assert await made.store.by_key(task.key[:31]) == [task]


@pytest.mark.parametrize("stale", ["state", "generation"])
async def test_a_row_that_moved_on_is_not_overwritten(bench, stale):
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


async def test_a_writer_of_an_older_epoch_changes_nothing(bench):
    """A zombie: two stores on one file, as after a lock that lied."""
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


async def test_a_writer_of_an_older_epoch_is_told_so(bench):
    """It finds nothing to do, and whatever it writes beside that says why; asking is free."""
    async with bench() as old:
        await old.add(1)
        await old.to(State.READY, outputs=LINKS)
        async with bench() as new:
            before = look(old.path.parent)
            links = replace(LINKS[0], file="1.png")
            task = next(iter(before.tasks.values()))
            store = old.store
            assert await store.claim("chanjing", State.READY, NOW, 9, (), later) == []
            assert await store.claim_group("chanjing", State.READY, NOW, 9, (), ["image"], later) == []
            for call in (
                lambda: store.wake(NOW + 99),
                lambda: store.record(task, links),
                lambda: store.put_name(task.id, 1, "new.png"),
                lambda: old.add(1, 2, digest="d2"),
                lambda: store.name("other"),
                lambda: store.bind("chanjing", "https://a.example"),
                lambda: store.put_echoes("chanjing", "m", {"clarity": True}),
            ):
                with pytest.raises(Locked, match="another run has taken this job over"):
                    await call()
            assert look(old.path.parent) == before
            assert new.sql("select count(*) from echo") + new.sql("select count(*) from provider") == [(0,), (0,)]
            assert await store.counts() == await new.store.counts() == {"ready": 1}


async def test_one_remote_task_belongs_to_one_of_ours(bench):
    async with bench() as made:
        await made.add(1, 2)
        await made.to(State.RUNNING, remote_id="u-1")
        second = await made.claim()
        assert await made.store.settle(second, replace(second, state=State.RUNNING, remote_id="u-1")) == "clash"
        assert await made.store.in_state(State.SUBMITTING) == [second]


async def test_the_same_id_at_another_provider_is_another_task(bench):
    async with bench() as made:
        await made.store.add([made.draft(1, ""), made.draft(2, "", provider="kling")], "d", NOW)
        await made.to(State.RUNNING, remote_id="u-1")
        other = await made.claim(provider="kling")
        assert await made.store.settle(other, replace(other, state=State.RUNNING, remote_id="u-1")) == "done"


async def test_what_was_bought_before_stays_ours_after_it_is_bought_anew(bench):
    """Otherwise a look-up takes the failed purchase for the lost one, and the new one is lost."""
    async with bench() as made:
        await made.add(1)
        running = await made.to(State.RUNNING, remote_id="u-1")
        failed = await made.to(State.FAILED, running)
        assert await made.store.claimed("chanjing", ["u-1", "u-2"]) == {"u-1"}
        await made.to(State.QUEUED, failed, generation=2, ref="r-g2", remote_id=None, sent=None)
        assert await made.store.claimed("chanjing", ["u-1", "u-2"]) == {"u-1"}
        assert await made.store.claimed("kling", ["u-1"]) == set()


async def test_a_fresh_link_keeps_what_is_saved(bench):
    async with bench() as made:
        await made.add(1)
        ready = await made.to(State.READY, outputs=LINKS)
        saved = Output(1, LINKS[0].url, "boat-1.png", 10, "ab" * 32, "image/png")
        await made.store.record(ready, saved)
        running = await made.to(State.RUNNING, ready)
        fresh = tuple(Output(number, f"https://files.example/fresh-{number}.png") for number in (1, 2, 3))
        await made.to(State.READY, running, outputs=fresh)
        (task,) = await made.store.claim("chanjing", State.READY, NOW, 9, [], later)
        assert task.outputs == (replace(saved, url=fresh[0].url), *fresh[1:])


async def test_a_new_purchase_has_no_outputs_yet(bench):
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
async def test_the_database_itself_refuses_what_must_never_be(bench, change):
    async with bench() as made:
        await made.add(1)
        await made.claim()
        with pytest.raises(sqlite3.IntegrityError):
            await made.store._writer.transact(lambda connection: connection.execute(f"update task set {change}"))


# questions


async def test_twins_are_told_apart_by_what_their_ids_rest_on(bench):
    async with bench() as made:
        await made.add(1, 2, 3, 4, fingerprint="same")
        waiting = await made.claim()
        assert await made.store.twin_submitting("same")
        assert not await made.store.twin_submitting("")
        made.sent = Moment("boot-a", 20.0)
        await made.to(State.RUNNING, adopted=True)
        made.sent = Moment("boot-a", 30.0)
        await made.to(State.RUNNING)
        assert sorted(await made.store.twins_sent("same")) == [("boot-a", 10.0), ("boot-a", 20.0)]
        await made.to(State.IN_DOUBT, waiting)
        assert not await made.store.twin_submitting("same")
        assert await made.store.twins_sent("") == []


@pytest.mark.parametrize("state", [State.READY, State.DONE, State.FAILED, State.STRANDED])
async def test_a_twin_that_adopted_a_strangers_task_counts_even_when_it_is_finished(bench, state):
    """M11: B adopts A's task and is done in seconds; B's own may still be on its way, so A's absence waits for it."""
    async with bench() as made:
        await made.add(1, fingerprint="same")
        adopted = await made.to(State.RUNNING, adopted=True)
        await made.to(state, adopted)
        assert await made.store.twins_sent("same") == [("boot-a", 10.0)]


async def test_what_there_is_to_do(bench):
    async with bench() as made:
        await made.add(1, 2, 3)
        assert await made.store.providers() == {"chanjing"}
        submitting = await made.claim()
        assert await made.store.busy("chanjing", ()), "what is on the wire is always waited for"
        running = await made.to(State.RUNNING, submitting, due_at=None)
        assert not await made.store.busy("chanjing", {State.RUNNING})
        ready = await made.to(State.READY, running)
        await made.to(State.DONE, ready, fault=Fault("partial", None, "1 of 2"))
        assert await made.store.partial() == 1
        await made.to(State.FAILED)
        await made.to(State.FAILED)
        assert await made.store.providers() == set()
        assert await made.store.providers(again=True) == {"chanjing"}


async def test_a_key_may_be_shortened_and_nothing_in_it_is_a_pattern(bench):
    async with bench() as made:
        await made.add(1, 2, 17)
        assert [task.key for task in await made.store.by_key("000000")] == [made.key(n) for n in (1, 2, 17)]
        assert [task.key for task in await made.store.by_key(made.key(17))] == [made.key(17)]
        for strange in ("%", "_", "0%", "f", "g", "'", "\x00"):
            assert await made.store.by_key(strange) == []


async def test_an_echo_that_once_came_back_changed_is_never_trusted_again(bench):
    async with bench() as made:
        await made.store.put_echoes("chanjing", "m", {"ref_prompt": True, "clarity": True})
        await made.store.put_echoes("chanjing", "m", {"ref_prompt": False})
        await made.store.put_echoes("chanjing", "m", {"ref_prompt": True})
        assert await made.store.echoes("chanjing", "m") == {"ref_prompt": False, "clarity": True}
        assert await made.store.echoes("chanjing", "other") == {}


# no claim reads the whole table

PARAMETERS = {
    "provider": "chanjing", "state": "running", "now": NOW, "soon": NOW, "room": 9, "limit": 50, "held": "[1, 2]",
    "operations": '["image"]', "fingerprint": "f1", "remote_ids": '["u-1"]', "id": 1, "task_id": 1, "due_at": NOW,
    "key": "00", "remote_id": "u-1",
}  # fmt: skip
#: about everything there is, and asked when the manifest has changed, when a run ends, or by a person
WHOLE = {"ever_bought", "rest_queued", "forget_positions", "results", "newest", "keys", "files", "ever_sent"}
#: answered from indexes and counters, since a run begins with them and `status` is made of them
AT_ONCE = {
    *("wake", "in_state", "slots_taken", "at_stake", "providers", "counts", "counts_by_provider", "gone"),
    *("faults", "examples", "given_up", "partial", "oldest", "oldest_ready", "busy", "prospect", "next_due"),
}


async def test_no_query_of_a_running_job_reads_the_whole_table(bench):
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
            for name, text in sql.queries().items():
                if name in WHOLE or not re.search("task|tally|draft", text):
                    continue
                holes = {hole: PARAMETERS.get(hole) for hole in set(text_holes(text))}
                rows = connection.execute(f"explain query plan {text}", holes).fetchall()
                seen[name] = [row[3] for row in rows]
        hot = {"claim_queued", "claim", "claim_group", "postpone", "settle", "twins_sent", "claimed", "by_key"}
        assert hot | AT_ONCE <= set(seen)
        scans = {
            name: plan
            for name, plan in seen.items()
            if any(line.startswith(("SCAN task", "SCAN twin", "SCAN draft")) for line in plan)
        }
        assert scans == {}
        twins = [line for line in seen["claim_queued"] if "twin" in line]
        assert twins == ["SEARCH twin USING COVERING INDEX task_twins (fingerprint=? AND state=?)"]


def text_holes(text):
    return re.findall(r"(?<!:):(\w+)", "\n".join(line for line in text.splitlines() if not line.startswith("--")))


def test_every_query_is_one_statement():
    assert all(text.startswith(("select", "update", "insert", "delete")) for text in sql.queries().values())


# the disk

FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from runner.errors import DiskError
from runner.store.adding import Addition
from runner.store.store import Store
from runner.lifecycle.task import Draft

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


def test_a_full_disk_is_told_apart_and_forgotten_when_there_is_room_again(home):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(home)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "disk 14 10\nagain 20000\n", done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it may not; a file in the way stands in for it above")
async def test_a_directory_that_may_not_be_written_is_the_disks_fault(home):
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
def test_what_sqlite_says_in_our_words(text, kind):
    error = sql.explained(sqlite3.OperationalError(text), "/x/state.db")
    assert type(error) is kind
    assert error.message == f"/x/state.db: {text}"
    assert error.hint
