"""Network: the outcome of a submit is believed only as far as the connection proves it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import subprocess
import tracemalloc
import zlib
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from aiohttp.abc import AbstractResolver
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.net.addresses import GuardedResolver
from runner.net.auth import bearer
from runner.net.body import parse_body
from runner.net.client import Deadlines, ProviderClient
from runner.net.transport import tls_context
from runner.providers.requests import NoAnswer, NotSent, Reply, Request
from runner.providers.responses import read_submit
from runner.providers.spec import load
from runner.tasks.events import Accepted, AccountBlocked, Claimed, Interrupted, Missing, RetryableFailure
from runner.tasks.remote_ids import parse_remote_id
from tests.whole.conftest import Desk, images, sandbox

from .chain import QUICK, chain
from .server import answer, instead

SUBMIT = Request("submit", "POST", "/v1/images/generations", "submit", {"prompt": "x"})
QUERY = Request("query", "GET", "/v1/images/generations/7", "query")
#: with our reference, with a list, with nothing
PROVIDERS = ("kling", "chanjing", "kling-gateway")


@contextlib.asynccontextmanager
async def gateway(url, **options):
    made = ProviderClient(url, bearer("sandbox-kling-key"), **{"deadlines": QUICK, **options})
    try:
        yield made
    finally:
        await made.aclose()


@contextlib.contextmanager
def black_hole(family=socket.AF_INET, host="127.0.0.1", port=0):
    """Open a port at which connecting never ends, because its full queue is never emptied."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(socket.socket(family)))
        server.bind((host, port))
        server.listen(0)
        for _ in range(3):
            client = stack.enter_context(contextlib.closing(socket.socket(family)))
            client.settimeout(0)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


class Names(AbstractResolver):
    """A name server for tests."""

    def __init__(self, *hosts, after=0.0):
        self._hosts, self._after = hosts, after

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        await asyncio.sleep(self._after)
        return [
            {
                "hostname": host,
                "host": each,
                "port": port,
                "proto": 0,
                "flags": 0,
                "family": socket.AF_INET6 if ":" in each else socket.AF_INET,
            }
            for each in self._hosts
        ]

    async def close(self):
        pass


def nothing_left(result, count):
    """Check that nothing was sent, and that the tasks are queued as before."""
    assert result.states == ["queued"] * count
    assert all((task["attempts"], task["doubts"]) == (0, 0) for task in result.tasks)
    assert result.events_of(Interrupted) == []


# nothing left this machine


async def test_fn01_unknown_host(tmp_path):
    async with chain(tmp_path, url="https://nowhere.invalid") as ours:
        result = await ours.run(3, deadline=0.3)
        nothing_left(result, 3)
        assert result.exit == 5
        # five silences open the breaker; after them only the probe asks, which costs nothing
        assert len(result.events_of(RetryableFailure)) <= 5
        assert {event.kind for event in result.events_of(RetryableFailure)} == {"unsent"}
        assert ours.accepted == []


async def test_fn02_closed_port(tmp_path):
    with contextlib.closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        async with chain(tmp_path, url=f"http://127.0.0.1:{held.getsockname()[1]}") as ours:
            result = await ours.run(3, deadline=0.3)
    nothing_left(result, 3)
    assert result.exit == 5


async def test_fn02_connect_timeout(tmp_path):
    """The queue of the port is full. Linux lets a client on loopback wait for it as for a remote host."""
    with black_hole() as port:
        async with chain(tmp_path, url=f"http://127.0.0.1:{port}", deadlines=replace(QUICK, connect=0.1)) as ours:
            result = await ours.run(2, deadline=0.8)
    nothing_left(result, 2)
    assert result.events_of(RetryableFailure)[0].error.message.startswith("ConnectTimeout")


