"""Connections opened ahead, over real sockets: one request each, and the evidence of today to the letter."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from runner.net import open_ahead
from runner.net.addresses import GuardedResolver
from runner.net.open_ahead import AheadConnector
from runner.net.transport import AiohttpTransport, RequestTrace, tls_context


@pytest.fixture(autouse=True)
def worth_it(monkeypatch):
    """Count a handshake on loopback as one of 100 ms, so that it is worth opening ahead."""
    monkeypatch.setattr(AheadConnector, "handshake", 0.1)


@pytest.fixture
def clock():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
async def transport(clock, self_signed):
    made = AiohttpTransport(
        resolver=GuardedResolver(loopback=True), open_ahead=True, clock=clock, context=tls_context(self_signed[1])
    )
    yield made
    await made.aclose()


async def post(transport, wire, word="x"):
    """Send a request and return its trace and answer, or the error."""
    trace = RequestTrace()
    request = httpx.Request("POST", wire.url, content=word.encode(), extensions={"request_trace": trace})
    try:
        response = await transport.handle_async_request(request)
        return trace, await response.aread()
    except httpx.TransportError as error:
        return trace, error


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - nothing notifies
            await asyncio.sleep(0.005)


def ahead(transport):
    return transport._session.connector


async def warm(transport, wire, clock, requests=4):
    """Send requests ten a second until a connection is open ahead."""
    for _ in range(requests):
        clock.now += 0.1
        assert (await post(transport, wire))[1] == b"{}"
    connector = ahead(transport)
    await until(lambda: connector._ahead and not connector._opening)
    return connector


async def echo(wire, seen, writer):
    wire.by.setdefault(writer, []).append(seen.body)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    await writer.drain()


def served(wires, tls=None, greet=None):
    made = wires.Wire(echo, greet, tls)
    made.by = {}
    return made


@pytest.mark.parametrize("tls", [False, True])
async def test_each_connection_carries_one_request(wires, transport, clock, self_signed, tls):
    async with served(wires, self_signed[0] if tls else None) as wire:
        connector = await warm(transport, wire, clock)
        opened = wire.connections
        for number in range(20):
            clock.now += 0.1
            trace, answer = await post(transport, wire, str(number))
            assert (trace.phases, answer) == (["connected", "sent", "answered"], b"{}")
            await until(lambda: not connector._opening)
        assert [len(bodies) for bodies in wire.by.values()] == [1] * 24
        assert opened > 4, "before it was needed"
        # those that wait now, and with TLS those whose session tickets were still unread: they showed bytes
        assert wire.connections - 24 <= (8 if tls else 2)


async def test_connection_opened_ahead_is_used(wires, transport, clock):
    async with served(wires) as wire:
        connector = await warm(transport, wire, clock)
        protocol = connector._ahead[0].protocol
        before = wire.connections
        connector.handshake = 0.0  # open no more
        assert (await post(transport, wire))[1] == b"{}"
        assert wire.connections == before
        assert protocol not in [each.protocol for each in connector._ahead]


async def test_old_connection_is_not_used(wires, transport, clock):
    async with served(wires) as wire:
        connector = await warm(transport, wire, clock)
        protocol, before = connector._ahead[0].protocol, wire.connections
        connector.handshake = 0.0
        clock.now += 2.1
        assert (await post(transport, wire))[1] == b"{}"
        assert wire.connections == before + 1
        assert protocol.transport is None or protocol.transport.is_closing()


async def test_no_connection_waits_longer_than_two_seconds(wires, transport, clock, monkeypatch):
    monkeypatch.setattr(open_ahead, "_MAX_AGE", 0.2)
    async with served(wires) as wire:
        for _ in range(8):
            clock.now += 0.01
            await post(transport, wire)
        connector = ahead(transport)
        await until(lambda: connector._ahead)
        clock.now += 1.0
        await until(lambda: wire.open == 0)
        assert connector.ahead == 0


async def test_server_that_closes_idle_connections_at_once(wires, transport, clock):
    """Each request gets a new connection then, none is in doubt, and no more are opened ahead."""
    asked = asyncio.Event()

    async def hang_up(wire, writer):
        if not asked.is_set() and wire.connections > 3:
            await asyncio.sleep(0.02)
            if not wire.by.get(writer):
                writer.close()

    async with served(wires, greet=hang_up) as wire:
        for _ in range(3):
            clock.now += 0.1
            await post(transport, wire)
        await until(lambda: wire.connections > 3)
        await asyncio.sleep(0.1)
        asked.set()
        for number in range(5):
            clock.now += 0.1
            before = wire.connections
            trace, answer = await post(transport, wire)
            assert (trace.phases, answer) == (["connected", "sent", "answered"], b"{}")
            if number:
                assert wire.connections == before + 1
        assert ahead(transport).ahead == 0


@pytest.mark.parametrize("way", ["closed", "reset"])
async def test_end_between_peek_and_send_is_never_resent(wires, transport, clock, monkeypatch, way):
    """The peek shows nothing, then the server hangs up.

    What was about to leave is in doubt; an end that the event loop
    has seen before is proof that nothing left. The server has seen no request in either case.
    """
    writers = []

    async def greet(_wire, writer):
        writers.append(writer)

    async with served(wires, greet=greet) as wire:
        await warm(transport, wire, clock)
        peek = open_ahead._peek

        def then_hang_up(protocol):
            silent = peek(protocol)
            assert silent == "silent"
            for writer in writers:
                wires.reset(writer) if way == "reset" else writer.close()
            return silent

        monkeypatch.setattr(open_ahead, "_peek", then_hang_up)
        seen = len(wire.seen)
        trace, error = await post(transport, wire)
        doubts = httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError
        assert isinstance(error, doubts if trace.sent else httpx.ConnectError)
        assert "answered" not in trace.phases
        assert trace.sent == ("sent" in trace.phases) == (way == "closed")
        await asyncio.sleep(0.05)
        assert len(wire.seen) == seen, "it was not sent once more"


async def test_bytes_before_a_request_are_no_answer(wires, transport, clock):
    """A server that ends idle connections with a 408, or with anything else, answers no request by that."""

    async def talk(wire, writer):
        if wire.connections > 4:
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"id": "no"}')
            await writer.drain()

    async with served(wires, greet=talk) as wire:
        connector = await warm(transport, wire, clock)
        await asyncio.sleep(0.05)
        wire.connections, connector.handshake = 0, 0.0
        assert (await post(transport, wire))[1] == b"{}"
        assert connector.ahead == 0


async def test_byte_that_the_loop_has_not_read_is_seen(wires, transport, clock):
    writers = []

    async def greet(_wire, writer):
        writers.append(writer)

    async with served(wires, greet=greet) as wire:
        connector = await warm(transport, wire, clock)
        found = connector._ahead[0].protocol
        assert open_ahead._peek(found) == "silent"
        found.transport.pause_reading()
        for writer in writers:
            if not writer.is_closing():
                writer.write(b"x")
        await asyncio.sleep(0.02)
        assert open_ahead._peek(found) == "readable"
        for writer in writers:
            writer.close()
        await asyncio.sleep(0.02)
        assert open_ahead._peek(found) == "ended"


async def test_failure_to_open_ahead_is_no_evidence(wires, transport, clock):
    """When the server is gone, the request itself finds that nothing was sent."""
    async with served(wires) as wire:
        connector = await warm(transport, wire, clock)
        url = wire.url
    await until(lambda: not connector._opening)

    class Gone:
        pass

    Gone.url = url
    for _ in range(3):
        clock.now += 0.1
        trace, error = await post(transport, Gone)
        assert isinstance(error, httpx.ConnectError)
        assert not trace.sent
    await until(lambda: connector.ahead == 0)


async def test_few_are_opened_and_none_for_rare_requests(wires, transport, clock):
    async with served(wires) as wire:
        await warm(transport, wire, clock)
        connector = ahead(transport)
        for _ in range(20):
            clock.now += 0.001
            await post(transport, wire)
            assert connector.ahead <= 8
        clock.now += 30.0
        for _ in range(5):
            clock.now += 3.0
            await post(transport, wire)
            assert connector._wanted() == 0


async def test_fast_handshakes_are_not_worth_it(wires, transport, clock, monkeypatch):
    monkeypatch.undo()
    async with served(wires) as wire:
        for _ in range(10):
            clock.now += 0.05
            await post(transport, wire)
        assert ahead(transport).ahead == 0
        assert wire.connections == 10


async def test_closing_leaves_no_connection(wires, clock):
    transport = AiohttpTransport(resolver=GuardedResolver(loopback=True), open_ahead=True, clock=clock)
    async with served(wires) as wire:
        connector = await warm(transport, wire, clock)
        clock.now += 0.1
        await post(transport, wire)
        await transport.aclose()
        await until(lambda: wire.open == 0)
        assert connector.ahead == 0
