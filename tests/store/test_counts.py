"""The counters kept beside the rows equal the counted rows, whatever happens to the rows."""

import random
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from runner.store import database
from runner.tasks.models import State, TaskError

COUNTED = """select provider, state, state = 'queued' and due_at is null, count(*) from task group by 1, 2, 3"""
KEPT = "select provider, state, gone, count from tally where count > 0 order by 1, 2, 3"
STATES = (State.RUNNING, State.READY, State.DONE, State.FAILED, State.STRANDED, State.IN_DOUBT, State.HELD)


def agree(made):
    counted = sorted(made.sql(COUNTED))
    assert made.sql(KEPT) == counted
    return counted


async def test_counters_equal_counted_rows(bench):
    dice = random.Random(7)
    async with bench() as made:
        await made.add(*range(1, 31))
        await made.store.add([made.draft(number, provider="kling") for number in range(40, 60)], "d0", 0.0)
        for step in range(60):
            match dice.randrange(4):
                case 0:
                    wanted = dice.sample(range(1, 31), 20)
                    others = [made.draft(number, provider="kling") for number in range(40, dice.randrange(41, 60))]
                    await made.store.add([*map(made.draft, wanted), *others], f"d{step + 1}", 0.0)
                case 1:
                    await made.store.wake(2_000_000_000.0)
                case _:
                    provider = dice.choice(("chanjing", "kling"))
                    task = await made.claim(provider, now=2_000_000_000.0)
                    if task is not None and dice.random() < 0.8:
                        await made.to(dice.choice(STATES), task)
            agree(made)
        counted = agree(made)
        by_state: dict[str, int] = {}
        for _, state, _, count in counted:
            by_state[state] = by_state.get(state, 0) + count
        assert await made.store.counts() == by_state
        assert await made.store.removed_unsent_count() == sum(count for _, _, gone, count in counted if gone)
        wanted = {(provider, state): count for provider, state, gone, count in counted if not gone}
        counts = await made.store.counts_by_provider()
        assert {(name, state): count for name, states in counts.items() for state, count in states.items()} == wanted


async def test_failed_write_is_not_counted(bench):
    async with bench() as made:
        await made.add(1, 2)
        first, second = await made.to(State.RUNNING), await made.claim()
        before = agree(made)
        taken = replace(second, state=State.RUNNING, remote_id=first.remote_id, due_at=0.0)
        assert await made.store.settle(second, taken) == "clash"
        assert agree(made) == before


async def test_errors_are_grouped_by_state_and_reason(bench):
    """Tasks without a reason are a group of their own."""
    async with bench() as made:
        await made.add(*range(1, 7))
        await made.to(State.FAILED, error=TaskError("moderation", None, "no"), remote_id=None)
        await made.to(State.FAILED, error=TaskError("moderation", None, "no"), remote_id=None)
        await made.to(State.FAILED, error=TaskError(), remote_id=None)
        await made.to(State.DONE, error=TaskError("partial", None, "1 of 2"))
        await made.to(State.DONE)
        rows = made.sql(database.statements()["error_groups"])
        counts = {(state, reason): count for state, reason, _, count, *_ in rows}
        assert counts == {("failed", "moderation"): 2, ("failed", ""): 1, ("done", "partial"): 1}
        assert await made.store.partial_count() == 1


@pytest.mark.parametrize("version", [1, 2, 3])
def test_migration_counts_rows_of_older_database(tmp_path, version):
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as connection:
        for number, script in enumerate(database.migrations()[:version], start=1):
            connection.executescript(
                f"{script}; pragma application_id = {database.APPLICATION_ID}; pragma user_version = {number}"
            )
        rows = [
            (f"k{number}", ("kling", "chanjing")[number % 2], ("queued", "failed")[number % 3 == 0], due)
            for number, due in enumerate([0.0, None] * 30)
        ]
        connection.executemany(
            "insert into task (key, ref, operation, model, provider, state, due_at)"
            " values (?1, ?1, 'o', 'm', ?2, ?3, ?4)",
            rows,
        )
        database.migrate(connection)
        assert connection.execute(KEPT).fetchall() == sorted(connection.execute(COUNTED).fetchall())
        assert sum(row[3] for row in connection.execute(KEPT)) == 60
