"""The transport alone: what it reports, and what it will not take from its surroundings."""

import asyncio
import ssl
import subprocess
import sys

import certifi
import httpx
import pytest

from runner.net.guard import GuardedResolver
from runner.net.transport import AiohttpTransport, Evidence, tls_context


@pytest.fixture
async def transport():
    made = AiohttpTransport(resolver=GuardedResolver(loopback=True))
    yield made
    await made.aclose()


async def test_phases_of_a_request(wires, transport):
    stamps = []
    async with wires.Wire(wires.always(wires.answer("{}"))) as wire:
        for phases in (["connected", "sent", "answered"], ["reused", "sent", "answered"]):
            evidence = Evidence(notify=stamps.append)
            request = httpx.Request("POST", wire.url, content=b"{}", extensions={"evidence": evidence})
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"{}"
            await response.aclose()
            assert evidence.phases == phases
            assert evidence.sent_at == stamps[-1] <= evidence.answered_at
    assert transport.open == 0
    assert repr(transport) == "AiohttpTransport(kept alive, 0 open)"


async def test_fp09_after_the_machine_was_suspended_no_kept_connection_is_used_again(wires):
    """Nobody says so, but the other side has long forgotten them; what is being read meanwhile is read to its end."""
    slept = [100.0]
    made = AiohttpTransport(resolver=GuardedResolver(loopback=True), slept=lambda: slept[0])

    async def begun(wire):
        evidence = Evidence()
        request = httpx.Request("GET", wire.url, extensions={"evidence": evidence})
        return await made.handle_async_request(request), evidence.phases[0]

    async with wires.Wire(wires.always(wires.answer("{}"))) as wire:
        for pause, phase in (
            (0.0, "connected"),
            (0.0, "reused"),
            (4.0, "reused"),
            (600.0, "connected"),
            (0.0, "reused"),
        ):
            slept[0] += pause
            response, how = await begun(wire)
            assert (how, await response.aread()) == (phase, b"{}")
            await response.aclose()
        under_way, _ = await begun(wire)
        for _ in range(3):
            slept[0] += 600.0
            response, how = await begun(wire)
            assert (how, await response.aread()) == ("connected", b"{}")
            await response.aclose()
        assert await under_way.aread() == b"{}"
        await under_way.aclose()
        assert len(made._stale) <= 2, "they do not pile up"
        assert made.open == 0
        await made.aclose()


async def test_nothing_left_says_so(transport, closed_port):
    evidence = Evidence()
    request = httpx.Request("GET", f"http://127.0.0.1:{closed_port}", extensions={"evidence": evidence})
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(request)
    assert not evidence.sent
    assert evidence.sent_at is None


async def test_something_left_says_so(wires, transport):
    async def act(_wire, _seen, writer):
        wires.reset(writer)

    evidence = Evidence()
    async with wires.Wire(act) as wire:
        with pytest.raises(httpx.ReadError):
            await transport.handle_async_request(httpx.Request("GET", wire.url, extensions={"evidence": evidence}))
    assert evidence.sent
    assert evidence.phases == ["connected", "sent"]


async def test_a_denied_name_is_terminal():
    transport = AiohttpTransport(resolver=GuardedResolver(loopback=False))
    evidence = Evidence()
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(
            httpx.Request("GET", "http://localhost:9/", extensions={"evidence": evidence})
        )
    await transport.aclose()
    assert evidence.terminal


async def test_bytes_of_a_path_arrive_as_they_are(wires, transport):
    async with wires.Wire(wires.always(wires.answer(""))) as wire:
        for path in ("/a%2Fb/%E7%8C%AB?x=a%2Bb&y=%20+", "/", "/?q", "/a;b=c,d:e@f"):
            response = await transport.handle_async_request(httpx.Request("GET", wire.url + path))
            await response.aread()
            assert wire.seen[-1].path == path
        assert wire.seen[-1].headers["host"] == wire.url.removeprefix("http://")


def test_tls_is_verified_and_deaf_to_the_environment(monkeypatch, tmp_path):
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
        await transport.handle_async_request(httpx.Request("GET", url, extensions={"evidence": (seen := Evidence())}))
    assert seen.sent
    server.close()


def test_the_systems_certificates_are_not_read_at_the_start_and_nothing_else_changes():
    """aiohttp's own contexts, which no connection here uses, trust nobody; whoever makes one later trusts as usual."""
    code = (
        "import ssl, runner.net.guard, aiohttp.connector as made\n"
        "contexts = made._SSL_CONTEXT_VERIFIED, made._SSL_CONTEXT_UNVERIFIED, ssl.create_default_context()\n"
        "print(*(each.cert_store_stats()['x509'] > 0 for each in contexts))"
    )
    env = {"SSL_CERT_FILE": certifi.where()}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
