"""Lies about ids, references, times and prompts, and tasks of somebody else on the account."""

import pytest

from runner.sandbox.options import ID_FORMS
from runner.sandbox.server import Faults, Options, Sandbox

IMAGES = "/v1/images/generations"
IMAGE = {"model_name": "kling-v2-1", "prompt": "boat"}


async def bought(user, count=2):
    """Buy images with references, and return the ids, the newest first."""
    bodies = [IMAGE | {"prompt": f"boat {n}", "external_task_id": f"r-{n}"} for n in range(count)]
    return [(await user.kling(IMAGES, body)).json()["data"]["task_id"] for body in bodies][::-1]


async def shown(user, **query):
    return (await user.kling(IMAGES, **query)).json()["data"]


def lying(kind, **options):
    return Options(seconds=(0, 0), faults=Faults({kind: 1.0}), **options)


@pytest.mark.parametrize("form", ID_FORMS)
async def test_every_form_of_id_can_be_queried_and_downloaded(api, http, form):
    async with Sandbox(Options(seconds=(0, 0), id_form=form)) as sandbox:
        user = api(sandbox)
        ids = await bought(user)
        assert [row["task_id"] for row in await shown(user)] == ids
        assert type(ids[0]) is (int if form == "number" else str)
        task = (await user.kling(f"{IMAGES}/{ids[0]}")).json()["data"]
        assert (await http.get(task["task_result"]["images"][0]["url"])).status_code == 200
        await user.login()
        assert type((await user.submit())["data"]) is type(ids[0])


async def test_ids_from_before_their_form_changed_stay_as_they_are(api):
    async with Sandbox(Options(seconds=(0, 0), id_form="slash")) as sandbox:
        user = api(sandbox)
        ids = await bought(user)
        sandbox.change(id_form="number")
        assert [row["task_id"] for row in await shown(user)] == ids


async def test_ids_that_are_equal_up_to_case(api):
    async with Sandbox(Options(id_form="case")) as sandbox:
        ids = await bought(api(sandbox), 4)
        assert len(set(ids)) == 4
        assert len({each.lower() for each in ids}) == 1


async def test_ids_can_differ_between_answer_and_list(api):
    async with Sandbox(lying("id_changes")) as sandbox:
        user = api(sandbox)
        ids = await bought(user)
        assert [row["task_id"] for row in await shown(user)] == [f"task-{each}" for each in ids]
        assert (await user.kling(f"{IMAGES}/task-{ids[0]}")).json()["code"] == 0


async def test_rows_can_show_the_mark_of_their_neighbour(api):
    async with Sandbox(lying("echo_wrong")) as sandbox:
        user = api(sandbox)
        await bought(user)
        assert [row["task_info"]["external_task_id"] for row in await shown(user)] == ["r-0", "r-x"]
        await user.login()
        for prompt in ("first", "second"):
            await user.submit(ref_prompt=prompt)
        rows = (await user.page())["data"]["list"]
        assert [row["photo_info"]["ref_prompt"] for row in rows] == ["first", "first"]


async def test_prompts_can_be_cut(api):
    async with Sandbox(lying("list_cuts_prompt")) as sandbox:
        user = api(sandbox)
        await user.login()
        await user.submit(ref_prompt="thing 17")
        assert (await user.page())["data"]["list"][0]["photo_info"]["ref_prompt"] == "thin"


async def test_each_task_can_be_later_than_the_one_before(api, clock):
    async with Sandbox(Options(list_lag_s=1.0, list_lag_grows_s=5.0), clock=clock) as sandbox:
        user = api(sandbox)
        ids = await bought(user, 3)
        clock.now += 7.0
        assert [row["task_id"] for row in await shown(user)] == ids[1:]
        clock.now += 4.0
        assert [row["task_id"] for row in await shown(user)] == ids


async def test_times_can_be_those_of_another_zone(api, clock):
    async with Sandbox(Options(list_time_shift_s=28_800.0), clock=clock) as sandbox:
        user = api(sandbox)
        await bought(user, 1)
        assert (await shown(user))[0]["created_at"] == int((clock.now + 28_800.0) * 1000)


async def test_pages_can_be_short(api):
    async with Sandbox(Options(list_page=2)) as sandbox:
        user = api(sandbox)
        ids = await bought(user, 3)
        pages = [await shown(user, pageNum=page, pageSize=500) for page in (1, 2, 3)]
        assert [[row["task_id"] for row in page] for page in pages] == [ids[:2], ids[2:], []]


async def test_batch_can_leave_out_a_task(api):
    async with Sandbox(lying("batch_drops")) as sandbox:
        user = api(sandbox)
        ids = await bought(user)
        sandbox.change(faults={"batch_drops": "@2"})
        found = (await user.kling("/tasks", task_ids=",".join(ids))).json()["data"]
        assert [task["id"] for task in found] == ids[:1]
        await user.login()
        mine = [(await user.submit())["data"] for _ in range(2)]
        sandbox.change(faults={"batch_drops": "@1"})
        assert len((await user.page(*mine))["data"]["list"]) == 1


async def test_query_by_reference_can_lie(api):
    async with Sandbox(lying("absent_lies")) as sandbox:
        user = api(sandbox)
        ids = await bought(user)
        assert (await user.kling(f"{IMAGES}/r-1")).status_code == 404
        assert (await user.kling(f"{IMAGES}/{ids[0]}")).status_code == 200


async def test_second_submit_can_be_answered_with_the_first_task(api):
    async with Sandbox(Options(external_id_first=True)) as sandbox:
        user = api(sandbox)
        assert await bought(user) == (await bought(user))
        assert sandbox.ledger.charges() == 2


@pytest.mark.parametrize("stranger", ["foreign_task", "twin_equal", "twin_hidden"])
async def test_somebody_else_can_submit_just_before(api, stranger):
    """Such a task is nobody's repeated purchase, and only an unrelated one has another prompt."""
    async with Sandbox(Options(faults=Faults({stranger: "@2", "reset_before": "@3"}))) as sandbox:
        user = api(sandbox)
        ids = await bought(user)
        own, theirs, mine = sandbox.ledger.accepted
        assert [row["task_id"] for row in await shown(user)] == [ids[0], theirs.id, ids[1]]
        assert (own.foreign, theirs.foreign, mine.foreign) == (False, True, False)
        assert theirs.external_id not in {own.external_id, mine.external_id}
        assert (theirs.prompt == mine.prompt) == (stranger != "foreign_task")
        assert (theirs.key == mine.key) == (stranger == "twin_equal")
        assert sandbox.ledger.duplicates() == 0
        assert sandbox.stats["foreign"] == 1


async def test_twin_of_chanjing_differs_in_an_image(api):
    async with Sandbox(lying("twin_hidden")) as sandbox:
        user = api(sandbox)
        await user.login()
        await user.submit()
        mine, theirs = (await user.page())["data"]["list"]
        assert mine["photo_info"]["ref_prompt"] == theirs["photo_info"]["ref_prompt"]
        assert (mine["ref_img_url"], len(theirs["ref_img_url"])) == ([], 1)
