"""HTTP client of one provider and one account: sends Requests and returns every external failure as an Outcome.

1. `NotSent` means that no byte left according to the request trace, or that the server definitely accepted nothing.
2. One deadline covers the whole exchange, since httpx's timeouts apply to single reads and never end a slow drip. The
   bytes read before the deadline are kept.
3. No redirect is followed and no cookie is kept. The key is sent to the base URL only.
4. A rejected credential is renewed and the request is replayed once. A second rejection is the outcome. Nothing is
   replayed if the status leaves open whether the server accepted a paid request.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import aiohttp
import anyio
import httpx
import orjson
from yarl import URL

from runner import __version__
from runner.net.addresses import GuardedResolver, check_base
from runner.net.body import Inflater, UnreadableBodyError, parse_body, read_coding
from runner.net.transport import AiohttpTransport, RequestTrace, ResponseStream, tls_context, to_yarl
from runner.providers.requests import NoAnswer, NotSent, Outcome, Reply, Request
from runner.providers.responses import is_unclear
from runner.tasks.remote_ids import CUT_ANSWER

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from aiohttp.abc import AbstractResolver

    from runner.net.auth import Headers, Scheme
    from runner.net.proxy import Proxy

USER_AGENT = f"genrunner/{__version__}"
_HEADERS = {"user-agent": USER_AGENT, "accept": "application/json", "accept-encoding": "identity"}
_JSON = {"content-type": "application/json"}
#: entries of each cache: URLs and patterns of credentials
_CACHE_SIZE = 64
#: path and query that every URL parser reads alike: nothing to quote, no dot segments, no fragment
_PLAIN_PATH = re.compile(
    r"(?!.*/\.)(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)+(?:\?(?:[A-Za-z0-9._~!$&()*+,;=:@/-]|%[0-9A-F]{2})*)?"
)
#: bytes of an incomplete answer that the error quotes, since they may contain the id of a task
_MAX_QUOTED_BYTES = 300
#: minimum characters of a credential that is redacted in answers
_MIN_SECRET_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits in seconds: to connect, between two reads, and for the whole exchange."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 60.0


class Meter(Protocol):
    """Observer of one request on the wire; implemented by the rate limiter's `Permit`."""

    def sent(self, stamp: float) -> None: ...

    def answered(self, rtt: float) -> None: ...

    async def reacquire(self) -> None:
        """Wait for another slot before a replay."""


