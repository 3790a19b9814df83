"""The transport alone: its request trace, and its independence of the environment."""

import asyncio
import ssl
import subprocess
import sys

import certifi
import httpx
import pytest

from runner.net.addresses import GuardedResolver
from runner.net.transport import AiohttpTransport, RequestTrace, tls_context


@pytest.fixture
async def transport():
    transport = AiohttpTransport(resolver=GuardedResolver(loopback=True))
    yield transport
    await transport.aclose()


async def test_phases_of_a_request(wires, transport):
    stamps = []
    async with wires.Wire(wires.always(wires.answer("{}"))) as wire:
        for phases in (["connected", "sent", "answered"], ["reused", "sent", "answered"]):
            trace = RequestTrace(on_sent=stamps.append)
            request = httpx.Request("POST", wire.url, content=b"{}", extensions={"request_trace": trace})
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"{}"
            await response.aclose()
            assert trace.phases == phases
            assert trace.sent_at == stamps[-1] <= trace.answered_at
    assert transport.open_connections == 0
    assert repr(transport) == "AiohttpTransport(kept alive, 0 open)"


async def test_fp09_kept_connections_are_dropped_after_a_suspend(wires):
    """The server has forgotten its kept connections; an answer that is being read is read to its end."""
    suspended = [100.0]
    transport = AiohttpTransport(resolver=GuardedResolver(loopback=True), suspended=lambda: suspended[0])

    async def begin(wire):
        trace = RequestTrace()
        request = httpx.Request("GET", wire.url, extensions={"request_trace": trace})
        return await transport.handle_async_request(request), trace.phases[0]

    async with wires.Wire(wires.always(wires.answer("{}"))) as wire:
        for pause, phase in (
            (0.0, "connected"),
            (0.0, "reused"),
            (4.0, "reused"),
            (600.0, "connected"),
            (0.0, "reused"),
        ):
            suspended[0] += pause
            response, first = await begin(wire)
            assert (first, await response.aread()) == (phase, b"{}")
            await response.aclose()
        in_flight, _ = await begin(wire)
        for _ in range(3):
            suspended[0] += 600.0
            response, first = await begin(wire)
            assert (first, await response.aread()) == ("connected", b"{}")
            await response.aclose()
        assert await in_flight.aread() == b"{}"
        await in_flight.aclose()
        assert len(transport._stale) <= 2, "old sessions pile up"
        assert transport.open_connections == 0
        await transport.aclose()


async def test_refused_connection_is_not_sent(transport, closed_port):
    trace = RequestTrace()
    request = httpx.Request("GET", f"http://127.0.0.1:{closed_port}", extensions={"request_trace": trace})
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(request)
    assert not trace.sent
    assert trace.sent_at is None


async def test_reset_after_the_request_is_sent(wires, transport):
    async def act(_wire, _seen, writer):
        wires.reset(writer)

    trace = RequestTrace()
    async with wires.Wire(act) as wire:
        with pytest.raises(httpx.ReadError):
            await transport.handle_async_request(httpx.Request("GET", wire.url, extensions={"request_trace": trace}))
    assert trace.sent
    assert trace.phases == ["connected", "sent"]


async def test_denied_name_is_terminal():
    transport = AiohttpTransport(resolver=GuardedResolver(loopback=False))
    trace = RequestTrace()
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(
            httpx.Request("GET", "http://localhost:9/", extensions={"request_trace": trace})
        )
    await transport.aclose()
    assert trace.terminal


async def test_path_arrives_unchanged(wires, transport):
    async with wires.Wire(wires.always(wires.answer(""))) as wire:
        for path in ("/a%2Fb/%E7%8C%AB?x=a%2Bb&y=%20+", "/", "/?q", "/a;b=c,d:e@f"):
            response = await transport.handle_async_request(httpx.Request("GET", wire.url + path))
            await response.aread()
            assert wire.seen[-1].path == path
        assert wire.seen[-1].headers["host"] == wire.url.removeprefix("http://")


def test_tls_is_verified_and_ignores_the_environment(monkeypatch, tmp_path):
    keys = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    context = tls_context()
    assert context.keylog_filename is None
    assert not keys.exists()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) > 50


async def test_http_over_ipv6(transport):
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "::1", 0)
    url = f"http://[::1]:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(httpx.TransportError):
        await transport.handle_async_request(
            httpx.Request("GET", url, extensions={"request_trace": (seen := RequestTrace())})
        )
    assert seen.sent
    server.close()


def test_system_certificates_are_not_loaded_at_import():
    """aiohttp's own contexts, which no connection here uses, trust no certificate; later contexts do as usual."""
    code = (
        "import ssl, runner.net.addresses, aiohttp.connector as connector\n"
        "contexts = connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED, ssl.create_default_context()\n"
        "print(*(each.cert_store_stats()['x509'] > 0 for each in contexts))"
    )
    env = {"SSL_CERT_FILE": certifi.where()}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
