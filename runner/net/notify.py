"""Tells a monitor that a run has begun, and how it ended: best effort, in little time, without a word of any prompt.

    https://…     in the manner of healthchecks.io: GET URL/start, then POST URL/<exit code>; `rid` tells runs apart
    other://…     a target of Apprise (mailtos:, slack:, tgram:, …), with the extra `genrunner[notify]`

The URL is a secret: it stands in no message and no log. No redirect is followed, no proxy of the environment is asked,
and plain http is for loopback alone (X36).
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

#: seconds for one try, tries, and seconds before each further one
_DEADLINE, _PAUSES = 10.0, (1.0, 3.0)
#: what stands in a query as it is
_IN_QUERY = frozenset(f"{string.ascii_letters}{string.digits}-._~!$&'()*+,;=:@/?%")
_TRANSIENT = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told: how a run stands, in counts."""

    #: None: it begins
    exit_code: int | None
    #: one line for people
    title: str
    #: at most 1 kB
    body: str


class Monitor:
    """A place that is told; `rid` is this run's name there, a UUID. Raises ConfigError for an address of no use."""

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

    async def tell(self, notice: Notice) -> str | None:
        """Send a notice; None, or why it was not delivered. Raises nothing but cancellation."""
        why: str | None = None
        for pause in (0.0, *self._pauses):
            await anyio.sleep(pause)
            why, again = f"no answer within {self._deadline:g} s", True
            with anyio.move_on_after(self._deadline):
                why, again = await self._way.send(notice.exit_code, notice.title, notice.body)
            if not again:
                return why
        return why


class _Way(Protocol):
    async def send(self, code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Why it did not arrive (None: it did), and whether to try again."""
        ...


class _Ping:
    """The manner of healthchecks.io."""

    def __init__(
        self,
        url: str,
        rid: str,
        context: ssl.SSLContext | None,
        resolver: Callable[[], AbstractResolver] | None,
    ) -> None:
        place, _, self._query = url.partition("?")
        try:
            self._base = check_base(place)
        except ConfigError as error:
            why = error.message.removeprefix("The base URL cannot be used: ")
            raise ConfigError(f"notify.url cannot be used: {why}", hint=HINT) from None
        if not set(self._query) <= _IN_QUERY:
            raise ConfigError("notify.url cannot be used: its query holds what must be escaped", hint=HINT)
        self._rid, self._context = rid, context
        self._resolver = resolver or (lambda: GuardedResolver(loopback=True, private=True))

    async def send(self, code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """One request, on a connection of its own."""
        transport = AiohttpTransport(resolver=self._resolver(), force_close=True, context=self._context)
        request, evidence = self._request(code, f"{title}\n{body}")
        try:
            response = await transport.handle_async_request(request)
            await response.aclose()
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}", not evidence.terminal
        finally:
            await transport.aclose()
        if response.is_success:
            return None, False
        return f"HTTP {response.status_code}", response.is_server_error or response.status_code in _TRANSIENT

    def _request(self, code: int | None, text: str) -> tuple[httpx.Request, Evidence]:
        word = "start" if code is None else str(code)
        query = "&".join(part for part in (self._query, f"rid={self._rid}") if part)
        url = httpx.URL(f"{str(self._base).rstrip('/')}/{word}?{query}")
        evidence = Evidence()
        headers = {"User-Agent": USER_AGENT, "Content-Type": "text/plain; charset=utf-8"}
        method, body = ("GET", None) if code is None else ("POST", clipped(text))
        return httpx.Request(method, url, content=body, headers=headers, extensions={"evidence": evidence}), evidence
