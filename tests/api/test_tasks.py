"""Plans, stored jobs and decisions on held tasks."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

import runner
from runner import api
from runner.app import stored_job
from runner.providers import spec as specs

UNIT = specs.load("chanjing").unit


def gateway(box, count=2) -> runner.Job:
    """Return a job at a provider that cannot say what became of a lost answer."""
    return box.job(count, params={"prompt": "{{ subject }}"}, provider="kling-gateway", model="image/kling-v2-1")


@pytest.fixture
def held(box):
    """Run a job whose first answer is lost."""
    box.sandbox.change(faults={"lost_reply": "@1"})
    result = runner.run(gateway(box))
    assert (result.exit_code, result.counts) == (4, {"held": 1, "done": 1})
    return result


# plan


def test_plan_counts_what_is_new_and_kept(box):
    plan = runner.plan(box.job(3, cost=4))
    assert (plan.new, plan.kept, plan.cost, plan.unit) == (3, {}, 12.0, UNIT)
    assert [task.plan for task in plan.tasks()] == ["new"] * 3
    runner.run(box.job(2))
    plan = runner.plan(box.job(3, cost=4))
    assert (plan.new, plan.kept, plan.cost) == (1, {"done": 2}, 4.0)
    assert [(task.plan, task.state, task.index) for task in plan.tasks()] == [
        ("kept", "done", 1), ("kept", "done", 2), ("new", None, 3)
    ]  # fmt: skip
    assert [*plan.tasks()] == [*plan.tasks()]
    assert plan.to_dict()["new"] == 1
    assert "1 new, 2 kept" in repr(plan)


def test_plan_shows_changed_and_gone_tasks(box):
    runner.run(box.job(3))
    rows = [{"subject": "job 0"}, {"subject": "another"}]
    tasks = [*runner.plan(box.job(items=rows)).tasks()]
    assert [task.plan for task in tasks] == ["kept", "changed", "gone"]
    assert (tasks[1].fields, tasks[1].was_state) == (("ref_prompt",), "done")
    assert tasks[2].index is None


def test_plan_in_one_pass_is_the_same(box, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("version: 1\nprovider: chanjing\nmodel: kling-v2-1\nparams: {prompt: a heron}\nrepeat: 3\n")
    found = []
    once = api.load_and_plan(path, env=box.env, on_task=found.append)
    twice = runner.plan(runner.load(path, env=box.env))
    assert once.to_dict() == twice.to_dict()
    assert [task["key"] for task in found] == [task.key for task in twice.tasks()]


# stored jobs


def test_directory_opens_without_its_manifest(box):
    result = runner.run(box.job(3, cost=4))
    stored = runner.open_job(result.directory)
    assert (stored.name, stored.counts, stored.cost) == ("job", {"done": 3}, 12.0)
    assert [*stored.tasks()] == [*result.tasks()]
    assert len([*stored.tasks("done")]) == 3
    with pytest.raises(runner.RunnerError, match="there is no state 'gone'"):
        stored.tasks("gone")
    with pytest.raises(runner.RunnerError) as raised:
        runner.open_job(box.root / "nothing")
    assert raised.value.exit_code == 10


def test_many_tasks_come_in_order(box, monkeypatch):
    monkeypatch.setattr(stored_job, "_BATCH", 2)
    tasks = [*runner.run(box.job(5)).tasks()]
    assert [task.index for task in tasks] == [1, 2, 3, 4, 5]
    assert all(one.key != other.key for one, other in pairwise(tasks))


# decisions


def test_held_task_is_adopted(box, held):
    (task,) = held.tasks(state="held")
    lost = next(each for each in box.accepted if each.prompt == task.vars["subject"])
    decided = runner.resolve(held.job, task.key[:8], adopt=lost.id, by="Ada")
    assert (decided["state"], decided["by"], decided["key"]) == ("running", "Ada", task.key)
    assert runner.run(gateway(box)).counts == {"done": 2}
    assert box.paid_once(2)


def test_held_tasks_are_resolved_while_they_are_listed(box, held):
    for task in held.tasks(state="held"):
        assert runner.resolve(held.directory, task.key, abandon=True)["state"] == "failed"
    assert [*held.tasks(state="held")] == []
    assert [task.error.reason for task in held.tasks("failed")] == ["abandoned"]


def test_decision_works_inside_a_loop(box, held):
    async def decide():
        (task,) = held.tasks(state="held")
        return runner.resolve(runner.open_job(held.directory), task.key, absent=True, env=box.env)

    assert asyncio.run(decide())["state"] == "queued"


@pytest.mark.parametrize("decisions", [{}, {"adopt": "x", "absent": True}, {"adopt": "a\0b"}])
def test_unclear_decision_is_refused(held, decisions):
    (task,) = held.tasks(state="held")
    with pytest.raises(runner.RunnerError) as raised:
        runner.resolve(held.job, task.key, **decisions)
    assert raised.value.exit_code == 2
    assert len([*held.tasks("held")]) == 1
