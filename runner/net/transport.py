"""httpx transport over aiohttp connections that records if bytes of a request left this machine.

    nothing sent      ConnectError (refused, name, certificate), ConnectTimeout
    possibly sent     RemoteProtocolError (closed, garbage), ReadError, WriteError (reset), ReadTimeout (silent)

The record comes from aiohttp's tracing. Its signal precedes the first written byte, so "sent" errs on the safe side.
httpx's own pool costs 20 times as much, and httpx-aiohttp 0.2.0 reports "sent, then dropped" as a ConnectTimeout.
"""

from __future__ import annotations

import io
import re
import ssl
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import aiohttp
import certifi
import httpx
from yarl import URL

from runner.net.guard import Denied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from aiohttp.abc import AbstractResolver

#: bytes above which aiohttp needs a body as a stream, so that one write does not block the event loop
_LARGE = 1 << 20
#: headers of the connection, which aiohttp sets
_HOP = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive"})
#: headers that aiohttp would add on its own
_AUTO = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
#: seconds of a suspension of the machine after which kept-alive connections count as stale
_STANDSTILL = 5.0
#: exceptions with an external cause; any other exception is a bug
_OUTSIDE = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
#: start of the unreadable bytes that aiohttp quotes in a message
_QUOTED = re.compile(r":? b['\"]")
#: TLS errors of a closed connection, which say nothing about the configuration
_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


@dataclass(slots=True)
class Evidence:
    """Events of one request on the wire."""

    clock: Callable[[], float] = time.monotonic
    #: callback with the time at which bytes leave
    notify: Callable[[float], None] | None = None
    #: True if a byte left or may have left
    sent: bool = False
    #: last known time before the bytes leave, in seconds of the clock
    sent_at: float | None = None
    #: time at which the answer's headers arrived
    answered_at: float | None = None
    #: True if the certificate or the address is wrong, so that another attempt is useless
    terminal: bool = False
    #: events in order: resolved, connected or reused, sent, answered
    phases: list[str] = field(default_factory=list)

    def leaves(self) -> None:
        """Record that the next step is a write."""
        self.sent = True
        if not self.phases or self.phases[-1] != "sent":
            self.phases.append("sent")
        self.sent_at = self.clock()
        if self.notify is not None:
            self.notify(self.sent_at)

    def answered(self) -> None:
        """Record that the answer's headers have arrived."""
        self.phases.append("answered")
        self.answered_at = self.clock()


@lru_cache(maxsize=4)
def tls_context(cafile: str | None = None) -> ssl.SSLContext:
    """Return the TLS context of the process: verified TLS 1.2 or later with the root certificates of certifi.

    It ignores SSL_CERT_FILE and SSLKEYLOGFILE. `cafile` adds further root certificates, as those of a company. The
    context is cached because loading the certificates takes 20 ms.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context would open the key log
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=certifi.where())
    if cafile:
        context.load_verify_locations(cafile=cafile)
    return context


def suspended() -> float:
    """Return the seconds that the machine was suspended since its boot, or 0 if the system does not report them."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Transport of httpx requests over aiohttp.

    `force_close` uses a new connection for each request. `limit` is the maximum number of connections, 0 for no limit.
    `read_buffer` is half of the read buffer's limit in bytes. `suspended` returns the seconds of suspension since boot.
    """

    def __init__(
        self,
        *,
        resolver: AbstractResolver,
        force_close: bool = False,
        context: ssl.SSLContext | None = None,
        limit: int = 0,
        read: int = 64 << 10,
        clock: Callable[[], float] = time.monotonic,
        slept: Callable[[], float] = suspended,
    ) -> None:
        self._resolver = resolver
        self._slept, self._asleep = slept, slept()
        #: sessions from before a suspension of the machine, closed after the next suspension or at the end
        self._stale: list[aiohttp.ClientSession] = []
        self._force_close = force_close
        self._context = context
        self._limit, self._read = limit, read
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"AiohttpTransport({'a connection each' if self._force_close else 'kept alive'}, {self.open} open)"

    @property
    def open(self) -> int:
        """Return the number of connections in use; a test checks that none leaks."""
        return sum(_in_use(session) for session in (*self._stale, self._session) if session is not None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send an httpx request; its extension `request_trace` may hold a RequestTrace. Raises httpx.TransportError."""
        trace: Evidence = request.extensions.get("request_trace") or Evidence(self._clock)
        answer = await self.ask(
            request.method,
            target(request.url),
            [(name, value) for name, value in request.headers.multi_items() if name.lower() not in _HOP],
            await request.aread(),
            timeout=_timeout(request.extensions.get("timeout", {})),
            evidence=trace,
        )
        return httpx.Response(answer.status, headers=answer.raw, stream=answer)

    async def ask(
        self,
        method: str,
        url: URL,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
        evidence: Evidence,
    ) -> Answer:
        """Send a request without httpx's Request and Response, which cost three times as much as the rest.

        Raises httpx.TransportError.
        """
        await self._wake()
        try:
            answer = await self._opened().request(
                method,
                url,
                data=io.BytesIO(body) if len(body) > _LARGE else body or None,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
                trace_request_ctx=evidence,
            )
        except _OUTSIDE as error:
            raise translated(error, evidence) from error
        evidence.answered()
        return Answer(answer, evidence)

    async def aclose(self) -> None:
        """Close every connection and the resolver."""
        for session in (*self._stale, self._session):
            if session is not None:
                await session.close()
        await self._resolver.close()

    async def _wake(self) -> None:
        """Use new connections after a suspension of the machine, since the kept ones may be dead without notice."""
        seconds = self._slept()
        was_suspended, self._asleep = seconds - self._asleep > _STANDSTILL, seconds
        if not was_suspended or self._session is None:
            return
        idle = [session for session in self._stale if not _in_use(session)]
        self._stale = [*(session for session in self._stale if session not in idle), self._session]
        self._session = None
        for session in idle:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session, created on first use because aiohttp needs a running event loop."""
        if self._session is None:
            self._context = self._context or tls_context()
            connector = aiohttp.TCPConnector(
                resolver=self._resolver, ssl=self._context, limit=self._limit, force_close=self._force_close
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                read_bufsize=self._read,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                skip_auto_headers=_AUTO,
                trace_configs=[_tracing()],
            )
            # aiohttp would repeat a GET or DELETE when the connection drops, but one permit is one request
            self._session._retry_connection = False  # noqa: SLF001 - there is no public option
        return self._session


def _in_use(session: aiohttp.ClientSession) -> int:
    connector = session.connector
    return len(connector._acquired) if connector else 0  # noqa: SLF001 - there is no public count


class Answer(httpx.AsyncByteStream):
    """Status and headers of an answer, and its raw bytes as an asynchronous stream."""

    def __init__(self, answer: aiohttp.ClientResponse, evidence: Evidence) -> None:
        self._answer = answer
        self._evidence = evidence
        self.status = answer.status
        #: names and values as received
        self.raw: Sequence[tuple[bytes, bytes]] = answer.raw_headers

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers by lower-case name, with the values of repeated headers joined by commas."""
        headers: dict[str, str] = {}
        for name, value in self.raw:
            key, text = _text(name).lower(), _text(value)
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except _OUTSIDE as error:
            raise translated(error, self._evidence) from error

    async def aclose(self) -> None:
        """Close the connection, unless the answer was read to its end and the connection is back in the pool."""
        self._answer.close()


