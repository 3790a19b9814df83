"""A faulty proxy between client and sandbox, which controls every byte of a response and the delivery of requests.

The sandbox keeps the ledger, so a test can compare the client's state with what was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass

from tests.loopback import LoopbackServer, read_request

#: posted and free of charge
_FREE = ("/task/page", "/consume_detail")


@dataclass
class Call:
    """One request on its way, numbered from 1 within its kind (submit, query, token, file)."""

    middle: Middle
    kind: str
    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    async def forward(self) -> tuple[bytes, bytes]:
        """Forward the request, and return head and body of the sandbox's complete response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.middle.port)
        kept = {name: value for name, value in self.headers.items() if name != "connection"}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in kept.items())]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1") + self.body)
        try:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        lines = [line for line in head.split(b"\r\n") if line.lower() != b"connection: close"]
        return b"\r\n".join(lines), body

    async def say(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def pass_on(self) -> None:
        """Forward the request and its response unchanged."""
        await self.say(b"\r\n\r\n".join(await self.forward()))

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Middle(LoopbackServer):
    """A proxy on its own port. `deeds[kind]` is a deed for every call, or a dict from number to deed."""

    def __init__(self, sandbox, *, tls=None, greet=None):
        self._sandbox, self.tls, self._greet = sandbox, tls, greet
        self.port = int(sandbox.url.rpartition(":")[2])
        self.deeds = {}
        self.calls = Counter()
        self.seen = defaultdict(list)
        self.connections = 0
        #: of a deed itself, so that no test passes or fails for what it did not mean
        self.errors = []

    async def __aenter__(self):
        await super().__aenter__()
        self._sandbox._state.url = self.url.replace("https:", "http:")  # links lead through here as well
        return self

    async def __aexit__(self, *_):
        await super().__aexit__()
        assert not self.errors, self.errors

    def kind(self, method, path):
        if path.startswith("/files/"):
            return "file"
        if path.endswith("/access_token"):
            return "token"
        return "submit" if method == "POST" and not path.endswith(_FREE) else "query"

    async def _serve(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            if self._greet is not None:
                await self._greet(Call(self, "", self.connections, "", "", {}, b"", writer))
            while not writer.is_closing():
                await self._answer(await self._call(reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - raised at the end
            self.errors.append(error)
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.transport.abort()

    async def _call(self, reader, writer):
        method, path, headers, body = await read_request(reader)
        kind = self.kind(method, path)
        self.calls[kind] += 1
        call = Call(self, kind, self.calls[kind], method, path, headers, body, writer)
        self.seen[kind].append(call)
        return call

    async def _answer(self, call):
        deed = self.deeds.get(call.kind)
        deed = deed.get(call.number) if isinstance(deed, dict) else deed
        await (deed(call) if deed is not None else call.pass_on())
        with contextlib.suppress(OSError):
            await call.writer.drain()
        if call.headers.get("connection") == "close":
            await _closed(call.writer)


async def _closed(writer):
    """Close the sending side, as servers do, and wait for the other side."""
    if not writer.is_closing() and writer.can_write_eof():
        writer.write_eof()
    writer.close()


def answer(body=b"", status=200, **headers):
    """Return the bytes of a complete response. A header that is None is left out."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    given = {"content-length": len(raw)} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Word", *(f"{name}: {value}" for name, value in given.items() if value is not None)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + raw


def instead(raw, *, after=False, end="close"):
    """Return a deed that answers with these bytes, and then closes, resets, hangs or stays `open`."""

    async def deed(call):
        if after:
            await call.forward()
        await call.say(raw)
        match end:
            case "close":
                call.close()
            case "reset":
                call.reset()
            case "hang":
                await asyncio.sleep(3600)

    return deed


def changed(change, **headers):
    """Return a deed that changes the body of the sandbox's response by `change(body)`, to a value or to bytes."""

    async def deed(call):
        _, body = await call.forward()
        value = change(json.loads(body))
        await call.say(answer(value, **headers))

    return deed


def first(count, deed):
    """Return a deed for the first `count` calls. Later calls pass unchanged."""
    return dict.fromkeys(range(1, count + 1), deed)
