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
from runner.net.body import Inflater, Unreadable, parsed
from runner.net.guard import GuardedResolver, check_base
from runner.net.transport import AiohttpTransport, Answer, Evidence, target, tls_context
from runner.providers.evidence import is_unclear
from runner.providers.exchange import NoAnswer, NotSent, Outcome, Reply, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from aiohttp.abc import AbstractResolver

    from runner.net.auth import Headers, Scheme

USER_AGENT = f"genrunner/{__version__}"
_HEADERS = {"user-agent": USER_AGENT, "accept": "application/json", "accept-encoding": "identity"}
_JSON = {"content-type": "application/json"}
#: entries of each cache: URLs and patterns of credentials
_ADDRESSES = 64
#: path and query that every URL parser reads alike: nothing to quote, no dot segments, no fragment
_PLAIN = re.compile(
    r"(?!.*/\.)(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)+(?:\?(?:[A-Za-z0-9._~!$&()*+,;=:@/-]|%[0-9A-F]{2})*)?"
)
#: bytes of an incomplete answer that the error quotes, since they may contain the id of a task
_HINT = 300
#: minimum characters of a credential that is redacted in answers
_SECRET = 8


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

    async def again(self) -> None:
        """Wait for another slot before a replay."""


class Gateway:
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
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self.base = check_base(base_url)
        self._scheme = scheme
        self._deadlines = deadlines or Deadlines()
        self._max_bytes = max_bytes
        self._clock = clock
        self._on_sent = on_sent
        # one context for both channels, since loading the root certificates takes 20 ms; none for http on loopback
        self._context = context or (tls_context() if self.base.scheme == "https" else None)
        self._resolver = resolver or (lambda: GuardedResolver(loopback=True, private=True))
        base = target(self.base)
        self._authority, self._prefix = base.raw_authority, base.raw_path.rstrip("/")
        # submits and batched polls use the same few URLs
        self._url = lru_cache(maxsize=_ADDRESSES)(self._made_url)
        self._single = self._line(force_close=True)
        self._pooled = self._line(force_close=False)

    def __repr__(self) -> str:
        return f"ProviderClient({self.base}, {self._scheme!r})"

    async def send(self, request: Request, permit: Meter | None = None) -> Outcome:
        """Send a request within the deadline and return its outcome; raise nothing but cancellation and bugs."""
        record = _Trail(permit)
        with anyio.move_on_after(self._deadlines.total):
            return await self._authorised(request, record)
        return record.verdict(f"no answer within {self._deadlines.total:g} s")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._single.aclose()
        await self._pooled.aclose()

    async def _authorised(self, request: Request, record: _Trail) -> Outcome:
        """Send a request with a credential, and once more with a new one if the first is rejected."""
        credential = await self._scheme.headers(self._bare)
        if isinstance(credential, NotSent | Reply):
            return credential
        outcome = await self._wire(request, credential, record)
        if not isinstance(outcome, Reply) or not self._scheme.rejected(outcome):
            return outcome
        if request.phase == "submit" and is_unclear(outcome.status):
            return outcome
        record.rejected = True
        await self._scheme.renew(credential, outcome, self._bare)
        renewed = await self._scheme.headers(self._bare)
        if isinstance(renewed, NotSent | Reply):
            return renewed
        if renewed == credential:
            return outcome
        if record.permit is not None:
            await record.permit.again()
        return await self._wire(request, renewed, record)

    async def _bare(self, request: Request) -> Outcome:
        """Send a request for a credential, so without one."""
        record = _Trail(None)
        with anyio.move_on_after(self._deadlines.total):
            return await self._wire(request, {}, record)
        return record.verdict("no answer in time")

    async def _wire(self, request: Request, credential: Headers, record: _Trail) -> Outcome:
        exchange = record.begins(Evidence(self._clock), tuple(_secrets(request, credential)))
        channel = self._single if request.phase in {"submit", "token"} else self._pooled
        try:
            answer = await channel.ask(request, self._url(request.path), credential, exchange.evidence)
            try:
                self._heard(request, exchange, answer)
                await exchange.reads(answer, self._max_bytes)
            finally:
                await answer.aclose()
        except (httpx.RequestError, httpx.InvalidURL, Unreadable) as error:
            return exchange.failed(error, hint=request.phase == "submit")
        return exchange.reply()

    def _made_url(self, path: str) -> URL:
        """Return the URL of a request: plain paths unchanged, other paths by httpx's rules like the base URL."""
        if _PLAIN.fullmatch(path):
            path, _, query = f"{self._prefix}{path}".partition("?")
            return URL.build(
                scheme=self.base.scheme, authority=self._authority, path=path, query_string=query, encoded=True
            )
        url = httpx.URL(str(self.base).rstrip("/") + path)
        if (url.scheme, url.host, url.port) != (self.base.scheme, self.base.host, self.base.port):
            raise httpx.InvalidURL("the path leads to another origin")
        return target(url)

    def _heard(self, request: Request, exchange: _Exchange, answer: Answer) -> None:
        """Record the headers of an answer and its round-trip time."""
        exchange.status, exchange.headers = answer.status, answer.headers
        trace = exchange.evidence
        if trace.sent_at is None or trace.answered_at is None:
            return
        rtt = trace.answered_at - trace.sent_at
        if exchange.permit is not None:
            exchange.permit.answered(rtt)
        if self._on_sent is not None:
            self._on_sent(request.endpoint, trace.sent_at, rtt)

    def _line(self, *, force_close: bool) -> _Line:
        transport = AiohttpTransport(
            resolver=self._resolver(), force_close=force_close, context=self._context, clock=self._clock
        )
        return _Line(transport, self._deadlines)


