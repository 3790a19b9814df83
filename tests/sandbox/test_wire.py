import asyncio

import pytest

from runner.sandbox.server import Sandbox


async def talk(sandbox, data, until=b""):
    host, port = sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.readuntil(until) if until else reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_connection_is_kept_alive():
    async with Sandbox() as sandbox:
        one = b"GET /_sandbox/options HTTP/1.1\r\nhost: x\r\n\r\n"
        last = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        responses = await talk(sandbox, one + one + last)
        assert responses.count(b"HTTP/1.1 200 OK") == 2
        assert responses.count(b"HTTP/1.1 404 Not Found") == 1
        assert sandbox.stats["connections"] == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 200_000 + b"\r\n\r\n", b" 431 "),
    ],
)
async def test_invalid_http_is_refused(data, status):
    async with Sandbox() as sandbox:
        assert status in await talk(sandbox, data, until=b"\r\n")


async def test_body_over_limit_is_413(monkeypatch):
    monkeypatch.setattr("runner.sandbox.wire.MAX_BODY", 1000)
    async with Sandbox() as sandbox:
        head = b"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n"
        assert b" 413 " in await talk(sandbox, head + b"x" * 2000, until=b"\r\n")


async def test_expect_100_continue_is_answered():
    async with Sandbox() as sandbox:
        head = b"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
        assert b"HTTP/1.1 100" in await talk(sandbox, head, until=b"\r\n")


async def test_close_does_not_wait_for_idle_connections():
    async with asyncio.timeout(5):
        async with Sandbox() as sandbox:
            host, port = sandbox.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /_sandbox/options HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"\r\n")
        await reader.read()
        writer.close()
