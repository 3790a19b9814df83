"""Authentication schemes that add a provider's credential to a request.

    bearer, header   a constant API key
    kling            an API key, or a JWT that is signed here and valid for 30 minutes
    chanjing         an access token from an endpoint; a new token invalidates the previous one for the whole account

A scheme returns the headers of the next request. If it cannot obtain a credential, it returns the outcome that the
request has instead. Secrets appear in headers only, never in a repr, an error or a log.
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
#: sender of a request without credentials
Send = Callable[[Request], Awaitable[Outcome]]

#: seconds before the expiry of a credential at which it is renewed (Chanjing's documentation advises five minutes)
EARLY = 300.0
#: minimum seconds between two token requests: two processes that invalidate each other's token must not flood the API
GAP = 5.0
_JWT_LIFE = 1800
#: seconds by which `nbf` of a JWT lies in the past, since the server's clock may be behind
_JWT_SLACK = 60
_DAY = 86400.0
#: assumed lifetime in seconds of a new token that looks expired: one of the two clocks is wrong
_LEAST_LIFE = 600.0
_NO_TOKEN = frozenset({10400, 10401})
#: codes of the token endpoint for wrong credentials; 50000 and other codes do not concern the credentials
_BAD_CREDENTIALS = frozenset({400, 40000, *_NO_TOKEN})
_STALE_JWT = frozenset({1003, 1004})


class Scheme(Protocol):
    """Authentication scheme of a `ProviderClient`."""

    async def headers(self, send: Send) -> Headers | NotSent | Reply:
        """Return the headers of the next request, or NotSent or a rejection if no credential is available."""

    def rejected(self, reply: Reply) -> bool:
        """Return True if the reply says that the credential is stale and that nothing was accepted."""

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:
        """Discard the credential that was used, so that the next call of `headers` returns another if one exists."""


class Fixed:
    """Scheme with one constant header."""

    def __init__(self, name: str, value: str) -> None:
        self._headers = {name: value}

    def __repr__(self) -> str:
        return f"FixedHeader({next(iter(self._headers))})"

    async def headers(self, send: Send) -> Headers:  # noqa: ARG002 - required by the protocol
        return self._headers

    def rejected(self, reply: Reply) -> bool:  # noqa: ARG002 - a key cannot be renewed
        return False

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:
        """Do nothing: there is no other key."""


def bearer(key: str) -> Fixed:
    """Return the scheme `Authorization: Bearer <key>`."""
    return Fixed("Authorization", f"Bearer {key}")


def header(name: str, key: str, prefix: str = "") -> Fixed:
    """Return a scheme that sends the key, after `prefix`, in the header `name`."""
    return Fixed(name, f"{prefix}{key}")


def signed_jwt(access_key: str, secret_key: str, now: int, *, not_before: int) -> str:
    """Return a JSON Web Token signed with HS256, with the claims that klingai.com documents.

    `now` and `not_before` are seconds since the epoch.
    """
    jose_header = {"alg": "HS256", "typ": "JWT"}
    claims = {"iss": access_key, "exp": now + _JWT_LIFE, "nbf": not_before}
    text = b".".join(_base64url(orjson.dumps(part)) for part in (jose_header, claims))
    return b".".join((text, _base64url(hmac.digest(secret_key.encode(), text, hashlib.sha256)))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class KlingJwt:
    """Scheme with a locally signed JWT, dated by the server's clock once a rejection has shown the difference.

    `wall` returns seconds since the epoch.
    """

    def __init__(self, access_key: str, secret_key: str, *, wall: Callable[[], float]) -> None:
        self._keys = (access_key, secret_key)
        self._wall = wall
        #: server's clock minus the local clock, in seconds
        self.offset = 0.0
        self._made: Headers = {}
        self._until = 0.0

    def __repr__(self) -> str:
        return f"KlingJwt(offset={self.offset:.0f})"

    async def headers(self, send: Send) -> Headers:  # noqa: ARG002 - required by the protocol
        now = self._wall() + self.offset
        if not self._made or not 0 <= self._until - now <= _JWT_LIFE:
            token = signed_jwt(*self._keys, int(now), not_before=int(now) - _JWT_SLACK)
            self._made, self._until = {"Authorization": f"Bearer {token}"}, now + _JWT_LIFE - EARLY
        return self._made

    def rejected(self, reply: Reply) -> bool:
        return code_of(reply) in _STALE_JWT

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:  # noqa: ARG002 - required by the protocol
        server = _date(reply.headers.get("date", ""))
        if server is not None:
            self.offset = max(-_DAY, min(_DAY, server - self._wall()))
        if used is self._made:  # of many requests rejected together, only the first discards the JWT
            self._made = {}


def kling(
    *, api_key: str = "", access_key: str = "", secret_key: str = "", wall: Callable[[], float]
) -> Fixed | KlingJwt:
    """Return a scheme with the API key if one is given, else with a JWT."""
    return bearer(api_key) if api_key else KlingJwt(access_key, secret_key, wall=wall)


@dataclass(frozen=True, slots=True)
class Token:
    """Access token and its expiry in seconds since the epoch."""

    value: str = field(repr=False)
    expires: float


class TokenStore(Protocol):
    """Storage of the one valid token that the processes of an account share."""

    async def read(self) -> Token | None: ...

    async def write(self, token: Token) -> None: ...

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """Return a lock that one process holds at a time; it is not reentrant within a process."""


class Chanjing:
    """Scheme with one token for all processes of an account, fetched by one of them on expiry or rejection.

    `wall` returns seconds since the epoch. `clock` and `sleep` (seconds) space the token requests.
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
        #: token value that was rejected last
        self._dead = ""
        self._fetched_at: float | None = None
        self._early = EARLY
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Chanjing({'has a token' if self._token else 'no token'})"

    async def headers(self, send: Send) -> Headers | NotSent | Reply:
        token = self._token
        if token is None or not self._alive(token):
            result = await self._obtain(send)
            if not isinstance(result, Token):
                return result
            token = result
        return {self._name: token.value}

    def rejected(self, reply: Reply) -> bool:
        return code_of(reply) in _NO_TOKEN

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:  # noqa: ARG002 - required by the protocol
        if self._token is not None and used.get(self._name) == self._token.value:
            self._dead, self._token = self._token.value, None

    async def _obtain(self, send: Send) -> Token | NotSent | Reply:
        """Return the current token, fetched at most once at a time by all tasks of all processes."""
        async with self._turn:
            if self._token is not None and self._alive(self._token):
                return self._token
            async with self._store.lock():
                stored = await self._store.read()
                if stored is None or not self._alive(stored):
                    fetched = await self._fetch(send)
                    if not isinstance(fetched, Token):
                        return fetched
                    stored = fetched
                self._token = stored
                return stored

    async def _fetch(self, send: Send) -> Token | NotSent | Reply:
        """Request a new token and store it, at least MIN_FETCH_INTERVAL seconds after the last request."""
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
        with anyio.CancelScope(shield=True):  # the previous token is invalid from now on, so this one must be stored
            await self._store.write(token)
        return token

    def _alive(self, token: Token) -> bool:
        return token.value != self._dead and token.expires - self._early > self._wall()


