"""Notifications to a monitor about the start and the end of a run: best effort, within seconds, without any prompt.

    https://…     protocol of healthchecks.io: GET URL/start, then POST URL/<exit code>; `rid` identifies the run
    other://…     a target of Apprise (mailtos:, slack:, tgram:, …), with the extra `genrunner[notify]`

The URL is a secret and appears in no message and no log. No redirect is followed, no proxy of the environment is used,
and plain http is allowed on loopback only.
"""

from __future__ import annotations

import asyncio
import logging
import string
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import httpx

from runner.errors import ConfigError
from runner.net.addresses import GuardedResolver, check_base, is_loopback
from runner.net.client import USER_AGENT
from runner.net.transport import AiohttpTransport, RequestTrace

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from aiohttp.abc import AbstractResolver

    from runner.net.proxy import Proxy

#: seconds for one attempt, and seconds before the second and the third attempt
_DEADLINE, _PAUSES = 10.0, (1.0, 3.0)
#: characters that a query may contain without escaping
_QUERY_CHARACTERS = frozenset(f"{string.ascii_letters}{string.digits}-._~!$&'()*+,;=:@/?%")
#: statuses, beside those from 500, after which another attempt may succeed
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_HINT = (
    "An https:// address in the manner of healthchecks.io, or a target of Apprise; http:// is for this machine alone."
)
#: maximum bytes of a notification's body
_MAX_BODY = 1000


@dataclass(frozen=True, slots=True)
class Notification:
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
        proxy: Proxy | None = None,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._deadline, self._pauses = deadline, pauses
        if url.partition(":")[0].lower() in {"http", "https"}:
            self._sender: _Sender = _HttpPing(url, rid, context, resolver, proxy)
        else:
            self._sender = AppriseTarget(url)

    def __repr__(self) -> str:
        return f"Monitor({type(self._sender).__name__})"

    async def notify(self, notification: Notification) -> str | None:
        """Send a notification and return None, or the reason if it was not delivered; raise only cancellation."""
        reason: str | None = None
        for pause in (0.0, *self._pauses):
            await anyio.sleep(pause)
            reason, may_retry = f"no answer within {self._deadline:g} s", True
            with anyio.move_on_after(self._deadline):
                reason, may_retry = await self._sender.send(
                    notification.exit_code, notification.title, notification.body
                )
            if not may_retry:
                return reason
        return reason


class AppriseTarget:
    """Apprise target of a URL. Raises ConfigError, without the URL in its text, if it cannot be used."""

    def __init__(self, url: str) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra, and slow to load
        except ImportError:
            raise ConfigError(
                "notify.url is not an https:// address, and other targets need Apprise, which is not installed",
                hint='pip install "genrunner[notify]", or give an https:// address.',
            ) from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its log lines may contain parts of the URL
        # no files, and no redirects, which would send the notification elsewhere
        asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY, http_redirects=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Apprise loads a hundred modules, some with deprecation warnings
            self._target: Any = apprise.Apprise.instantiate(url, asset=asset)
        if self._target is None:
            raise ConfigError("notify.url cannot be used: Apprise does not know such a target", hint=_HINT)
        if not _is_safe(self._target):
            raise ConfigError(
                "notify.url cannot be used: it would travel in plain text",
                hint="Most targets have a secure form whose scheme ends in `s`: mailtos:, jsons:, ntfys:.",
            )

    async def send(self, _code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Send one notification from a daemon thread, so that the process can end before it is delivered."""
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[bool] = loop.create_future()
        text = clip(body or title).decode()

        def set_result(success: bool) -> None:
            if not delivered.done():
                delivered.set_result(success)

        def work() -> None:
            try:
                success = bool(self._target.notify(body=text, title=title))
            except Exception:  # noqa: BLE001 - a plugin's bug; its message may contain parts of the URL
                success = False
            with suppress(RuntimeError):  # the event loop is closed, so no caller waits for the result
                loop.call_soon_threadsafe(set_result, success)

        threading.Thread(target=work, daemon=True).start()
        return (None, False) if await delivered else ("Apprise could not deliver it", True)


class _Sender(Protocol):
    """Sender of notifications over one protocol."""

    async def send(self, code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Return the reason of a failure or None, and True if another attempt may succeed."""
        ...


class _HttpPing:
    """Sender over the protocol of healthchecks.io."""

    def __init__(
        self,
        url: str,
        rid: str,
        context: ssl.SSLContext | None,
        resolver: Callable[[], AbstractResolver] | None,
        proxy: Proxy | None,
    ) -> None:
        base, _, self._query = url.partition("?")
        try:
            self._base = check_base(base)
        except ConfigError as error:
            reason = error.message.removeprefix("The base URL cannot be used: ")
            raise ConfigError(f"notify.url cannot be used: {reason}", hint=_HINT) from None
        if not set(self._query) <= _QUERY_CHARACTERS:
            raise ConfigError("notify.url cannot be used: its query holds what must be escaped", hint=_HINT)
        self._rid, self._context, self._proxy = rid, context, proxy
        self._resolver = resolver or (lambda: GuardedResolver(loopback=True, private=True))

    async def send(self, code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Send one request on a new connection."""
        query = "&".join(part for part in (self._query, f"rid={self._rid}") if part)
        url = httpx.URL(f"{str(self._base).rstrip('/')}/{'start' if code is None else code}?{query}")
        headers = {"User-Agent": USER_AGENT, "Content-Type": "text/plain; charset=utf-8"}
        method, content = ("GET", None) if code is None else ("POST", clip(f"{title}\n{body}"))
        trace = RequestTrace()
        request = httpx.Request(method, url, content=content, headers=headers, extensions={"request_trace": trace})
        transport = AiohttpTransport(
            resolver=self._resolver(), force_close=True, context=self._context, proxy=self._proxy
        )
        try:
            response = await transport.handle_async_request(request)
            await response.aclose()
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}", not trace.terminal
        finally:
            await transport.aclose()
        if response.is_success:
            return None, False
        return f"HTTP {response.status_code}", response.is_server_error or response.status_code in _TRANSIENT_STATUSES


def clip(text: str) -> bytes:
    """Return at most 1 kB of the text in UTF-8, cut between characters."""
    return text.encode("utf-8", "replace")[:_MAX_BODY].decode("utf-8", "ignore").encode()


def _is_safe(target: Any) -> bool:
    """Return True if notifications are encrypted or stay on this machine, or if the service has one scheme only."""
    plain = target.protocol if isinstance(target.protocol, tuple) else (target.protocol,)
    host = getattr(target, "host", None)
    return not target.secure_protocol or target.schema not in plain or bool(host and is_loopback(host))
