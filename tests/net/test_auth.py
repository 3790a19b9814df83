"""Authentication schemes: signatures checked independently, and one token refresh for all processes."""

import asyncio
import base64
import contextlib
import email.utils
import fcntl
import hashlib
import hmac
import json

import anyio
import pytest
from anyio import to_thread

from runner.net.auth import Chanjing, Token, bearer, code_of, header, kling, signed_jwt
from runner.net.gateway import Deadlines, Gateway
from runner.providers.exchange import NotSent, Reply, Request

SUBMIT = Request("submit", "POST", "/make", "submit", {"prompt": "x"})
NOW = 1_790_000_000.0


def decoded(text):
    """Return the JSON of one part of a JWT."""
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_signed_jwt_verifies_independently():
    token = signed_jwt("access", "secret", 1_000_000, not_before=999_940)
    text, _, signature = token.rpartition(".")
    expected = hmac.new(b"secret", text.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == expected
    assert [decoded(each) for each in text.split(".")] == [
        {"alg": "HS256", "typ": "JWT"},
        {"iss": "access", "exp": 1_001_800, "nbf": 999_940},
    ]


async def test_kling_prefers_the_api_key():
    assert await kling(api_key="k", wall=lambda: NOW).headers(None) == {"Authorization": "Bearer k"}


async def test_fixed_headers():
    assert await bearer("k").headers(None) == {"Authorization": "Bearer k"}
    assert await header("X-Key", "k", "Key ").headers(None) == {"X-Key": "Key k"}


async def test_jwt_is_renewed_shortly_before_expiry():
    wall = [NOW]
    scheme = kling(access_key="a", secret_key="s", wall=lambda: wall[0])
    first = await scheme.headers(None)
    wall[0] += 1499
    assert await scheme.headers(None) is first
    wall[0] += 2
    assert await scheme.headers(None) != first


async def test_wrong_clock_is_corrected_by_the_date_header(wires):
    server_now = NOW + 3600

    async def act(_wire, seen, writer):
        claims = decoded(seen.headers["authorization"].split(".")[1])
        good = claims["nbf"] <= server_now <= claims["exp"]
        date = email.utils.formatdate(server_now, usegmt=True)
        body = '{"code": 0}' if good else '{"code": 1004, "message": "expired"}'
        writer.write(wires.answer(body, 200 if good else 401, date=date))

    scheme = kling(access_key="a", secret_key="s", wall=lambda: NOW)
    async with wires.Wire(act) as wire, open_client(wire.url, scheme) as client:
        assert (await client.send(SUBMIT)).body == {"code": 0}
        assert (await client.send(SUBMIT)).body == {"code": 0}
        assert len(wire.seen) == 3
    assert scheme.offset == 3600


async def test_second_rejection_is_returned(wires):
    async with wires.Wire(wires.always(wires.answer('{"code": "1003"}', 401))) as wire:
        wall = iter(range(10**6, 10**7))
        async with open_client(wire.url, kling(access_key="a", secret_key="s", wall=lambda: next(wall))) as client:
            outcome = await client.send(SUBMIT)
        assert len(wire.seen) == 2
    assert (outcome.status, outcome.body) == (401, {"code": "1003"})


@pytest.mark.parametrize("code", [None, True, "x", "１", "9" * 5000, [], 1.5])
def test_malformed_codes_are_ignored(code):
    assert code_of(Reply(200, {"code": code})) in {None, 1}


class Files:
    """Token store in files with a real lock, like the one of the application."""

    def __init__(self, path):
        self.path, self.writes = path, 0

    async def read(self):
        with contextlib.suppress(FileNotFoundError):
            return Token(*json.loads(self.path.read_text()))
        return None

    async def write(self, token):
        self.writes += 1
        self.path.write_text(json.dumps([token.value, token.expires]))

    @contextlib.asynccontextmanager
    async def lock(self):
        with self.path.with_suffix(".lock").open("w") as file:
            await to_thread.run_sync(fcntl.flock, file, fcntl.LOCK_EX)
            yield


class Account:
    """Provider with one valid token; a new token invalidates the previous one.

    It invalidates the token after `every` requests. With `same`, the endpoint keeps returning one invalid token.
    """

    def __init__(self, wires, *, every=10**9, same=False):
        self.wires, self.live, self.issued, self.uses, self.every, self.same = wires, "", 0, 0, every, same
        self.refusals = 0
        self.endpoint = None

    async def act(self, _wire, seen, writer):
        if seen.path.endswith("access_token"):
            return writer.write(self.endpoint or self.issue(json.loads(seen.body)))
        self.uses += 1
        if seen.headers.get("access_token") != self.live or not self.live:
            self.refusals += 1
            return writer.write(self.wires.answer('{"code": 10400, "msg": "AccessToken已失效"}'))
        if self.uses % self.every == 0:
            self.live = ""
        return writer.write(self.wires.answer('{"code": 0, "data": "T-1"}'))

    def issue(self, body):
        assert body == {"app_id": "app", "secret_key": "canary"}
        self.issued += 1
        self.live = "token-1" if self.same else f"token-{self.issued}"
        data = {"access_token": self.live, "expire_in": int(NOW + 86400)}
        if self.same:
            self.live = ""
        return self.wires.answer(json.dumps({"code": 0, "data": data}))


class Time:
    """Clock whose sleep returns at once and advances it."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def chanjing(store, time=None, wall=lambda: NOW):
    time = time or Time()
    return Chanjing("app", "canary", store, wall=wall, clock=time, sleep=time.sleep)


@contextlib.asynccontextmanager
async def open_client(url, scheme, **options):
    client = Gateway(url, scheme, deadlines=Deadlines(2, 5, 5), **options)
    try:
        yield client
    finally:
        await client.aclose()


async def send_all(pairs):
    outcomes = []

    async def send(client):
        outcomes.append(await client.send(SUBMIT))

    async with anyio.create_task_group() as group:
        for client, times in pairs:
            for _ in range(times):
                group.start_soon(send, client)
    return outcomes


async def test_concurrent_requests_refresh_the_token_once(wires, tmp_path):
    """Fifty concurrent requests with an invalid token cause one token request."""
    store, account = Files(tmp_path / "token"), Account(wires)
    await store.write(Token("dead", NOW + 80000))
    async with wires.Wire(account.act) as wire, open_client(wire.url, chanjing(store)) as client:
        outcomes = await send_all([(client, 50)])
    assert all(outcome.body == {"code": 0, "data": "T-1"} for outcome in outcomes)
    assert account.issued == 1
    assert account.refusals <= 50


async def test_token_is_renewed_before_it_expires(wires, tmp_path):
    store, account = Files(tmp_path / "token"), Account(wires)
    await store.write(Token("old", NOW + 299))
    async with wires.Wire(account.act) as wire, open_client(wire.url, chanjing(store)) as client:
        await send_all([(client, 9)])
    assert (account.issued, account.refusals) == (1, 0)


async def test_two_processes_share_one_token(wires, tmp_path):
    """Two processes do not invalidate each other's token in turn."""
    account = Account(wires)
    async with wires.Wire(account.act) as wire, contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_client(wire.url, chanjing(Files(tmp_path / "token"))))
            for _ in range(2)
        ]
        for round_ in range(4):
            outcomes = await send_all([(each, 10) for each in clients])
            assert {outcome.body["code"] for outcome in outcomes} == {0}
            assert account.issued == round_ + 1
            account.live = ""


