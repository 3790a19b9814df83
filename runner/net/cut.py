"""Requests whose connection is cut on purpose, right after their last byte was handed to the system.

`runner probe` measures with them what a provider does with a request whose answer nobody waits for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import anyio

from runner.providers.requests import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.net.client import Meter
    from runner.providers.requests import Outcome, Request
    from runner.ratelimit.limiter import Permit

#: the transport reports headers and body; they leave together, right after the second report
_REPORTS = 2
_CUT = "the connection was cut on purpose after the last byte"


class AnySender(Protocol):
    """Sends requests, as `net.client.ProviderClient` does."""

    async def send(self, request: Request, permit: Permit | None = None) -> Outcome: ...


class CuttingSender:
    """Sends through another sender, and cuts the connection of each submit after the last byte of its body.

    Queries go through unchanged. The body must be small enough to be written at once.
    """

    def __init__(self, sender: AnySender) -> None:
        self._sender = sender

    async def send(self, request: Request, permit: Permit | None = None) -> Outcome:
        """Send a request. A submit has no answer, unless nothing was sent or the answer was faster than the cut."""
        if request.phase != "submit" or permit is None:
            return await self._sender.send(request, permit)
        with anyio.CancelScope() as scope:
            return await self._sender.send(request, _CuttingMeter(permit, scope.cancel))  # type: ignore[arg-type]
        return NoAnswer(_CUT)


class _CuttingMeter:
    """Meter of one request that calls `cut` as soon as the event loop runs again after the last report."""

    def __init__(self, meter: Meter, cut: Callable[[], None]) -> None:
        self._meter, self._cut, self._reports = meter, cut, 0

    def sent(self, stamp: float) -> None:
        self._meter.sent(stamp)
        self._reports += 1
        if self._reports == _REPORTS:
            asyncio.get_running_loop().call_soon(self._cut)

    def answered(self, rtt: float) -> None:
        self._meter.answered(rtt)

    async def reacquire(self) -> None:
        self._reports = 0
        await self._meter.reacquire()
