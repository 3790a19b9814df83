"""Named schemes: what proves to a provider who asks.

    bearer, header   a key that stays as it is
    kling            an API key, or a JWT signed here for half an hour
    chanjing         a token from an endpoint; a new one ends the one before, for every process of the account

A scheme gives headers, or the outcome that stands for the request when there are none to be had. Secrets stand in
headers alone, never in a repr, an error or a log.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import orjson

from runner.providers.exchange import NoAnswer, NotSent, Outcome, Reply, Request

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

Headers = Mapping[str, str]
#: sends a request without credentials
Send = Callable[[Request], Awaitable[Outcome]]

#: seconds before its end when a credential is made anew (chanjing.md section 2)
EARLY = 300.0
#: seconds between two token requests, whatever happens (faults.md FA2)
GAP = 5.0
_JWT_LIFE = 1800
#: a JWT is valid from so long ago, since clocks differ (faults.md FC2)
_JWT_SLACK = 60
_DAY = 86400.0
#: seconds that a token counts as alive whose end lies in the past already: one of the clocks is wrong
_LEAST_LIFE = 600.0
_NO_TOKEN = frozenset({10400, 10401})
#: what the token endpoint says to wrong credentials; 50000 and the rest say nothing about them
_BAD_CREDENTIALS = frozenset({400, 40000, *_NO_TOKEN})
_STALE_JWT = frozenset({1003, 1004})


class Scheme(Protocol):
    """What the gateway asks of any of them."""

    async def headers(self, send: Send) -> Headers | NotSent | Reply:
        """The headers of the next request; NotSent or a refusal when no credential can be had."""

    def rejected(self, reply: Reply) -> bool:
        """Whether the reply means: this credential is stale, nothing was accepted."""

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:
        """Put away the credential that was used; the next `headers` brings another, if there is one."""


class Fixed:
    """Headers that never change."""

    def __init__(self, name: str, value: str) -> None:
        self._headers = {name: value}

    def __repr__(self) -> str:
        return f"Fixed({next(iter(self._headers))})"

    async def headers(self, send: Send) -> Headers:  # noqa: ARG002 - the protocol's
        return self._headers

    def rejected(self, reply: Reply) -> bool:  # noqa: ARG002 - a key cannot be renewed
        return False

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:
        """There is no other key."""


def bearer(key: str) -> Fixed:
    """`Authorization: Bearer <key>`."""
    return Fixed("Authorization", f"Bearer {key}")


def header(name: str, key: str, prefix: str = "") -> Fixed:
    """The key in a header of the provider's choice."""
    return Fixed(name, f"{prefix}{key}")