async def test_token_that_is_rejected_every_seven_requests(wires, tmp_path):
    account, time = Account(wires, every=7), Time()
    async with wires.Wire(account.act) as wire, open_client(wire.url, chanjing(Files(tmp_path / "t"), time)) as client:
        for _ in range(30):
            assert (await client.send(SUBMIT)).body["code"] == 0
    assert 4 <= account.issued <= 6
    assert all(seconds <= 5.0 for seconds in time.slept)
    assert sum(time.slept) > 0


async def test_fetches_back_off_if_the_token_stays_rejected(wires, tmp_path):
    """The endpoint returns the rejected token again, so the token requests are five seconds apart."""
    account, time = Account(wires, same=True), Time()
    async with wires.Wire(account.act) as wire, open_client(wire.url, chanjing(Files(tmp_path / "t"), time)) as client:
        outcomes = [await client.send(SUBMIT) for _ in range(3)]
    assert all(isinstance(outcome, NotSent) and not outcome.terminal for outcome in outcomes)
    assert account.uses == 1
    assert sum(time.slept) >= 5.0 * (account.issued - 2)


async def test_rejection_of_a_new_token_is_returned(wires, tmp_path):
    account = Account(wires)

    async def act(wire, seen, writer):
        account.live = account.live if seen.path.endswith("access_token") else ""
        await account.act(wire, seen, writer)

    async with wires.Wire(act) as wire, open_client(wire.url, chanjing(Files(tmp_path / "t"))) as client:
        assert (await client.send(SUBMIT)).body["code"] == 10400
    assert account.uses == 2


@pytest.mark.parametrize("code", [400, 40000])
async def test_wrong_credentials_look_like_a_rejected_token(wires, tmp_path, code):
    """Wrong credentials are reported as HTTP 401 with the code of a rejected token."""
    account = Account(wires)
    account.endpoint = wires.answer(json.dumps({"code": code, "msg": "secret wrong"}))
    async with wires.Wire(account.act) as wire, open_client(wire.url, chanjing(Files(tmp_path / "t"))) as client:
        outcome = await client.send(SUBMIT)
    assert (outcome.status, outcome.body) == (401, {"code": 10401, "msg": "secret wrong", "token_code": code})
    assert account.uses == 0


FAILURES = {"html": (502, "<html>"), "catch-all": (200, '{"code": 50000}'), "no token": (200, '{"code": 0, "data": 0}')}


@pytest.mark.parametrize("failure", FAILURES)
async def test_failing_token_endpoint_means_not_sent(wires, tmp_path, failure):
    account = Account(wires)
    account.endpoint = wires.answer(FAILURES[failure][1], FAILURES[failure][0])
    async with wires.Wire(account.act) as wire, open_client(wire.url, chanjing(Files(tmp_path / "t"))) as client:
        outcome = await client.send(SUBMIT)
    assert isinstance(outcome, NotSent)
    assert account.uses == 0


async def test_hanging_token_endpoint_means_not_sent(wires, tmp_path):
    async def act(_wire, _seen, _writer):
        await asyncio.sleep(30)

    async with wires.Wire(act) as wire:
        client = Gateway(wire.url, chanjing(Files(tmp_path / "t")), deadlines=Deadlines(1, 9, 0.3))
        assert isinstance(await client.send(SUBMIT), NotSent)
        await client.aclose()


async def test_no_secret_in_any_repr(tmp_path):
    scheme = chanjing(Files(tmp_path / "t"))
    assert "canary" not in repr(scheme) + repr(Token("canary", 1.0)) + repr(kling(secret_key="canary", wall=lambda: 0))
