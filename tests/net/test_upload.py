"""Uploads to the address that a provider returned: the bytes and no credential."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import anyio
import pytest
from aiohttp.abc import AbstractResolver

from runner.net.transport import tls_context
from runner.net.upload import Uploader

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
LARGE = IMAGE * 400


@contextlib.asynccontextmanager
async def uploader(**options):
    client = Uploader(**{"loopback": True, **options})
    try:
        yield client
    finally:
        await client.aclose()


async def put(client, url, data=IMAGE, **headers):
    return await client.put(url, data, "image/png", headers)


class Names(AbstractResolver):
    """Resolver that returns one address for every name."""

    def __init__(self, address):
        self.address = address

    async def resolve(self, host, port=0, family=socket.AF_INET):
        entry = {"hostname": host, "host": self.address, "port": port, "family": family, "proto": 0, "flags": 0}
        return [entry]

    async def close(self):
        pass


@pytest.mark.parametrize("data", [IMAGE, LARGE], ids=["small", "2 MiB"])
async def test_bytes_arrive_with_type_and_without_credential(wires, data):
    async with wires.Wire(wires.always(wires.answer())) as wire, uploader() as client:
        assert await put(client, f"{wire.url}/k?Signature=a%2Fb%3D&x=1", data, **{"x-oss-acl": "private"}) is None
    (seen,) = wire.seen
    assert (seen.method, seen.path, seen.body) == ("PUT", "/k?Signature=a%2Fb%3D&x=1", data)
    assert (seen.headers["content-type"], seen.headers["x-oss-acl"]) == ("image/png", "private")
    assert seen.headers["content-length"] == str(len(data))
    assert {"authorization", "access_token", "cookie", "transfer-encoding"}.isdisjoint(seen.headers)


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_any_success_status_is_accepted(wires, status):
    async with wires.Wire(wires.always(wires.answer(status=status))) as wire, uploader() as client:
        assert await put(client, wire.url) is None


async def test_rejection_is_quoted_without_the_address(wires):
    body = "<Error><Code>SignatureDoesNotMatch</Code></Error>\x1b[2J" + "x" * 10_000
    async with wires.Wire(wires.always(wires.answer(body, 403))) as wire, uploader() as client:
        error = await put(client, f"{wire.url}/k?Signature=s3cr3t")
    assert (error.reason, error.code) == ("http", "403")
    assert "SignatureDoesNotMatch" in error.message
    assert "s3cr3t" not in error.message
    assert error.message.isprintable()
    assert len(error.message) < 300


async def test_redirect_is_not_followed(wires):
    async with wires.Wire(wires.always(wires.answer())) as other:
        redirect = wires.answer(status=307, location=f"{other.url}/k")
        async with wires.Wire(wires.always(redirect)) as wire, uploader() as client:
            assert (await put(client, wire.url)).code == "307"
        assert other.seen == []


@pytest.mark.parametrize(
    "url",
    ["http://files.example/k", "https://10.0.0.1/k", "https://169.254.169.254/k", "https://127.0.0.1/k", "file:///etc/x",
     "https://a@files.example/k", "https://files.example\\@127.0.0.1/k", "ftp://files.example/k", "", "k"],
)  # fmt: skip
async def test_denied_addresses_are_not_contacted(url):
    async with uploader(loopback=False) as client:
        assert (await put(client, url)).reason == "link_denied"


async def test_name_of_a_loopback_address_is_not_contacted(wires):
    async with wires.Wire(wires.always(wires.answer())) as wire:
        port = wire.url.rpartition(":")[2]
        async with uploader(loopback=False, names=Names("127.0.0.1")) as client:
            assert (await put(client, f"https://files.example:{port}/k")).reason == "network"
        assert wire.connections == 0


async def test_self_signed_certificate_is_rejected(wires, self_signed):
    context, cafile = self_signed
    async with wires.Wire(wires.always(wires.answer()), tls=context) as wire:
        async with uploader() as client:
            assert (await put(client, wire.url)).reason == "network"
        assert wire.seen == []
        async with uploader(context=tls_context(cafile)) as client:
            assert await put(client, wire.url) is None


async def test_broken_connection_is_returned_as_an_error(wires, closed_port):
    async def drop(_wire, _seen, writer):
        wires.reset(writer)

    async with wires.Wire(drop) as wire, uploader() as client:
        assert (await put(client, wire.url)).reason == "network"
        assert (await put(client, f"http://127.0.0.1:{closed_port}/k")).reason == "network"


async def test_missing_answer_ends_at_the_deadline(wires):
    async def silent(_wire, _seen, _writer):
        await asyncio.sleep(60)

    async with wires.Wire(silent) as wire, uploader(deadline=0.3) as client:
        with anyio.fail_after(5):
            assert (await put(client, wire.url)).reason == "timeout"
