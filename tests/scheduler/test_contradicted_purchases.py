"""Which purchases rest on a fact that was contradicted: those of the day before it, that it may have decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.scheduler.contradicted_purchases import find_contradicted
from runner.tasks.fact import Fact
from runner.tasks.models import State, TaskError
from tests.store.conftest import NOW

DAY = 86_400.0
LIST = Fact("own_rows", "contradicted", first_at=NOW + 100, last_at=NOW + 200, why="the list leaves out 1 task of ours")
REFUSAL = Fact("refusal", "contradicted", "image", "", "1302 throttled", first_at=NOW + 100, last_at=NOW + 200)


async def found(made, *facts: Fact, **fields) -> list[str]:
    """Return why the only purchase, with these fields, rests on the facts."""
    await made.add(1)
    task = await made.to(State.RUNNING)
    await made.store.settle(task, replace(task, **({"submitted_at": NOW} | fields)))
    rest = await find_contradicted(made.store, task.provider, [task.operation], facts)
    assert {each.key for each in rest} <= {task.key}
    return [each.why for each in rest]


@pytest.mark.parametrize(
    ("fact", "fields", "rests"),
    [
        (LIST, {"doubts": 1}, True),
        (LIST, {"doubts": 0}, False),
        (LIST, {"doubts": 1, "adopted": True}, False),
        (LIST, {"doubts": 2, "adopted": True}, True),
        (LIST, {"doubts": 1, "submitted_at": NOW - 2 * DAY}, False),
        (LIST, {"doubts": 1, "submitted_at": NOW + 300}, False),
        (replace(LIST, state="measured"), {"doubts": 1}, False),
        (replace(LIST, name="field", model="another"), {"doubts": 1}, False),
        (REFUSAL, {"throttles": 1}, True),
        (REFUSAL, {"throttles": 0}, False),
        (replace(REFUSAL, operation="video"), {"throttles": 1}, False),
    ],
)
async def test_what_rests_on_a_contradiction(bench, fact, fields, rests):
    async with bench() as made:
        assert bool(await found(made, fact, **fields)) is rests


@pytest.mark.parametrize(("subject", "rests"), [("40000 moderation", True), ("1302 throttled", False)])
async def test_failed_refusals_with_that_code_may_have_cost_something(bench, subject, rests):
    error = TaskError("moderation", "40000", "no")
    async with bench() as made:
        fact = replace(REFUSAL, subject=subject)
        assert bool(await found(made, fact, state=State.FAILED, remote_id=None, error=error)) is rests


async def test_a_purchase_is_named_once(bench):
    async with bench() as made:
        assert len(await found(made, LIST, replace(LIST, name="order"), doubts=1)) == 1
