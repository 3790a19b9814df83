"""A file goes where a provider said: the bytes and nothing of ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import anyio
import pytest
from aiohttp.abc import AbstractResolver

from runner.net.transport import tls_context
from runner.net.upload import Uploader

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
LARGE = PICTURE * 400


@contextlib.asynccontextmanager
async def uploader(**options):
    made = Uploader(**{"loopback": True, **options})
    try:
        yield made
    finally:
        await made.aclose()


async def put(ours, url, data=PICTURE, **headers):
    return await ours.put(url, data, "image/png", headers)


class Names(AbstractResolver):
    """Every name leads to one address."""

    def __init__(self, address):
        self.address = address

    async def resolve(self, host, port=0, family=socket.AF_INET):
        entry = {"hostname": host, "host": self.address, "port": port, "family": family, "proto": 0, "flags": 0}
        return [entry]

    async def close(self):
        pass


@pytest.mark.parametrize("data", [PICTURE, LARGE], ids=["small", "2 MiB"])
async def test_the_bytes_arrive_with_their_type_and_no_credential(wires, data):
    async with wires.Wire(wires.always(wires.answer())) as wire, uploader() as ours:
        assert await put(ours, f"{wire.url}/k?Signature=a%2Fb%3D&x=1", data, **{"x-oss-acl": "private"}) is None
    (seen,) = wire.seen
    assert (seen.method, seen.path, seen.body) == ("PUT", "/k?Signature=a%2Fb%3D&x=1", data)
    assert (seen.headers["content-type"], seen.headers["x-oss-acl"]) == ("image/png", "private")
    assert seen.headers["content-length"] == str(len(data))
    assert {"authorization", "access_token", "cookie", "transfer-encoding"}.isdisjoint(seen.headers)


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_any_good_status_will_do(wires, status):
    async with wires.Wire(wires.always(wires.answer(status=status))) as wire, uploader() as ours:
        assert await put(ours, wire.url) is None


async def test_a_refusal_is_told_in_its_own_words_and_nothing_of_the_address(wires):
    body = "<Error><Code>SignatureDoesNotMatch</Code></Error>\x1b[2J" + "x" * 10_000
    async with wires.Wire(wires.always(wires.answer(body, 403))) as wire, uploader() as ours:
        fault = await put(ours, f"{wire.url}/k?Signature=s3cr3t")
    assert (fault.reason, fault.code) == ("http", "403")
    assert "SignatureDoesNotMatch" in fault.message
    assert "s3cr3t" not in fault.message
    assert fault.message.isprintable()
    assert len(fault.message) < 300


async def test_a_redirect_is_not_followed(wires):
    async with wires.Wire(wires.always(wires.answer())) as other:
        there = wires.answer(status=307, location=f"{other.url}/k")
        async with wires.Wire(wires.always(there)) as wire, uploader() as ours:
            assert (await put(ours, wire.url)).code == "307"
        assert other.seen == []


@pytest.mark.parametrize(
    "url",
    ["http://files.example/k", "https://10.0.0.1/k", "https://169.254.169.254/k", "https://127.0.0.1/k", "file:///etc/x",
     "https://a@files.example/k", "https://files.example\\@127.0.0.1/k", "ftp://files.example/k", "", "k"],
)  # fmt: skip
async def test_no_address_that_must_not_be_reached_is_asked(url):
    async with uploader(loopback=False) as ours:
        assert (await put(ours, url)).reason == "link_denied"


async def test_a_name_that_leads_home_is_not_asked(wires):
    async with wires.Wire(wires.always(wires.answer())) as wire:
        port = wire.url.rpartition(":")[2]
        async with uploader(loopback=False, names=Names("127.0.0.1")) as ours:
            assert (await put(ours, f"https://files.example:{port}/k")).reason == "network"
        assert wire.connections == 0


async def test_a_certificate_that_nobody_signed_is_not_believed(wires, self_signed):
    context, cafile = self_signed
    async with wires.Wire(wires.always(wires.answer()), tls=context) as wire:
        async with uploader() as ours:
            assert (await put(ours, wire.url)).reason == "network"
        assert wire.seen == []
        async with uploader(context=tls_context(cafile)) as ours:
            assert await put(ours, wire.url) is None


async def test_what_breaks_off_is_a_fault_and_not_an_exception(wires, closed_port):
    async def drop(_wire, _seen, writer):
        wires.reset(writer)

    async with wires.Wire(drop) as wire, uploader() as ours:
        assert (await put(ours, wire.url)).reason == "network"
        assert (await put(ours, f"http://127.0.0.1:{closed_port}/k")).reason == "network"


async def test_an_answer_that_does_not_come_ends_with_the_deadline(wires):
    async def silent(_wire, _seen, _writer):
        await asyncio.sleep(60)

    async with wires.Wire(silent) as wire, uploader(deadline=0.3) as ours:
        with anyio.fail_after(5):
            assert (await put(ours, wire.url)).reason == "timeout"