class _Line:
    """Transport with the headers and timeouts that all its requests share; no redirects, cookies or proxies."""

    def __init__(self, transport: AiohttpTransport, deadlines: Deadlines) -> None:
        self._transport = transport
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=deadlines.connect, sock_connect=deadlines.connect, sock_read=deadlines.read
        )

    async def ask(self, request: Request, url: URL, credential: Headers, trace: Evidence) -> Answer:
        """Send a request and return its answer.

        Raises httpx.InvalidURL if HTTP cannot represent the request, and httpx.TransportError if it fails on the way.
        """
        body = b"" if request.body is None else orjson.dumps(request.body)
        own = ((name.lower(), value) for names in (request.headers, credential) for name, value in names.items())
        headers = {**_HEADERS, **(_JSON if body else {}), **dict(own)}
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            raise httpx.InvalidURL("a key or header holds characters that HTTP cannot carry")
        return await self._transport.ask(
            request.method, url, headers.items(), body, timeout=self._timeout, evidence=trace
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


@dataclass(slots=True)
class _Exchange:
    """State of one request on the wire and of its answer; credentials that the answer echoes are redacted."""

    evidence: Evidence
    permit: Meter | None
    secrets: tuple[str, ...] = ()
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False

    async def reads(self, answer: Answer, limit: int) -> None:
        """Read the decompressed body, of at most `limit` bytes."""
        inflater = Inflater(self.headers.get("content-encoding", ""), limit)
        async for chunk in answer:
            for piece in inflater.feed(chunk):
                self.body += piece
        inflater.finish()
        self.whole = True

    def reply(self) -> Reply:
        """Return the complete answer."""
        headers = {name: self._without(value) for name, value in self.headers.items()}
        return Reply(self.status or 0, parsed(self._redacted()), headers)

    def _redacted(self) -> bytes:
        """Return the body without the credentials, in any spelling that JSON allows."""
        body = bytes(self.body)
        for secret in self.secrets:
            plain = secret.encode()
            if plain in body:
                body = body.replace(plain, b"***")
            if b"\\" in body:
                body = _spelled(secret).sub(b"***", body)
        return body

    def _without(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def failed(self, error: Exception | str, *, hint: bool) -> NotSent | NoAnswer:
        """Return the outcome of a failed exchange; `hint` adds the beginning of the body to its text."""
        if isinstance(error, str):
            text = error
        else:
            name = "Unreadable" if isinstance(error, Unreadable) else type(error).__name__
            text = f"{name}: {error}"
        text = self._without(text)
        if not self.evidence.sent:
            return NotSent(text, terminal=self.evidence.terminal or isinstance(error, httpx.InvalidURL))
        body = self._redacted()[:_HINT].decode("utf-8", "backslashreplace")
        status = f"; HTTP {self.status}" if self.status else ""
        return NoAnswer(f"{text}{status}" + (f"; body so far: {body}" if hint and body else ""))


@lru_cache(maxsize=_ADDRESSES)
def _spelled(secret: str) -> re.Pattern[bytes]:
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
        if len(secret) >= _SECRET:
            yield secret


class _Trail:
    """Record of one `send`, from which its outcome is derived if the deadline passes."""

    def __init__(self, permit: Meter | None) -> None:
        self.permit = permit
        #: True if the credential was rejected, so that nothing was accepted until a replay is sent
        self.rejected = False
        self._replayed = False
        self._exchange: _Exchange | None = None

    def begins(self, trace: Evidence, secrets: tuple[str, ...]) -> _Exchange:
        """Start an exchange: the first one or a replay."""
        self._replayed = self.rejected
        if self.permit is not None:
            trace.notify = self.permit.sent
        self._exchange = _Exchange(trace, self.permit, secrets)
        return self._exchange

    def verdict(self, text: str) -> Outcome:
        """Return the outcome at the deadline; `text` describes the deadline."""
        last = self._exchange
        if last is None:
            return NotSent(f"{text}: no credential to be had")
        if self.rejected and not self._replayed:
            return NotSent(f"{text}: the credential was rejected and no new one came")
        if last.whole:  # the deadline passed in the same tick of the event loop in which the answer completed
            return last.reply()
        return last.failed(text, hint=True)
