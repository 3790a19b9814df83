"""Sends Requests to one provider for one account; everything that can happen outside comes back as an Outcome.

1. `NotSent` only when the evidence says that no byte left, or that a definitive "not accepted" is all there is.
2. One deadline over everything, since httpx's are per read and a slow drip never trips them; what was read is kept.
3. No redirect is followed, no cookie kept; the key is attached to requests for the base URL and to nothing else.
4. A rejected credential is renewed and the request replayed once; the second rejection is the answer. Where a status
   leaves open whether a paid request went through, nothing is replayed.
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
#: addresses that are kept ready
_ADDRESSES = 64
#: a path and query that every parser reads alike: nothing to quote, no dots to resolve, no fragment
_PLAIN = re.compile(
    r"(?!.*/\.)(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)+(?:\?(?:[A-Za-z0-9._~!$&()*+,;=:@/-]|%[0-9A-F]{2})*)?"
)
#: of an answer that broke off, this much goes into the error: an id may stand in it, as a hint for people
_HINT = 300
#: characters of the shortest credential that is looked for in answers
_SECRET = 8


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: to a connection, between two reads, and for everything together."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 60.0


class Meter(Protocol):
    """What a limiter's permit learns from the wire."""

    def sent(self, stamp: float) -> None: ...

    def answered(self, rtt: float) -> None: ...

    async def again(self) -> None:
        """A replay takes a slot of its own."""


class Gateway:
    """One provider, one account: its address, its credential, its deadlines."""

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
        # one context for both, since loading the roots takes 20 ms; none for http on loopback
        self._context = context or (tls_context() if self.base.scheme == "https" else None)
        self._resolver = resolver or (lambda: GuardedResolver(loopback=True, private=True))
        base = target(self.base)
        self._authority, self._prefix = base.raw_authority, base.raw_path.rstrip("/")
        # submits and batched polls go to the same few addresses
        self._url = lru_cache(maxsize=_ADDRESSES)(self._made_url)
        self._single = self._line(force_close=True)
        self._pooled = self._line(force_close=False)

    def __repr__(self) -> str:
        return f"Gateway({self.base}, {self._scheme!r})"

    async def send(self, request: Request, permit: Meter | None = None) -> Outcome:
        """Send it, within the deadline; only cancellation and bugs raise."""
        trail = _Trail(permit)
        with anyio.move_on_after(self._deadlines.total):
            return await self._authorised(request, trail)
        return trail.verdict(f"no answer within {self._deadlines.total:g} s")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._single.aclose()
        await self._pooled.aclose()

    async def _authorised(self, request: Request, trail: _Trail) -> Outcome:
        held = await self._scheme.headers(self._bare)
        if isinstance(held, NotSent | Reply):
            return held
        outcome = await self._wire(request, held, trail)
        if not isinstance(outcome, Reply) or not self._scheme.rejected(outcome):
            return outcome
        if request.phase == "submit" and is_unclear(outcome.status):
            return outcome
        trail.rejected = True
        await self._scheme.renew(held, outcome, self._bare)
        fresh = await self._scheme.headers(self._bare)
        if isinstance(fresh, NotSent | Reply):
            return fresh
        return outcome if fresh == held else await self._replay(request, fresh, trail)

    async def _replay(self, request: Request, held: Headers, trail: _Trail) -> Outcome:
        if trail.permit is not None:
            await trail.permit.again()
        return await self._wire(request, held, trail)

    async def _bare(self, request: Request) -> Outcome:
        """A request for a credential, so without one."""
        trail = _Trail(None)
        with anyio.move_on_after(self._deadlines.total):
            return await self._wire(request, {}, trail)
        return trail.verdict("no answer in time")

    async def _wire(self, request: Request, held: Headers, trail: _Trail) -> Outcome:
        exchange = trail.begins(Evidence(self._clock), tuple(_secrets(request, held)))
        line = self._single if request.phase in {"submit", "token"} else self._pooled
        try:
            answer = await line.ask(request, self._url(request.path), held, exchange.evidence)
            try:
                self._heard(request, exchange, answer)
                await exchange.reads(answer, self._max_bytes)
            finally:
                await answer.aclose()
        except (httpx.RequestError, httpx.InvalidURL, Unreadable) as error:
            return exchange.failed(error, hint=request.phase == "submit")
        return exchange.reply()

    def _made_url(self, path: str) -> URL:
        """Where a request goes: plain paths as they are, anything else by httpx's rules, as the base was."""
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
        exchange.opens(answer)
        evidence = exchange.evidence
        if evidence.sent_at is None or evidence.answered_at is None:
            return
        rtt = evidence.answered_at - evidence.sent_at
        if exchange.permit is not None:
            exchange.permit.answered(rtt)
        if self._on_sent is not None:
            self._on_sent(request.endpoint, evidence.sent_at, rtt)

    def _line(self, *, force_close: bool) -> _Line:
        transport = AiohttpTransport(
            resolver=self._resolver(), force_close=force_close, context=self._context, clock=self._clock
        )
        return _Line(transport, self._deadlines)


