"""One connection: h11 reads the requests, and each answer ends the way it says.

Requests on a connection are answered one after the other; the connection is kept until either side closes it.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import h11

from runner.sandbox.messages import Answer, Ending, Request, as_text

MAX_HEAD = 64 * 2**10
MAX_BODY = 32 * 2**20
CHUNK = 64 * 2**10
#: A connection without a request is closed after this.
IDLE_S = 120.0
#: How long a refused client may go on sending.
LINGER_S = 1.0
#: A dripping body comes in so many pieces.
DRIPS = 20
CUT_SHORT = frozenset({Ending.CUT, Ending.CUT_RESET})


class Wire:
    """Serves one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        app: Callable[[Request], Awaitable[Answer]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._app = app
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            while await self._exchange():
                self._h11.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass  # the client has gone, or has nothing to say
        finally:
            self._writer.close()

    async def _exchange(self) -> bool:
        request = await self._request()
        if request is None:
            return False
        answer = await self._app(request)
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        await self._deliver(answer, head=request.method == "HEAD")
        return self._h11.our_state is h11.DONE

    async def _request(self) -> Request | None:
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        body = bytearray()
        while isinstance(part := await self._event(), h11.Data):
            body += part.data
            if len(body) > MAX_BODY:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        return _read(event, bytes(body))

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            async with asyncio.timeout(IDLE_S):
                self._h11.receive_data(await self._reader.read(CHUNK))
        return event  # type: ignore[return-value]  # the loop has ended, so it is not NEED_DATA

    async def _deliver(self, answer: Answer, *, head: bool) -> None:
        if answer.ending is Ending.RESET:
            self._reset()
        if answer.ending in {Ending.CLOSED, Ending.RESET}:
            return
        self._send(_head(answer))
        if not head:
            await self._send_body(answer)
        if answer.ending is Ending.WHOLE:
            self._send(h11.EndOfMessage())
        await self._writer.drain()
        if answer.ending is Ending.CUT_RESET:
            self._reset()

    async def _send_body(self, answer: Answer) -> None:
        body = memoryview(answer.body)
        end = len(body) // 2 if answer.ending in CUT_SHORT else len(body)
        step = max(1, -(-end // DRIPS)) if answer.spread_s else CHUNK
        for start in range(0, end, step):
            if answer.spread_s:
                await asyncio.sleep(answer.spread_s / DRIPS)
            self._send(h11.Data(data=bytes(body[start : min(end, start + step)])))
            await self._writer.drain()

    def _send(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            self._writer.write(data)

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._h11.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        answer = as_text(str(error), error.error_status_hint)
        self._send(_head(answer.with_(headers=(("connection", "close"),))))
        self._send(h11.Data(data=answer.body))
        with suppress(ConnectionError, TimeoutError):
            await self._drain_client()

    async def _drain_client(self) -> None:
        """Read what the client still sends; closing before would reset the connection and lose the answer."""
        self._writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await self._reader.read(CHUNK):
                pass

    def _reset(self) -> None:
        """Drop the connection with a reset instead of a farewell."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _read(event: h11.Request, body: bytes) -> Request:
    path, _, query = event.target.decode("ascii").partition("?")
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
    fields = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    return Request(event.method.decode("ascii"), unquote(path), fields, headers, body)


def _head(answer: Answer) -> h11.Response:
    length = str(len(answer.body))
    always = [("date", _date(int(time.time()))), ("content-type", answer.content_type), ("content-length", length)]
    reason = HTTPStatus(answer.status).phrase.encode()
    return h11.Response(status_code=answer.status, headers=[*always, *answer.headers], reason=reason)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
