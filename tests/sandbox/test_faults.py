import asyncio
import time

import httpx
import pytest

from runner.sandbox.faults import KINDS, POLL, SUBMIT, Dice
from runner.sandbox.server import Faults, Options, Sandbox


def first(kind, **options):
    return Options(seconds=(0, 0), faults=Faults({kind: frozenset({1})}), **options)


async def told(user):
    """What a submit looks like from outside: an answer, a page, or the kind of failure."""
    url = f"{user.sandbox.url}/open/v1/ai_creation/task/submit"
    body = {"creation_type": 3, "model_code": "kling-v2-1", "ref_prompt": "boat"}
    try:
        reply = await user.http.post(url, json=body, headers={"access_token": user.token})
    except httpx.TransportError as error:
        return type(error).__name__
    html = reply.headers["content-type"].startswith("text/html")
    return reply.status_code, "page" if html else reply.json()["code"]


@pytest.mark.parametrize(
    ("kind", "seen", "accepted"),
    [
        ("lost_reply", "RemoteProtocolError", 1),
        ("reset_after", "ReadError", 1),
        ("reset_before", "ReadError", 0),
        ("cut_reply", "RemoteProtocolError", 1),
        ("http_500_after", (500, "page"), 1),
        ("http_504_before", (504, "page"), 0),
        ("http_502_html", (502, "page"), 0),
        ("html_200", (200, "page"), 0),
    ],
)
async def test_a_submit_goes_wrong_in_its_way_and_the_next_does_not(api, kind, seen, accepted):
    async with Sandbox(first(kind)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert await told(user) == seen
        assert len(sandbox.ledger.accepted) == accepted
        assert await told(user) == (200, 0)
        assert sandbox.stats["faults"] == {kind: 1}


async def test_a_slow_reply_comes_late_and_was_accepted(api):
    async with Sandbox(first("slow_reply", slow_s=0.2)) as sandbox:
        user = api(sandbox)
        await user.login()
        start = time.monotonic()
        assert await told(user) == (200, 0)
        assert time.monotonic() - start > 0.19


async def test_a_late_task_is_accepted_after_the_connection_was_dropped(api, eventually):
    async with Sandbox(first("late_accept", late_s=0.1)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert await told(user) == "RemoteProtocolError"
        assert sandbox.ledger.accepted == []
        assert sandbox.stats["late"] == 1
        await eventually(lambda: sandbox.ledger.accepted)
        assert sandbox.stats["late"] == 0


async def test_a_delayed_accept_happens_though_the_client_has_gone(api, eventually):
    async with Sandbox(Options(accept_delay_s=0.1)) as sandbox:
        user = api(sandbox)
        await user.login()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(told(user), 0.03)
        assert sandbox.ledger.accepted == []
        await eventually(lambda: sandbox.ledger.accepted)


@pytest.mark.parametrize(
    ("kind", "seen"), [("poll_500", (500, "html")), ("poll_html", (200, "html")), ("poll_reset", "ReadError")]
)
async def test_a_poll_gets_something_that_is_no_answer(api, kind, seen):
    async with Sandbox(first(kind)) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        url = f"{sandbox.url}/open/v1/ai_creation/task?unique_id={task_id}"
        try:
            reply = await user.http.get(url, headers={"access_token": user.token})
            outcome = reply.status_code, reply.headers["content-type"][5:9]
        except httpx.ReadError as error:
            outcome = type(error).__name__
        assert outcome == seen
        assert (await user.task(task_id))["code"] == 0


async def test_a_known_id_may_be_missing_once(api):
    async with Sandbox(first("poll_missing")) as sandbox:
        user = api(sandbox)
        await user.login()
        ids = [(await user.submit())["data"] for _ in range(2)]
        assert len((await user.page())["data"]["list"]) == 2
        assert len((await user.page(*ids))["data"]["list"]) == 1
        assert len((await user.page(*ids))["data"]["list"]) == 2
        sandbox.change(faults={"poll_missing": "@1"})
        reply = await user.task(ids[0])
        assert (reply["code"], reply["data"]) == (0, None)


async def test_kling_may_not_know_its_own_task_once(api):
    async with Sandbox(first("poll_missing")) as sandbox:
        user = api(sandbox)
        made = (await user.kling("/v1/videos/text2video", {"prompt": "x", "external_task_id": "e"})).json()
        path = f"/v1/videos/text2video/{made['data']['task_id']}"
        assert (await user.kling("/v1/videos/text2video/e")).status_code == 200
        assert (await user.kling(path)).status_code == 404
        assert (await user.kling(path)).status_code == 200


async def test_a_state_may_be_unknown(api):
    async with Sandbox(first("poll_unknown_state")) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        states = [(await user.task(task_id))["data"]["progress_desc"] for _ in range(2)]
        assert states == ["Reviewing", "Success"]


async def test_a_success_may_be_empty_at_first(api):
    async with Sandbox(first("success_empty")) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        rows = [(await user.task(task_id))["data"] for _ in range(2)]
        assert [row["progress_desc"] for row in rows] == ["Success", "Success"]
        assert [len(row["output_url"]) for row in rows] == [0, 1]


async def test_a_valid_token_may_be_refused(api):
    async with Sandbox(first("token_dead")) as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit())["code"] == 10400
        assert (await user.submit())["code"] == 0


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("cut_download", "RemoteProtocolError"),
        ("reset_download", "ReadError"),
        ("html_download", (200, "text/html")),
        ("expired_link", (403, "text/html")),
        ("http_429_download", (429, "text/html")),
        ("empty_download", (200, "")),
    ],
)
async def test_a_download_goes_wrong_and_the_next_does_not(api, http, kind, seen):
    async with Sandbox(first(kind)) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        url = (await user.task(task_id))["data"]["output_url"][0]
        try:
            reply = await http.get(url)
            outcome = reply.status_code, (reply.content and reply.headers["content-type"][:9]) or ""
        except httpx.TransportError as error:
            outcome = type(error).__name__
        assert outcome == seen
        assert (await http.get(url)).content.startswith(b"\x89PNG")