class _Line:
    """One transport, and what every request over it has in common; no redirects, no cookies, no proxies."""

    def __init__(self, transport: AiohttpTransport, deadlines: Deadlines) -> None:
        self._transport = transport
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=deadlines.connect, sock_connect=deadlines.connect, sock_read=deadlines.read
        )

    async def ask(self, request: Request, url: URL, held: Headers, evidence: Evidence) -> Answer:
        """Send it; httpx.InvalidURL where it cannot be put into HTTP, httpx.TransportError where it did not arrive."""
        body = b"" if request.body is None else orjson.dumps(request.body)
        given = ((name.lower(), value) for names in (request.headers, held) for name, value in names.items())
        headers = {**_HEADERS, **(_JSON if body else {}), **dict(given)}
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            raise httpx.InvalidURL("a key or header holds characters that HTTP cannot carry")
        return await self._transport.ask(
            request.method, url, headers.items(), body, timeout=self._timeout, evidence=evidence
        )

    async def aclose(self) -> None:
        await self._transport.aclose()


@dataclass(slots=True)
class _Exchange:
    """One request on the wire and what is known of its answer, without what the answer echoes of a credential."""

    evidence: Evidence
    permit: Meter | None
    secrets: tuple[str, ...] = ()
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def opens(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers

    async def reads(self, answer: Answer, limit: int) -> None:
        inflater = Inflater(self.headers.get("content-encoding", ""), limit)
        async for chunk in answer:
            for piece in inflater.feed(chunk):
                self.body += piece
        inflater.finish()
        self.whole = True

    def reply(self) -> Reply:
        headers = {name: self._without(value) for name, value in self.headers.items()}
        return Reply(self.status or 0, parsed(self._redacted()), headers)

    def _redacted(self) -> bytes:
        """The body without the credentials, however JSON may have spelled them."""
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
        text = self._without(error if isinstance(error, str) else f"{type(error).__name__}: {error}")
        if not self.evidence.sent:
            return NotSent(text, terminal=self.evidence.terminal or isinstance(error, httpx.InvalidURL))
        seen = self._redacted()[:_HINT].decode("utf-8", "backslashreplace")
        status = f"; HTTP {self.status}" if self.status else ""
        return NoAnswer(f"{text}{status}" + (f"; body so far: {seen}" if hint and seen else ""))


@lru_cache(maxsize=_ADDRESSES)
def _spelled(secret: str) -> re.Pattern[bytes]:
    """Finds it in JSON, where any character may stand as its number and some behind a backslash."""
    parts = (rf"(?:\\?{re.escape(char)}|\\u(?i:{ord(char):04x}))" for char in secret)
    return re.compile("".join(parts).encode())


def _secrets(request: Request, held: Headers) -> Iterator[str]:
    """The credentials of this request, bare of their scheme's word; short ones are no secrets."""
    values = list(held.values())
    if request.phase == "token" and isinstance(request.body, dict):
        values += [value for value in request.body.values() if isinstance(value, str)]
    for value in values:
        bare = value.rpartition(" ")[2]
        if len(bare) >= _SECRET:
            yield bare


class _Trail:
    """What one `send` has on record when its deadline strikes."""

    def __init__(self, permit: Meter | None) -> None:
        self.permit = permit
        #: the credential was rejected, so nothing was accepted until a replay leaves
        self.rejected = False
        self._replayed = False
        self._exchange: _Exchange | None = None

    def begins(self, evidence: Evidence, secrets: tuple[str, ...]) -> _Exchange:
        self._replayed = self.rejected
        if self.permit is not None:
            evidence.notify = self.permit.sent
        self._exchange = _Exchange(evidence, self.permit, secrets)
        return self._exchange

    def verdict(self, text: str) -> Outcome:
        last = self._exchange
        if last is None:
            return NotSent(f"{text}: no credential to be had")
        if self.rejected and not self._replayed:
            return NotSent(f"{text}: the credential was rejected and no new one came")
        if last.whole:  # the deadline struck in the very tick in which the answer completed
            return last.reply()
        return last.failed(text, hint=True)
