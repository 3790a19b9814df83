"""Puts a file where a provider said: the bytes, their type and nothing that proves who we are.

The address comes from outside, so it goes through the guard like that of a download; no redirect is followed. Requests
go to the transport itself: httpx's client would log the signed query (attacks.md X23).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import httpx

from runner.lifecycle.task import Fault
from runner.net.gateway import USER_AGENT
from runner.net.guard import Denied, GuardedResolver, check_url
from runner.net.transport import AiohttpTransport, Evidence
from runner.providers.evidence import clean

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.abc import AbstractResolver

#: seconds: to a connection, and between two reads
_CONNECT, _READ = 10.0, 60.0
#: seconds for everything: a start, and one for so many bytes
_DEADLINE, _SLOWEST = 60.0, 32 * 1024
#: bytes of a refusal that people may read
_SAID = 600


class Uploader:
    """Sends files; knows no credential."""

    def __init__(
        self,
        *,
        loopback: bool = False,
        deadline: float = _DEADLINE,
        clock: Callable[[], float] = time.monotonic,
        context: ssl.SSLContext | None = None,
        names: AbstractResolver | None = None,
    ) -> None:
        self._loopback, self._deadline, self._clock = loopback, deadline, clock
        self._transport = AiohttpTransport(
            resolver=GuardedResolver(loopback=loopback, names=names), force_close=True, context=context, clock=clock
        )

    def __repr__(self) -> str:
        return f"Uploader(loopback={self._loopback})"

    async def put(self, url: str, data: bytes, media_type: str, headers: Mapping[str, str]) -> Fault | None:
        """PUT the bytes; None where they were taken, else why not: to try again is harmless."""
        try:
            there = check_url(url, loopback=self._loopback)
        except Denied as error:
            return Fault("link_denied", None, f"the place for the upload: {error}")
        with anyio.move_on_after(self._deadline + len(data) / _SLOWEST):
            try:
                return await self._sent(there, data, {**headers, "content-type": media_type})
            except httpx.TransportError as error:
                return Fault("network", None, f"the upload: {type(error).__name__}: {error}")
        return Fault("timeout", None, "the upload was not whole in time")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def _sent(self, url: httpx.URL, data: bytes, headers: Mapping[str, str]) -> Fault | None:
        extensions = {"timeout": {"connect": _CONNECT, "read": _READ}, "evidence": Evidence(self._clock)}
        ours = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
        request = httpx.Request("PUT", url, content=data, headers={**headers, **ours}, extensions=extensions)
        answer = await self._transport.handle_async_request(request)
        try:
            if answer.is_success:
                return None
            said = await _beginning(answer.aiter_raw())
            return Fault("http", str(answer.status_code), f"the upload: HTTP {answer.status_code} {said}".rstrip())
        finally:
            await answer.aclose()


async def _beginning(chunks: AsyncIterator[bytes]) -> str:
    said = b""
    async for chunk in chunks:
        said += chunk[:_SAID]
        if len(said) >= _SAID:
            break
    return clean(said[:_SAID].decode("utf-8", "replace"))[:200]