def translated(error: Exception, evidence: Evidence) -> httpx.TransportError:
    """Return the httpx exception for an aiohttp exception, depending on the exception and on `trace.sent`."""
    text = _said(error)
    if not evidence.sent:
        evidence.terminal = _in_vain(error)
        return httpx.ConnectTimeout(text) if isinstance(error, TimeoutError) else httpx.ConnectError(text)
    match error:
        case TimeoutError():
            return httpx.ReadTimeout(text)
        case aiohttp.ClientConnectionResetError():
            return httpx.WriteError(text)
        case OSError():
            return httpx.ReadError(text)
        case _:
            return httpx.RemoteProtocolError(text)


def _in_vain(error: Exception) -> bool:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError | ssl.CertificateError):
        return not isinstance(cause, _HUNG_UP)
    return isinstance(cause, Denied | ValueError)


def _said(error: Exception) -> str:
    """Return a short text without addresses; aiohttp's own texts contain URLs and the repr of a context."""
    cause = getattr(error, "os_error", error)
    match cause:
        case ssl.SSLCertVerificationError():
            return f"certificate: {cause.verify_message}"
        case ssl.SSLError():
            return f"TLS: {cause.reason or type(cause).__name__}"
        case aiohttp.ClientResponseError():
            # without the quoted bytes of the answer, which may contain an echoed credential
            return f"unreadable answer: {_QUOTED.split(' '.join(cause.message.split()))[0][:120]}"
        case OSError() if cause.strerror:
            return cause.strerror
        case Denied() | aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return str(cause)[:160]
        case _:
            return type(cause).__name__


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def target(url: httpx.URL) -> URL:
    """Return a yarl URL of exactly the checked parts, since a second parser could read the text differently."""
    path, _, query = url.raw_path.decode("ascii").partition("?")
    host = url.raw_host.decode("ascii")
    authority = (f"[{host}]" if ":" in host else host) + (f":{url.port}" if url.port else "")
    return URL.build(scheme=url.scheme, authority=authority, path=path, query_string=query, encoded=True)


def _timeout(seconds: dict[str, Any]) -> aiohttp.ClientTimeout:
    connect = seconds.get("connect")
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=seconds.get("read"))


def _tracing() -> aiohttp.TraceConfig:
    def record(phase: str) -> Any:
        async def append(_session: Any, context: Any, _params: Any) -> None:
            context.trace_request_ctx.phases.append(phase)

        return append

    async def mark_sent(_session: Any, context: Any, _params: Any) -> None:
        trace: Evidence = context.trace_request_ctx
        trace.leaves()

    config = aiohttp.TraceConfig()
    config.on_dns_resolvehost_end.append(record("resolved"))
    config.on_connection_create_end.append(record("connected"))
    config.on_connection_reuseconn.append(record("reused"))
    config.on_request_headers_sent.append(mark_sent)
    config.on_request_chunk_sent.append(mark_sent)  # headers and body leave together, so this time is the closer one
    return config
