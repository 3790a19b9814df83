"""The server's side of one HTTP connection.

h11 parses the requests. Each response ends in the way that it defines.

Requests on a connection are answered one after the other. The connection is kept until either side closes it.
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
#: Seconds after which a connection without a request is closed.
IDLE_S = 120.0
#: Seconds for which a refused client may go on sending.
LINGER_S = 1.0
#: Number of pieces in which a slow body is sent.
DRIPS = 20
CUT_SHORT = frozenset({Ending.CUT, Ending.CUT_RESET})


class Wire:
    """One connection of a client, whose requests `app` answers."""

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
            pass  # the client has closed the connection or was idle too long
        finally:
            self._writer.close()

    async def _exchange(self) -> bool:
        request = await self._request()
        if request is None:
            return False
        response = await self._app(request)
        if response.delay_s:
            await asyncio.sleep(response.delay_s)
        await self._deliver(response, head=request.method == "HEAD")
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

    async def _deliver(self, response: Answer, *, head: bool) -> None:
        if response.ending is Ending.RESET:
            self._reset()
        if response.ending in {Ending.CLOSED, Ending.RESET}:
            return
        self._send(_head(response))
        if not head:
            await self._send_body(response)
        if response.ending is Ending.WHOLE:
            self._send(h11.EndOfMessage())
        await self._writer.drain()
        if response.ending is Ending.CUT_RESET:
            self._reset()

    async def _send_body(self, response: Answer) -> None:
        body = memoryview(response.body)
        end = len(body) // 2 if response.ending in CUT_SHORT else len(body)
        step = max(1, -(-end // DRIPS)) if response.spread_s else CHUNK
        for start in range(0, end, step):
            if response.spread_s:
                await asyncio.sleep(response.spread_s / DRIPS)
            self._send(h11.Data(data=bytes(body[start : min(end, start + step)])))
            await self._writer.drain()

    def _send(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            self._writer.write(data)

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._h11.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        response = as_text(str(error), error.error_status_hint)
        self._send(_head(response.with_(headers=(("connection", "close"),))))
        self._send(h11.Data(data=response.body))
        with suppress(ConnectionError, TimeoutError):
            await self._drain_client()

    async def _drain_client(self) -> None:
        """Discard what the client still sends. Closing before would reset the connection and lose the response."""
        self._writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await self._reader.read(CHUNK):
                pass

    def _reset(self) -> None:
        """Close the connection with a reset (RST) instead of FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _read(event: h11.Request, body: bytes) -> Request:
    path, _, query = event.target.decode("ascii").partition("?")
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
    fields = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    return Request(event.method.decode("ascii"), unquote(path), fields, headers, body)


def _head(response: Answer) -> h11.Response:
    length = str(len(response.body))
    always = [("date", _date(int(time.time()))), ("content-type", response.content_type), ("content-length", length)]
    reason = HTTPStatus(response.status).phrase.encode()
    return h11.Response(status_code=response.status, headers=[*always, *response.headers], reason=reason)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
