"""Hostile providers, links and proxies: no private host is reached, no key leaks, nothing is endless."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import time
import tracemalloc

import pytest
from aiohttp.abc import AbstractResolver

from runner.net.addresses import AddressDeniedError, GuardedResolver, check_url
from runner.net.auth import bearer, header
from runner.net.client import Deadlines, ProviderClient
from runner.net.downloader import DeadLink, Downloader, DownloadLimits, RetryLater
from runner.net.transport import tls_context
from runner.net.upload import Uploader
from runner.providers.requests import NoAnswer, Reply, Request

MIB = 1 << 20
KEY = "canary-key-5f1c77aa"
SUBMIT = Request("submit", "POST", "/v1/make", "submit", {"prompt": "x"})
QUERY = Request("query", "GET", "/v1/make/7", "query")


@contextlib.asynccontextmanager
async def closing(made):
    try:
        yield made
    finally:
        await made.aclose()


def gateway(url, scheme=None, **options):
    options.setdefault("deadlines", Deadlines(connect=2, read=0.5, total=1.5))
    return closing(ProviderClient(url, scheme or header("access_token", KEY), **options))


def downloader(**options):
    options.setdefault("limits", DownloadLimits(read=0.5, deadline=3))
    return closing(Downloader(loopback=options.pop("loopback", True), **options))


class Names(AbstractResolver):
    """A name server with a different response each time."""

    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.queries = 0

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        address = self.addresses[min(self.queries, len(self.addresses) - 1)]
        self.queries += 1
        each = address if isinstance(address, tuple) else (address,)
        return [
            {"hostname": host, "host": one, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for one in each
        ]

    async def close(self):
        pass


INWARD = ["169.254.169.254", "127.0.0.1", "10.0.0.1", "192.168.0.1", "100.100.100.200", "[::ffff:7f00:1]", "[::1]",
          "[fd00:ec2::254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "224.0.0.1", "192.0.0.8"]  # fmt: skip


@pytest.mark.parametrize("host", INWARD)
async def test_x13_links_to_private_addresses_are_refused(tmp_path, host):
    async with downloader(loopback=False) as ours:
        outcome = await ours.fetch(f"https://{host}/latest/meta-data", tmp_path / "parts/1.part")
    assert isinstance(outcome, DeadLink)
    assert outcome.error.reason == "link_denied"


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.1.", "localhost.",
                                  "①②⑦.0.0.1", "127。0。0。1"])  # fmt: skip
async def test_x13_every_spelling_of_private_address_is_refused(tmp_path, wires, host):
    async with wires.Wire(wires.always(wires.answer("x"))) as inside, downloader(loopback=False) as ours:
        port = inside.url.rpartition(":")[2]
        outcome = await ours.fetch(f"https://{host}:{port}/x.png", tmp_path / "parts/1.part")
        assert isinstance(outcome, DeadLink | RetryLater)
        assert inside.connections == 0


@pytest.mark.parametrize("answer", ["127.0.0.1", ("93.184.216.34", "10.0.0.1"), "100.64.0.1", "224.0.0.1", "192.0.0.8"])
async def test_x14_name_with_one_private_address_is_refused(tmp_path, wires, answer):
    names = Names(answer)
    async with wires.Wire(wires.always(wires.answer("x"))) as inside, downloader(loopback=False, names=names) as ours:
        port = inside.url.rpartition(":")[2]
        outcome = await ours.fetch(f"https://cdn.example.com:{port}/x.png", tmp_path / "parts/1.part")
        assert isinstance(outcome, DeadLink | RetryLater)
        assert inside.connections == 0


async def test_x15_connection_uses_checked_address(tmp_path, wires):
    """The name resolves to a public address first and to a private one later."""
    names = Names("192.0.78.1", "127.0.0.1")
    resolver = GuardedResolver(loopback=False, names=names)
    (found,) = await resolver.resolve("cdn.example.com", 443)
    assert (found["host"], names.queries) == ("192.0.78.1", 1)
    with pytest.raises(AddressDeniedError):
        await resolver.resolve("cdn.example.com", 443)


async def test_x15_dns_rebinding_is_refused(tmp_path, wires):
    """A name that resolves to a private address later is resolved once and never connected to."""
    names = Names("127.0.0.1", "127.0.0.1")
    async with wires.Wire(wires.always(wires.answer("x"))) as inside, downloader(loopback=False, names=names) as ours:
        port = inside.url.rpartition(":")[2]
        await ours.fetch(f"https://cdn.example.com:{port}/x.png", tmp_path / "parts/1.part")
        assert (names.queries, inside.connections) == (1, 0)


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/", "file:///etc/passwd", "gopher://127.0.0.1/", "https://10.0.0.1/x",
                 "//[::1]/x", "https://cdn.good.com\\@127.0.0.1/", "https://user:pass@cdn.example.com/",
                 "javascript:alert(1)", "data:image/png;base64,AA", "", "\x00", "https://%31%32%37.0.0.1/"]
)  # fmt: skip
async def test_x16_redirects_to_private_or_other_hosts_are_refused(tmp_path, wires, location):
    reply = wires.answer("", 302, location=location)
    async with wires.Wire(wires.always(reply)) as wire, downloader() as ours:
        outcome = await ours.fetch(f"{wire.url}/x.png", tmp_path / "parts/1.part")
        assert isinstance(outcome, DeadLink | RetryLater)
        assert wire.connections <= 4


async def test_x16_redirect_loop_ends_after_three(tmp_path, wires):
    async with wires.Wire(wires.always(wires.answer("", 302, location="/again"))) as wire, downloader() as ours:
        assert isinstance(await ours.fetch(f"{wire.url}/x.png", tmp_path / "parts/1.part"), DeadLink)
        assert len(wire.seen) == 4


@pytest.mark.parametrize(
    "url", ["https://cdn.good.com\\@127.0.0.1/", "https://cdn.good.com%00.evil/", "https://cdn.good.com%2f@evil/",
            "https://user@cdn.good.com/", "https://cdn.good.com:99999/", "https://cdn.good.com\t.evil/", "https:cdn/x",
            "https://cdn.good.com\r\nHost: evil/", "https:///cdn.good.com/", "HTTP://cdn.good.com/", "https://[::1", "https://:443/"]
)  # fmt: skip
def test_x17_ambiguous_urls_are_refused(url):
    with pytest.raises(AddressDeniedError):
        check_url(url, loopback=True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", [header("access_token", KEY), bearer(KEY)], ids=["header", "bearer"])
async def test_x18_key_does_not_follow_redirect(wires, status, scheme):
    async with wires.Wire(wires.always(wires.answer("{}"))) as thief:
        reply = wires.answer("", status, location=f"{thief.url}/steal")
        async with wires.Wire(wires.always(reply)) as wire, gateway(wire.url, scheme) as ours:
            for request in (SUBMIT, QUERY):
                assert (await ours.send(request)).status == status
        assert thief.connections == 0


async def test_x18_key_is_not_sent_to_download_or_upload_urls(tmp_path, wires):
    async with wires.Wire(wires.always(wires.answer("x"))) as wire:
        async with downloader() as ours:
            await ours.fetch(f"{wire.url}/x.png", tmp_path / "parts/1.part")
        async with closing(Uploader(loopback=True)) as ours:
            await ours.put(f"{wire.url}/up?sign=1", b"data", "image/png", {})
        for seen in wire.seen:
            assert {"authorization", "access_token", "cookie", "referer"} & seen.headers.keys() == set()


async def test_x19_cookies_are_not_kept_or_sent(tmp_path, wires):
    reply = wires.answer("{}", set_cookie="a=b; Path=/; Domain=127.0.0.1")
    async with wires.Wire(wires.always(reply)) as wire:
        async with gateway(wire.url) as api, downloader() as files:
            for _ in range(2):
                await api.send(QUERY)
                await api.send(SUBMIT)
                await files.fetch(f"{wire.url}/x.png", tmp_path / "parts/1.part")
        assert len(wire.seen) == 6
        assert all("cookie" not in seen.headers for seen in wire.seen)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "compress", "gzip, gzip", "x-unknown"])
async def test_x20_compressed_bomb_is_bounded(tmp_path, wires, coding):
    bomb = gzip.compress(gzip.compress(bytes(64 * MIB), 6)) if "," in coding else gzip.compress(bytes(64 * MIB), 6)
    reply = wires.answer(bomb, content_encoding=coding)
    tracemalloc.start()
    try:
        async with wires.Wire(wires.always(reply)) as wire:
            async with gateway(wire.url) as api:
                assert isinstance(await api.send(SUBMIT), NoAnswer)
            async with downloader(limits=DownloadLimits(video=4 * MIB, other=4 * MIB, read=1, deadline=3)) as files:
                assert isinstance(await files.fetch(f"{wire.url}/x.png", tmp_path / "parts/1.part"), RetryLater)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


async def forever(writer, piece):
    while True:
        writer.write(piece)
        await writer.drain()


def endless(begin, piece):
    async def act(_wire, _seen, writer):
        writer.write(begin)
        await forever(writer, piece)

    return act


HEADS = {
    "a header of megabytes": (b"HTTP/1.1 200 OK\r\nx: ", b"a" * 65536),
    "headers without an end": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000),
    "a status line without an end": (b"HTTP/1.1 200 ", b"a" * 65536),
    "continue without an end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "early hints without an end": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
    "chunk extensions": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1;" + b"x" * 4000 + b"\r\na\r\n"),
    "one chunk extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x" * 65536),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 1000),
    "a body without an end": (b"HTTP/1.1 200 OK\r\n\r\n", b"[" * 65536),
    "garbage": (b"", b"\x00" * 65536),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
async def test_x21_responses_are_bounded_in_time_and_memory(tmp_path, wires, name):
    began = time.monotonic()
    tracemalloc.start()
    try:
        async with wires.Wire(endless(*HEADS[name])) as wire:
            async with gateway(wire.url) as api:
                assert isinstance(await api.send(SUBMIT), NoAnswer)
            async with downloader(limits=DownloadLimits(video=4 * MIB, other=4 * MIB, read=0.5, deadline=1.5)) as files:
                assert isinstance(await files.fetch(f"{wire.url}/x.png", tmp_path / "parts/1.part"), RetryLater)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 10


async def test_x22_untrusted_certificate_gets_no_key(wires, self_signed):
    async with wires.Wire(wires.always(wires.answer("{}")), tls=self_signed[0]) as wire, gateway(wire.url) as ours:
        outcome = await ours.send(SUBMIT)
        assert "certificate" in outcome.error
        assert wire.seen == []


def test_x22_environment_cannot_disable_tls_verification(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "mine.pem"))
    tls_context.cache_clear()
    context = tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.keylog_filename is None
    assert not (tmp_path / "keys").exists()
    tls_context.cache_clear()


ECHOES = {
    "in a broken header": b"HTTP/1.1 200 OK\r\nbroken header KEY\r\n\r\n",
    "in a status line": b"HTTP/1.1 KEY OK\r\n\r\n",
    "in a name": b"HTTP/1.1 200 OK\r\nKEY\x01: 1\r\n\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nKEY\r\n",
    "in a length": b"HTTP/1.1 200 OK\r\ncontent-length: KEY\r\n\r\n",
    "in an encoding": b"HTTP/1.1 200 OK\r\ncontent-encoding: KEY\r\ncontent-length: 1\r\n\r\nx",
    "in a reason": b"HTTP/1.1 500 KEY\r\ncontent-length: 0\r\n\r\n",
    "in a header": b"HTTP/1.1 200 OK\r\nx-echo: KEY\r\ncontent-length: 2\r\n\r\n{}",
    "in a body that breaks off": b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nyour key is KEY",
    "in a body that is cut": b'HTTP/1.1 400 Bad\r\ncontent-length: 999\r\n\r\n{"message": "KEY"',
}


@pytest.mark.parametrize("end", ["close", "hang"])
@pytest.mark.parametrize("name", ECHOES)
async def test_x23_echoed_key_is_redacted(wires, name, end):
    async def act(_wire, _seen, writer):
        writer.write(ECHOES[name].replace(b"KEY", KEY.encode()))
        await writer.drain()
        if end == "close":
            writer.close()
        else:
            await asyncio.sleep(5)

    deadlines = Deadlines(connect=2, read=5, total=0.3)
    async with wires.Wire(act) as wire, gateway(wire.url, deadlines=deadlines) as ours:
        assert KEY not in repr(await ours.send(SUBMIT))


SPELLINGS = {
    "plain": lambda char: char,
    "small": lambda char: f"\\u{ord(char):04x}",
    "large": lambda char: f"\\u{ord(char):04X}",
    "mixed": lambda char: f"\\u{ord(char):04x}" if char == "-" else char,
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
async def test_x23_key_is_redacted_in_every_json_spelling(wires, spell):
    body = f'{{"id": "t-1", "message": "{"".join(map(spell, KEY))}"}}'
    async with wires.Wire(wires.always(wires.answer(body))) as wire, gateway(wire.url) as ours:
        outcome = await ours.send(SUBMIT)
    assert isinstance(outcome, Reply)
    assert outcome.body == {"id": "t-1", "message": "***"}
