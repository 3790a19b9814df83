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
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import orjson

from runner.providers.requests import NoAnswer, NotSent, Outcome, Reply, Request

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

Headers = Mapping[str, str]
#: sender of a request without credentials
Send = Callable[[Request], Awaitable[Outcome]]

#: seconds before the expiry of a credential at which it is renewed (Chanjing's documentation advises five minutes)
RENEW_BEFORE = 300.0
#: minimum seconds between two token requests: two processes that invalidate each other's token must not flood the API
MIN_FETCH_INTERVAL = 5.0
#: seconds for which a JWT is valid
_JWT_LIFETIME = 1800
#: seconds by which `nbf` of a JWT lies in the past, since the server's clock may be behind
_JWT_SLACK = 60
#: maximum seconds by which the server's clock is taken to differ
_MAX_OFFSET = 86400.0
#: assumed lifetime in seconds of a new token that looks expired: one of the two clocks is wrong
_MIN_LIFETIME = 600.0
#: codes of a rejected token
_TOKEN_REJECTED = frozenset({10400, 10401})
#: codes of the token endpoint for wrong credentials; 50000 and other codes do not concern the credentials
_BAD_CREDENTIALS = frozenset({400, 40000, *_TOKEN_REJECTED})
#: Kling's codes of a JWT that is not valid yet, or no longer
_STALE_JWT = frozenset({1003, 1004})


class Scheme(Protocol):
    """Authentication scheme of a `ProviderClient`."""

    async def headers(self, send: Send) -> Headers | NotSent | Reply:
        """Return the headers of the next request, or NotSent or a rejection if no credential is available."""

    def is_rejected(self, reply: Reply) -> bool:
        """Return True if the reply says that the credential is stale and that nothing was accepted."""

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:
        """Discard the credential that was used, so that the next call of `headers` returns another if one exists."""


class FixedHeader:
    """Scheme with one constant header."""

    def __init__(self, name: str, value: str) -> None:
        self._headers = {name: value}

    def __repr__(self) -> str:
        return f"FixedHeader({next(iter(self._headers))})"

    async def headers(self, send: Send) -> Headers:  # noqa: ARG002 - required by the protocol
        return self._headers

    def is_rejected(self, reply: Reply) -> bool:  # noqa: ARG002 - a key cannot be renewed
        return False

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:
        """Do nothing: there is no other key."""


def bearer(key: str) -> FixedHeader:
    """Return the scheme `Authorization: Bearer <key>`."""
    return FixedHeader("Authorization", f"Bearer {key}")


def header(name: str, key: str, prefix: str = "") -> FixedHeader:
    """Return a scheme that sends the key, after `prefix`, in the header `name`."""
    return FixedHeader(name, f"{prefix}{key}")


def signed_jwt(access_key: str, secret_key: str, now: int, *, not_before: int) -> str:
    """Return a JSON Web Token signed with HS256, with the claims that klingai.com documents.

    `now` and `not_before` are seconds since the epoch.
    """
    jose_header = {"alg": "HS256", "typ": "JWT"}
    claims = {"iss": access_key, "exp": now + _JWT_LIFETIME, "nbf": not_before}
    text = b".".join(_base64url(orjson.dumps(part)) for part in (jose_header, claims))
    return b".".join((text, _base64url(hmac.digest(secret_key.encode(), text, hashlib.sha256)))).decode()


class KlingJwt:
    """Scheme with a locally signed JWT, dated by the server's clock once a rejection has shown the difference.

    `wall` returns seconds since the epoch.
    """

    def __init__(self, access_key: str, secret_key: str, *, wall: Callable[[], float]) -> None:
        self._keys = (access_key, secret_key)
        self._wall = wall
        #: server's clock minus the local clock, in seconds
        self.offset = 0.0
        self._headers: Headers = {}
        self._renew_at = 0.0

    def __repr__(self) -> str:
        return f"KlingJwt(offset={self.offset:.0f})"

    async def headers(self, send: Send) -> Headers:  # noqa: ARG002 - required by the protocol
        now = self._wall() + self.offset
        if not self._headers or not 0 <= self._renew_at - now <= _JWT_LIFETIME:
            token = signed_jwt(*self._keys, int(now), not_before=int(now) - _JWT_SLACK)
            self._headers, self._renew_at = {"Authorization": f"Bearer {token}"}, now + _JWT_LIFETIME - RENEW_BEFORE
        return self._headers

    def is_rejected(self, reply: Reply) -> bool:
        return business_code(reply) in _STALE_JWT

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:  # noqa: ARG002 - required by the protocol
        with suppress(ValueError, OverflowError):
            server = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
            self.offset = max(-_MAX_OFFSET, min(_MAX_OFFSET, server - self._wall()))
        if used is self._headers:  # of many requests rejected together, only the first discards the JWT
            self._headers = {}


