import json

import pytest

from runner.sandbox.server import Faults, Options, Sandbox

IMAGES = "/kling/v1/images/generations"
TEXT = "/kling/v1/videos/text2video"
IMAGE = {"model": "kling-v1", "model_name": "kling-v1", "prompt": "boat", "n": 2}
VIDEO = {"model_name": "kling-v2-6", "prompt": "a lighthouse"}


async def finished(user, clock, path, body):
    made = (await user.kling(path, body)).json()
    clock.now += 60
    return made, (await user.kling(f"{path}/{made.get('task_id') or made['data']['task_id']}")).json()


async def test_dialect_a_equals_kling(api, clock):
    async with Sandbox(clock=clock) as sandbox:
        made, shown = await finished(api(sandbox), clock, IMAGES, IMAGE)
        assert made["data"]["task_status"] == "submitted"
        assert len(shown["data"]["task_result"]["images"]) == 2


async def test_dialect_b_is_flat_for_images_and_nested_for_videos(api, clock):
    async with Sandbox(Options(gateway_dialect="B"), clock=clock) as sandbox:
        made, shown = await finished(api(sandbox), clock, IMAGES, IMAGE)
        assert (made["object"], made["status"], made["id"]) == ("video", "", made["task_id"])
        assert (shown["code"], shown["data"]["status"]) == ("success", "succeeded")
        assert shown["data"]["url"].endswith("/0.png")
        _, shown = await finished(api(sandbox), clock, TEXT, VIDEO)
        assert shown["data"]["status"] == "SUCCESS"
        assert shown["data"]["data"]["data"]["task_result"]["videos"][0]["url"].endswith("/0.mp4")


async def test_dialect_c_is_minimal(api, clock):
    async with Sandbox(Options(gateway_dialect="C"), clock=clock) as sandbox:
        made, shown = await finished(api(sandbox), clock, TEXT, VIDEO)
        assert made == {"task_id": made["task_id"], "status": "queued"}
        assert (shown["status"], shown["format"], shown["error"]) == ("completed", "mp4", None)


@pytest.mark.parametrize("dialect", ["A", "B", "C"])
async def test_gateway_has_no_list_and_no_query_by_external_id(api, dialect):
    async with Sandbox(Options(gateway_dialect=dialect)) as sandbox:
        user = api(sandbox)
        assert (await user.kling(IMAGES, IMAGE | {"external_task_id": "x"})).status_code == 200
        assert (await user.kling(IMAGES)).status_code == 404
        reply = await user.kling(f"{IMAGES}/x")
        assert (reply.status_code, reply.json()["code"]) == (400, "task_not_exist")


async def test_key_without_bearer_is_accepted(http):
    async with Sandbox() as sandbox:
        reply = await http.post(sandbox.url + IMAGES, json=IMAGE, headers={"authorization": "bare-key"})
        assert reply.json()["code"] == 0


async def test_refusals_have_form_of_dialect(api):
    async with Sandbox(Options(gateway_dialect="B", credit=2)) as sandbox:
        user = api(sandbox)
        reply = await user.kling(IMAGES, IMAGE, key="wrong")
        assert (reply.status_code, reply.json()["error"]["type"]) == (401, "new_api_error")
        reply = await user.kling(IMAGES, IMAGE | {"prompt": "NSFW-TEST"})
        assert json.loads(reply.json()["message"])["code"] == 1301
        await user.kling(IMAGES, IMAGE)
        reply = await user.kling(IMAGES, IMAGE)
        assert (reply.status_code, reply.json()["code"]) == (403, "quota_not_enough")


@pytest.mark.parametrize("dialect", ["A", "B", "C"])
async def test_unknown_state_hides_outputs(api, clock, dialect):
    options = Options(gateway_dialect=dialect, faults=Faults({"poll_unknown_state": 1.0}))
    async with Sandbox(options, clock=clock) as sandbox:
        _, shown = await finished(api(sandbox), clock, TEXT, VIDEO)
        assert "reviewing" in json.dumps(shown)
        assert ".mp4" not in json.dumps(shown)
