"""Raw server on loopback that can misbehave at any byte, and a self-signed certificate."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
from dataclasses import dataclass, field

import pytest

from tests.loopback import LoopbackServer, read_request


@dataclass
class Seen:
    """Request as received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire(LoopbackServer):
    """Server on loopback: `act(wire, seen, writer)` answers each request, `greet(wire, writer)` runs on connection."""

    act: object = None
    greet: object = None
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    async def _serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        self._tasks.add(asyncio.current_task())
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(asyncio.current_task())
            writer.transport.abort()

    async def _talk(self, reader, writer):
        if self.greet is not None:
            await self.greet(self, writer)
        while not writer.is_closing():
            seen = Seen(*await read_request(reader))
            self.seen.append(seen)
            await self.act(self, seen, writer)
            if seen.headers.get("connection") == "close":
                writer.close()


def answer(body=b"", status=200, **headers):
    """Return the bytes of a complete answer."""
    if isinstance(body, str):
        body = body.encode()
    lines = [f"HTTP/1.1 {status} Word"]
    fields = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(raw):
    """Return an `act` that answers every request with the same bytes."""

    async def act(_wire, _seen, writer):
        writer.write(raw)
        await writer.drain()

    return act


def reset(writer):
    """Reset the connection (RST)."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Tools:
    Wire = Wire
    answer = staticmethod(answer)
    always = staticmethod(always)
    reset = staticmethod(reset)


@pytest.fixture
def wires():
    return Tools


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory):
    """Return a TLS context of a server for 127.0.0.1 and the file of its certificate."""
    directory = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    extra = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        f"{directory}/key.pem",
        "-out",
        f"{directory}/cert.pem",
    ]
    subprocess.run([*command.split(), *extra], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    return context, f"{directory}/cert.pem"


@pytest.fixture
def closed_port():
    with contextlib.closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