def kling(
    *, api_key: str = "", access_key: str = "", secret_key: str = "", wall: Callable[[], float]
) -> FixedHeader | KlingJwt:
    """Return a scheme with the API key if one is given, else with a JWT."""
    return bearer(api_key) if api_key else KlingJwt(access_key, secret_key, wall=wall)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """Access token and its expiry in seconds since the epoch."""

    value: str = field(repr=False)
    expires: float


class TokenStore(Protocol):
    """Storage of the one valid token that the processes of an account share."""

    async def read(self) -> AccessToken | None: ...

    async def write(self, token: AccessToken) -> None: ...

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """Return a lock that one process holds at a time; it is not reentrant within a process."""


class ChanjingToken:
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
        self._path, self._header_name = path, name
        self._token: AccessToken | None = None
        #: token value that was rejected last
        self._rejected_value = ""
        self._fetched_at: float | None = None
        self._renew_before = RENEW_BEFORE
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Chanjing({'has a token' if self._token else 'no token'})"

    async def headers(self, send: Send) -> Headers | NotSent | Reply:
        token = self._token
        if token is None or not self._is_usable(token):
            result = await self._get_token(send)
            if not isinstance(result, AccessToken):
                return result
            token = result
        return {self._header_name: token.value}

    def is_rejected(self, reply: Reply) -> bool:
        return business_code(reply) in _TOKEN_REJECTED

    async def renew(self, used: Headers, reply: Reply, send: Send) -> None:  # noqa: ARG002 - required by the protocol
        if self._token is not None and used.get(self._header_name) == self._token.value:
            self._rejected_value, self._token = self._token.value, None

    async def _get_token(self, send: Send) -> AccessToken | NotSent | Reply:
        """Return the current token, fetched at most once at a time by all tasks of all processes."""
        async with self._lock:
            if self._token is not None and self._is_usable(self._token):
                return self._token
            async with self._store.lock():
                stored = await self._store.read()
                if stored is None or not self._is_usable(stored):
                    fetched = await self._fetch(send)
                    if not isinstance(fetched, AccessToken):
                        return fetched
                    stored = fetched
                self._token = stored
                return stored

    async def _fetch(self, send: Send) -> AccessToken | NotSent | Reply:
        """Request a new token and store it, at least MIN_FETCH_INTERVAL seconds after the last request."""
        if self._fetched_at is not None:
            await self._sleep(max(0.0, self._fetched_at + MIN_FETCH_INTERVAL - self._clock()))
        self._fetched_at = self._clock()
        outcome = await send(Request("token", "POST", self._path, "token", self._body))
        token = _parse_token(outcome)
        if not isinstance(token, AccessToken):
            return token
        if token.value == self._rejected_value:
            return NotSent("no token: the endpoint gives the one that was rejected")
        if token.expires <= self._wall():
            token = AccessToken(token.value, self._wall() + _MIN_LIFETIME)
        self._renew_before = min(RENEW_BEFORE, (token.expires - self._wall()) / 10)
        with anyio.CancelScope(shield=True):  # the previous token is invalid from now on, so this one must be stored
            await self._store.write(token)
        return token

    def _is_usable(self, token: AccessToken) -> bool:
        return token.value != self._rejected_value and token.expires - self._renew_before > self._wall()


def business_code(reply: Reply) -> int | None:
    """Return the business code in a reply's envelope, or None; some gateways write it as a string."""
    code = reply.body.get("code") if isinstance(reply.body, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10:  # noqa: PLR2004 - int() must not get 5,000 digits
        return int(code)
    return code if isinstance(code, int) else None


def _parse_token(outcome: Outcome) -> AccessToken | NotSent | Reply:
    """Return the token of an answer of the token endpoint.

    Return a Reply with HTTP 401 and code 10401 if the credentials are wrong, as for a rejected token. Return NotSent
    for every other failure.
    """
    match outcome:
        case Reply(status=200, body={"code": 0, "data": {"access_token": str(value), "expire_in": int(end)}}) if value:
            return AccessToken(value, float(end))
        case Reply(status=status, body=dict(body)) if status < 500 and business_code(outcome) in _BAD_CREDENTIALS:  # noqa: PLR2004 - 5xx does not concern the key
            rejection = {**body, "code": 10401, "token_code": body["code"]}
            return Reply(401, rejection, outcome.headers)
        case Reply(status=status):
            return NotSent(f"no token: the endpoint answered HTTP {status}, code {business_code(outcome)}")
        case NotSent(error=error, terminal=terminal):
            return NotSent(f"no token: {error}", terminal=terminal)
        case NoAnswer(error=error):
            return NotSent(f"no token: {error}")


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
