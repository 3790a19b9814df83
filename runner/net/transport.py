"""httpx's transport over aiohttp's sockets; says what left this machine.

    nothing left     ConnectError (refused, name, certificate), ConnectTimeout
    something may    RemoteProtocolError (closed, garbage), ReadError, WriteError (reset), ReadTimeout (silent)

Evidence is taken from aiohttp's trace: its signal comes before the first byte is written, so "sent" errs on the safe
side. httpx's own pool costs 20 times as much, and httpx-aiohttp 0.2.0 calls "sent, then dropped" a ConnectTimeout.
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

#: from here on aiohttp wants a body in pieces, lest one write holds up the loop
_LARGE = 1 << 20
#: headers that belong to the connection, which is aiohttp's
_HOP = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive"})
#: headers that aiohttp would add by itself
_AUTO = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
#: seconds that the machine may have been suspended before the connections that were kept count as stale (FP9)
_STANDSTILL = 5.0
#: what can go wrong outside; the rest is a bug
_OUTSIDE = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
#: where aiohttp begins to quote the bytes that it could not read
_QUOTED = re.compile(r":? b['\"]")
#: TLS failures that say nothing about the configuration: the other side hung up
_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


@dataclass(slots=True)
class Evidence:
    """What one request did on the wire."""

    clock: Callable[[], float] = time.monotonic
    #: told the stamp when bytes leave
    notify: Callable[[float], None] | None = None
    #: a byte left, or may have left
    sent: bool = False
    #: by the clock, as late as can be known before the bytes leave
    sent_at: float | None = None
    #: when the head of the answer was here
    answered_at: float | None = None
    #: the certificate or the address is wrong: trying again is in vain
    terminal: bool = False
    #: resolved, connected or reused, sent, answered
    phases: list[str] = field(default_factory=list)

    def leaves(self) -> None:
        """The next thing that happens is a write."""
        self.sent = True
        if not self.phases or self.phases[-1] != "sent":
            self.phases.append("sent")
        self.sent_at = self.clock()
        if self.notify is not None:
            self.notify(self.sent_at)

    def answered(self) -> None:
        """The head of the answer is here."""
        self.phases.append("answered")
        self.answered_at = self.clock()


@lru_cache(maxsize=4)
def tls_context(cafile: str | None = None) -> ssl.SSLContext:
    """Verified TLS 1.2 or later, deaf to SSL_CERT_FILE and SSLKEYLOGFILE; one for the process, as loading takes 20 ms.

    `cafile` adds a company's own roots.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context would open the key log
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=certifi.where())
    if cafile:
        context.load_verify_locations(cafile=cafile)
    return context


def suspended() -> float:
    """Seconds that this machine was suspended since its boot, where the system tells."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Carries httpx requests over aiohttp; `force_close` gives each a connection of its own."""

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
        #: from before the machine was suspended; closed after the next one, or at the end
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
        """Connections in use now; a test asserts that none is left behind."""
        return sum(_in_use(session) for session in (*self._stale, self._session) if session is not None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        evidence: Evidence = request.extensions.get("evidence") or Evidence(self._clock)
        answer = await self.ask(
            request.method,
            target(request.url),
            [(name, value) for name, value in request.headers.multi_items() if name.lower() not in _HOP],
            await request.aread(),
            timeout=_timeout(request.extensions.get("timeout", {})),
            evidence=evidence,
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
        """The same without httpx's requests and responses, which cost three times the rest; httpx.TransportError."""
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
        for session in (*self._stale, self._session):
            if session is not None:
                await session.close()
        await self._resolver.close()

    async def _wake(self) -> None:
        """After a suspension nobody has told us that the kept connections are dead: what comes next gets new ones."""
        slept = self._slept()
        jumped, self._asleep = slept - self._asleep > _STANDSTILL, slept
        if not jumped or self._session is None:
            return
        idle = [session for session in self._stale if not _in_use(session)]
        self._stale = [*(session for session in self._stale if session not in idle), self._session]
        self._session = None
        for session in idle:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """Made on first use: aiohttp wants a running loop."""
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
            # aiohttp sends a GET or DELETE again by itself when the connection drops; one permit is one request
            self._session._retry_connection = False  # noqa: SLF001 - there is no public switch
        return self._session


def _in_use(session: aiohttp.ClientSession) -> int:
    connector = session.connector
    return len(connector._acquired) if connector else 0  # noqa: SLF001 - aiohttp does not count in public


class Answer(httpx.AsyncByteStream):
    """An answer's head, and its bytes as they arrive, raw."""

    def __init__(self, answer: aiohttp.ClientResponse, evidence: Evidence) -> None:
        self._answer = answer
        self._evidence = evidence
        self.status = answer.status
        #: names and values as they came
        self.raw: Sequence[tuple[bytes, bytes]] = answer.raw_headers

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case names; what stands twice is joined."""
        found: dict[str, str] = {}
        for name, value in self.raw:
            key, text = _text(name).lower(), _text(value)
            found[key] = f"{found[key]}, {text}" if key in found else text
        return found

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except _OUTSIDE as error:
            raise translated(error, self._evidence) from error

    async def aclose(self) -> None:
        self._answer.close()  # a connection that was read to its end is back in the pool already


def translated(error: Exception, evidence: Evidence) -> httpx.TransportError:
    """An exception of aiohttp's in httpx's words, chosen by what left the machine and not by the exception alone."""
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
    """Short words without addresses: aiohttp's own hold URLs and the repr of a context."""
    cause = getattr(error, "os_error", error)
    match cause:
        case ssl.SSLCertVerificationError():
            return f"certificate: {cause.verify_message}"
        case ssl.SSLError():
            return f"TLS: {cause.reason or type(cause).__name__}"
        case aiohttp.ClientResponseError():
            # what it quotes of the answer stays out: a credential that was echoed may stand in it
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
    """The very parts that were checked: a second parser could read the text differently."""
    path, _, query = url.raw_path.decode("ascii").partition("?")
    host = url.raw_host.decode("ascii")
    authority = (f"[{host}]" if ":" in host else host) + (f":{url.port}" if url.port else "")
    return URL.build(scheme=url.scheme, authority=authority, path=path, query_string=query, encoded=True)


def _timeout(given: dict[str, Any]) -> aiohttp.ClientTimeout:
    connect = given.get("connect")
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=given.get("read"))


def _tracing() -> aiohttp.TraceConfig:
    def saying(phase: str) -> Any:
        async def said(_session: Any, context: Any, _params: Any) -> None:
            context.trace_request_ctx.phases.append(phase)

        return said

    async def leaves(_session: Any, context: Any, _params: Any) -> None:
        context.trace_request_ctx.leaves()

    config = aiohttp.TraceConfig()
    config.on_dns_resolvehost_end.append(saying("resolved"))
    config.on_connection_create_end.append(saying("connected"))
    config.on_connection_reuseconn.append(saying("reused"))
    config.on_request_headers_sent.append(leaves)
    config.on_request_chunk_sent.append(leaves)  # head and body leave together, so this stamp is the closer one
    return config
