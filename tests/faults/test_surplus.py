"""The closing reading: what was paid for beside ours, found before the run ends."""

from __future__ import annotations

import pytest

from .chain import chain, request
from .server import answer, instead

PAIR = ("kling", "chanjing")
#: the provider accepts, and its front end says that it did not work
LOST = instead(answer(b"", 500), after=True, end="open")


@pytest.mark.parametrize("provider", PAIR)
async def test_doubt_that_leaves_nothing_over_ends_well(tmp_path, provider):
    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["submit"] = {2: LOST}
        ours.paid_once(await ours.run(3), 3)


async def test_task_that_comes_beside_an_adopted_one_is_told(tmp_path):
    """Without references the one may be taken for the other, so the run that adopted one says that there are two."""
    async with chain(tmp_path, "chanjing", seconds=(0.3, 0.3)) as ours:
        ours.middle.deeds["submit"] = {2: LOST}

        async def buy_after_adoption(call):
            adopted = any(row["adopted"] for row in ours._rows("task"))
            if adopted and len(ours.accepted) == 3:
                await ours.elsewhere(request("chanjing", 2))
            await call.pass_on()

        ours.middle.deeds["query"] = buy_after_adoption
        result = await ours.run(3)
        assert result.states == ["done"] * 3
        assert result.exit == 4
        assert "chanjing has 1 more like ours" in result.reasons[0]


async def test_more_rows_than_lost_answers_are_held(tmp_path):
    """Two tasks of the account look like the one whose answer was lost, and nobody knows which is ours."""
    async with chain(tmp_path, "chanjing") as ours:
        strangers = []

        async def beside(call):
            strangers.extend(await ours.elsewhere(request("chanjing", 2)))
            await call.pass_on()

        ours.middle.deeds["submit"] = {1: beside, 2: LOST}
        result = await ours.run(3)
        assert (result.exit, result.states) == (4, ["done", "held", "done"])
        assert strangers[0] in result.tasks[1]["message"], "a person can look at it"


async def test_row_from_before_the_job_is_never_its_own(tmp_path):
    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: LOST}
        (stranger,) = await ours.elsewhere(request("chanjing", 2))
        result = await ours.run(3)
        assert (result.exit, result.states) == (0, ["done"] * 3)
        assert stranger not in {task["remote_id"] for task in result.tasks}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "shared account"])
async def test_row_that_hides_a_field_is_taken_only_where_nobody_else_buys(tmp_path, alone):
    """A colleague's task with another negative prompt looks the same in the list."""
    wanted = [{**request("chanjing", number), "negative_prompt": f"blur {number}"} for number in (1, 2)]
    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: LOST}
        if not alone:
            await ours.elsewhere({**request("chanjing", 9), "ref_prompt": "a colleague's idea"})
        result = await ours.run(requests=wanted)
        assert result.states == ["done", "done" if alone else "held"]
        assert result.exit == (0 if alone else 4)


def as_task(remote_id, reference):
    """Return the answer to a query by reference that names this task."""
    shown = {"task_id": remote_id, "task_status": "processing", "task_info": {"external_task_id": reference}}
    return instead(answer({"code": 0, "message": "SUCCEED", "request_id": "q", "data": shown}), end="open")


async def test_id_of_another_task_is_never_taken_by_reference(tmp_path):
    """A host may echo whatever reference it is asked for. An id that another job was given is not ours."""
    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = {2: LOST}

        async def echo(call):
            reference = call.path.rpartition("/")[2]
            known = ours.listed.witnesses[0].remote_id
            await (as_task(known, reference)(call) if reference.startswith("r") else call.pass_on())

        ours.middle.deeds["query"] = echo
        ours.paid_once(await ours.run(3), 3)