class ProviderClient:
    """HTTP client of one provider and one account.

    `on_sent(endpoint, sent_at, rtt)` is called after each answer, with the time of sending by `clock` and the
    round-trip time, both in seconds. `max_bytes` limits the body of an answer.
    """

    def __init__(
        self,
        base_url: str,
        scheme: Scheme,
        *,
        deadlines: Deadlines | None = None,
        max_bytes: int = 2 << 20,
        clock: Callable[[], float] = time.monotonic,
        on_sent: Callable[[str, float, float], None] | None = None,
        context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self.base = check_base(base_url)
        self._scheme = scheme
        self._deadlines = deadlines or Deadlines()
        self._max_bytes = max_bytes
        self._clock = clock
        self._on_sent, self._proxy = on_sent, proxy
        # one context for both channels, since loading the root certificates takes 20 ms; none for http on loopback
        self._context = context or (tls_context() if self.base.scheme == "https" else None)
        self._resolver = resolver or (lambda: GuardedResolver(loopback=True, private=True))
        base = to_yarl(self.base)
        self._authority, self._prefix = base.raw_authority, base.raw_path.rstrip("/")
        # submits and batched polls use the same few URLs
        self._url_for = lru_cache(maxsize=_CACHE_SIZE)(self._build_url)
        self._single_use = self._open_channel(single_use=True)
        self._pooled = self._open_channel(single_use=False)

    def __repr__(self) -> str:
        return f"ProviderClient({self.base}, {self._scheme!r})"

    async def send(self, request: Request, permit: Meter | None = None) -> Outcome:
        """Send a request within the deadline and return its outcome; raise nothing but cancellation and bugs."""
        record = _SendRecord(permit)
        with anyio.move_on_after(self._deadlines.total):
            return await self._send_authorised(request, record)
        return record.outcome_at_deadline(f"no answer within {self._deadlines.total:g} s")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._single_use.aclose()
        await self._pooled.aclose()

    async def _send_authorised(self, request: Request, record: _SendRecord) -> Outcome:
        """Send a request with a credential, and once more with a new one if the first is rejected."""
        credential = await self._scheme.headers(self._send_without_credential)
        if isinstance(credential, NotSent | Reply):
            return credential
        outcome = await self._send_once(request, credential, record)
        if not isinstance(outcome, Reply) or not self._scheme.is_rejected(outcome):
            return outcome
        if request.phase == "submit" and is_unclear(outcome.status):
            return outcome
        record.rejected = True
        await self._scheme.renew(credential, outcome, self._send_without_credential)
        renewed = await self._scheme.headers(self._send_without_credential)
        if isinstance(renewed, NotSent | Reply):
            return renewed
        if renewed == credential:
            return outcome
        if record.permit is not None:
            await record.permit.reacquire()
        return await self._send_once(request, renewed, record)

    async def _send_without_credential(self, request: Request) -> Outcome:
        """Send a request for a credential, so without one."""
        record = _SendRecord(None)
        with anyio.move_on_after(self._deadlines.total):
            return await self._send_once(request, {}, record)
        return record.outcome_at_deadline("no answer in time")

    async def _send_once(self, request: Request, credential: Headers, record: _SendRecord) -> Outcome:
        trace = RequestTrace(self._clock)
        exchange = record.begin(trace, tuple(_secrets(request, credential)), strict=request.phase == "submit")
        channel = self._single_use if request.phase in {"submit", "token"} else self._pooled
        try:
            answer = await channel.send(request, self._url_for(request.path), credential, trace)
            try:
                exchange.status, exchange.headers = answer.status, answer.headers
                if trace.sent_at is not None and trace.answered_at is not None:
                    rtt = trace.answered_at - trace.sent_at
                    if record.permit is not None:
                        record.permit.answered(rtt)
                    if self._on_sent is not None:
                        self._on_sent(request.endpoint, trace.sent_at, rtt)
                await exchange.read_body(answer, self._max_bytes)
            finally:
                await answer.aclose()
        except (httpx.RequestError, httpx.InvalidURL, UnreadableBodyError) as error:
            return exchange.to_failure(error, quote_body=request.phase == "submit")
        return exchange.reply()

    def _build_url(self, path: str) -> URL:
        """Return the URL of a request: plain paths unchanged, other paths by httpx's rules like the base URL."""
        if _PLAIN_PATH.fullmatch(path):
            path, _, query = f"{self._prefix}{path}".partition("?")
            return URL.build(
                scheme=self.base.scheme, authority=self._authority, path=path, query_string=query, encoded=True
            )
        url = httpx.URL(str(self.base).rstrip("/") + path)
        if (url.scheme, url.host, url.port) != (self.base.scheme, self.base.host, self.base.port):
            raise httpx.InvalidURL("the path leads to another origin")
        return to_yarl(url)

    def _open_channel(self, *, single_use: bool) -> _Channel:
        transport = AiohttpTransport(
            resolver=self._resolver(),
            open_ahead=single_use,
            context=self._context,
            proxy=self._proxy,
            clock=self._clock,
        )
        return _Channel(transport, self._deadlines)


class _Channel:
    """Transport with the headers and timeouts that all its requests share; no redirects, cookies or proxies."""

    def __init__(self, transport: AiohttpTransport, deadlines: Deadlines) -> None:
        self._transport = transport
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=deadlines.connect, sock_connect=deadlines.connect, sock_read=deadlines.read
        )

    async def send(self, request: Request, url: URL, credential: Headers, trace: RequestTrace) -> ResponseStream:
        """Send a request and return its answer.

        Raises httpx.InvalidURL if HTTP cannot represent the request, and httpx.TransportError if it fails on the way.
        """
        body = b"" if request.body is None else orjson.dumps(request.body)
        own = ((name.lower(), value) for names in (request.headers, credential) for name, value in names.items())
        headers = {**_HEADERS, **(_JSON if body else {}), **dict(own)}
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            raise httpx.InvalidURL("a key or header holds characters that HTTP cannot carry")
        return await self._transport.send(
            request.method, url, headers.items(), body, timeout=self._timeout, trace=trace
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


@dataclass(slots=True)
class _Exchange:
    """State of one request on the wire and of its answer; credentials that the answer echoes are redacted."""

    trace: RequestTrace
    secrets: tuple[str, ...] = ()
    #: what JSON does not allow makes the answer unreadable, as where it says whether something was bought
    strict: bool = True
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    is_complete: bool = False

    async def read_body(self, answer: ResponseStream, limit: int) -> None:
        """Read the decompressed body, of at most `limit` bytes."""
        encoding = self.headers.get("content-encoding", "")
        inflater = Inflater(encoding, limit)
        async for chunk in answer:
            for piece in inflater.feed(chunk):
                self.body += piece
        inflater.finish()
        is_unknown = encoding.strip().lower() not in {"", "identity"} and not read_coding(encoding)
        if is_unknown and bytes(self.body.lstrip()[:1]) not in {b"{", b"["}:  # else it is none, as the bytes say
            raise UnreadableBodyError("an unknown content encoding")
        self.is_complete = True

    def reply(self) -> Reply:
        """Return the complete answer."""
        headers = {name: self._redact(value) for name, value in self.headers.items()}
        return Reply(self.status or 0, parse_body(self._redacted_body(), strict=self.strict), headers)

    def _redacted_body(self) -> bytes:
        """Return the body without the credentials, in any spelling that JSON allows."""
        body = bytes(self.body)
        for secret in self.secrets:
            plain = secret.encode()
            if plain in body:
                body = body.replace(plain, b"***")
            if b"\\" in body:
                body = _escaped_pattern(secret).sub(b"***", body)
        return body

    def _redact(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def to_failure(self, error: Exception | str, *, quote_body: bool) -> NotSent | NoAnswer:
        """Return the outcome of a failed exchange; `quote_body` adds the beginning of the body to its text."""
        if isinstance(error, str):
            text = error
        else:
            name = "Unreadable" if isinstance(error, UnreadableBodyError) else type(error).__name__
            text = f"{name}: {error}"
        text = self._redact(text)
        if not self.trace.sent:
            return NotSent(text, terminal=self.trace.terminal or isinstance(error, httpx.InvalidURL))
        body = self._redacted_body()[:_MAX_QUOTED_BYTES].decode("utf-8", "backslashreplace")
        status = f"; HTTP {self.status}" if self.status else ""
        return NoAnswer(f"{text}{status}" + (f"; {CUT_ANSWER}{body}" if quote_body and body else ""))


class _SendRecord:
    """Record of one `send`, from which its outcome is derived if the deadline passes."""

    def __init__(self, permit: Meter | None) -> None:
        self.permit = permit
        #: True if the credential was rejected, so that nothing was accepted until a replay is sent
        self.rejected = False
        self._replayed = False
        self._exchange: _Exchange | None = None

    def begin(self, trace: RequestTrace, secrets: tuple[str, ...], *, strict: bool) -> _Exchange:
        """Start an exchange: the first one or a replay."""
        self._replayed = self.rejected
        if self.permit is not None:
            trace.on_sent = self.permit.sent
        self._exchange = _Exchange(trace, secrets, strict)
        return self._exchange

    def outcome_at_deadline(self, text: str) -> Outcome:
        """Return the outcome at the deadline; `text` describes the deadline."""
        last = self._exchange
        if last is None:
            return NotSent(f"{text}: no credential to be had")
        if self.rejected and not self._replayed:
            return NotSent(f"{text}: the credential was rejected and no new one came")
        if last.is_complete:  # the deadline passed in the same tick of the event loop in which the answer completed
            return last.reply()
        return last.to_failure(text, quote_body=True)


@lru_cache(maxsize=_CACHE_SIZE)
def _escaped_pattern(secret: str) -> re.Pattern[bytes]:
    """Return a pattern for a secret in JSON, where any character may be escaped by number, and some by a backslash."""
    parts = (rf"(?:\\?{re.escape(char)}|\\u(?i:{ord(char):04x}))" for char in secret)
    return re.compile("".join(parts).encode())


def _secrets(request: Request, credential: Headers) -> Iterator[str]:
    """Yield the credentials of a request, without the name of the scheme; short values are no secrets."""
    values = list(credential.values())
    if request.phase == "token" and isinstance(request.body, dict):
        values += [value for value in request.body.values() if isinstance(value, str)]
    for value in values:
        secret = value.rpartition(" ")[2]
        if len(secret) >= _MIN_SECRET_LENGTH:
            yield secret