def signed_jwt(access_key: str, secret_key: str, now: int, *, not_before: int) -> str:
    """A JSON Web Token in HS256, as klingai.com asks for it (kling.md section 2)."""
    head = {"alg": "HS256", "typ": "JWT"}
    claims = {"iss": access_key, "exp": now + _JWT_LIFE, "nbf": not_before}
    text = b".".join(_base64url(orjson.dumps(part)) for part in (head, claims))
    return b".".join((text, _base64url(hmac.digest(secret_key.encode(), text, hashlib.sha256)))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class KlingJwt:
    """A JWT signed here, by the server's clock as far as it is known; `wall` is seconds since the epoch."""

    def __init__(self, access_key: str, secret_key: str, *, wall: Callable[[], float]) -> None:
        self._keys = (access_key, secret_key)
        self._wall = wall
        #: server minus ours, in seconds
        self.offset = 0.0
        self._made: Headers = {}
        self._until = 0.0

    def __repr__(self) -> str:
        return f"KlingJwt(offset={self.offset:.0f})"

    async def headers(self, send: Send) -> Headers:  # noqa: ARG002 - the protocol's
        now = self._wall() + self.offset
        if not self._made or not 0 <= self._until - now <= _JWT_LIFE:
            token = signed_jwt(*self._keys, int(now), not_before=int(now) - _JWT_SLACK)
            self._made, self._until = {"Authorization": f"Bearer {token}"}, now + _JWT_LIFE - EARLY
        return self._made

    def rejected(self, reply: Reply) -> bool:
        return code_of(reply) in _STALE_JWT

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:  # noqa: ARG002 - the protocol's
        server = _date(reply.headers.get("date", ""))
        if server is not None:
            self.offset = max(-_DAY, min(_DAY, server - self._wall()))
        if used is self._made:  # of many rejected at once, the first makes the new one
            self._made = {}


def kling(
    *, api_key: str = "", access_key: str = "", secret_key: str = "", wall: Callable[[], float]
) -> Fixed | KlingJwt:
    """The API key where there is one, else a JWT."""
    return bearer(api_key) if api_key else KlingJwt(access_key, secret_key, wall=wall)


@dataclass(frozen=True, slots=True)
class Token:
    """A live token and when it ends, in seconds since the epoch."""

    value: str = field(repr=False)
    expires: float


class TokenStore(Protocol):
    """Where the processes of one account keep their one live token."""

    async def read(self) -> Token | None: ...

    async def write(self, token: Token) -> None: ...

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """Held by one process at a time; a process asks for it once at a time."""


class Chanjing:
    """One live token for all processes of an account, fetched by one of them when it ends or is rejected.

    `wall` is seconds since the epoch, `clock` and `sleep` pace the refreshes.
    """

    def __init__(
        self,
        app_id: str,
        secret_key: str,
        store: TokenStore,
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        path: str = "/open/v1/access_token",
        name: str = "access_token",
    ) -> None:
        self._body = {"app_id": app_id, "secret_key": secret_key}
        self._store = store
        self._wall, self._clock, self._sleep = wall, clock, sleep
        self._path, self._name = path, name
        self._token: Token | None = None
        #: the value that was rejected last
        self._dead = ""
        self._fetched_at: float | None = None
        self._early = EARLY
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Chanjing({'has a token' if self._token else 'no token'})"

    async def headers(self, send: Send) -> Headers | NotSent | Reply:
        token = self._token
        if token is None or not self._alive(token):
            got = await self._obtain(send)
            if not isinstance(got, Token):
                return got
            token = got
        return {self._name: token.value}

    def rejected(self, reply: Reply) -> bool:
        return code_of(reply) in _NO_TOKEN

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:  # noqa: ARG002 - the protocol's
        if self._token is not None and used.get(self._name) == self._token.value:
            self._dead, self._token = self._token.value, None

    async def _obtain(self, send: Send) -> Token | NotSent | Reply:
        """Single flight, here and among processes: whoever comes second finds the first one's token."""
        async with self._turn:
            if self._token is not None and self._alive(self._token):
                return self._token
            async with self._store.lock():
                stored = await self._store.read()
                if stored is None or not self._alive(stored):
                    fresh = await self._fetch(send)
                    if not isinstance(fresh, Token):
                        return fresh
                    stored = fresh
                self._token = stored
                return stored

    async def _fetch(self, send: Send) -> Token | NotSent | Reply:
        if self._fetched_at is not None:
            await self._sleep(max(0.0, self._fetched_at + GAP - self._clock()))
        self._fetched_at = self._clock()
        outcome = await send(Request("token", "POST", self._path, "token", self._body))
        token = _token_of(outcome)
        if not isinstance(token, Token):
            return token
        if token.value == self._dead:
            return NotSent("no token: the endpoint gives the one that was rejected")
        if token.expires <= self._wall():
            token = Token(token.value, self._wall() + _LEAST_LIFE)
        self._early = min(EARLY, (token.expires - self._wall()) / 10)
        with anyio.CancelScope(shield=True):  # the token before it is dead from now on
            await self._store.write(token)
        return token

    def _alive(self, token: Token) -> bool:
        return token.value != self._dead and token.expires - self._early > self._wall()


def _token_of(outcome: Outcome) -> Token | NotSent | Reply:
    """The token; the refusal, in the words of a rejected token, if the credentials are wrong; else "not sent"."""
    match outcome:
        case Reply(status=200, body={"code": 0, "data": {"access_token": str(value), "expire_in": int(end)}}) if value:
            return Token(value, float(end))
        case Reply(status=status, body=dict(body)) if status < 500 and code_of(outcome) in _BAD_CREDENTIALS:  # noqa: PLR2004 - 5xx says nothing about a key
            said = {**body, "code": 10401, "token_code": body["code"]}
            return Reply(401, said, outcome.headers)
        case Reply(status=status):
            return NotSent(f"no token: the endpoint answered HTTP {status}, code {code_of(outcome)}")
        case NotSent(error=error, terminal=terminal):
            return NotSent(f"no token: {error}", terminal=terminal)
        case NoAnswer(error=error):
            return NotSent(f"no token: {error}")


def code_of(reply: Reply) -> int | None:
    """The business code of an envelope; some gateways write it as a string."""
    code = reply.body.get("code") if isinstance(reply.body, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10:  # noqa: PLR2004 - no 5,000 digits
        return int(code)
    return code if isinstance(code, int) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
