"""The paths of local images are stored beside a row, follow the manifest, and survive the loss of the database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.store.rebuild import rebuild
from runner.store.store import Store
from runner.tasks.events import Accepted
from runner.tasks.models import State
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

from .conftest import NOW, additions


def with_image(path, *numbers):
    return [replace(one, images={"start_frame": path}) for one in additions(numbers)]


def paths(made):
    return [path for (path,) in made.sql("select pictures from task order by id")]


async def test_claimed_task_has_its_image_paths(bench):
    async with bench() as made:
        await made.store.add([*with_image("a.png", 1), *additions([2])], "d", NOW)
        assert [(await made.claim()).images for _ in range(2)] == ['{"start_frame":"a.png"}', ""]


@pytest.mark.parametrize("state", [State.QUEUED, State.IN_DOUBT, State.HELD, State.FAILED, State.DONE])
async def test_renamed_image_is_updated_in_every_state(bench, state):
    async with bench() as made:
        await made.store.add([replace(one, cost=4.0) for one in with_image("a.png", 1)], "d1", NOW)
        task = await made.to(state)
        await made.store.add([replace(one, cost=9.0) for one in with_image("b.png", 1)], "d2", NOW)
        assert paths(made) == ['{"start_frame":"b.png"}']
        (found,) = await made.store.find_by_key_prefix(task.key)
        assert (found.state, found.cost) == (state, 9.0 if state in {State.QUEUED, State.FAILED} else 4.0)


async def test_skipped_or_declined_claim_changes_nothing(bench):
    async with bench() as made:
        await made.add(1, 2)
        first, second = await made.store.in_state(State.QUEUED)
        assert (await made.store.claim_queued("chanjing", NOW, 10, made.begun, None, [first.id])).id == second.id
        assert await made.store.claim_queued("chanjing", NOW, 10, lambda _: None) is None
        assert await made.store.in_state(State.QUEUED) == [first]
        assert await made.store.claim_queued("chanjing", NOW, 10, made.begun, None, [first.id]) is None


async def test_rebuilt_job_has_all_image_paths(bench):
    """Those of tasks that were removed from the manifest too."""
    async with bench() as made:
        await made.store.add(with_image("a.png", 1, 2), "d", NOW)
        for _ in range(2):
            task = await made.claim()
            await made.store.settle(task, advance(task, Accepted(f"u-{task.id}"), NOW, RetryPolicy()))
        await made.store.aclose()
        rebuild(made.path.parent, with_image("b.png", 2), NOW)
        made.store = await Store.open(made.path.parent)
        known = {task.key: task.images for task in await made.store.in_state(State.RUNNING)}
        assert known == {made.key(1): '{"start_frame":"a.png"}', made.key(2): '{"start_frame":"b.png"}'}
