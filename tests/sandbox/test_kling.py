import base64
import hmac
import json

import pytest

from runner.sandbox.server import Options, Sandbox

IMAGES = "/v1/images/generations"
TEXT = "/v1/videos/text2video"
FRAME = "/v1/videos/image2video"
IMAGE = {"model_name": "kling-v2-1", "prompt": "纸船", "aspect_ratio": "1:1"}
VIDEO = {"model_name": "kling-v2-6", "prompt": "a lighthouse", "duration": "5"}


def jwt(claims, secret="sandbox-sk", alg="HS256"):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = b".".join(part(json.dumps(p).encode()) for p in ({"alg": alg, "typ": "JWT"}, claims))
    return (signed + b"." + part(hmac.digest(secret.encode(), signed, "sha256"))).decode()


def outcome(reply):
    return reply.status_code, reply.json()["code"]


async def test_image_task_runs_to_its_outputs(api, clock):
    async with Sandbox(Options(seconds=(10, 10)), clock=clock) as sandbox:
        user = api(sandbox)
        made = (await user.kling(IMAGES, IMAGE | {"n": 3, "external_task_id": "job-1"})).json()
        assert (made["code"], made["message"], made["data"]["task_status"]) == (0, "SUCCEED", "submitted")
        assert len(made["data"]["task_id"]) == 18
        clock.now += 5
        path = f"{IMAGES}/{made['data']['task_id']}"
        assert (await user.kling(path)).json()["data"]["task_status"] == "processing"
        clock.now += 5
        data = (await user.kling(path)).json()["data"]
        assert data["task_status"] == "succeed"
        assert data["task_info"] == {"external_task_id": "job-1"}
        assert [image["index"] for image in data["task_result"]["images"]] == [0, 1, 2]
        assert data["updated_at"] == int(clock.now * 1000)