async def test_a_slow_download_drips(api, http):
    async with Sandbox(first("slow_download", slow_s=0.2)) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        start = time.monotonic()
        reply = await http.get(f"{sandbox.url}/files/{task_id}/0.png")
        assert reply.content.startswith(b"\x89PNG")
        assert time.monotonic() - start > 0.19


async def test_an_outage_begins_and_ends_at_run_time(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        await http.post(f"{sandbox.url}/_sandbox/options", json={"outage": True})
        assert await told(user) == (503, "page")
        await http.post(f"{sandbox.url}/_sandbox/options", json={"outage": False, "qps": 5})
        assert await told(user) == (200, 0)
        assert sandbox.options.qps == 5.0


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 1},
        {"nonsense": 1},
        {"faults": {"nonsense": 1}},
        {"faults": 3},
        {"qps": 0},
        {"credit": "much"},
        {"gateway_dialect": "D"},
        {"seconds": [2, 1]},
    ],
)
async def test_what_cannot_be_changed_is_said(http, changes):
    async with Sandbox() as sandbox:
        reply = await http.post(f"{sandbox.url}/_sandbox/options", json=changes)
        assert reply.status_code == 400


async def test_refused_submits_are_not_counted(api):
    async with Sandbox(first("lost_reply")) as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit(ref_prompt=""))["code"] == 40000
        assert await told(user) == "RemoteProtocolError"


def test_dice_fall_alike_for_the_same_seed():
    def throws(seed):
        dice = Dice(Faults({"lost_reply": 0.1}), seed)
        return [dice.roll(SUBMIT) for _ in range(1000)]

    assert throws(1) == throws(1) != throws(2)
    assert 60 < throws(1).count("lost_reply") < 140


def test_numbers_strike_exactly():
    dice = Dice(Faults.parse(["cut_reply=@3,7"]), 0)
    assert [n for n in range(1, 20) if dice.roll(SUBMIT)] == [3, 7]


def test_groups_are_counted_apart():
    dice = Dice(Faults({"lost_reply": {2}, "poll_500": {1}}), 0)
    assert [dice.roll(SUBMIT), dice.roll(POLL), dice.roll(SUBMIT)] == [None, "poll_500", "lost_reply"]


@pytest.mark.parametrize("text", ["nothing=0.1", "lost_reply", "lost_reply=2", "lost_reply=@x", "lost_reply=nan"])
def test_a_fault_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match=r"fault|share|literal"):
        Faults.parse([text])


def test_every_kind_of_fault_is_tested_here(request):
    source = request.path.read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []
