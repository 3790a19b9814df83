"""Credentials, limits and outages: a refusal costs nothing, and no retry is endless."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.app import provider_config
from runner.net import auth, downloader
from runner.net.client import ProviderClient
from runner.providers import responses
from runner.providers.requests import Reply, Request
from runner.providers.spec import load
from runner.store.account import TokenFile
from runner.tasks.events import Claimed, Found, Interrupted, Missing, RetryableFailure, Suspected
from runner.tasks.retry_policy import RetryPolicy

from .chain import QUICK, chain
from .server import answer, first, instead

PAIR = ("kling", "chanjing")


class FakeClock:
    """A clock that advances only by sleeping."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def chanjing(ours, fake_clock):
    """Return the real token scheme with the account's token file. Only the wait between two refreshes is skipped."""
    spec, settings = load("chanjing"), ours.settings
    held = provider_config.credentials(spec, settings)
    tokens = provider_config._AccountTokens(provider_config.account_directory(spec, settings))
    return auth.ChanjingToken(*held.values(), tokens, wall=time.time, clock=fake_clock, sleep=fake_clock.sleep)


# FA1 to FA3: tokens and keys


async def test_fa01_three_processes_refresh_expired_token_once(tmp_path):
    """Fifty concurrent requests in three processes refresh an invalid token once."""
    spec = load("chanjing")
    async with chain(tmp_path, "chanjing") as ours, AsyncExitStack() as stack:
        stored = TokenFile(provider_config.account_directory(spec, ours.settings))
        async with stored.lock():
            await stored.write("dead", time.time() + 80_000)
        senders = [
            ProviderClient(ours.middle.url, provider_config.auth_scheme(spec, ours.settings), deadlines=QUICK)
            for _ in range(3)
        ]
        for sender in senders:
            stack.push_async_callback(sender.aclose)
        outcomes = []

        async def ask(sender):
            outcomes.append(
                await sender.send(Request("query", "GET", "/open/v1/ai_creation/task?unique_id=x", "query"))
            )

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, senders[number % 3])
        assert {outcome.body["msg"] for outcome in outcomes} == {"创作任务不存在"}, "everyone has a live token"
        assert ours.middle.calls["token"] == 1
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, senders[number % 3])
        assert ours.middle.calls["token"] == 1, "no ping-pong"


async def test_fa01_token_expiring_every_7_requests_loses_no_task(tmp_path):
    """A token that expires after every seven requests costs no task."""
    async with chain(tmp_path, "chanjing", workers=8, token_requests=7) as ours:
        ours.scheme = chanjing(ours, FakeClock())
        result = await ours.run(20)
        ours.paid_once(result, 20)
        assert ours.middle.calls["token"] <= 2 + ours.middle.calls.total() / 7


async def test_fa01_rejected_fresh_token_ends_submits(tmp_path):
    """A fresh token that is rejected ends submits and leaves the state safe."""
    dead = {"code": 10400, "msg": "AccessToken已失效", "data": None}
    async with chain(tmp_path, "chanjing", workers=1) as ours:
        ours.scheme = chanjing(ours, FakeClock())
        ours.middle.deeds["submit"] = first(2, instead(answer(dead), end="open"))
        result = await ours.run(5)
        assert (result.exit, result.states) == (12, ["queued"] * 5)
        assert ours.middle.calls["submit"] == 2, "the rejected request is replayed once"
        assert ours.middle.calls["token"] == 2
        ours.paid_once(await ours.run(5), 5)


@pytest.mark.parametrize("status", [302, 500, 502])
@pytest.mark.parametrize("code", [10400, 40001])
async def test_fa01_refusal_with_unclear_status_is_in_doubt(tmp_path, code, status):
    """Behind a gateway that retries, the first attempt may have been accepted and the second refused."""
    async with chain(tmp_path, "chanjing", workers=1) as ours:
        ours.paid_once(await ours.run(1), 1)
        ours.middle.deeds["submit"] = {2: instead(answer({"code": code, "msg": "no"}, status), after=True)}
        result = await ours.run(2)
        assert len(result.events_of(Interrupted)) == 1
        ours.paid_once(result, 2)


async def test_fa02_failing_refresh_is_retried_every_5_s_at_most(tmp_path):
    """A refresh endpoint that is down gets a request every five seconds at most."""
    fake_clock = FakeClock()
    async with chain(tmp_path, "chanjing") as ours:
        ours.scheme = chanjing(ours, fake_clock)
        ours.middle.deeds["token"] = first(4, instead(answer("<html>", 502), end="open"))
        result = await ours.run(3)
        ours.paid_once(result, 3)
        assert sum(fake_clock.slept) >= 5.0 * (ours.middle.calls["token"] - 1)
        assert result.events_of(Interrupted) == [], "without a token nothing was sent"


async def test_fa02_same_invalid_token_again_sends_nothing(tmp_path):
    fake_clock, again = (
        FakeClock(),
        {"code": 0, "data": {"access_token": "dead", "expire_in": int(time.time()) + 80_000}},
    )
    async with chain(tmp_path, "chanjing") as ours:
        ours.scheme = chanjing(ours, fake_clock)
        ours.middle.deeds["token"] = instead(answer(again), end="open")
        result = await ours.run(3, deadline=0.5)
        assert (result.exit, result.states) == (5, ["queued"] * 3)
        assert ours.middle.calls["query"] == 1, "it is not tried with a token that was rejected"
        assert ours.middle.calls["submit"] == 0, "the list is asked before anything is bought"
        assert sum(fake_clock.slept) >= 5.0 * (ours.middle.calls["token"] - 1)
        assert ours.accepted == []


REVOKED = {
    "kling": answer({"code": 1002, "message": "Authorization is invalid"}, 401),
    "chanjing": answer({"code": 10400, "msg": "AccessToken已失效", "data": None}),
    "kling-gateway": answer({"error": {"message": "无效的令牌", "type": "new_api_error", "code": ""}}, 401),
}


@pytest.mark.parametrize("provider", REVOKED)
async def test_fa03_revoked_credentials_end_run_in_three_requests(tmp_path, provider):
    """Revoked credentials end the run within three requests."""
    after = 0

    async def deed(call):
        nonlocal after
        if call.middle.calls["submit"] < 4:
            await call.pass_on()
            return
        after += 1
        token = answer({"code": 40000, "msg": "app_id 或 secret_key 错误"})
        await call.say(token if call.kind == "token" else REVOKED[provider])

    async with chain(tmp_path, provider, rate=20.0, seconds=(30.0, 30.0)) as ours:
        if provider == "chanjing":
            ours.scheme = chanjing(ours, FakeClock())
        ours.middle.deeds |= {"submit": deed, "query": deed, "token": deed}
        result = await ours.run(12)
        assert result.exit == 12, result.reasons
        assert after <= 3
        assert result.states == ["running"] * 3 + ["queued"] * 9
        assert len(ours.accepted) == 3


# FA4 to FA6: too fast, too many, and when to come again

TOO_FAST = {
    "chanjing": answer({"code": 40001, "msg": "超出 QPS 限制", "data": None}),
    "kling": answer({"code": 1302, "message": "API request is too fast"}, 429),
}


async def slowed_down(tmp_path, provider):
    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["submit"] = first(5, instead(TOO_FAST[provider], end="open"))
        result = await ours.run(8)
        ours.paid_once(result, 8)
        assert result.events_of(Interrupted) == []
        assert [task["attempts"] for task in result.tasks] == [0] * 8, "a refusal for haste is no attempt"
        assert sum(task["throttles"] for task in result.tasks) == 5
        refused = next(
            n for n, (_, event, _) in enumerate(result.changes) if isinstance(event, RetryableFailure | Suspected)
        )
        assert result.pipeline.session.limiters["submit"].rate_limit.rate(time.monotonic()) < 200.0, (
            "half the rate, regained in steps"
        )
        assert all(
            event.kind == "throttled" for _, event, _ in result.changes[refused:] if isinstance(event, RetryableFailure)
        )