def _token_of(outcome: Outcome) -> Token | NotSent | Reply:
    """Return the token of an answer of the token endpoint.

    Return a Reply with HTTP 401 and code 10401 if the credentials are wrong, as for a rejected token. Return NotSent
    for every other failure.
    """
    match outcome:
        case Reply(status=200, body={"code": 0, "data": {"access_token": str(value), "expire_in": int(end)}}) if value:
            return Token(value, float(end))
        case Reply(status=status, body=dict(body)) if status < 500 and code_of(outcome) in _BAD_CREDENTIALS:  # noqa: PLR2004 - 5xx does not concern the key
            rejection = {**body, "code": 10401, "token_code": body["code"]}
            return Reply(401, rejection, outcome.headers)
        case Reply(status=status):
            return NotSent(f"no token: the endpoint answered HTTP {status}, code {code_of(outcome)}")
        case NotSent(error=error, terminal=terminal):
            return NotSent(f"no token: {error}", terminal=terminal)
        case NoAnswer(error=error):
            return NotSent(f"no token: {error}")


def code_of(reply: Reply) -> int | None:
    """Return the business code in a reply's envelope, or None; some gateways write it as a string."""
    code = reply.body.get("code") if isinstance(reply.body, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10:  # noqa: PLR2004 - int() must not get 5,000 digits
        return int(code)
    return code if isinstance(code, int) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
