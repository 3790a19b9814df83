"""Adaptive limit on concurrent downloads from one host: halved on HTTP 429, raised again by successes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AdaptiveConcurrency:
    """Concurrency limit of one host, between one and `maximum`; waiting downloads start in order."""

    def __init__(self, maximum: int) -> None:
        self._maximum, self._limit = maximum, float(maximum)
        self._limiter = anyio.CapacityLimiter(maximum)
        #: number of decreases so far
        self._decreases = 0

    def __repr__(self) -> str:
        return f"AdaptiveConcurrency({self._limiter.borrowed_tokens} of {self.size} of {self._maximum})"

    @property
    def size(self) -> int:
        """Return the present limit."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[int]:
        """Wait for a free place and yield the number of decreases so far, which `decrease` takes."""
        async with self._limiter:
            yield self._decreases

    def decrease(self, decreases: int) -> None:
        """Halve the limit after a download that started at `decreases` was refused.

        Refusals of downloads that started before the last decrease are ignored, so that one burst counts once.
        """
        if decreases == self._decreases:
            self._decreases += 1
            self._set_limit(max(1.0, self._limit / 2))

    def increase(self) -> None:
        """Raise the limit after a complete download, by one for each round of as many downloads as the limit."""
        self._set_limit(min(float(self._maximum), self._limit + 1 / self._limit))

    def _set_limit(self, width: float) -> None:
        self._limit = width
        self._limiter.total_tokens = self.size
