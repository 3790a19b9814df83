"""Every failure of a connection on a real socket: NotSent only if provably no byte left."""

import asyncio
import contextlib
import gzip
import socket
import threading
import time
import zlib

import anyio
import pytest

from runner.errors import ConfigError
from runner.net.auth import bearer, header
from runner.net.client import Deadlines, ProviderClient
from runner.net.transport import tls_context
from runner.providers.requests import NoAnswer, NotSent, Reply, Request

SUBMIT = Request("submit", "POST", "/v1/make", "submit", {"prompt": "猫", "n": 1})
QUERY = Request("query", "GET", "/v1/make/7", "query")
KEY = "canary-5f1c"


@contextlib.asynccontextmanager
async def open_client(url, scheme=None, **options):
    options.setdefault("deadlines", Deadlines(connect=2, read=0.3, total=1))
    client = ProviderClient(url, scheme or bearer(KEY), **options)
    try:
        yield client
    finally:
        await client.aclose()


async def rst_on_accept(wire, writer):
    wire_tools["reset"](writer)


async def rst_after_request(wire, seen, writer):
    wire_tools["reset"](writer)


async def fin_after_request(wire, seen, writer):
    writer.close()


async def silence(wire, seen, writer):
    await asyncio.sleep(30)


async def drip(wire, seen, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


wire_tools = {}


@pytest.fixture(autouse=True)
def _tools(wires):
    wire_tools["reset"] = wires.reset


@pytest.mark.parametrize("request_", [SUBMIT, QUERY], ids=["submit", "query"])
async def test_refused_connection_is_not_sent(closed_port, request_):
    async with open_client(f"http://127.0.0.1:{closed_port}") as client:
        outcome = await client.send(request_)
    assert isinstance(outcome, NotSent)
    assert not outcome.terminal


async def test_unknown_host_name_is_not_sent():
    async with open_client("https://nowhere.invalid", deadlines=Deadlines(5, 5, 5)) as client:
        outcome = await client.send(SUBMIT)
    assert isinstance(outcome, NotSent)
    assert not outcome.terminal


async def test_bad_certificate_is_terminal(wires, self_signed):
    """No byte was sent, and another attempt is useless."""
    async with (
        wires.Wire(wires.always(wires.answer("{}")), tls=self_signed[0]) as wire,
        open_client(wire.url) as client,
    ):
        outcome = await client.send(SUBMIT)
        assert wire.seen == []
    assert outcome == NotSent("ConnectError: certificate: self-signed certificate", terminal=True)


async def test_own_root_certificates_are_accepted(wires, self_signed):
    context = tls_context(self_signed[1])
    async with (
        wires.Wire(wires.always(wires.answer('{"code": 0}')), tls=self_signed[0]) as wire,
        open_client(wire.url, context=context) as client,
    ):
        assert (await client.send(SUBMIT)).body == {"code": 0}


async def test_tls_to_a_silent_plain_port_is_not_sent(wires):
    async with wires.Wire(greet=lambda _wire, _writer: asyncio.sleep(30)) as wire:
        url = wire.url.replace("http:", "https:")
        async with open_client(url, deadlines=Deadlines(0.3, 1, 3)) as client:
            outcome = await client.send(SUBMIT)
    assert isinstance(outcome, NotSent)
    assert outcome.error.startswith("ConnectTimeout")
    assert not outcome.terminal


async def test_tls_to_a_plain_http_port_is_terminal(wires):
    """A server that answers TLS with plain text gets no request, and another attempt is useless."""

    async def greet(_wire, writer):
        writer.write(b"HTTP/1.1 400 This is plain text\r\n\r\n")

    async with wires.Wire(wires.always(b""), greet) as wire, open_client(wire.url.replace("http:", "https:")) as client:
        outcome = await client.send(SUBMIT)
    assert isinstance(outcome, NotSent)
    assert outcome.terminal


NO_ANSWER = {
    "reset on accept": ({"greet": rst_on_accept, "act": silence}, ""),
    "reset after the request": ({"act": rst_after_request}, "ReadError"),
    "closed after the request": ({"act": fin_after_request}, "RemoteProtocolError"),
    "silence": ({"act": silence}, "ReadTimeout"),
    "drip": ({"act": drip}, "no answer within 1 s"),
}
RAW = {
    "truncated": (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"data": {"task_id": "T-1"', "RemoteProtocolError"),
    "cut chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "RemoteProtocolError"),
    "garbage": (b"\x00\x01 garbage\r\n\r\n", "RemoteProtocolError"),
    "huge header": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n{}", "RemoteProtocolError"),
    "bad gzip": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n{}{}", "Unreadable"),
    "cut gzip": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 12\r\n\r\n" + gzip.compress(b"{}" * 99)[:12],
        "Unreadable",
    ),
    "brotli": (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", "Unreadable"),
    "too large": (b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b" " * 3_000_000, "Unreadable"),
}


@pytest.mark.parametrize("request_", [SUBMIT, QUERY], ids=["submit", "query"])
@pytest.mark.parametrize("row", [*NO_ANSWER, *RAW])
async def test_possibly_accepted_request_is_no_answer(wires, row, request_):
    def close(raw):
        async def act(_wire, _seen, writer):
            writer.write(raw)
            writer.close()

        return act

    options, text = NO_ANSWER[row] if row in NO_ANSWER else ({"act": close(RAW[row][0])}, RAW[row][1])
    async with wires.Wire(**options) as wire, open_client(wire.url) as client:
        outcome = await client.send(request_)
        assert len(wire.seen) <= 1, "sent again"
        assert wire.connections == 1
    assert isinstance(outcome, NoAnswer)
    assert text in outcome.error
    assert KEY not in outcome.error


async def test_id_in_a_truncated_answer_is_kept_as_a_hint(wires):
    async def act(_wire, _seen, writer):
        writer.write(RAW["truncated"][0])
        await writer.drain()
        writer.close()

    async with wires.Wire(act) as wire, open_client(wire.url) as client:
        assert "T-1" in (await client.send(SUBMIT)).error


async def test_dropped_request_is_never_repeated(wires):
    async def act(wire, _seen, writer):
        if len(wire.seen) == 1:
            writer.write(wires.answer("{}"))
        else:
            writer.close()

    for method in ("GET", "DELETE", "PUT"):
        request = Request("query", method, "/x", "query")
        async with wires.Wire(act) as wire, open_client(wire.url) as client:
            assert isinstance(await client.send(request), Reply)
            assert isinstance(await client.send(request), NoAnswer)
            assert len(wire.seen) == 2


async def test_unread_body_ends_at_the_deadline(wires):
    async with wires.Wire(greet=lambda _wire, _writer: asyncio.sleep(30)) as wire, open_client(wire.url) as client:
        outcome = await client.send(Request("submit", "POST", "/x", "submit", {"image": "a" * 20_000_000}))
    assert isinstance(outcome, NoAnswer)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
async def test_compressed_answers_are_read(wires, encoding):
    raw = zlib.compressobj(wbits=-15)
    body = {
        "gzip": gzip.compress(b'{"a": 1}'),
        "deflate": zlib.compress(b'{"a": 1}'),
        "raw deflate": raw.compress(b'{"a": 1}') + raw.flush(),
    }[encoding]
    reply = wires.answer(body, content_encoding=encoding.split()[-1])
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        assert (await client.send(QUERY)).body == {"a": 1}


async def test_long_headers_are_read(wires):
    """Content-Security-Policy and cookies of a proxy alone may take more than 8 KB."""
    reply = wires.answer(b'{"a": 1}').replace(b"\r\n\r\n", b"\r\nx-policy: " + b"x" * 60_000 + b"\r\n\r\n", 1)
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        assert (await client.send(QUERY)).body == {"a": 1}


async def test_only_the_answer_to_a_submit_is_read_strictly(wires):
    reply = wires.answer(b'{"a": 1, "a": 2}')
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        assert (await client.send(QUERY)).body == {"a": 2}
        assert isinstance((await client.send(Request("submit", "POST", "/x", "submit", {}))).body, str)


async def test_answer_in_a_coding_that_is_none_is_read(wires):
    reply = wires.answer(b' {"a": 1}', content_encoding="UTF-8")
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        assert (await client.send(QUERY)).body == {"a": 1}


async def test_gzip_bomb_is_limited(wires):
    bomb = gzip.compress(b"\0" * (100 << 20), 9)
    reply = wires.answer(bomb, content_encoding="gzip")
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        outcome = await client.send(QUERY)
    assert "body larger than 2097152" in outcome.error


@pytest.mark.parametrize("status", [200, 401, 404, 500, 502])
async def test_html_is_returned_as_text(wires, status):
    reply = wires.answer("<html>" + "portal " * 1000, status)
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        outcome = await client.send(SUBMIT)
    assert outcome.status == status
    assert outcome.body.startswith("<html>")
    assert len(outcome.body) == 2000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(wires, status):
    async with wires.Wire(wires.always(wires.answer("{}"))) as thief:
        reply = wires.answer("", status, location=thief.url + "/steal")
        async with (
            wires.Wire(wires.always(reply)) as wire,
            open_client(wire.url, header("access_token", KEY)) as client,
        ):
            outcome = await client.send(SUBMIT)
            assert outcome.status == status
            assert wire.seen[0].headers["access_token"] == KEY
        assert thief.connections == 0


async def test_cookies_are_not_kept(wires):
    reply = wires.answer("{}", set_cookie="a=b; Path=/")
    async with wires.Wire(wires.always(reply)) as wire, open_client(wire.url) as client:
        for request in (QUERY, QUERY, SUBMIT, SUBMIT):
            await client.send(request)
        assert all("cookie" not in seen.headers for seen in wire.seen)


async def test_submits_use_new_connections_and_queries_share_one(wires):
    async with wires.Wire(wires.always(wires.answer("{}"))) as wire, open_client(wire.url) as client:
        for _ in range(3):
            await client.send(SUBMIT)
        assert wire.connections == 3
        assert {seen.headers["connection"] for seen in wire.seen} == {"close"}
        for _ in range(3):
            await client.send(QUERY)
        assert wire.connections == 4


async def test_request_headers_and_body(wires):
    async with wires.Wire(wires.always(wires.answer("{}"))) as wire, open_client(wire.url + "/kling") as client:
        await client.send(SUBMIT)
    seen = wire.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/kling/v1/make", '{"prompt":"猫","n":1}'.encode())
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("genrunner/")
    assert seen.headers["authorization"] == f"Bearer {KEY}"


async def test_proxies_of_the_environment_are_ignored(wires, monkeypatch):
    async with wires.Wire(wires.always(wires.answer("{}"))) as thief:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, thief.url)
        async with wires.Wire(wires.always(wires.answer("{}"))) as wire, open_client(wire.url) as client:
            assert isinstance(await client.send(SUBMIT), Reply)
        assert thief.connections == 0


async def test_permit_gets_send_time_and_round_trip_time(wires):
    """The permit and the `on_sent` callback get the same times."""

    class Meter:
        def __init__(self):
            self.stamps, self.rtts = [], []

        def sent(self, stamp):
            self.stamps.append(stamp)

        def answered(self, rtt):
            self.rtts.append(rtt)

        async def reacquire(self):
            raise AssertionError

    calls, meter = [], Meter()
    async with (
        wires.Wire(wires.always(wires.answer("{}"))) as wire,
        open_client(wire.url, on_sent=lambda *args: calls.append(args)) as client,
    ):
        await client.send(SUBMIT, meter)
    assert [name for name, _, _ in calls] == ["submit"]
    assert calls[0][1] == meter.stamps[-1]
    assert calls[0][2] == meter.rtts[0] > 0


@pytest.mark.parametrize("key", ["geheim\nX: y", "schlüssel"])
async def test_key_with_invalid_characters_is_never_sent(wires, key):
    async with wires.Wire(wires.always(wires.answer("{}"))) as wire, open_client(wire.url, bearer(key)) as client:
        outcome = await client.send(SUBMIT)
        assert wire.connections == 0
    assert isinstance(outcome, NotSent)
    assert outcome.terminal
    assert key not in outcome.error


async def test_path_cannot_leave_the_origin(wires):
    async with wires.Wire(wires.always(wires.answer("{}"))) as wire, open_client("http://127.0.0.1") as client:
        outcome = await client.send(Request("query", "GET", wire.url.removeprefix("http://127.0.0.1"), "query"))
        assert isinstance(outcome, NotSent)
        assert wire.connections == 0


@pytest.mark.parametrize(
    "url", ["http://api.example.com", "ftp://x", "https://", "https://a@b", "http://10.0.0.1", "https://x/?a=1", "x\\y"]
)
def test_invalid_base_urls(url):
    with pytest.raises(ConfigError) as caught:
        ProviderClient(url, bearer(KEY))
    assert caught.value.exit_code == 7
    assert caught.value.hint


def test_repr_shows_no_secret():
    assert KEY not in repr(ProviderClient("https://api.example.com", bearer(KEY)))


@pytest.mark.slow
async def test_a_thousand_cancellations_leak_no_connection(wires):
    async def late(_wire, _seen, writer):
        await asyncio.sleep(0.004)
        writer.write(wires.answer("{}"))

    async with wires.Wire(late) as wire, open_client(wire.url, deadlines=Deadlines(5, 5, 5)) as client:
        for round_ in range(20):
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(client.send, QUERY if number % 2 else SUBMIT)
                await asyncio.sleep(0.0005 * round_)
                group.cancel_scope.cancel()
        transports = (client._single_use._transport, client._pooled._transport)
        assert [transport.open_connections for transport in transports] == [0, 0]
        assert isinstance(await client.send(QUERY), Reply)
        assert isinstance(await client.send(SUBMIT), Reply)
    with anyio.fail_after(2):
        while wire.open:  # noqa: ASYNC110 - the system reports no closed socket
            await asyncio.sleep(0)


@pytest.mark.slow
async def test_answer_that_came_while_stopped_is_read():
    """The clock goes on while a process is stopped (Ctrl-Z): its time limits have passed when it continues."""
    body = b'{"code": 0, "data": {"task_id": "t-1"}}'
    server = socket.create_server(("127.0.0.1", 0))

    def answer():
        peer, _ = server.accept()
        with peer:
            peer.recv(65536)
            time.sleep(0.5)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(3)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        async with open_client(
            f"http://127.0.0.1:{server.getsockname()[1]}", deadlines=Deadlines(0.8, 0.8, 0.9)
        ) as client:
            asyncio.get_running_loop().call_later(0.3, time.sleep, 2.5)
            outcome = await client.send(SUBMIT)
    finally:
        thread.join()
        server.close()
    assert isinstance(outcome, Reply)
    assert outcome.body["data"]["task_id"] == "t-1"