async def test_task_is_found_by_external_id_on_its_path(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        made = (await user.kling(TEXT, VIDEO | {"external_task_id": "mine"})).json()["data"]["task_id"]
        assert (await user.kling(f"{TEXT}/mine")).json()["data"]["task_id"] == made
        assert outcome(await user.kling(f"{FRAME}/mine")) == (404, 1203)
        assert outcome(await user.kling(f"{TEXT}/mine", key="other")) == (404, 1203)
        assert (await user.kling("/tasks", external_task_ids="mine,unknown")).json()["data"][0]["id"] == made
        assert (await user.kling("/tasks", task_ids="unknown")).json()["data"] == []
        assert outcome(await user.kling("/tasks", ids="mine")) == (400, 1201)


async def test_external_id_must_be_unique(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        assert (await user.kling(IMAGES, IMAGE | {"external_task_id": "x"})).status_code == 200
        assert outcome(await user.kling(IMAGES, IMAGE | {"external_task_id": "x"})) == (400, 1201)
        sandbox.change(external_id_unique=False)
        assert (await user.kling(IMAGES, IMAGE | {"external_task_id": "x"})).status_code == 200
        assert len(sandbox.ledger.by_external_id("x")) == 2
        assert sandbox.ledger.duplicates() == 1


async def test_lists_are_newest_first_and_limited(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        ids = [(await user.kling(IMAGES, IMAGE)).json()["data"]["task_id"] for _ in range(5)]
        page = (await user.kling(IMAGES, pageNum=2, pageSize=2)).json()["data"]
        assert [row["task_id"] for row in page] == [ids[2], ids[1]]
        assert len((await user.kling(IMAGES)).json()["data"]) == 5
        assert (await user.kling(TEXT)).json()["data"] == []
        for query in ({"pageSize": 501}, {"pageNum": 0}, {"pageNum": "x"}):
            assert outcome(await user.kling(IMAGES, **query)) == (400, 1201)


async def test_list_lag_affects_external_ids(api, clock):
    async with Sandbox(Options(list_lag_s=30), clock=clock) as sandbox:
        user = api(sandbox)
        made = (await user.kling(IMAGES, IMAGE | {"external_task_id": "x"})).json()["data"]["task_id"]
        assert (await user.kling(f"{IMAGES}/{made}")).status_code == 200
        assert (await user.kling(f"{IMAGES}/x")).status_code == 404
        clock.now += 30
        assert (await user.kling(f"{IMAGES}/x")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (IMAGES, IMAGE | {"prompt": ""}, (400, 1201)),
        (IMAGES, IMAGE | {"prompt": "x" * 2501}, (400, 1201)),
        (IMAGES, IMAGE | {"n": 10}, (400, 1201)),
        (IMAGES, IMAGE | {"n": "1"}, (400, 1201)),
        (IMAGES, IMAGE | {"image": "aGk=", "negative_prompt": "dog"}, (400, 1201)),
        (IMAGES, IMAGE | {"image": "data:image/png;base64,aGk="}, (400, 1201)),
        (IMAGES, IMAGE | {"aspect_ratio": ["1:1"]}, (400, 1201)),
        (IMAGES, IMAGE | {"model_name": "kling-v9"}, (404, 1203)),
        (IMAGES, IMAGE | {"prompt": "NSFW-TEST"}, (400, 1301)),
        (IMAGES, [], (400, 1200)),
        (TEXT, VIDEO | {"duration": "7"}, (400, 1201)),
        (TEXT, VIDEO | {"mode": "standard"}, (400, 1201)),
        (FRAME, VIDEO, (400, 1201)),
        ("/v1/videos/nothing", VIDEO, (404, 1203)),
    ],
)
async def test_invalid_submit_gets_documented_code(api, path, body, expected):
    async with Sandbox() as sandbox:
        assert outcome(await api(sandbox).kling(path, body)) == expected
        assert sandbox.ledger.accepted == []


async def test_field_model_is_ignored(api):
    async with Sandbox() as sandbox:
        assert outcome(await api(sandbox).kling(IMAGES, {"model": "anything", "prompt": "boat"})) == (200, 0)


async def test_failed_task_has_message(api, clock):
    async with Sandbox(clock=clock) as sandbox:
        user = api(sandbox)
        made = (await user.kling(TEXT, VIDEO | {"prompt": "FAIL-TEST"})).json()["data"]["task_id"]
        clock.now += 10
        data = (await user.kling(f"{TEXT}/{made}")).json()["data"]
        assert data["task_status"] == "failed"
        assert data["task_status_msg"]
        assert "task_result" not in data


async def test_keys_are_checked(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        assert outcome(await user.kling(IMAGES, key=None)) == (401, 1001)
        assert outcome(await user.kling(IMAGES, key="wrong-key")) == (401, 1002)
        assert outcome(await user.kling(IMAGES, key="any-key")) == (200, 0)


async def test_jwt_is_checked(api, clock):
    async with Sandbox(clock=clock) as sandbox:
        user, now = api(sandbox), clock.now
        good = {"iss": "sandbox-ak", "exp": now + 1800, "nbf": now - 5}
        for token, expected in [
            (jwt(good), (200, 0)),
            (jwt(good | {"exp": now}), (401, 1004)),
            (jwt(good | {"nbf": now + 5}), (401, 1003)),
            (jwt(good, secret="other"), (401, 1002)),
            (jwt(good | {"iss": "unknown-ak"}, secret="other"), (200, 0)),
            (jwt(good | {"iss": "wrong-ak"}), (401, 1002)),
            (jwt(good, alg="none"), (401, 1002)),
            (jwt({"iss": "sandbox-ak"}), (401, 1002)),
            ("a.b.c", (401, 1002)),
        ]:
            assert outcome(await user.kling(IMAGES, key=token)) == expected, token


async def test_request_over_qps_is_1302(api, clock):
    async with Sandbox(Options(qps=1), clock=clock) as sandbox:
        user = api(sandbox)
        assert outcome(await user.kling(IMAGES, IMAGE)) == (200, 0)
        assert outcome(await user.kling(IMAGES, IMAGE)) == (429, 1302)
        assert outcome(await user.kling(IMAGES)) == (200, 0)
        clock.now += 1
        assert outcome(await user.kling(IMAGES, IMAGE)) == (200, 0)


async def test_too_many_tasks_is_1303_and_image_takes_n_slots(api, clock):
    async with Sandbox(Options(concurrency=3, seconds=(10, 10)), clock=clock) as sandbox:
        user = api(sandbox)
        assert outcome(await user.kling(IMAGES, IMAGE | {"n": 2})) == (200, 0)
        assert outcome(await user.kling(IMAGES, IMAGE | {"n": 2})) == (429, 1303)
        assert outcome(await user.kling(IMAGES, IMAGE)) == (200, 0)
        assert outcome(await user.kling(TEXT, VIDEO)) == (200, 0)
        clock.now += 10
        assert outcome(await user.kling(IMAGES, IMAGE | {"n": 3})) == (200, 0)


async def test_submit_over_credit_is_1102(api):
    async with Sandbox(Options(credit=1)) as sandbox:
        user = api(sandbox)
        assert outcome(await user.kling(IMAGES, IMAGE | {"n": 2})) == (429, 1102)
        assert outcome(await user.kling(IMAGES, IMAGE)) == (200, 0)
