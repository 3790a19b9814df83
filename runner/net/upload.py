"""Upload of a file to the address that a provider returned, with its media type and without any credential.

The address comes from outside, so it is checked like that of a download. No redirect is followed. Requests are sent
through the transport directly, since httpx's client would log the signed query of the address.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import httpx

from runner.net.addresses import AddressDeniedError, GuardedResolver, check_url
from runner.net.client import USER_AGENT
from runner.net.transport import AiohttpTransport, RequestTrace
from runner.providers.responses import sanitize_reply
from runner.tasks.models import TaskError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from aiohttp.abc import AbstractResolver

    from runner.net.proxy import Proxy

#: seconds to connect, and between two reads
_CONNECT, _READ = 10.0, 60.0
#: deadline of an upload: constant seconds, plus one second for each of so many bytes
_DEADLINE, _MIN_RATE = 60.0, 32 * 1024
#: bytes of a rejection that are read for the message
_MAX_ERROR_BODY = 600


class Uploader:
    """Uploader of files without access to credentials; `deadline` is in seconds, without the time for the size."""

    def __init__(
        self,
        *,
        loopback: bool = False,
        deadline: float = _DEADLINE,
        clock: Callable[[], float] = time.monotonic,
        context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        names: AbstractResolver | None = None,
    ) -> None:
        self._loopback, self._deadline, self._clock = loopback, deadline, clock
        self._transport = AiohttpTransport(
            resolver=GuardedResolver(loopback=loopback, names=names),
            force_close=True,
            context=context,
            proxy=proxy,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"Uploader(loopback={self._loopback})"

    async def put(self, url: str, data: bytes, media_type: str, headers: Mapping[str, str]) -> TaskError | None:
        """Upload bytes with PUT and return None, or the error if they were not accepted; it may be repeated."""
        try:
            checked = check_url(url, loopback=self._loopback)
        except AddressDeniedError as error:
            return TaskError("link_denied", None, f"the place for the upload: {error}")
        with anyio.move_on_after(self._deadline + len(data) / _MIN_RATE):
            try:
                return await self._put_once(checked, data, {**headers, "content-type": media_type})
            except httpx.TransportError as error:
                return TaskError("network", None, f"the upload: {type(error).__name__}: {error}")
        return TaskError("timeout", None, "the upload was not whole in time")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def _put_once(self, url: httpx.URL, data: bytes, headers: Mapping[str, str]) -> TaskError | None:
        extensions = {"timeout": {"connect": _CONNECT, "read": _READ}, "request_trace": RequestTrace(self._clock)}
        constant = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
        request = httpx.Request("PUT", url, content=data, headers={**headers, **constant}, extensions=extensions)
        answer = await self._transport.handle_async_request(request)
        try:
            if answer.is_success:
                return None
            body = b""
            async for chunk in answer.aiter_raw():
                body += chunk[:_MAX_ERROR_BODY]
                if len(body) >= _MAX_ERROR_BODY:
                    break
            text = sanitize_reply(body[:_MAX_ERROR_BODY].decode("utf-8", "replace"))[:200]
            return TaskError("http", str(answer.status_code), f"the upload: HTTP {answer.status_code} {text}".rstrip())
        finally:
            await answer.aclose()
