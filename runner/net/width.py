"""Adaptive limit on concurrent downloads from one host: halved on HTTP 429, raised again by successes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Width:
    """Concurrency limit of one host, between one and `maximum`; waiting downloads start in order."""

    def __init__(self, most: int) -> None:
        self._most, self._width = most, float(most)
        self._places = anyio.CapacityLimiter(most)
        #: number of decreases so far
        self._times = 0

    def __repr__(self) -> str:
        return f"AdaptiveConcurrency({self._places.borrowed_tokens} of {self.size} of {self._most})"

    @property
    def size(self) -> int:
        """Return the present limit."""
        return max(1, int(self._width))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """Wait for a free place and yield the number of decreases so far, which `decrease` takes."""
        async with self._places:
            yield self._times

    def refused(self, times: int) -> None:
        """Halve the limit after a download that started at `decreases` was refused.

        Refusals of downloads that started before the last decrease are ignored, so that one burst counts once.
        """
        if times == self._times:
            self._times += 1
            self._set(max(1.0, self._width / 2))

    def served(self) -> None:
        """Raise the limit after a complete download, by one for each round of as many downloads as the limit."""
        self._set(min(float(self._most), self._width + 1 / self._width))

    def _set(self, width: float) -> None:
        self._width = width
        self._places.total_tokens = self.size
