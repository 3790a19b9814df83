"""How many downloads one host gets at once: halved where it says "too many", widened again as they succeed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Width:
    """One host's; `most` at the most, one at the least, first come, first served."""

    def __init__(self, most: int) -> None:
        self._most, self._width = most, float(most)
        self._places = anyio.CapacityLimiter(most)
        #: how often it was narrowed
        self._times = 0

    def __repr__(self) -> str:
        return f"Width({self._places.borrowed_tokens} of {self.size} of {self._most})"

    @property
    def size(self) -> int:
        """How many may run now."""
        return max(1, int(self._width))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """Wait for a place; gives what `refused` wants to know of this download."""
        async with self._places:
            yield self._times

    def refused(self, times: int) -> None:
        """The host said "too many" to a download that began after so many narrowings: those before it count as one."""
        if times == self._times:
            self._times += 1
            self._set(max(1.0, self._width / 2))

    def served(self) -> None:
        """A download was whole: as many as run now make room for one more."""
        self._set(min(float(self._most), self._width + 1 / self._width))

    def _set(self, width: float) -> None:
        self._width = width
        self._places.total_tokens = self.size
