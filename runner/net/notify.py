"""Notifications to a monitor about the start and the end of a run: best effort, within seconds, without any prompt.

    https://…     protocol of healthchecks.io: GET URL/start, then POST URL/<exit code>; `rid` identifies the run
    other://…     a target of Apprise (mailtos:, slack:, tgram:, …), with the extra `genrunner[notify]`

The URL is a secret and appears in no message and no log. No redirect is followed, no proxy of the environment is used,
and plain http is allowed on loopback only.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio
import httpx

from runner.errors import ConfigError
from runner.net.gateway import USER_AGENT
from runner.net.guard import GuardedResolver, check_base
from runner.net.targets import HINT, Target, clipped
from runner.net.transport import AiohttpTransport, Evidence

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from aiohttp.abc import AbstractResolver

#: seconds for one attempt, and seconds before the second and the third attempt
_DEADLINE, _PAUSES = 10.0, (1.0, 3.0)
#: characters that a query may contain without escaping
_IN_QUERY = frozenset(f"{string.ascii_letters}{string.digits}-._~!$&'()*+,;=:@/?%")
_TRANSIENT = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Notice:
    """Notification about the start or the end of a run, with counts only."""

    #: exit code of the run, or None at its start
    exit_code: int | None
    #: one line for the user
    title: str
    #: text of at most 1 kB
    body: str


class Monitor:
    """Recipient of notifications; `rid` is a UUID that identifies the run there.

    `deadline` is the time limit of one attempt, and `pauses` are the pauses between attempts, in seconds. Raises
    ConfigError for an address that cannot be used.
    """

    def __init__(
        self,
        url: str,
        rid: str,
        *,
        deadline: float = _DEADLINE,
        pauses: Sequence[float] = _PAUSES,
        context: ssl.SSLContext | None = None,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._deadline, self._pauses = deadline, pauses
        if url.partition(":")[0].lower() in {"http", "https"}:
            self._way: _Way = _Ping(url, rid, context, resolver)
        else:
            self._way = Target(url)

    def __repr__(self) -> str:
        return f"Monitor({type(self._way).__name__})"

    async def tell(self, notification: Notice) -> str | None:
        """Send a notification and return None, or the reason if it was not delivered; raise only cancellation."""
        reason: str | None = None
        for pause in (0.0, *self._pauses):
            await anyio.sleep(pause)
            reason, may_retry = f"no answer within {self._deadline:g} s", True
            with anyio.move_on_after(self._deadline):
                reason, may_retry = await self._way.send(notification.exit_code, notification.title, notification.body)
            if not may_retry:
                return reason
        return reason


class _Way(Protocol):
    """Sender of notifications over one protocol."""

    async def send(self, code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Return the reason of a failure or None, and True if another attempt may succeed."""
        ...


class _Ping:
    """Sender over the protocol of healthchecks.io."""

    def __init__(
        self,
        url: str,
        rid: str,
        context: ssl.SSLContext | None,
        resolver: Callable[[], AbstractResolver] | None,
    ) -> None:
        base, _, self._query = url.partition("?")
        try:
            self._base = check_base(base)
        except ConfigError as error:
            reason = error.message.removeprefix("The base URL cannot be used: ")
            raise ConfigError(f"notify.url cannot be used: {reason}", hint=HINT) from None
        if not set(self._query) <= _IN_QUERY:
            raise ConfigError("notify.url cannot be used: its query holds what must be escaped", hint=HINT)
        self._rid, self._context = rid, context
        self._resolver = resolver or (lambda: GuardedResolver(loopback=True, private=True))

    async def send(self, code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Send one request on a new connection."""
        transport = AiohttpTransport(resolver=self._resolver(), force_close=True, context=self._context)
        request, trace = self._request(code, f"{title}\n{body}")
        try:
            response = await transport.handle_async_request(request)
            await response.aclose()
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}", not trace.terminal
        finally:
            await transport.aclose()
        if response.is_success:
            return None, False
        return f"HTTP {response.status_code}", response.is_server_error or response.status_code in _TRANSIENT

    def _request(self, code: int | None, text: str) -> tuple[httpx.Request, Evidence]:
        word = "start" if code is None else str(code)
        query = "&".join(part for part in (self._query, f"rid={self._rid}") if part)
        url = httpx.URL(f"{str(self._base).rstrip('/')}/{word}?{query}")
        trace = Evidence()
        headers = {"User-Agent": USER_AGENT, "Content-Type": "text/plain; charset=utf-8"}
        method, body = ("GET", None) if code is None else ("POST", clipped(text))
        return httpx.Request(method, url, content=body, headers=headers, extensions={"request_trace": trace}), trace
