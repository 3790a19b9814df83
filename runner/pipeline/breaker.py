"""Stops what would make a bad hour worse: submits while doubts pile up, everything while nobody answers.

R9: three doubtful submits in a row, or more than 5 % of the last 40, stop submits until one doubt is settled.
An outage (five requests in a row without a proper answer) lets one read-only probe through at growing intervals.
"""

from __future__ import annotations

from collections import deque

import anyio

_ROW = 3
_LAST = 40
_SHARE = 0.05
_OUTAGE = 5
#: seconds between two probes, at the longest
LONGEST_PROBE = 30.0


class Breaker:
    """One provider's two fuses."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=_LAST)
        self._row = 0
        self._silent = 0
        self._given_up = False
        self._changed = anyio.Event()

    @property
    def doubtful(self) -> bool:
        """Submits stop: too many of them ended without a clear answer."""
        return self._row >= _ROW or sum(self._last) > max(_ROW - 1, _SHARE * _LAST)

    @property
    def outage(self) -> bool:
        """Everything stops but the probe: nobody answers."""
        return self._silent >= _OUTAGE and not self._given_up

    def submitted(self, *, doubtful: bool) -> None:
        """A submit ended."""
        self._last.append(doubtful)
        self._row = self._row + 1 if doubtful else 0
        self._notify()

    def settled(self) -> None:
        """A doubt was settled: the path works, so the count begins anew."""
        self._last.clear()
        self._row = 0
        self._notify()

    def answered(self, *, properly: bool) -> None:
        """A request came back, or did not."""
        self._silent = 0 if properly else self._silent + 1
        self._notify()

    def give_up(self) -> None:
        """Nobody will answer in this run: whoever waits goes on, and finds the provider gone."""
        self._given_up = True
        self._notify()

    async def until_answering(self) -> None:
        """Wait for the end of an outage."""
        while self.outage:
            await self._changed.wait()

    async def until_safe(self) -> None:
        """Wait until a submit may go out."""
        while self.outage or self.doubtful:
            await self._changed.wait()

    async def until_outage(self) -> None:
        """Wait for the beginning of an outage."""
        while not self.outage:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
