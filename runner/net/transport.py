"""httpx transport over aiohttp connections that records if bytes of a request left this machine.

    nothing sent      ConnectError (refused, name, certificate), ConnectTimeout
    possibly sent     RemoteProtocolError (closed, garbage), ReadError, WriteError (reset), ReadTimeout (silent)

The record comes from aiohttp's tracing. Its signal precedes the first written byte, so "sent" errs on the safe side.
httpx's own pool costs 20 times as much, and httpx-aiohttp 0.2.0 reports "sent, then dropped" as a ConnectTimeout.
"""

from __future__ import annotations

import io
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import aiohttp
import certifi
import httpx
from aiohttp.abc import AbstractResolver
from yarl import URL

from runner.net.addresses import AddressDeniedError, GuardedResolver
from runner.net.open_ahead import AheadConnector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from aiohttp.abc import ResolveResult

    from runner.net.proxy import Proxy

#: bytes above which aiohttp needs a body as a stream, so that one write does not block the event loop
_LARGE_BODY = 1 << 20
#: bytes of one header line of an answer, as much as browsers and curl read
_MAX_HEADER = 64 << 10
#: headers of the connection, which aiohttp sets
_HOP_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive"})
#: headers that aiohttp would add on its own
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
#: seconds of a suspension of the machine after which kept-alive connections count as stale
_SUSPEND_THRESHOLD = 5.0
#: exceptions with an external cause; any other exception is a bug
_EXTERNAL_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
#: start of the unreadable bytes that aiohttp quotes in a message
_QUOTED_BYTES = re.compile(r":? b['\"]")
#: answers of a proxy by which it opens no tunnel there, however often it is asked
_PROXY_PASSWORD = 407
_PROXY_REFUSALS = frozenset({401, 403, 405, _PROXY_PASSWORD, 501})
#: TLS errors of a closed connection, which say nothing about the configuration
_HANG_UP_ERRORS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


@dataclass(slots=True)
class RequestTrace:
    """Events of one request on the wire."""

    clock: Callable[[], float] = time.monotonic
    #: callback with the time at which bytes leave
    on_sent: Callable[[float], None] | None = None
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

    def mark_sent(self) -> None:
        """Record that the next step is a write."""
        self.sent = True
        if not self.phases or self.phases[-1] != "sent":
            self.phases.append("sent")
        self.sent_at = self.clock()
        if self.on_sent is not None:
            self.on_sent(self.sent_at)

    def mark_answered(self) -> None:
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


