import pytest

from runner.sandbox.server import Options, Sandbox

VIDEO = {"creation_type": 4, "model_code": "tx_kling2.5", "ref_prompt": "a lighthouse", "video_duration": 5}


async def test_token_expiry_is_unix_time(api, clock):
    async with Sandbox(Options(token_life_s=60), clock=clock) as sandbox:
        user = api(sandbox)
        reply = await user.login()
        assert reply["data"]["expire_in"] == int(clock.now + 60)
        assert (await user.submit())["code"] == 0
        clock.now += 60
        assert (await user.submit())["code"] == 10400


async def test_new_token_invalidates_previous_one(api):
    async with Sandbox() as sandbox:
        first, second = api(sandbox), api(sandbox)
        await first.login()
        await second.login()
        assert (await first.submit())["code"] == 10400
        assert (await second.submit())["code"] == 0
        assert sandbox.stats["tokens_issued"] == 2


async def test_two_applications_have_valid_tokens(api):
    async with Sandbox() as sandbox:
        first, second = api(sandbox), api(sandbox)
        await first.login()
        await second.login(app_id="other")
        assert (await first.submit())["code"] == (await second.submit())["code"] == 0
        assert (await first.page())["data"]["total"] == 1


async def test_token_expires_after_token_requests(api):
    async with Sandbox(Options(token_requests=2)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert [(await user.submit())["code"] for _ in range(3)] == [0, 0, 10400]


@pytest.mark.parametrize(("fields", "code"), [({"secret_key": "wrong"}, 40000), ({"app_id": ""}, 400)])
async def test_bad_credentials_get_no_token(api, fields, code):
    async with Sandbox() as sandbox:
        assert (await api(sandbox).login(**fields))["code"] == code
        assert sandbox.stats["tokens_issued"] == 0


async def test_submit_without_token_is_refused(api):
    async with Sandbox() as sandbox:
        assert (await api(sandbox).submit())["code"] == 10400
        assert sandbox.stats["refused"] == {"10400": 1}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"creation_type": 5}, 40000),
        ({"model_code": "kling-2.5"}, 50000),
        ({"model_code": "tx_kling2.5"}, 40000),
        ({"ref_prompt": ""}, 40000),
        ({"number_of_images": 5}, 40000),
        ({"number_of_images": 0}, 40000),
        ({"number_of_images": True}, 40000),
        ({"ref_img_url": ["https://files.example/a.png"]}, 40000),
        ({"ref_prompt": "something NSFW-TEST"}, 50000),
        ({"ref_prompt": "违规"}, 50000),
        ({"model_code": ["kling-v2-1"]}, 40000),
    ],
)
async def test_invalid_image_submit_is_not_charged(api, fields, code):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        reply = await user.submit(**fields)
        assert (reply["code"], reply["data"]) == (code, None)
        assert sandbox.ledger.charges() == 0


async def test_video_needs_duration_but_no_prompt(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit(VIDEO, video_duration=None))["code"] == 40000
        assert (await user.submit(VIDEO, ref_prompt=""))["code"] == 0


async def test_body_must_be_json_object(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.chanjing("ai_creation/task/submit", [1]))["code"] == 400


async def test_unknown_path_is_plain_text_404(http):
    async with Sandbox() as sandbox:
        reply = await http.get(f"{sandbox.url}/open/v1/nothing")
        assert (reply.status_code, reply.headers["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_task_goes_from_queued_to_success(api, clock):
    async with Sandbox(Options(seconds=(10, 10)), clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit(number_of_images=2, clarity=1024))["data"]
        states = []
        for _ in range(3):
            states.append((await user.task(task_id))["data"]["progress_desc"])
            clock.now += 5
        assert states == ["Queued", "Generating", "Success"]
        row = (await user.task(task_id))["data"]
        assert len(row["output_url"]) == 2
        assert row["photo_info"]["ref_prompt"] == "纸船 paper boat"
        assert row["photo_info"]["number_of_images"] == 2
        assert row["motion_info"] == {
            "photo_path_url": None,
            "ref_prompt": "",
            "clarity": 0,
            "quality_mode": "",
            "style": "",
            "aspect_ratio": "",
            "video_duration": 0,
        }


async def test_prompt_with_fail_word_is_accepted_and_fails(api, clock):
    async with Sandbox(clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit(ref_prompt="FAIL-TEST"))["data"]
        clock.now += 10
        row = (await user.task(task_id))["data"]
        assert row["progress_desc"] == "Error"
        assert row["err_msg"]
        assert row["output_url"] == []


async def test_unknown_id_is_error_alone_and_absent_from_page(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        known = (await user.submit())["data"]
        assert (await user.task("unknown"))["code"] == 50000
        data = (await user.page("unknown", known))["data"]
        assert [row["unique_id"] for row in data["list"]] == [known]
        assert data["total"] == 1


async def test_page_holds_one_type_newest_first(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        images = [(await user.submit())["data"] for _ in range(5)]
        video = (await user.submit(VIDEO))["data"]
        data = (await user.page(page=2, size=2))["data"]
        assert [row["unique_id"] for row in data["list"]] == [images[2], images[1]]
        assert data["page_info"] == {"page": 2, "size": 2, "total_count": 5, "total_page": 3}
        assert [row["unique_id"] for row in (await user.page(*images, video, kind=4))["data"]["list"]] == [video]
        assert (await user.page(kind=4))["data"]["list"][0]["motion_info"]["video_duration"] == 5


async def test_page_can_be_limited_to_successes(api, clock):
    async with Sandbox(clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        done = (await user.submit())["data"]
        await user.submit(ref_prompt="FAIL-TEST")
        clock.now += 10
        await user.submit()
        assert [row["unique_id"] for row in (await user.page(is_success=True))["data"]["list"]] == [done]


@pytest.mark.parametrize(
    "fields", [{"size": 51}, {"size": 0}, {"page": 0}, {"page": "1"}, {"kind": 5}, {"unique_ids": ["u"] * 51}]
)
async def test_invalid_page_query_is_refused(api, fields):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.page(**fields))["code"] == 40000


async def test_list_lag_does_not_affect_single_query(api, clock):
    async with Sandbox(Options(list_lag_s=30), clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        assert (await user.task(task_id))["code"] == 0
        assert (await user.page())["data"]["total"] == 0
        clock.now += 30
        assert (await user.page())["data"]["total"] == 1


async def test_requests_over_qps_are_refused(api, clock):
    async with Sandbox(Options(qps=2, window_s=60), clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        codes = []
        for step in (0, 30, 29, 1, 0):
            clock.now += step
            codes.append((await user.submit())["code"])
        assert codes == [0, 0, 40001, 0, 40001]
        assert (await user.page())["code"] == 0
        submit = "POST /open/v1/ai_creation/task/submit"
        assert sandbox.stats["violations"] == {submit: 2}
        assert sandbox.stats["peaks"][submit] == 4


async def test_submit_over_credit_is_refused(api):
    async with Sandbox(Options(credit=4)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit(number_of_images=3))["code"] == 0
        reply = await user.submit(number_of_images=2)
        assert reply["code"] == 50000
        assert "余额不足" in reply["msg"]
        assert (await user.submit())["code"] == 0
        assert sandbox.ledger.charges() == 4
