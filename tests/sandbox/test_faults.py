import asyncio
import time

import httpx
import pytest

from runner.sandbox.faults import KINDS, POLL, SUBMIT, FaultInjector
from runner.sandbox.server import Faults, Options, Sandbox


def first(kind, **options):
    return Options(seconds=(0, 0), faults=Faults({kind: frozenset({1})}), **options)


async def submit_outcome(user):
    """Return the outcome of a submit as a client sees it: status and code, status and page, or the exception's name."""
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
async def test_submit_fault_affects_one_request(api, kind, seen, accepted):
    async with Sandbox(first(kind)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert await submit_outcome(user) == seen
        assert len(sandbox.ledger.accepted) == accepted
        assert await submit_outcome(user) == (200, 0)
        assert sandbox.stats["faults"] == {kind: 1}


async def test_slow_reply_is_accepted(api):
    async with Sandbox(first("slow_reply", slow_s=0.2)) as sandbox:
        user = api(sandbox)
        await user.login()
        start = time.monotonic()
        assert await submit_outcome(user) == (200, 0)
        assert time.monotonic() - start > 0.19


async def test_late_accept_follows_closed_connection(api, eventually):
    async with Sandbox(first("late_accept", late_s=0.1)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert await submit_outcome(user) == "RemoteProtocolError"
        assert sandbox.ledger.accepted == []
        assert sandbox.stats["late"] == 1
        await eventually(lambda: sandbox.ledger.accepted)
        assert sandbox.stats["late"] == 0


async def test_delayed_accept_survives_client_disconnect(api, eventually):
    async with Sandbox(Options(accept_delay_s=0.1)) as sandbox:
        user = api(sandbox)
        await user.login()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(submit_outcome(user), 0.03)
        assert sandbox.ledger.accepted == []
        await eventually(lambda: sandbox.ledger.accepted)


@pytest.mark.parametrize(
    ("kind", "seen"), [("poll_500", (500, "html")), ("poll_html", (200, "html")), ("poll_reset", "ReadError")]
)
async def test_poll_fault_affects_one_request(api, kind, seen):
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


async def test_poll_missing_hides_known_id_once(api):
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


async def test_poll_missing_gives_kling_404_once(api):
    async with Sandbox(first("poll_missing")) as sandbox:
        user = api(sandbox)
        made = (await user.kling("/v1/videos/text2video", {"prompt": "x", "external_task_id": "e"})).json()
        path = f"/v1/videos/text2video/{made['data']['task_id']}"
        assert (await user.kling("/v1/videos/text2video/e")).status_code == 200
        assert (await user.kling(path)).status_code == 404
        assert (await user.kling(path)).status_code == 200


async def test_poll_unknown_state_affects_one_request(api):
    async with Sandbox(first("poll_unknown_state")) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        states = [(await user.task(task_id))["data"]["progress_desc"] for _ in range(2)]
        assert states == ["Reviewing", "Success"]


async def test_success_empty_hides_outputs_once(api):
    async with Sandbox(first("success_empty")) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        rows = [(await user.task(task_id))["data"] for _ in range(2)]
        assert [row["progress_desc"] for row in rows] == ["Success", "Success"]
        assert [len(row["output_url"]) for row in rows] == [0, 1]


async def test_token_dead_refuses_valid_token_once(api):
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
async def test_download_fault_affects_one_request(api, http, kind, seen):
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


async def test_slow_download_takes_slow_s(api, http):
    async with Sandbox(first("slow_download", slow_s=0.2)) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        start = time.monotonic()
        reply = await http.get(f"{sandbox.url}/files/{task_id}/0.png")
        assert reply.content.startswith(b"\x89PNG")
        assert time.monotonic() - start > 0.19


async def test_outage_can_be_switched_at_run_time(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        await http.post(f"{sandbox.url}/_sandbox/options", json={"outage": True})
        assert await submit_outcome(user) == (503, "page")
        await http.post(f"{sandbox.url}/_sandbox/options", json={"outage": False, "qps": 5})
        assert await submit_outcome(user) == (200, 0)
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
async def test_invalid_option_change_is_400(http, changes):
    async with Sandbox() as sandbox:
        reply = await http.post(f"{sandbox.url}/_sandbox/options", json=changes)
        assert reply.status_code == 400


async def test_refused_submits_do_not_count_for_faults(api):
    async with Sandbox(first("lost_reply")) as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit(ref_prompt=""))["code"] == 40000
        assert await submit_outcome(user) == "RemoteProtocolError"


def test_same_seed_gives_same_faults():
    def injected(seed):
        injector = FaultInjector(Faults({"lost_reply": 0.1}), seed)
        return [injector.next_fault(SUBMIT) for _ in range(1000)]

    assert injected(1) == injected(1) != injected(2)
    assert 60 < injected(1).count("lost_reply") < 140


def test_fault_numbers_are_exact():
    injector = FaultInjector(Faults.parse(["cut_reply=@3,7"]), 0)
    assert [n for n in range(1, 20) if injector.next_fault(SUBMIT)] == [3, 7]


def test_groups_are_counted_separately():
    injector = FaultInjector(Faults({"lost_reply": {2}, "poll_500": {1}}), 0)
    assert [injector.next_fault(SUBMIT), injector.next_fault(POLL), injector.next_fault(SUBMIT)] == [
        None,
        "poll_500",
        "lost_reply",
    ]


@pytest.mark.parametrize("text", ["nothing=0.1", "lost_reply", "lost_reply=2", "lost_reply=@x", "lost_reply=nan"])
def test_invalid_fault_raises_value_error(text):
    with pytest.raises(ValueError, match=r"fault|share|literal"):
        Faults.parse([text])


# lies

KLING_IMAGES = "/v1/images/generations"
KLING_IMAGE = {"model_name": "kling-v2-1", "prompt": "boat"}


async def listed(sandbox, api, count: int = 4) -> tuple[list[str], list[dict]]:
    """Buy images, and return their ids, the newest first, and what the list shows."""
    user = api(sandbox)
    ids = [
        (await user.kling(KLING_IMAGES, KLING_IMAGE | {"external_task_id": f"r-{n}"})).json()["data"]["task_id"]
        for n in range(count)
    ]
    return ids[::-1], (await user.kling(KLING_IMAGES)).json()["data"]


@pytest.mark.parametrize(
    ("lie", "shown"),
    [
        ("list_holes", (1, 3)),
        ("list_blank", ()),
        ("list_oldest_first", (3, 2, 1, 0)),
        ({"list_newest": 2}, (0, 1)),
        ({"list_oldest": 2}, (2, 3)),
    ],
)
async def test_lie_changes_which_rows_a_list_shows(api, lie, shown):
    options = Options(**lie) if isinstance(lie, dict) else Options(faults=Faults({lie: 1.0}))
    async with Sandbox(options) as sandbox:
        ids, rows = await listed(sandbox, api)
        assert [row["task_id"] for row in rows] == [ids[position] for position in shown]


async def test_list_without_order_shows_every_task(api):
    async with Sandbox(Options(faults=Faults({"list_unordered": 1.0}))) as sandbox:
        ids, rows = await listed(sandbox, api, 8)
        assert sorted(row["task_id"] for row in rows) == sorted(ids)
        assert [row["task_id"] for row in rows] != ids


async def test_list_of_one_page_repeats_it(api):
    async with Sandbox(Options(faults=Faults({"list_one_page": 1.0}))) as sandbox:
        ids, _ = await listed(sandbox, api)
        rows = (await api(sandbox).kling(KLING_IMAGES, pageNum=2, pageSize=3)).json()["data"]
        assert [row["task_id"] for row in rows] == ids[:3]


async def test_reference_can_be_dropped(api):
    """Such a host takes duplicates, and may answer a query by reference with any task."""
    async with Sandbox(Options(faults=Faults({"no_reference": 1.0}))) as sandbox:
        ids, rows = await listed(sandbox, api)
        assert [row["task_info"]["external_task_id"] for row in rows] == [""] * 4
        user = api(sandbox)
        assert (await user.kling(KLING_IMAGES, KLING_IMAGE | {"external_task_id": "r-1"})).status_code == 200
        assert (await user.kling(f"{KLING_IMAGES}/r-1")).status_code == 404
        sandbox.change(faults={"any_reference": 1.0})
        answer = (await user.kling(f"{KLING_IMAGES}/r-1")).json()["data"]
        assert answer["task_id"] not in ids
        assert sandbox.ledger.duplicates() == 4


@pytest.mark.parametrize(("lie", "kind"), [("list_no_times", type(None)), ("list_text_times", str)])
async def test_times_of_rows_can_be_missing_or_text(api, lie, kind):
    async with Sandbox(Options(faults=Faults({lie: 1.0}))) as sandbox:
        _, rows = await listed(sandbox, api, 1)
        assert type(rows[0]["created_at"]) is kind


async def test_prompts_can_be_hidden(api):
    async with Sandbox(Options(faults=Faults({"list_hides_prompt": frozenset({2})}))) as sandbox:
        user = api(sandbox)
        await user.login()
        await user.submit()
        shown = [(await user.page())["data"]["list"][0]["photo_info"]["ref_prompt"] for _ in range(2)]
        assert shown == ["纸船 paper boat", ""]


def test_two_modules_name_every_fault(request):
    source = request.path.read_text() + request.path.with_name("test_list_view.py").read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []


# refusals

#: what each fault says at Kling and at Chanjing
REFUSED = {
    "refuse_after_charge": ((429, 1302), 40001),
    "refuse_window_after_charge": ((429, 1303), 40001),
    "refuse_content_after_charge": ((400, 1301), 50000),
    "refuse_credit_after_charge": ((429, 1102), 50000),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_submit_can_be_charged_and_refused(api, kind):
    async with Sandbox(first(kind)) as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit())["code"] == REFUSED[kind][1]
        assert len(sandbox.ledger.accepted) == 1, "it was made all the same"
        assert (await user.submit())["code"] == 0
        sandbox.change(faults={kind: [1]})
        reply = await user.kling(KLING_IMAGES, KLING_IMAGE)
        assert (reply.status_code, reply.json()["code"]) == REFUSED[kind][0]
        assert len(sandbox.ledger.accepted) == 3


async def test_throttle_refuses_free_of_charge(api):
    async with Sandbox(first("throttle")) as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await user.submit())["code"] == 40001
        assert sandbox.ledger.accepted == []
        assert (await user.submit())["code"] == 0


async def test_bills_fail_while_the_list_works(api):
    async with Sandbox(first("bills_fail")) as sandbox:
        user = api(sandbox)
        await user.login()
        url, token = f"{sandbox.url}/open/v1/consume_detail", {"access_token": user.token}
        replies = [await user.http.post(url, json={}, headers=token) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [500, 200]
        assert (await user.page())["code"] == 0