@pytest.mark.slow
async def test_fa04_burst_of_40001_halves_rate_and_is_no_attempt(tmp_path):
    """A burst of 40001 halves the rate, and none of the refusals counts as an attempt."""
    await slowed_down(tmp_path, "chanjing")


@pytest.mark.slow
async def test_fa04_rate_at_server_limit_causes_no_40001(tmp_path):
    """At exactly the limit that the server enforces there is no 40001."""
    async with chain(tmp_path, "chanjing", qps=40.0, rate=40.0, query_rate=40.0, span=1.0) as ours:
        ours.paid_once(await ours.run(50), 50)
        assert ours.sandbox.stats["refused"].get("40001", 0) == 0


@pytest.mark.slow
async def test_fa05_1302_lowers_rate(tmp_path):
    await slowed_down(tmp_path, "kling")


async def test_fa05_1303_waits_for_own_completion(tmp_path):
    async with chain(tmp_path, concurrency=2, seconds=(0.2, 0.2)) as ours:
        result = await ours.run(4)
        ours.paid_once(result, 4)
        full = [event for event in result.events_of(RetryableFailure) if event.kind == "window"]
        full += [event for event in result.events_of(Suspected) if event.error.reason == "window"]
        assert 1 <= len(full) <= 6, "not sent repeatedly while the window is full"
        assert [task["attempts"] for task in result.tasks] == [0] * 4


async def test_fa05_1303_below_known_limit_is_reported(tmp_path):
    """The manifest allows four tasks. Two of ours run, and no slot is free: another client occupies the rest."""
    async with chain(tmp_path, concurrency=4, window=4, seconds=(0.3, 0.3)) as ours:
        await ours.elsewhere({"prompt": "lost"}, {"prompt": "lost as well"})
        result = await ours.run(4)
        assert result.states == ["done"] * 4
        assert any("1303" in warning or "slots" in warning for warning in result.warnings)


