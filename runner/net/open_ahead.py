"""Connections that are opened before a request needs them, and used for one request at most.

A submit has a connection of its own, so each waits for a handshake or several while its task is claimed already. Where
requests follow each other, the next connections are opened meanwhile. None is older than two seconds when it is used,
and none is used that shows a byte or an end. The rule of evidence stays as it is: what fails before the headers leave
was not sent, and what fails afterwards may have been; that is never sent again. A failure to open ahead is no evidence
of anything, and is forgotten. A server that ends an idle connection within these two seconds, or speaks first, gets no
more of them: the next end might come when a request is on its way.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiohttp.client_proto import ResponseHandler

#: seconds for which an open connection may wait for its request: servers close idle ones, the hasty after a few
_MAX_AGE = 2.0
#: connections that are open or being opened ahead, at most
_MAX_AHEAD = 8
#: latest requests whose rate is measured, and seconds after which the rate is not known any more
_RATE_REQUESTS, _RATE_SECONDS = 16, 10.0
#: seconds of a handshake below which there is nothing to save
_LEAST_HANDSHAKE = 0.02
#: event of an end that the other side announced; 0 where the system has none
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)
#: latest handshakes, of which the fastest counts: the others show how busy this machine is
_HANDSHAKES = 8


class _Ahead(NamedTuple):
    """An open connection without a request, and when it was opened."""

    key: Any
    protocol: ResponseHandler
    opened_at: float


class AheadConnector(aiohttp.TCPConnector):
    """Connector that uses each connection for one request, and opens the next ones ahead.

    `clock` returns monotonic seconds. Handshakes faster than `least_handshake` seconds are not worth it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        least_handshake: float = _LEAST_HANDSHAKE,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._now, self._least_handshake = clock, least_handshake
        self._ahead: deque[_Ahead] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._requested_at: deque[float] = deque(maxlen=_RATE_REQUESTS)
        #: the server ended a connection that waited, or spoke first
        self._is_hasty = False
        #: seconds of the latest handshakes
        self._handshakes: deque[float] = deque(maxlen=_HANDSHAKES)

    @property
    def ahead(self) -> int:
        """Return how many connections are open, or being opened, without a request."""
        return len(self._ahead) + sum(not task.done() for task in self._opening)

    @property
    def handshake(self) -> float:
        """Return the seconds of the fastest of the latest handshakes, or 0 before the first."""
        return min(self._handshakes, default=0.0)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> ResponseHandler:
        """Return a connection that was opened ahead, or else open one, as any connector does."""
        self._requested_at.append(self._now())
        protocol = self._take(req.connection_key)
        self._open_more(req, timeout)
        if protocol is not None:
            return protocol
        begun = self._now()
        protocol = await super()._create_connection(req, traces, timeout)
        self._handshakes.append(self._now() - begun)
        return protocol

    def close(self, **options: Any) -> Coroutine[Any, Any, None]:
        """Close every connection."""
        for task in self._opening:
            task.cancel()
        while self._ahead:
            _discard(self._ahead.popleft().protocol)
        return super().close(**options)

    def _take(self, key: Any) -> ResponseHandler | None:
        """Return the oldest connection that is young enough and silent, and close those before it."""
        while self._ahead:
            found = self._ahead.popleft()
            state = _peek(found.protocol)
            self._is_hasty = self._is_hasty or state == "ended"
            is_young = self._now() - found.opened_at <= _MAX_AGE
            if found.key == key and is_young and state == "silent" and not self._is_hasty:
                return found.protocol
            _discard(found.protocol)
        return None

    def _open_more(self, req: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> None:
        for _ in range(self._wanted() - self.ahead):
            task = asyncio.get_running_loop().create_task(self._open(req, timeout))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _wanted(self) -> int:
        """Return how many connections should be open: as many as requests come within a handshake, or none."""
        requests = self._requested_at
        while requests and requests[-1] - requests[0] > _RATE_SECONDS:
            requests.popleft()
        seconds = requests[-1] - requests[0] if requests else 0.0
        if self._closed or self._is_hasty or self.handshake < self._least_handshake or seconds <= 0:
            return 0
        rate = (len(requests) - 1) / seconds
        # each must find its request before it is too old
        return min(math.ceil(rate * self.handshake), math.floor(rate * _MAX_AGE), _MAX_AHEAD)

    async def _open(self, req: aiohttp.ClientRequest, limits: aiohttp.ClientTimeout) -> None:
        """Open a connection ahead. Whatever goes wrong says nothing: the request that needs one tries for itself."""
        begun = self._now()
        try:
            async with asyncio.timeout(limits.connect):
                protocol = await super()._create_connection(req, [], limits)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return
        self._handshakes.append(self._now() - begun)
        if self._closed:
            _discard(protocol)
            return
        self._ahead.append(_Ahead(req.connection_key, protocol, self._now()))
        asyncio.get_running_loop().call_later(_MAX_AGE, self._close_old)

    def _close_old(self) -> None:
        while self._ahead and self._now() - self._ahead[0].opened_at >= _MAX_AGE:
            found = self._ahead.popleft()
            self._is_hasty = self._is_hasty or _peek(found.protocol) == "ended"
            _discard(found.protocol)


def _discard(protocol: ResponseHandler) -> None:
    """Close a connection at once: nothing was sent on it, so nothing is lost."""
    if protocol.transport is not None:
        protocol.transport.abort()


def _peek(protocol: ResponseHandler) -> Literal["silent", "readable", "ended"]:
    """Return whether a byte or an end has come on a connection, read by the event loop or not.

    An unread byte may be of TLS: session tickets follow a handshake.
    """
    transport = protocol.transport
    if transport is None or transport.is_closing() or protocol.should_close:
        return "ended"
    poll = select.poll()
    try:
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLPRI | _POLLRDHUP)
        found = poll.poll(0)
    except (OSError, ValueError):
        return "ended"
    if not found:
        return "silent"
    return "ended" if found[0][1] & ~(select.POLLIN | select.POLLPRI) else "readable"