def certificate(at, name):
    """Return a server's TLS context with a certificate for this name, and the CA file."""
    words = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
    names = ["-addext", f"subjectAltName={name}"]
    subprocess.run(
        [*words.split(), *names, "-keyout", at / "key", "-out", at / "cert"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(at / "cert", at / "key")
    return context, str(at / "cert")


@pytest.mark.parametrize("wrong", ["unknown CA", "another host", "plain port"])
async def test_fn03_untrusted_tls(tmp_path, wrong):
    served, file = certificate(tmp_path, "DNS:other.example" if wrong == "another host" else "IP:127.0.0.1")
    trusted = tls_context() if wrong == "unknown CA" else tls_context(file)
    tls = None if wrong == "plain port" else served
    async with chain(tmp_path, tls=tls, greet=_plain if tls is None else None, context=trusted) as ours:
        ours.url = ours.middle.url.replace("http:", "https:")
        result = await ours.run(4)
        nothing_left(result, 4)
        assert result.exit == 7, result.reasons
        assert ours.middle.calls.total() == 0
        assert [type(event) for event in result.events_of(AccountBlocked)] == [AccountBlocked], (
            "one try is enough: it is the configuration"
        )


async def _plain(call):
    await call.say(b"HTTP/1.1 400 This is plain text\r\n\r\n")


def test_fn03_tls_check_cannot_be_disabled():
    context = tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    with pytest.raises(ConfigError):
        ProviderClient("http://api.example.com", bearer("key"))


async def test_fn04_hundred_hanging_queries_delay_no_submit(tmp_path):
    async with chain(tmp_path) as ours, gateway(ours.middle.url, deadlines=Deadlines(9, 9, 9)) as sender:
        ours.middle.deeds["query"] = instead(b"", end="hang")
        with anyio.fail_after(8):
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(sender.send, QUERY)
                while ours.middle.calls["query"] < 100:
                    await anyio.lowlevel.checkpoint()
                outcomes = []

                async def one(number):
                    body = {"prompt": "x", "external_task_id": f"r{number}"}
                    outcomes.append(await sender.send(replace(SUBMIT, body=body)))

                async with anyio.create_task_group() as submits:
                    for number in range(40):
                        submits.start_soon(one, number)
                group.cancel_scope.cancel()
        assert [outcome.status for outcome in outcomes] == [200] * 40
        assert len(ours.accepted) == 40
        assert ours.middle.connections >= 140, "each submit has a connection of its own"


# bytes were sent, and their arrival is unknown


def doubted(result, count=1):
    """Check that this number of submits ended without a clear response, and none counted as a refusal."""
    assert len(result.events_of(Interrupted)) == count, result.changes


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_fp09_stale_connection_costs_at_most_one_poll_retry(tmp_path, end):
    """Every second query uses a closed connection, which shows only after it was sent."""

    async def stale(call):
        if call.number % 2:
            await call.pass_on()
        else:
            call.close() if end == "close" else call.reset()

    async with chain(tmp_path, seconds=(0.3, 0.3)) as ours:
        ours.middle.deeds["query"] = stale
        result = await ours.run(6)
        ours.paid_once(result, 6)
        assert result.exit == 0
        assert ours.middle.calls["submit"] == 6, "none was sent again"
        assert {call.headers.get("connection") for call in ours.middle.seen["submit"]} == {"close"}, "each on its own"
        assert result.events_of(Interrupted) == []
        assert {event.kind for event in result.events_of(RetryableFailure)} == {"trouble"}
        assert result.warnings == [], "no outage"


@pytest.mark.slow
async def test_fn05_reset_before_request_is_read(tmp_path):
    async def at_once(call):
        if call.number == 1:
            call.reset()

    async with chain(tmp_path, greet=at_once) as ours:
        ours.policy = replace(ours.policy, quiet_time=0.8)
        result = await ours.run(1)
        doubted(result)
        ours.paid_once(result, 1)
        before, again = result.events_of(Claimed)
        assert again.at - before.at >= 0.8, "an absence was believed before the quiet time"
        assert len(result.events_of(Missing)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("end", ["peer does not read", "reset in the middle"])
async def test_fn06_body_is_not_delivered(tmp_path, end):
    async def greet(call):
        if end == "peer does not read":
            await asyncio.sleep(30)
        await asyncio.sleep(0.05)  # some of it is in the buffers of the system by now
        call.reset()

    large = {"prompt": "x", "image": "a" * 20_000_000}
    async with chain(tmp_path, "kling-gateway", greet=greet, deadlines=replace(QUICK, total=0.8)) as ours:
        result = await ours.run(requests=[large])
        doubted(result)
        assert (result.exit, result.states) == (4, ["held"])
        assert ours.middle.connections == 1, "never sent again by itself"
        assert ours.accepted == []


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("end", ["close", "reset", "hang"])
async def test_fn07_response_lost_after_accept(tmp_path, provider, end):
    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["submit"] = {2: instead(b"", after=True, end=end)}
        result = await ours.run(3)
        doubted(result)
        assert ours.middle.calls["submit"] == len(ours.accepted) == 3
        if provider == "kling-gateway":
            assert (result.exit, result.states) == (4, ["done", "held", "done"])
        else:
            ours.paid_once(result, 3)
            assert [task["adopted"] for task in result.tasks] == [0, 1, 0]


@pytest.mark.slow
def test_fn07_crash_after_accept(tmp_path):
    desk = Desk(tmp_path)
    desk.write("job.yaml", images(3, provider="kling", model="image/kling-v2-1"))
    with sandbox("--seconds", "0.1,0.3") as box:
        desk.env = box.env
        assert desk.run("run", "job.yaml", env={"RUNNER_CRASH_AT": "answer received:2"}).returncode == -9
        paid = box.stats["accepted"]
        summary = desk.job()
        assert (summary["counts"], box.stats["accepted"]) == ({"done": 3}, 3)
        assert summary["adopted"] >= 1
        assert summary["submitted"] == 3 - paid


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_fn08_truncated_response_keeps_id_as_hint(tmp_path, provider, end):
    async def cut(call):
        head, body = await call.forward()
        await call.say(head + b"\r\n\r\n" + body[:-1])
        await asyncio.sleep(0.05)  # a reset overtakes what is in the buffers
        call.close() if end == "close" else call.reset()

    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["submit"] = {1: cut}
        result = await ours.run(2)
        doubted(result)
        assert ours.accepted[0].id in result.events_of(Interrupted)[0].reason
        assert len(ours.accepted) == 2
        if provider == "kling-gateway":
            assert result.states == ["held", "done"], "a hint is no proof"
            assert ours.accepted[0].id in result.tasks[0]["message"], "the user who decides can see it"
            assert result.tasks[0]["remote_id"] is None
        else:
            ours.paid_once(result, 2)


async def test_fn09_slow_body_without_read_timeout(tmp_path):
    async def drip(call):
        head, body = await call.forward()
        await call.say(head + b"\r\n\r\n")
        for byte in body:
            await call.say(bytes([byte]))
            await asyncio.sleep(0.05)

    async with chain(tmp_path, deadlines=Deadlines(connect=0.5, read=0.2, total=0.6)) as ours:
        ours.middle.deeds["submit"] = {1: drip}
        result = await ours.run(2)
        doubted(result)
        assert result.events_of(Interrupted)[0].reason.startswith("no answer within 0.6 s")
        ours.paid_once(result, 2)


# an answer came, and it is none

PAGE = "<html><title>Sign in</title>Welcome to this network</html>"
STRANGE = {
    "portal": answer(PAGE, content_type="text/html"),
    "portal that says JSON": answer(PAGE, content_type="application/json"),
    "firewall": answer("Blocked by policy", 403, content_type="text/plain"),
    "image": answer(b"\x89PNG\r\n\x1a\n\0\0", content_type="image/png"),
    "nothing": answer(b"", content_type="application/json"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
}


async def test_fn10_html_pages_stop_submits_until_one_is_settled(tmp_path):
    """Pages that are no API response stop submits until one task is settled."""
    async with chain(tmp_path, workers=1) as ours:
        ours.middle.deeds["submit"] = dict(enumerate(map(instead, STRANGE.values()), start=1))
        result = await ours.run(8)
        doubted(result, len(STRANGE))
        assert result.sent_before(Missing, "queued") <= 3, "three in a row open the breaker"
        ours.paid_once(result, 8)


@pytest.mark.parametrize("type_", ["text/html", "text/plain", "image/png", None])
async def test_fn10_acceptance_is_read_with_any_content_type(tmp_path, type_):
    """A clear acceptance counts whatever its content type is."""

    async def renamed(call):
        _, body = await call.forward()
        await call.say(answer(body, content_type=type_))

    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = renamed
        result = await ours.run(2)
        doubted(result, 0)
        ours.paid_once(result, 2)


def with_key(name, value):
    """Return the response with one more key, inserted as text."""
    return lambda body: body[:-1] + f',"{name}":{value}}}'.encode()


def id_as(text):
    return lambda body: json.dumps({"code": 0, "data": {"task_id": "@"}}).encode().replace(b'"@"', text)


DAMAGED = {
    "NaN": with_key("x", "NaN"),
    "Infinity": with_key("x", "-Infinity"),
    "a number out of range": with_key("x", "1e999"),
    "a key twice": with_key("data", '{"task_id":"stolen"}'),
    "a key twice, the same": with_key("code", "0"),
    "a key twice further down": with_key("x", '{"a":1,"a":1}'),
    "a lone surrogate": with_key("message", '"\\ud800"'),
    "a lone surrogate for an id": id_as(b'"\\udc00"'),
    "5,000 digits": with_key("x", "1" * 5000),
    "5,000 digits for an id": id_as(b"1" * 5000),
    "depth": with_key("x", "[" * 100_000 + "]" * 100_000),
    "no UTF-8": lambda body: body[:-1] + b',"x":"\xff"}',
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "two answers": lambda body: body + body,
    "something behind it": lambda body: body + b";",
    "a comma too many": lambda body: body[:-1] + b",}",
    "the end is missing": lambda body: body[:-1],
    "single quotes": lambda body: body.replace(b'"', b"'"),
}


def damaged(change):
    """Return a deed that changes the body of the response."""

    async def deed(call):
        _, body = await call.forward()
        await call.say(answer(change(body)))

    return deed


@pytest.mark.slow
async def test_fn11_invalid_json_is_in_doubt_and_loses_no_task(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = {n: damaged(change) for n, change in enumerate(DAMAGED.values(), start=1)}
        result = await ours.run(len(DAMAGED))
        doubted(result, len(DAMAGED))
        ours.paid_once(result, len(DAMAGED))


async def test_fn11_damaged_query_responses_fail_no_task(tmp_path):
    """Damaged responses to queries fail no task and can be recorded."""
    async with chain(tmp_path) as ours:
        kinds = ("a lone surrogate", "NaN", "5,000 digits")
        ours.middle.deeds["query"] = {n: damaged(DAMAGED[kind]) for n, kind in enumerate(kinds, start=1)}
        ours.paid_once(await ours.run(4), 4)


def strict(raw):
    """Parse JSON strictly, and raise ValueError for everything that JSON does not allow."""

    def unique(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    def no(word):
        raise ValueError(word)

    return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=no)


GOOD = json.dumps({"code": 0, "message": "好", "data": {"task_id": "8123-a", "n": [1, 2.5, None, {"x": "y"}]}})
PIECES = [
    b'"',
    b"{",
    b"}",
    b",",
    b":",
    b"\\ud800",
    b"NaN",
    b"\xff",
    b'"code":0,',
    b'"task_id":"b",',
    b"1" * 5000,
    b"\0",
    b"[",
]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fn11_damaged_bytes_make_no_id_and_no_exception(data):
    raw = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        cut = data.draw(st.integers(0, 12))
        raw[at : at + cut] = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
    event = read_submit(load("kling"), Reply(200, parse_body(bytes(raw))))
    assert (
        isinstance(event, Accepted | Interrupted | RetryableFailure | AccountBlocked) or event.error.reason == "invalid"
    )
    if isinstance(event, Accepted):
        value = strict(bytes(raw).removeprefix(b"\xef\xbb\xbf"))
        assert (value["code"], parse_remote_id(value["data"]["task_id"])) == (0, event.remote_id)
    if bytes(raw) == GOOD.encode():
        assert event == Accepted("8123-a", "http 200")


# an answer that is too much, or wrongly packed


async def test_fn12_oversized_response_is_in_doubt_and_found(tmp_path):
    """Responses that are too large leave tasks in doubt, and the tasks are found."""

    async def huge(call):
        _, body = await call.forward()
        await call.say(answer(body[:-1] + b" " * 3_000_000 + b"}"))

    async def header(call):
        await call.forward()
        await call.say(b"HTTP/1.1 200 OK\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n{}")

    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = {1: huge, 2: header}
        result = await ours.run(3)
        doubted(result, 2)
        ours.paid_once(result, 3)
        assert {call.headers["accept-encoding"] for call in ours.middle.seen["submit"]} == {"identity"}


async def test_fn12_gzip_bomb_costs_no_memory(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b'{"code":0,"data":{"task_id":"x"}')
    for _ in range(100):
        bomb += packer.compress(b" " * (1 << 20))
    bomb += packer.compress(b"}") + packer.flush()

    async with chain(tmp_path) as ours, gateway(ours.middle.url) as sender:
        ours.middle.deeds["submit"] = instead(answer(bomb, content_encoding="gzip"), end="open")
        tracemalloc.start()
        try:
            outcome = await sender.send(SUBMIT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(outcome, NoAnswer)
    assert isinstance(read_submit(load("kling"), outcome), Interrupted)
    assert peak < 12 << 20, f"{peak >> 20} MiB for a body of which 2 MiB may be kept"


async def test_fn13_bad_compression_is_in_doubt_and_found(tmp_path):
    def packed(change, coding="gzip"):
        async def deed(call):
            _, body = await call.forward()
            await call.say(answer(change(gzip.compress(body), body), content_encoding=coding))

        return deed

    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = {
            1: packed(lambda _, plain: plain),
            2: packed(lambda raw, _: raw[:-9]),
            3: packed(lambda raw, _: raw[:20] + bytes([raw[20] ^ 0xFF]) + raw[21:]),
            4: packed(lambda _, plain: plain, "br"),
            5: packed(lambda raw, _: raw),
        }
        result = await ours.run(5)
        doubted(result, 4)
        ours.paid_once(result, 5)


# redirects, smuggled answers, odd answers


@pytest.mark.slow
async def test_fn14_redirects_are_not_followed_and_stop_submits(tmp_path):
    stolen = []

    async def steal(reader, writer):
        stolen.append(await reader.read(100))
        writer.close()

    thief = await asyncio.start_server(steal, "127.0.0.1", 0)
    there = f"http://127.0.0.1:{thief.sockets[0].getsockname()[1]}/steal"
    async with thief, chain(tmp_path, workers=1) as ours:
        places = [(301, there), (302, there), (303, there), (307, there), (308, there)]
        places += [(307, ours.middle.url + SUBMIT.path), (308, "https://10.0.0.1/"), (302, "//127.0.0.1/"), (302, None)]
        deeds = [instead(answer("", status, location=place), end="open") for status, place in places]
        ours.middle.deeds["submit"] = dict(enumerate(deeds, start=1))
        result = await ours.run(10)
        doubted(result, len(places))
        assert result.sent_before(Missing, "queued") <= 3
        ours.paid_once(result, 10)
        assert ours.middle.calls["submit"] == 10 + len(places)
    assert stolen == []


async def test_fn15_second_response_is_never_used_for_other_task(tmp_path):
    async def smuggle(call):
        await call.pass_on()
        await call.say(answer({"code": 0, "message": "SUCCEED", "data": {"task_id": f"stolen-{call.number}"}}))

    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = smuggle
        ours.paid_once(await ours.run(8), 8)
        assert {call.headers["connection"] for call in ours.middle.seen["submit"]} == {"close"}


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
async def test_fn15_second_response_to_query_fails_no_task(tmp_path, late):
    async def smuggle(call):
        await call.pass_on()
        if late:
            await asyncio.sleep(0.02)
        await call.say(answer({"code": 0, "data": {"task_id": "x", "task_status": "failed", "task_status_msg": "y"}}))

    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = smuggle
        ours.paid_once(await ours.run(8), 8)


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


async def test_fn15_1xx_flood_and_missing_length(tmp_path):
    """Interim 1xx responses before the final one, and responses without a length."""

    async def early(call):
        await call.say(EARLY * 200)
        await call.pass_on()

    async def endless(call):
        await call.forward()
        while True:
            await call.say(EARLY * 50)
            await asyncio.sleep(0.005)

    async def no_length(call):
        _, body = await call.forward()
        await call.say(answer(body, content_length=None))
        call.close()

    async with chain(tmp_path, deadlines=replace(QUICK, total=0.8)) as ours:
        ours.middle.deeds["submit"] = {1: early, 2: no_length, 3: endless}
        result = await ours.run(4)
        doubted(result)
        ours.paid_once(result, 4)


async def test_fn16_audit_finds_request_delivered_twice(tmp_path):
    """A request that was delivered twice is found by an audit."""

    async def twice(call):
        await call.forward()
        await call.pass_on()

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: twice}
        result = await ours.run(3, audited=True)
        assert result.states == ["done"] * 3
        assert len(ours.accepted) == 4
        (finding,) = [each for each in result.audit.findings if each.kind == "duplicate"]
        assert finding.remote_id == ours.accepted[1].id
        assert finding.key == result.tasks[1]["key"]


async def test_fn16_unique_reference_refuses_second_delivery(tmp_path):
    """Where a reference is unique, the second delivery is refused and the first is kept."""

    async def twice(call):
        await call.forward()
        await call.pass_on()

    async with chain(tmp_path) as ours:
        ours.middle.deeds["submit"] = twice
        ours.paid_once(await ours.run(3), 3)


# this machine's surroundings


async def test_fn17_proxies_of_environment_are_not_used(tmp_path, monkeypatch):
    received = []

    async def proxy(reader, writer):
        received.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.lower(), url)
    async with server, chain(tmp_path, "chanjing") as ours:
        ours.paid_once(await ours.run(2), 2)
    assert received == []


async def test_fn18_ipv6_black_hole_falls_back_to_ipv4(tmp_path):
    async with chain(tmp_path) as ours:
        port = int(ours.middle.url.rpartition(":")[2])
        with black_hole(socket.AF_INET6, "::1", port):
            ours.url = f"http://localhost:{port}"
            ours.resolver = lambda: GuardedResolver(loopback=True, names=Names("::1", "127.0.0.1"))
            ours.deadlines = Deadlines(connect=3.0, read=3.0, total=5.0)
            result = await ours.run(1)
        ours.paid_once(result, 1)
        assert result.events_of(RetryableFailure) == []


async def test_fn18_slow_name_server_proves_nothing_was_sent(tmp_path):
    """A name server that takes half a minute is proof that no request was sent."""
    async with chain(tmp_path) as ours:
        slow = ProviderClient(
            ours.middle.url.replace("127.0.0.1", "localhost"),
            bearer("key"),
            deadlines=replace(QUICK, connect=0.2),
            resolver=lambda: GuardedResolver(loopback=True, names=Names("127.0.0.1", after=30.0)),
        )
        outcome = await slow.send(SUBMIT)
        await slow.aclose()
        assert isinstance(outcome, NotSent)
        assert not outcome.terminal
        assert ours.middle.connections == 0