def suspended_seconds() -> float:
    """Return the seconds that the machine was suspended since its boot, or 0 if the system does not report them."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Transport of httpx requests over aiohttp, through a `proxy` those that it serves.

    `force_close` uses a new connection for each request, and `open_ahead` opens those ahead. `limit` is the maximum
    number of connections, 0 for no limit. `read_buffer` is half of the read buffer's limit in bytes. `suspended`
    returns the seconds of suspension since boot.
    """

    def __init__(
        self,
        *,
        resolver: AbstractResolver,
        force_close: bool = False,
        open_ahead: bool = False,
        context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        limit: int = 0,
        read_buffer: int = 64 << 10,
        clock: Callable[[], float] = time.monotonic,
        suspended: Callable[[], float] = suspended_seconds,
    ) -> None:
        self._resolver, self._proxy = resolver, proxy
        self._suspended, self._suspended_before = suspended, suspended()
        #: sessions from before a suspension of the machine, closed after the next suspension or at the end
        self._stale: list[aiohttp.ClientSession] = []
        self._force_close, self._opens_ahead = force_close or open_ahead, open_ahead
        self._context = context
        self._limit, self._read_buffer = limit, read_buffer
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        kind = "a connection each" if self._force_close else "kept alive"
        return f"AiohttpTransport({kind}, {self.open_connections} open)"

    @property
    def open_connections(self) -> int:
        """Return the number of connections in use; a test checks that none leaks."""
        return sum(_connections_in_use(session) for session in (*self._stale, self._session) if session is not None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send an httpx request; its extension `request_trace` may hold a RequestTrace. Raises httpx.TransportError."""
        trace: RequestTrace = request.extensions.get("request_trace") or RequestTrace(self._clock)
        seconds = request.extensions.get("timeout", {})
        connect, read = seconds.get("connect"), seconds.get("read")
        answer = await self.send(
            request.method,
            to_yarl(request.url),
            [(name, value) for name, value in request.headers.multi_items() if name.lower() not in _HOP_HEADERS],
            await request.aread(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=read),
            trace=trace,
        )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=answer)

    async def send(
        self,
        method: str,
        url: URL,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
        trace: RequestTrace,
    ) -> ResponseStream:
        """Send a request without httpx's Request and Response, which cost three times as much as the rest.

        Raises httpx.TransportError.
        """
        await self._renew_after_suspend()
        proxy = self._proxy if self._proxy is not None and self._proxy.serves(url) else None
        try:
            if proxy is not None and isinstance(self._resolver, GuardedResolver):
                await self._resolver.check_host(url.host or "")
            answer = await self._get_session().request(
                method,
                url,
                data=io.BytesIO(body) if len(body) > _LARGE_BODY else body or None,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
                trace_request_ctx=trace,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=None if proxy is None else proxy.headers,
            )
        except _EXTERNAL_ERRORS as error:
            raise translate_error(error, trace) from error
        trace.mark_answered()
        return ResponseStream(answer, trace)

    async def aclose(self) -> None:
        """Close every connection and the resolver."""
        for session in (*self._stale, self._session):
            if session is not None:
                await session.close()
        await self._resolver.close()

    async def _renew_after_suspend(self) -> None:
        """Use new connections after a suspension of the machine, since the kept ones may be dead."""
        seconds = self._suspended()
        was_suspended, self._suspended_before = seconds - self._suspended_before > _SUSPEND_THRESHOLD, seconds
        if not was_suspended or self._session is None:
            return
        idle = [session for session in self._stale if not _connections_in_use(session)]
        self._stale = [*(session for session in self._stale if session not in idle), self._session]
        self._session = None
        for session in idle:
            await session.close()

    def _get_session(self) -> aiohttp.ClientSession:
        """Return the session, created on first use because aiohttp needs a running event loop."""
        if self._session is None:
            self._context = self._context or tls_context()
            kind = partial(AheadConnector, clock=self._clock) if self._opens_ahead else aiohttp.TCPConnector
            resolver = self._resolver
            if self._proxy is not None:
                resolver = _ProxyResolver(self._proxy.url.host or "", resolver)
            connector = kind(resolver=resolver, ssl=self._context, limit=self._limit, force_close=self._force_close)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                read_bufsize=self._read_buffer,
                max_field_size=_MAX_HEADER,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                skip_auto_headers=_AUTO_HEADERS,
                trace_configs=[_trace_config()],
            )
            # aiohttp would repeat a GET or DELETE when the connection drops, but one permit is one request
            self._session._retry_connection = False  # noqa: SLF001 - there is no public option
        return self._session


class _ProxyResolver(AbstractResolver):
    """Resolver that looks up a proxy, which may be on a company network, and asks `others` for every other host."""

    def __init__(self, proxy: str, others: AbstractResolver) -> None:
        self._proxy, self._others = proxy, others
        self._names = GuardedResolver(loopback=True, private=True)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return await (self._names if host == self._proxy else self._others).resolve(host, port, family)

    async def close(self) -> None:
        await self._names.close()


class ResponseStream(httpx.AsyncByteStream):
    """Status and headers of an answer, and its raw bytes as an asynchronous stream."""

    def __init__(self, answer: aiohttp.ClientResponse, trace: RequestTrace) -> None:
        self._answer = answer
        self._trace = trace
        self.status = answer.status
        #: names and values as received
        self.raw_headers: Sequence[tuple[bytes, bytes]] = answer.raw_headers

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers by lower-case name, with the values of repeated headers joined by commas."""
        headers: dict[str, str] = {}
        for name, value in self.raw_headers:
            key, text = _decode(name).lower(), _decode(value)
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except _EXTERNAL_ERRORS as error:
            raise translate_error(error, self._trace) from error

    async def aclose(self) -> None:
        """Close the connection, unless the answer was read to its end and the connection is back in the pool."""
        self._answer.close()


def translate_error(error: Exception, trace: RequestTrace) -> httpx.TransportError:
    """Return the httpx exception for an aiohttp exception, depending on the exception and on `trace.sent`."""
    text = _describe(error)
    if not trace.sent:
        trace.terminal = _is_terminal(error)
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


def to_yarl(url: httpx.URL) -> URL:
    """Return a yarl URL of exactly the checked parts, since a second parser could read the text differently."""
    path, _, query = url.raw_path.decode("ascii").partition("?")
    host = url.raw_host.decode("ascii")
    authority = (f"[{host}]" if ":" in host else host) + (f":{url.port}" if url.port else "")
    return URL.build(scheme=url.scheme, authority=authority, path=path, query_string=query, encoded=True)


def _is_terminal(error: Exception) -> bool:
    cause = getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status in _PROXY_REFUSALS
    if isinstance(cause, ssl.SSLError | ssl.CertificateError):
        return not isinstance(cause, _HANG_UP_ERRORS)
    return isinstance(cause, AddressDeniedError | ValueError)


def _describe(error: Exception) -> str:
    """Return a short text without addresses; aiohttp's own texts contain URLs and the repr of a context."""
    cause = getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        number = error.os_error.errno
        return f"the proxy of RUNNER_PROXY: {os.strerror(number) if number else type(error.os_error).__name__}"
    match cause:
        case aiohttp.ClientHttpProxyError(status=status):
            wish = ", which asks for a name and a password" if status == _PROXY_PASSWORD else ""
            return f"the proxy of RUNNER_PROXY refused the tunnel with HTTP {status}{wish}"
        case ssl.SSLCertVerificationError():
            return f"certificate: {cause.verify_message}"
        case ssl.SSLError():
            return f"TLS: {cause.reason or type(cause).__name__}"
        case aiohttp.ClientResponseError():
            # without the quoted bytes of the answer, which may contain an echoed credential
            return f"unreadable answer: {_QUOTED_BYTES.split(' '.join(cause.message.split()))[0][:120]}"
        case OSError() if cause.strerror:
            return cause.strerror
        case AddressDeniedError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return str(cause)[:160]
        case _:
            return type(cause).__name__


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _trace_config() -> aiohttp.TraceConfig:
    def record(phase: str) -> Any:
        async def append(_session: Any, context: Any, _params: Any) -> None:
            context.trace_request_ctx.phases.append(phase)

        return append

    async def mark_sent(_session: Any, context: Any, _params: Any) -> None:
        trace: RequestTrace = context.trace_request_ctx
        trace.mark_sent()

    config = aiohttp.TraceConfig()
    config.on_dns_resolvehost_end.append(record("resolved"))
    config.on_connection_create_end.append(record("connected"))
    config.on_connection_reuseconn.append(record("reused"))
    config.on_request_headers_sent.append(mark_sent)
    config.on_request_chunk_sent.append(mark_sent)  # headers and body leave together, so this time is the closer one
    return config


def _connections_in_use(session: aiohttp.ClientSession) -> int:
    connector = session.connector
    return len(connector._acquired) if connector else 0  # noqa: SLF001 - there is no public count