#: the header, and the possible results: seconds, or None for an unbelievable value
WAITS = {
    "0": 0.5,
    "1": 1.0,
    "20": 20.0,
    "0007": 7.0,
    "900": 900.0,
    "901": 900.0,
    "999999": 900.0,
    "1000000": None,
    "9" * 5000: None,
    "1e20": None,
    "-1": None,
    "+1": None,
    "1.5": None,
    "0x10": None,
    "1_0": None,
    "０１２": None,
    "٣": None,
    "²": None,
    "": None,
    " ": None,
    "nan": None,
    "inf": None,
    "soon": None,
    "1, 2": None,
    "\ud800": None,
}
READERS = {
    "api": lambda **reply: responses.retry_after(
        Reply(429, None, {name.replace("_", "-"): text for name, text in reply.items()})
    ),
    "download": lambda **reply: downloader.retry_after(
        httpx.Headers({name.replace("_", "-"): text.encode("utf-8", "replace") for name, text in reply.items()})
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", WAITS, ids=range(len(WAITS)))
def test_fa06_retry_after_in_seconds(reader, text):
    assert READERS[reader](retry_after=text) == WAITS[text]


NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FORMATS = {
    "RFC 1123": lambda at: format_datetime(at, usegmt=True),
    "RFC 850": lambda at: at.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
    "asctime": lambda at: at.strftime("%a %b %e %H:%M:%S %Y"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("ahead", "wait"), [(20, 20.0), (-20, 0.5), (86_400, 900.0)])
def test_fa06_retry_after_date_uses_server_clock(reader, form, ahead, wait):
    reply = FORMATS[form](NOW + timedelta(seconds=ahead))
    assert READERS[reader](retry_after=reply, date=FORMATS["RFC 1123"](NOW)) == wait


@given(
    text=st.one_of(
        st.text(max_size=40),
        st.integers().map(str),
        st.floats().map(str),
        st.datetimes().map(lambda at: formatdate(at.replace(tzinfo=UTC).timestamp(), usegmt=True)),
        st.text(st.characters(categories=["Nd"]), min_size=1, max_size=8),
    )
)
@pytest.mark.parametrize("reader", READERS)
def test_fa06_any_retry_after_is_bounded_and_raises_nothing(reader, text):
    """Any Retry-After value gives a bounded wait and raises nothing."""
    wait = READERS[reader](retry_after=text)
    assert wait is None or 0.5 <= wait <= 900.0


async def test_fa06_submit_after_429_waits_for_retry_after(tmp_path):
    """The submit after a 429 waits as long as the server asks."""
    async with chain(tmp_path, rate=1000.0) as ours:
        refusal = answer({"code": 1302, "message": "too fast"}, 429, retry_after="1")
        at = []

        async def deed(call):
            at.append(time.monotonic())
            await (call.say(refusal) if call.number == 2 else call.pass_on())

        ours.middle.deeds["submit"] = deed
        ours.workers = 1
        ours.paid_once(await ours.run(3), 3)
        assert at[2] - at[1] >= 1.0


# FA7: no money

NO_MONEY = {
    "kling, in arrears": ("kling", answer({"code": 1101, "message": "account in arrears"}, 429)),
    "kling, pack used up": (
        "kling",
        answer({"code": 1102, "message": "resource pack is used up"}, 429, retry_after="1"),
    ),
    "chanjing, balance": ("chanjing", answer({"code": 50000, "msg": "扣费失败，蝉豆余额不足"})),
    "chanjing, catch-all": ("chanjing", answer({"code": 400, "msg": "账户余额不足"})),
    "chanjing, quota": ("chanjing", answer({"code": 40002, "msg": "quota"})),
    "gateway, 402": ("kling-gateway", answer({"detail": "INSUFFICIENT_CREDITS"}, 402)),
    "gateway, 403": ("kling-gateway", answer({"code": "quota_not_enough", "message": "m", "data": None}, 403)),
}


@pytest.mark.parametrize("case", NO_MONEY)
async def test_fa07_no_money_stops_submits_and_finishes_paid_tasks(tmp_path, case):
    """Without money submits stop, and what is paid is finished and downloaded."""
    provider, reply = NO_MONEY[case]

    async def deed(call):
        await (call.pass_on() if call.number <= 3 else call.say(reply))

    async with chain(tmp_path, provider, workers=1) as ours:
        ours.middle.deeds["submit"] = deed
        result = await ours.run(8)
        assert (result.exit, result.states) == (6, ["done"] * 3 + ["queued"] * 5)
        assert ours.middle.calls["submit"] == 4, "not taken for a rate limit, and not sent again"
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(8), 8)


# FA8 to FA12: storms, outages, doubts

PAGES = [(500, "<html>"), (502, ""), (504, "gateway")]
UNCLEAR = {
    "kling": [
        *PAGES,
        (503, {"code": 5001}),
        (500, {"code": 5000}),
        (200, {"code": 5002}),
        (500, {"code": 1201}),
    ],
    "chanjing": [
        *PAGES,
        (503, "busy"),
        (200, {"code": 50000, "msg": "internal"}),
        (200, {"code": 51000}),
        (500, {"code": 40001}),
    ],
}


@pytest.mark.parametrize("taken", [True, False], ids=["accepted", "not accepted"])
@pytest.mark.parametrize("provider", PAIR)
async def test_fa08_5xx_to_submit_is_in_doubt(tmp_path, provider, taken):
    cases = UNCLEAR[provider]
    async with chain(tmp_path, provider) as ours:
        deeds = [instead(answer(body, status), after=taken, end="open") for status, body in cases]
        # the first goes well: from it a list is known to show requests as they were sent
        ours.middle.deeds["submit"] = dict(enumerate(deeds, start=2))
        result = await ours.run(1 + len(cases))
        ours.paid_once(result, 1 + len(cases))
        assert len(result.events_of(Interrupted)) == len(cases)
        assert len(result.events_of(Found)) == (len(cases) if taken else 0)


async def test_fa08_5xx_storm_on_polls_causes_no_extra_submit(tmp_path):
    async def storm(call):
        await (call.say(answer("<html>", 500)) if call.number % 2 else call.pass_on())

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["query"] = storm
        result = await ours.run(4)
        ours.paid_once(result, 4)
        assert ours.middle.calls["submit"] == 4
        assert ours.middle.calls["query"] <= 40


@pytest.mark.slow
async def test_fa09_outage_sends_only_probes_and_next_run_continues(tmp_path):
    """During an outage only a probe is sent, and the next run continues the job."""
    async with chain(tmp_path) as ours:
        ours.sandbox.change(outage=True)
        result = await ours.run(6, deadline=1.5)
        assert result.exit == 5
        assert ours.middle.calls["submit"] <= 5
        assert ours.middle.calls.total() <= 12
        assert ours.accepted == []
        ours.sandbox.change(outage=False)
        ours.paid_once(await ours.run(6), 6)


@pytest.mark.slow
async def test_fa10_burst_of_doubts_stops_submits(tmp_path):
    """A burst of doubts stops submits until one is settled."""
    async with chain(tmp_path) as ours:
        ours.policy = RetryPolicy(quiet_time=0.3, first_poll=0.05, paid_timeout=20.0, max_unclean=2)
        ours.middle.deeds["submit"] = instead(b"", after=True)
        ours.middle.deeds["query"] = instead(answer({"code": 1200, "message": "no"}, 400), end="open")
        result = await ours.run(40)
        assert result.exit == 5
        assert any("clear answer" in reason for reason in result.reasons)
        assert 3 <= len(ours.accepted) <= 8 + 3, "what is in flight, and three"
        assert set(result.states) == {"in_doubt", "queued"}
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(40), 40)


@pytest.mark.parametrize("provider", PAIR)
async def test_fa11_unknown_business_code_is_in_doubt(tmp_path, provider):
    """An unknown business code leaves a task in doubt and never fails it."""
    reply = {"code": 99999, "message": "?", "msg": "?", "data": None}
    async with chain(tmp_path, provider, workers=1) as ours:
        deeds = [
            instead(answer(reply, status), after=number % 2 == 0, end="open")
            for number, status in enumerate([200, 200, 400, 429])
        ]
        ours.middle.deeds["submit"] = dict(enumerate(deeds, start=1))
        result = await ours.run(6)
        ours.paid_once(result, 6)
        assert len(result.events_of(Interrupted)) == 4
        assert len(result.events_of(Missing)) >= 2


async def test_fa11_three_unknown_codes_stop_submits(tmp_path):
    async with chain(tmp_path, workers=1) as ours:
        ours.middle.deeds["submit"] = first(4, instead(answer({"code": 99999, "message": "?"}), end="open"))
        result = await ours.run(5)
        assert result.sent_before(Missing, "queued") <= 3
        ours.paid_once(result, 5)


@pytest.mark.slow
async def test_fa12_throttled_list_does_not_slow_submits(tmp_path):
    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["query"] = first(1, instead(TOO_FAST["chanjing"], end="open"))
        result = await ours.run(30)
        ours.paid_once(result, 30)
        ready = next(n for n, (_, _, after) in enumerate(result.changes) if after == "ready")
        sent = [n for n, (_, event, _) in enumerate(result.changes) if isinstance(event, Claimed)]
        assert len(sent) == 30
        assert sent[-1] < ready, "while questions had to wait, everything was submitted"


@pytest.mark.slow
async def test_fa12_polls_do_not_starve_reconciliation(tmp_path):
    """Queries are sent in order of arrival: each of the eight workers may send one before the reconciliation."""
    asked_before = []

    async def lost(call):
        await call.forward()
        asked_before.append(call.middle.calls["query"])
        call.close()

    async with chain(tmp_path, query_rate=20.0, span=1.0, seconds=(0.5, 0.5)) as ours:
        ours.middle.deeds["submit"] = {15: lost}
        result = await ours.run(15)
        ours.paid_once(result, 15)
        reference = json.loads(ours.middle.seen["submit"][14].body)["external_task_id"]
        paths = [call.path for call in ours.middle.seen["query"]]
        mine = next(n for n, path in enumerate(paths) if path.endswith(reference))
        assert mine - asked_before[0] <= 8 + 1
